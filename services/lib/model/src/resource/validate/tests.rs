use serde_json::{Value, json};

use super::*;
use crate::merge;
use crate::strict::parse_value;

pub(super) fn kube_app() -> Value {
    json!({"name": "web", "services": [{"name": "s1", "image": "nginx:1.25"}]})
}

/// Fields with mistakes of an application that is `base` with `patch` applied.
pub(super) fn mistakes(base: Value, patch: Value) -> Vec<String> {
    let mut raw = base;
    merge::apply(&mut raw, patch);
    let app = parse_value::<Application>(&raw).unwrap().value;
    let rules = Rules {
        system: false,
        now: Some("2026-06-01T00:00:00Z".parse().unwrap()),
    };
    validate_application(&app, &rules)
        .into_iter()
        .map(|error| error.to_string())
        .collect()
}

pub(super) fn one_mistake(base: Value, patch: Value, wanted: &str) {
    let found = mistakes(base, patch.clone());
    assert_eq!(found.len(), 1, "{patch}: {found:?}");
    assert!(
        found[0].contains(wanted),
        "{patch}: {found:?} lacks {wanted:?}"
    );
}

pub(super) fn service(fields: Value) -> Value {
    let mut service = json!({"name": "s1", "image": "i"});
    merge::apply(&mut service, fields);
    json!({"services": [service]})
}

#[test]
fn a_plain_application_is_fine() {
    assert_eq!(mistakes(kube_app(), json!({})), [""; 0]);
}

#[test]
fn all_mistakes_are_named_at_once() {
    let found = mistakes(
        kube_app(),
        json!({
            "name": "Bad", "mode": "bogus", "workload": "bogus", "selector": "a=", "replica": -1,
            "services": [{"name": "X"}], "volumes": [{"name": "vv"}]
        }),
    );
    let fields: Vec<_> = found
        .iter()
        .map(|text| text.split_once(": ").unwrap().0)
        .collect();
    assert_eq!(
        fields,
        [
            "name",
            "mode",
            "workload",
            "replica",
            "volumes[0]",
            "services[0].name",
            "services[0].image"
        ],
        "{found:#?}"
    );
}

#[test]
fn names_are_checked_and_those_of_the_system_refused() {
    one_mistake(
        kube_app(),
        json!({"name": "a".repeat(56)}),
        "2 to 55 characters",
    );
    one_mistake(
        kube_app(),
        json!({"name": "x-baetyl"}),
        "kept for the system",
    );
    one_mistake(
        kube_app(),
        json!({"labels": {"bad key!": "x"}}),
        "labels: label key \"bad key!\"",
    );
    let app = Application {
        name: "baetyl-core-x".into(),
        kind: "yaml".into(),
        ..Application::default()
    };
    assert_eq!(
        validate_application(
            &app,
            &Rules {
                system: true,
                now: None
            }
        ),
        []
    );
}

#[test]
fn kinds_that_are_not_known_or_not_supported_say_so() {
    one_mistake(
        kube_app(),
        json!({"type": "bogus"}),
        "type: \"bogus\" is not one of container",
    );
    one_mistake(
        kube_app(),
        json!({"type": "android"}),
        "type: android applications of Baetyl v2 are not supported",
    );
    one_mistake(
        kube_app(),
        json!({"workload": "cronjob"}),
        "workload: \"cronjob\" is not one of",
    );
    one_mistake(kube_app(), json!({"dnsPolicy": "x"}), "dnsPolicy");
}

#[test]
fn selectors_are_checked_when_they_are_written() {
    one_mistake(
        kube_app(),
        json!({"selector": "env in prod"}),
        "selector: selector \"env in prod\" is invalid at",
    );
    one_mistake(kube_app(), json!({"nodeSelector": "!"}), "nodeSelector: ");
}

#[test]
fn an_image_is_needed_in_kube_mode_only() {
    one_mistake(
        kube_app(),
        service(json!({"image": " "})),
        "services[0].image: is needed in kube mode",
    );
}

#[test]
fn a_native_service_needs_something_to_run() {
    let native = || json!({"name": "web", "mode": "native"});
    one_mistake(
        native(),
        json!({"services": [{"name": "s1", "image": "i"}]}),
        "services[0].programConfig: is needed",
    );
    assert_eq!(
        mistakes(
            native(),
            json!({"services": [{"name": "s1", "programConfig": "p1"}]})
        ),
        [""; 0]
    );
    assert_eq!(
        mistakes(
            native(),
            json!({"services": [{"name": "s1", "command": ["/bin/x"]}]})
        ),
        [""; 0]
    );
    let mounted = json!({
        "services": [{"name": "s1", "volumeMounts": [{"name": "prog", "mountPath": "/var/lib/baetyl/bin/"}]}],
        "volumes": [{"name": "prog", "config": {"name": "p1"}}]
    });
    assert_eq!(mistakes(native(), mounted), [""; 0]);
}

