use serde_json::{Value, json};

use super::*;
use crate::strict::parse_value;

fn config_mistakes(raw: Value) -> Vec<String> {
    let view = parse_value::<ConfigurationView>(&raw).unwrap().value;
    validate_configuration(&view, &Rules::default())
        .into_iter()
        .map(|error| error.to_string())
        .collect()
}

fn item_mistakes(key: &str, value: Value) -> Vec<String> {
    config_mistakes(json!({"name": "c1", "data": [{"key": key, "value": value}]}))
}

#[test]
fn items_of_a_configuration_are_typed_and_complete() {
    for good in [
        json!({"type": "kv", "value": ""}),
        json!({"type": "object", "source": "http", "url": "https://x/app.zip", "unpack": "zip", "md5": "abc"}),
        json!({"type": "object", "source": "minio", "bucket": "b", "object": "o"}),
        json!({"type": "function", "function": "f", "version": "1", "runtime": "python3", "handler": "h", "bucket": "b", "object": "o"}),
    ] {
        assert_eq!(item_mistakes("k", good), [""; 0]);
    }
    for (value, wanted) in [
        (json!({"value": "1"}), "data[0].value.type: is needed"),
        (
            json!({"type": "text", "value": "1"}),
            "\"text\" is not one of kv, object, function",
        ),
        (json!({"type": "kv"}), "data[0].value.value: is needed"),
        (json!({"type": "object"}), "data[0].value.source: is needed"),
        (
            json!({"type": "object", "source": "http"}),
            "data[0].value.url: must begin with",
        ),
        (
            json!({"type": "object", "source": "http", "url": "file:///etc/passwd"}),
            "data[0].value.url",
        ),
        (
            json!({"type": "object", "source": "s3", "unpack": "rar"}),
            "\"rar\" is not an archive format",
        ),
        (
            json!({"type": "object", "source": "s3", "sha256": "12"}),
            "64 hex digits",
        ),
    ] {
        let found = item_mistakes("k", value.clone());
        assert_eq!(found.len(), 1, "{value}: {found:?}");
        assert!(found[0].contains(wanted), "{value}: {found:?}");
    }
    assert_eq!(item_mistakes("k", json!({"type": "function"})).len(), 6);
}

#[test]
fn keys_of_a_configuration_are_file_names_and_unique() {
    let kv = json!({"type": "kv", "value": "1"});
    assert_eq!(item_mistakes("a b", kv.clone()).len(), 1);
    assert!(item_mistakes("_object_x", kv.clone())[0].contains("must not begin with _object_"));
    let twice =
        json!({"name": "c1", "data": [{"key": "k", "value": kv}, {"key": "k", "value": kv}]});
    assert_eq!(config_mistakes(twice), ["data[1].key: \"k\" is used twice"]);
    assert!(config_mistakes(json!({"name": "my-baetyl-c"}))[0].contains("kept for the system"));
}

#[test]
fn secrets_registries_and_certificates_need_their_content() {
    let rules = Rules::default();
    let fields = |errors: Vec<FieldError>| {
        errors
            .into_iter()
            .map(|error| error.field)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        fields(validate_secret(
            &SecretView {
                name: "s1".into(),
                ..SecretView::default()
            },
            &rules
        )),
        ["data"]
    );
    let bad_key = SecretView {
        name: "s1".into(),
        data: [("a/b".into(), "v".into())].into(),
        ..SecretView::default()
    };
    assert_eq!(fields(validate_secret(&bad_key, &rules)), ["data"]);
    assert_eq!(
        fields(validate_registry(&Registry::default(), &rules)),
        ["name", "address", "username", "password"]
    );
    assert_eq!(
        fields(validate_certificate(&Certificate::default(), &rules)),
        ["name", "key", "certificate"]
    );
}
