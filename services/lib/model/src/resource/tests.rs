use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::strict::{parse, parse_value};

/// Every field of Baetyl v2's application, service, volume and probe, with values that are no defaults.
fn complete_application() -> Value {
    serde_json::from_str(include_str!("golden/application.json")).unwrap()
}

fn round_trip<T: DeserializeOwned + Serialize>(raw: &Value) -> Value {
    let parsed = parse_value::<T>(raw).unwrap();
    assert_eq!(parsed.unknown, [""; 0]);
    serde_json::to_value(parsed.value).unwrap()
}

#[test]
fn nothing_of_an_application_is_dropped() {
    let raw = complete_application();
    assert_eq!(round_trip::<Application>(&raw), raw);
}

#[test]
fn nothing_of_a_configuration_or_a_secret_is_dropped() {
    let config = json!({
        "name": "c", "namespace": "n", "labels": {"baetyl-config-type": "baetyl-program"},
        "data": {"conf.yml": "a: b", "_object_x.zip": "{}"}, "createTime": "2024-01-01T00:00:00Z",
        "updateTime": "2024-01-01T00:00:00Z", "description": "d", "version": "5", "system": true
    });
    assert_eq!(round_trip::<Configuration>(&config), config);
    let secret = json!({
        "name": "s", "namespace": "n", "labels": {"secret-type": "config"}, "annotations": {"a": "b"},
        "data": {"user": "dXNlcg=="}, "createTime": "2024-01-01T00:00:00Z", "updateTime": "2024-01-01T00:00:00Z",
        "description": "d", "version": "6", "system": true, "salt": "AAECAwQFBgcICQoLDA0ODw=="
    });
    assert_eq!(round_trip::<Secret>(&secret), secret);
    let item = json!({
        "md5": "m", "sha256": "s", "size": 3, "url": "https://x/y", "token": "t", "unpack": "zip",
        "metadata": {"type": "object", "bucket": "b"}
    });
    assert_eq!(round_trip::<configuration::ObjectItem>(&item), item);
}

/// As the real cloud of Baetyl v2 sends it to a node.
#[test]
fn an_application_as_baetyl_v2_sends_it_is_read() {
    let raw = json!({
        "name": "app1", "type": "container", "mode": "native", "namespace": "ns1", "version": "v1", "selector": "a=b",
        "replica": 0, "workload": "deployment", "jobConfig": {"completions": 0}, "createTime": "2024-01-01T00:00:00Z",
        "cronTime": "0001-01-01T00:00:00Z", "labels": {"baetyl-app-mode": "native"}, "ota": {}, "autoScaleCfg": {},
        "services": [{"name": "svc1", "replica": 1, "volumeMounts": [{"name": "prog", "mountPath": "/var/lib/baetyl/bin"}],
            "env": null, "jobConfig": {"restartPolicy": "Never"}, "type": "deployment"}],
        "volumes": [{"name": "prog", "config": {"name": "prog1", "version": "p1"}}], "initServices": null,
        "dnsPolicy": "ClusterFirst", "cronStatus": 0
    });
    let app = parse_value::<Application>(&raw).unwrap();
    assert_eq!(app.unknown, [""; 0]);
    assert_eq!(app.value.cron_time, None);
    assert!(app.value.services[0].mount_at(path::PROGRAM).is_some());
    assert_eq!(validate_application(&app.value, &Rules::default()), []);
}

#[test]
fn what_is_left_out_has_the_documented_meaning() {
    let mut app = parse::<Application>(
        br#"{"name":"web","services":[{"name":"s1","ports":[{"containerPort":80}]}]}"#,
    )
    .unwrap()
    .value;
    assert_eq!(
        (app.kind(), app.mode(), app.workload(), app.replicas()),
        ("container", "kube", "deployment", 1)
    );
    app.fill_defaults();
    let filled = app.clone();
    assert_eq!(app.replica, Some(1));
    assert_eq!(app.services[0].ports[0].protocol, "TCP");
    assert_eq!(app.job().restart_policy, "Never");
    app.fill_defaults();
    assert_eq!(app, filled);
}