#[test]
fn a_function_application_needs_its_code_and_functions() {
    let function = |fields: Value| {
        let mut service = json!({
            "name": "f1", "functionConfig": {"name": "code", "runtime": "python3"},
            "functions": [{"name": "f", "handler": "index.handler", "codedir": "x"}]
        });
        merge::apply(&mut service, fields);
        json!({"name": "fn", "type": "function", "services": [service]})
    };
    assert_eq!(mistakes(function(json!({})), json!({})), [""; 0]);
    one_mistake(
        function(json!({"functionConfig": null})),
        json!({}),
        "services[0].functionConfig: is needed",
    );
    one_mistake(
        function(json!({"functionConfig": {"runtime": null}})),
        json!({}),
        "functionConfig.runtime: is needed",
    );
    one_mistake(
        function(json!({"functions": null})),
        json!({}),
        "functions: at least one",
    );
    one_mistake(
        function(json!({"functions": [{"name": "f"}]})),
        json!({}),
        "functions[0].handler: is needed",
    );
    one_mistake(
        function(
            json!({"functions": [{"name": "f", "handler": "h"}, {"name": "f", "handler": "h"}]}),
        ),
        json!({}),
        "functions[1].name: \"f\" is used twice",
    );
    one_mistake(
        function(json!({"functions": [{"name": "f", "handler": "h", "codedir": "../x"}]})),
        json!({}),
        "codedir",
    );
    for wrong in [0, 3_600_001] {
        one_mistake(
            function(json!({"functions": [{"name": "f", "handler": "h", "timeoutMs": wrong}]})),
            json!({}),
            "functions[0].timeoutMs: must be from 1 to 3600000",
        );
    }
    one_mistake(
        function(json!({"functionConfig": {"access": "all"}})),
        json!({}),
        "functionConfig.access",
    );
    one_mistake(
        function(json!({})),
        json!({"registries": [{"name": "r1"}]}),
        "registries: a function application",
    );
    one_mistake(
        kube_app(),
        service(json!({"functions": [{"name": "f", "handler": "h"}]})),
        "need an application of type function",
    );
}

#[test]
fn manifests_go_to_a_namespace_of_their_own() {
    let helm = |namespace: &str| json!({"name": "h1", "type": "helm", "labels": {"baetyl-custom-namespace": namespace}});
    assert_eq!(mistakes(helm("my-ns"), json!({})), [""; 0]);
    one_mistake(helm("My_Ns"), json!({}), "labels.baetyl-custom-namespace: ");
    one_mistake(helm("baetyl-edge"), json!({}), "belong to the node itself");
    one_mistake(
        helm("my-ns"),
        json!({"mode": "native"}),
        "helm applications need mode kube",
    );
}

#[test]
fn a_deferred_deployment_needs_a_time_to_come() {
    one_mistake(kube_app(), json!({"cronStatus": 1}), "cronTime: is needed");
    one_mistake(
        kube_app(),
        json!({"cronStatus": 1, "cronTime": "2026-01-01T00:00:00Z"}),
        "must be in the future",
    );
    one_mistake(kube_app(), json!({"cronStatus": 7}), "cronStatus");
    assert_eq!(
        mistakes(
            kube_app(),
            json!({"cronStatus": 1, "cronTime": "2037-01-01T00:00:00Z"})
        ),
        [""; 0]
    );
}

#[test]
fn scaling_bounds_are_checked() {
    let metric = json!({"type": "Resource", "resource": {"name": "cpu", "targetType": "Utilization", "averageUtilization": 50}});
    let scale = |min: i32, max: i32, metric: &Value| json!({"autoScaleCfg": {"minReplicas": min, "maxReplicas": max, "metrics": [metric]}});
    assert_eq!(mistakes(kube_app(), scale(1, 2, &metric)), [""; 0]);
    assert_eq!(mistakes(kube_app(), json!({"autoScaleCfg": {}})), [""; 0]);
    one_mistake(
        kube_app(),
        scale(3, 2, &metric),
        "autoScaleCfg.maxReplicas: must not be less than minReplicas (3)",
    );
    one_mistake(
        kube_app(),
        scale(0, 2, &metric),
        "autoScaleCfg.minReplicas: must be at least 1",
    );
    let disk = json!({"resource": {"name": "disk", "targetType": "Value", "value": "1"}});
    one_mistake(
        kube_app(),
        scale(1, 2, &disk),
        "metrics[0].resource.name: must be cpu or memory",
    );
    let value = json!({"resource": {"name": "memory", "targetType": "AverageValue", "averageValue": "lots"}});
    one_mistake(
        kube_app(),
        scale(1, 2, &value),
        "averageValue: \"lots\" is not a quantity",
    );
}

