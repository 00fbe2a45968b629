use serde_json::{Value, json};

use super::*;
use crate::strict::parse_value;

fn app(raw: Value) -> Application {
    let parsed = parse_value::<Application>(&raw).unwrap();
    assert_eq!(parsed.unknown, [""; 0]);
    parsed.value
}

fn know(name: &str) -> Option<KnownSecret> {
    let kind = match name {
        "r1" => SecretKind::Registry,
        "cert1" => SecretKind::Certificate,
        "s1" => SecretKind::Config,
        _ => return None,
    };
    let registry = match kind {
        SecretKind::Registry => ("127.0.0.1:5000".to_owned(), "u".to_owned()),
        _ => Default::default(),
    };
    Some(KnownSecret { kind, registry })
}

#[test]
fn certificates_and_registries_are_stored_as_secrets_and_shown_as_themselves() {
    let view = app(json!({
        "name": "a1", "services": [{"name": "web", "image": "i"}],
        "volumes": [{"name": "sec", "secret": {"name": "s1"}}, {"name": "crt", "certificate": {"name": "cert1"}}],
        "registries": [{"name": "r1"}]
    }));
    let stored = view.clone().into_stored();
    assert_eq!(stored.secret_names(), ["cert1", "r1", "s1"]);
    assert!(stored.registries.is_empty());
    assert_eq!(stored.labels[label::APP_MODE], "kube");
    let shown = stored.into_view(know);
    assert_eq!(shown.registries[0].address, "127.0.0.1:5000");
    assert_eq!(shown.volumes, view.volumes);
    assert!(shown.labels.is_empty());
}

#[test]
fn a_secret_nobody_knows_is_still_shown() {
    let stored =
        app(json!({"name": "a1", "volumes": [{"name": "sec", "secret": {"name": "gone"}}]}));
    assert_eq!(stored.clone().into_view(know).volumes, stored.volumes);
}

#[test]
fn every_service_of_a_native_application_keeps_its_own_program() {
    let view = app(json!({
        "name": "a1", "mode": "native",
        "services": [{"name": "web", "programConfig": "p1"}, {"name": "db", "programConfig": "p2"}]
    }));
    let stored = view.clone().into_stored();
    assert_eq!(stored.config_names(), ["p1", "p2"]);
    for service in &stored.services {
        let mount = service.mount_at(path::PROGRAM).unwrap();
        assert!(stored.volume(&mount.name).is_some());
    }
    let again = stored.clone().into_view(know);
    assert_eq!(again, view);
    assert_eq!(again.into_stored(), stored);
}

#[test]
fn items_of_a_configuration_survive_storing() {
    let raw = json!({"name": "c1", "data": [
        {"key": "app.zip", "value": {"type": "object", "source": "http", "url": "http://x/app.zip", "unpack": "zip",
            "md5": "abc", "sha256": "ab".repeat(32), "size": "12"}},
        {"key": "conf.yml", "value": {"type": "kv", "value": "a: b"}},
        {"key": "code", "value": {"type": "function", "function": "f", "version": "1", "runtime": "python3",
            "handler": "index.handler", "bucket": "b", "object": "o"}}
    ]});
    let view = parse_value::<ConfigurationView>(&raw).unwrap().value;
    let stored = view.clone().into_stored();
    assert_eq!(stored.files().collect::<Vec<_>>(), [("conf.yml", "a: b")]);
    let objects: Vec<_> = stored.objects().map(|item| item.unwrap()).collect();
    assert_eq!(objects[0].0, "app.zip");
    assert_eq!(objects[0].1.url, "http://x/app.zip");
    assert_eq!(
        (objects[0].1.size, objects[0].1.sha256.as_str()),
        (12, "ab".repeat(32).as_str())
    );
    let mut shown = stored.into_view();
    let mut given = view;
    shown.data.sort_by(|a, b| a.key.cmp(&b.key));
    given.data.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(shown, given);
}

#[test]
fn an_object_of_baetyl_v2_is_shown_without_what_its_cloud_added() {
    let mut config = Configuration {
        name: "c4".into(),
        ..Configuration::default()
    };
    let text = r#"{"md5":"abc","url":"http://x/app.zip","unpack":"zip","metadata":{"type":"object","source":"http","userID":"u"}}"#;
    config.data.insert("_object_app.zip".into(), text.into());
    let shown = config.into_view();
    let wanted = json!({"type": "object", "source": "http", "url": "http://x/app.zip", "unpack": "zip", "md5": "abc"});
    assert_eq!(serde_json::to_value(&shown.data[0].value).unwrap(), wanted);
}

#[test]
fn an_unreadable_object_item_is_an_error_with_its_key() {
    let config = Configuration {
        data: [("_object_x".into(), "{bad".into())].into(),
        ..Configuration::default()
    };
    let error = config.objects().next().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "item x is not a JSON description of an object"
    );
}

#[test]
fn a_secret_survives_storing() {
    let view = SecretView {
        name: "s1".into(),
        data: [("k".into(), "v".into())].into(),
        ..SecretView::default()
    };
    assert_eq!(view.clone().into_stored().into_view(), view);
}