#[test]
fn a_replica_of_zero_stays_zero_and_the_old_place_is_a_fallback() {
    let replicas = |body: &str| {
        parse::<Application>(body.as_bytes())
            .unwrap()
            .value
            .replicas()
    };
    assert_eq!(
        replicas(r#"{"replica":0,"services":[{"name":"s","replica":4}]}"#),
        0
    );
    assert_eq!(replicas(r#"{"services":[{"name":"s","replica":4}]}"#), 4);
    assert_eq!(replicas(r#"{"services":[{"name":"s"}]}"#), 1);
    let mut app = Application {
        replica: Some(0),
        ..Application::default()
    };
    app.fill_defaults();
    assert_eq!(app.replica, Some(0));
}

#[test]
fn deprecated_fields_of_the_first_service_count_when_the_application_is_silent() {
    let body = br#"{"services":[{"name":"s","type":"daemonset","hostNetwork":true,"jobConfig":{"backoffLimit":3}}]}"#;
    let app = parse::<Application>(body).unwrap().value;
    assert_eq!(app.workload(), "daemonset");
    assert!(app.host_network());
    assert_eq!(app.job().backoff_limit, 3);
    let said = Application {
        workload: "job".into(),
        ..app
    };
    assert_eq!(said.workload(), "job");
}

#[test]
fn secrets_are_not_printed() {
    let secret = Secret {
        name: "s".into(),
        data: [("k".to_owned(), "topsecret".into())].into(),
        ..Secret::default()
    };
    let view = secret.clone().into_view();
    let registry = Registry {
        password: "topsecret".into(),
        ..Registry::default()
    };
    let certificate = Certificate {
        key: "topsecret".into(),
        ..Certificate::default()
    };
    for text in [
        format!("{secret:?}"),
        format!("{view:?}"),
        format!("{registry:?}"),
        format!("{certificate:?}"),
    ] {
        assert!(!text.contains("topsecret"), "{text}");
    }
}

#[test]
fn a_function_service_is_open_only_when_it_says_so() {
    let service = |config: Value, functions: Value| -> Service {
        serde_json::from_value(
            json!({"name": "s", "functionConfig": config, "functions": functions}),
        )
        .unwrap()
    };
    let open = json!({"name": "f", "access": "anonymous"});
    let closed = json!({"name": "g"});
    assert!(!service(json!({"name": "c"}), json!([])).is_anonymous());
    assert!(!service(json!({"name": "c"}), json!([closed])).is_anonymous());
    assert!(!service(json!({"name": "c"}), json!([open, closed])).is_anonymous());
    assert!(service(json!({"name": "c"}), json!([open])).is_anonymous());
    assert!(service(json!({"name": "c", "access": "anonymous"}), json!([closed])).is_anonymous());
    assert!(!service(json!({"name": "c", "access": "token"}), json!([open])).is_anonymous());
}

#[test]
fn what_is_said_of_an_application_counts_only_where_service_and_function_say_nothing() {
    let service = |access: &str, functions: Value| -> Service {
        let config = json!({"name": "c", "access": access});
        serde_json::from_value(
            json!({"name": "s", "functionConfig": config, "functions": functions}),
        )
        .unwrap()
    };
    let silent = json!({"name": "f"});
    let open = json!({"name": "g", "access": "anonymous"});
    let closed = json!({"name": "h", "access": "token"});
    assert!(service("", json!([silent])).is_anonymous_or(true));
    assert!(service("", json!([silent, open])).is_anonymous_or(true));
    assert!(!service("", json!([silent, closed])).is_anonymous_or(true));
    assert!(!service("token", json!([silent])).is_anonymous_or(true));
    assert!(service("anonymous", json!([closed])).is_anonymous_or(false));
}

#[test]
fn a_function_may_say_how_long_a_call_may_take() {
    let function: Function =
        serde_json::from_value(json!({"name": "f", "handler": "a.b", "timeoutMs": 1500})).unwrap();
    assert_eq!(function.timeout_ms, Some(1500));
    let silent = Function {
        timeout_ms: None,
        ..function
    };
    let written = serde_json::to_value(&silent).unwrap();
    assert_eq!(written, json!({"name": "f", "handler": "a.b"}));
}

#[test]
fn probe_times_have_kubernetes_defaults() {
    let timing = Probe::default().timing();
    assert_eq!(
        (
            timing.timeout,
            timing.period,
            timing.success,
            timing.failure
        ),
        (1, 10, 1, 3)
    );
    assert_eq!(Port::Name("8080".into()).number(), Some(8080));
    assert_eq!(Port::Name("http".into()).number(), None);
    assert_eq!(Port::Number(70_000).number(), None);
}

/// Takes members and items out of a value, as `choices` say.
fn thin(value: &mut Value, choices: &mut impl Iterator<Item = bool>) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, _| choices.next().unwrap_or(true));
            fields.values_mut().for_each(|field| thin(field, choices));
        }
        Value::Array(items) => {
            items.retain(|_| choices.next().unwrap_or(true));
            items.iter_mut().for_each(|item| thin(item, choices));
        }
        _ => {}
    }
}

proptest! {
    /// What is read, written and read again is the same, whichever fields are there.
    #[test]
    fn any_part_of_an_application_survives_a_round_trip(
        choices in prop::collection::vec(prop::bool::weighted(0.8), 400),
    ) {
        let mut raw = complete_application();
        thin(&mut raw, &mut choices.into_iter());
        let app = parse_value::<Application>(&raw).unwrap();
        prop_assert_eq!(&app.unknown, &Vec::<String>::new());
        let text = serde_json::to_string(&app.value).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Application>(&text).unwrap(), &app.value);
        let mut filled = app.value;
        filled.fill_defaults();
        let once = filled.clone();
        filled.fill_defaults();
        prop_assert_eq!(filled, once);
    }

    #[test]
    fn bytes_of_a_secret_survive_a_round_trip(bytes: Vec<u8>) {
        let secret = Secret { data: [("k".to_owned(), SecretBytes(bytes))].into(), ..Secret::default() };
        let text = serde_json::to_string(&secret).unwrap();
        prop_assert_eq!(serde_json::from_str::<Secret>(&text).unwrap(), secret);
    }

    #[test]
    fn no_application_makes_the_validation_panic(
        choices in prop::collection::vec(prop::bool::weighted(0.7), 400),
        word in "[a-z/.=-]{0,6}",
    ) {
        let mut raw = complete_application();
        thin(&mut raw, &mut choices.into_iter());
        let mut app = parse_value::<Application>(&raw).unwrap().value;
        app.kind = word.clone();
        app.selector = word;
        for error in validate_application(&app, &Rules::default()) {
            prop_assert!(!error.field.is_empty() && !error.message.is_empty());
        }
    }
}
