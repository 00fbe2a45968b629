use serde_json::{Value, json};

use super::super::tests::{kube_app, mistakes, one_mistake, service};

#[test]
fn mounts_name_volumes_and_stay_inside() {
    let mount = |mounts: Value| {
        let mut app = service(json!({"volumeMounts": mounts}));
        app["volumes"] = json!([{"name": "vv", "emptyDir": {}}]);
        app
    };
    assert_eq!(
        mistakes(
            kube_app(),
            mount(json!([{"name": "vv", "mountPath": "/x"}]))
        ),
        [""; 0]
    );
    one_mistake(
        kube_app(),
        mount(json!([{"name": "ww", "mountPath": "/x"}])),
        "the application has no volume \"ww\"",
    );
    one_mistake(
        kube_app(),
        mount(json!([{"name": "vv", "mountPath": "x"}])),
        "mountPath: must be an absolute path",
    );
    one_mistake(
        kube_app(),
        mount(json!([{"name": "vv", "mountPath": "/x/../.."}])),
        "mountPath: must be an absolute path",
    );
    one_mistake(
        kube_app(),
        mount(json!([{"name": "vv", "mountPath": "/x", "subPath": "../y"}])),
        "subPath",
    );
    let twice = json!([{"name": "vv", "mountPath": "/x"}, {"name": "vv", "mountPath": "/x/"}]);
    one_mistake(
        kube_app(),
        mount(twice),
        "volumeMounts[1].mountPath: \"/x/\" is used twice",
    );
}

#[test]
fn service_names_are_unique_over_all_services() {
    let twice = json!({"initServices": [{"name": "s1", "image": "i"}]});
    one_mistake(kube_app(), twice, "services[0].name: \"s1\" is used twice");
    one_mistake(
        kube_app(),
        json!({"services": []}),
        "services: at least one service is needed",
    );
}

#[test]
fn probes_ask_exactly_one_thing() {
    let probe = |probe: Value| service(json!({"livenessProbe": probe}));
    for good in [
        json!({"httpGet": {"port": 80}}),
        json!({"tcpSocket": {"port": "80"}}),
        json!({"exec": {"command": ["x"]}}),
        json!({"grpc": {"port": 80}}),
    ] {
        assert_eq!(mistakes(kube_app(), probe(good)), [""; 0]);
    }
    one_mistake(
        kube_app(),
        probe(json!({"periodSeconds": 1})),
        "services[0].livenessProbe: asks nothing",
    );
    one_mistake(
        kube_app(),
        probe(json!({"httpGet": {"port": 80}, "exec": {"command": ["x"]}})),
        "asks in several ways",
    );
    one_mistake(
        kube_app(),
        probe(json!({"httpGet": {"port": "web"}})),
        "httpGet.port: \"web\" is not a port number",
    );
    one_mistake(
        kube_app(),
        probe(json!({"exec": {}})),
        "exec.command: is needed",
    );
    one_mistake(
        kube_app(),
        probe(json!({"grpc": {"port": 1}, "timeoutSeconds": -1})),
        "timeoutSeconds",
    );
    one_mistake(
        kube_app(),
        probe(json!({"grpc": {"port": 1}, "successThreshold": 2})),
        "successThreshold",
    );
}

#[test]
fn surroundings_are_checked() {
    one_mistake(
        kube_app(),
        service(json!({"env": [{"name": "A=B"}]})),
        "env[0].name",
    );
    one_mistake(
        kube_app(),
        service(json!({"devices": [{"devicePath": "dev"}]})),
        "devices[0].devicePath",
    );
    one_mistake(
        kube_app(),
        service(json!({"devices": [{"devicePath": "/dev/x", "policy": "rx"}]})),
        "devices[0].policy",
    );
    one_mistake(
        kube_app(),
        service(json!({"resources": {"limits": {"cpu": "bogus"}}})),
        "resources.limits.cpu: \"bogus\"",
    );
    one_mistake(
        kube_app(),
        service(json!({"resources": {"requests": {"memory": "-1"}}})),
        "must not be negative",
    );
    one_mistake(
        kube_app(),
        service(json!({"imagePullPolicy": "Sometimes"})),
        "imagePullPolicy",
    );
    one_mistake(
        kube_app(),
        json!({"jobConfig": {"restartPolicy": "Always"}}),
        "jobConfig.restartPolicy",
    );
}