#[test]
fn a_port_of_the_machine_belongs_to_one_instance() {
    let ports = |ports: Value| service(json!({"ports": ports}));
    let tcp = json!({"containerPort": 80, "hostPort": 8080});
    let udp = json!({"containerPort": 81, "hostPort": 8080, "protocol": "udp"});
    assert_eq!(mistakes(kube_app(), ports(json!([tcp, udp]))), [""; 0]);
    let twice = json!([tcp, {"containerPort": 81, "hostPort": 8080, "protocol": "tcp"}]);
    one_mistake(
        kube_app(),
        ports(twice),
        "services[0].ports[1].hostPort: 8080/TCP is used by services[0].ports[0].hostPort already",
    );
    let mut two = ports(json!([tcp]));
    two["replica"] = json!(2);
    one_mistake(
        kube_app(),
        two.clone(),
        "services[0].ports[0].hostPort: needs replica 1",
    );
    two["workload"] = json!("daemonset");
    assert_eq!(mistakes(kube_app(), two), [""; 0]);
    let node = |port: i32| {
        ports(json!([{"containerPort": 80, "serviceType": "NodePort", "nodePort": port}]))
    };
    assert_eq!(mistakes(kube_app(), node(30001)), [""; 0]);
    one_mistake(kube_app(), node(0), "nodePort: must be a number");
    one_mistake(
        kube_app(),
        ports(json!([{"containerPort": 0}])),
        "containerPort: must be a number from 1 to 65535",
    );
    one_mistake(
        kube_app(),
        ports(json!([{"containerPort": 1, "protocol": "ICMP"}])),
        "protocol: \"ICMP\"",
    );
    one_mistake(
        kube_app(),
        ports(json!([{"containerPort": 1, "hostIP": "here"}])),
        "hostIP: \"here\" is not an address",
    );
}

#[test]
fn a_volume_has_exactly_one_source() {
    let volume = |volume: Value| json!({"volumes": [volume]});
    for good in [
        json!({"name": "vv", "config": {"name": "c1"}}),
        json!({"name": "vv", "secret": {"name": "s1"}}),
        json!({"name": "vv", "certificate": {"name": "c1"}}),
        json!({"name": "vv", "hostPath": {"path": "data/x"}}),
        json!({"name": "vv", "emptyDir": {}}),
        json!({"name": "vv", "persistentVolumeClaim": {"claimName": "data.db"}}),
    ] {
        assert_eq!(mistakes(kube_app(), volume(good)), [""; 0]);
    }
    one_mistake(
        kube_app(),
        volume(json!({"name": "vv"})),
        "volumes[0]: has no source",
    );
    one_mistake(
        kube_app(),
        volume(json!({"name": "vv", "config": {"name": "c1"}, "emptyDir": {}})),
        "has 2 sources",
    );
    one_mistake(
        kube_app(),
        volume(json!({"name": "vv", "config": {"name": "C"}})),
        "volumes[0].config.name",
    );
    one_mistake(
        kube_app(),
        volume(json!({"name": "vv", "hostPath": {"path": "a/../../etc"}})),
        "must not contain \"..\"",
    );
    one_mistake(
        kube_app(),
        volume(json!({"name": "vv", "emptyDir": {"sizeLimit": "big"}})),
        "sizeLimit: \"big\"",
    );
    one_mistake(
        kube_app(),
        volume(json!({"name": "vv", "persistentVolumeClaim": {"claimName": "Data"}})),
        "volumes[0].persistentVolumeClaim.claimName",
    );
    let mut native = volume(json!({"name": "vv", "persistentVolumeClaim": {"claimName": "data"}}));
    merge::apply(
        &mut native,
        json!({"mode": "native", "services": [{"name": "s1", "command": ["x"]}]}),
    );
    one_mistake(kube_app(), native, "needs mode kube");
    let twice =
        json!({"volumes": [{"name": "vv", "emptyDir": {}}, {"name": "vv", "emptyDir": {}}]});
    one_mistake(kube_app(), twice, "volumes[1].name: \"vv\" is used twice");
}

#[test]
fn a_scheduled_job_needs_a_timetable_and_kubernetes() {
    let job = |schedule: &str| json!({"workload": "job", "jobConfig": {"schedule": schedule}});
    assert_eq!(mistakes(kube_app(), job("*/5 * * * *")), [""; 0]);
    one_mistake(kube_app(), job("*/5 * * *"), "jobConfig.schedule: ");
    let mut native = job("*/5 * * * *");
    merge::apply(
        &mut native,
        json!({"mode": "native", "services": [{"name": "s1", "command": ["x"]}]}),
    );
    one_mistake(kube_app(), native, "scheduled jobs need mode kube");
}
