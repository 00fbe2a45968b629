//! Rules of the Pod, one at a time.

use super::*;

fn pod(case: &Case) -> Value {
    let rendered = case.render().unwrap();
    let workload = rendered
        .objects
        .iter()
        .find(|object| object.body.pointer("/spec/template").is_some())
        .unwrap();
    workload.body["spec"]["template"]["spec"].clone()
}

fn kinds(case: &Case) -> Vec<String> {
    let rendered = case.render().unwrap();
    rendered
        .objects
        .iter()
        .map(|object| format!("{} {}", object.kind, object.name))
        .collect()
}

#[test]
fn objects_come_in_the_order_they_are_needed() {
    let found = kinds(&cases()["volumes"]);
    let kinds: Vec<&str> = found
        .iter()
        .map(|object| object.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["ConfigMap", "ConfigMap", "Secret", "Secret", "Deployment"]
    );
    let scaled = self::kinds(&cases()["statefulset"]);
    assert_eq!(
        scaled,
        [
            "Service shop",
            "StatefulSet shop",
            "HorizontalPodAutoscaler shop"
        ]
    );
}

#[test]
fn only_the_label_has_images_pulled_at_every_start() {
    let policy = |given: &str, label: Option<&str>| {
        let mut case = Case::service(json!({"imagePullPolicy": given}));
        if let Some(label) = label {
            case = case.with(json!({"labels": {"baetyl-image-pull": label}}));
        }
        let warned = !case.render().unwrap().warnings.is_empty();
        let policy = pod(&case)["containers"][0]["imagePullPolicy"].clone();
        (policy.as_str().unwrap().to_owned(), warned)
    };
    let is = |policy: &str, warned: bool| (policy.to_owned(), warned);
    assert_eq!(policy("", None), is("IfNotPresent", false));
    assert_eq!(policy("IfNotPresent", None), is("IfNotPresent", false));
    assert_eq!(policy("Never", None), is("Never", false));
    assert_eq!(policy("Always", None), is("IfNotPresent", true));
    assert_eq!(policy("Always", Some("offline")), is("IfNotPresent", true));
    assert_eq!(policy("Always", Some("online")), is("Always", false));
    assert_eq!(policy("", Some("online")), is("Always", false));
    assert_eq!(
        policy("IfNotPresent", Some("online")),
        is("IfNotPresent", false)
    );
    assert_eq!(policy("Never", Some("online")), is("Never", false));
}

#[test]
fn the_identity_is_beside_what_the_author_mounts_at_its_place() {
    let token = |paths: &[&str]| {
        let mounts: Vec<Value> = paths
            .iter()
            .map(|path| json!({"name": "v1", "mountPath": path}))
            .collect();
        let case = Case::service(json!({"volumeMounts": mounts}))
            .with(json!({"volumes": [{"name": "v1", "emptyDir": {}}]}));
        let pod = pod(&case);
        let container = pod["containers"][0].clone();
        let variable = container["env"]
            .as_array()
            .unwrap()
            .iter()
            .find(|variable| variable["name"] == "BAETYL_TOKEN_FILE")
            .map(|variable| variable["value"].as_str().unwrap().to_owned());
        let mount = container["volumeMounts"]
            .as_array()
            .unwrap()
            .iter()
            .find(|mount| mount["name"] == "baetyl-identity")
            .map(|mount| format!("{}/token", mount["mountPath"].as_str().unwrap()));
        assert_eq!(variable, mount, "{paths:?}");
        variable
    };
    let usual = Some("/var/lib/baetyl/system/certs/token".to_owned());
    let elsewhere = Some("/run/baetyl/certs/token".to_owned());
    assert_eq!(token(&[]), usual);
    assert_eq!(token(&["/var/lib/other"]), usual);
    assert_eq!(token(&["/var/lib/baetyl"]), elsewhere);
    assert_eq!(token(&["/var/lib/baetyl/system/certs/own"]), elsewhere);
    assert_eq!(token(&["/var", "/run"]), None);
}

#[test]
fn a_version_changes_nothing_of_a_pod_but_its_own_name() {
    let of = |version: &str| pod(&Case::service(json!({})).with(json!({"version": version})));
    let text = of("7").to_string().replace("\"7\"", "\"8\"");
    assert_eq!(text, of("8").to_string());
}

#[test]
fn another_content_is_another_config_map() {
    let of = |text: &str| {
        let case = Case::service(json!({"volumeMounts": [{"name": "v1", "mountPath": "/v"}]}))
            .with(json!({"volumes": [{"name": "v1", "config": {"name": "conf"}}]}))
            .configuration("conf", json!({"a": text}));
        kinds(&case)
    };
    assert_eq!(of("one"), of("one"));
    assert_ne!(of("one")[0], of("two")[0]);
}

#[test]
fn how_many_pods_there_shall_be_is_told_where_it_is_known() {
    let wanted = |name: &str| cases()[name].render().unwrap().wanted;
    assert_eq!(wanted("deployment-plain"), Some(1));
    assert_eq!(wanted("deployment-full"), Some(2));
    assert_eq!(wanted("job"), Some(3));
    assert_eq!(wanted("job-default"), Some(1));
    for unknown in ["daemonset", "scaled", "cronjob", "yaml", "helm"] {
        assert_eq!(wanted(unknown), None, "{unknown}");
    }
    let none = Case::service(json!({})).with(json!({"replica": 0}));
    assert_eq!(none.render().unwrap().wanted, Some(0));
}

#[test]
fn names_of_service_ports_are_cut_where_they_are_too_long() {
    let case = Case::service(
        json!({"name": "a".repeat(63), "ports": [{"containerPort": 65535, "protocol": "SCTP"}]}),
    );
    let rendered = case.render().unwrap();
    let name = rendered.objects[0].body["spec"]["ports"][0]["name"].clone();
    assert_eq!(name.as_str().unwrap().len(), 63);
    assert!(name.as_str().unwrap().ends_with("a-65535-sctp"), "{name}");
}

#[test]
fn two_containers_that_listen_on_one_port_are_one_port_of_the_service() {
    let case = Case::app(json!({"services": [
        {"name": "one", "image": "i", "ports": [{"containerPort": 80}]},
        {"name": "two", "image": "i", "ports": [{"containerPort": 80}]},
    ]}));
    let rendered = case.render().unwrap();
    let ports = rendered.objects[0].body["spec"]["ports"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(ports.len(), 1);
    assert_eq!(ports[0]["name"], "one-80-tcp");
}

#[test]
fn nothing_of_a_registry_but_its_secret_reaches_the_pod() {
    let rendered = cases()["volumes"].render().unwrap();
    let secret = rendered
        .objects
        .iter()
        .find(|object| object.body["type"] == "kubernetes.io/dockerconfigjson")
        .unwrap();
    let text = secret.body["data"][".dockerconfigjson"].as_str().unwrap();
    let config: Value =
        serde_json::from_slice(&baetyl_model::base64::decode(text).unwrap()).unwrap();
    let auth = baetyl_model::base64::encode(b"me:secret");
    assert_eq!(
        config,
        json!({"auths": {"registry.example:5000": {"username": "me", "password": "secret", "auth": auth}}})
    );
    let pod = pod(&cases()["volumes"]);
    assert_eq!(pod["imagePullSecrets"], json!([{"name": secret.name}]));
    assert!(
        !pod["containers"].to_string().contains("registry\""),
        "{pod}"
    );
}

#[test]
fn secrets_of_the_node_pull_images_too() {
    let place = Place {
        pull_secrets: vec!["core-registry".to_owned()],
        ..place()
    };
    let rendered = Case::service(json!({})).render_at(&place).unwrap();
    let pod = &rendered.objects[0].body["spec"]["template"]["spec"];
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "core-registry"}]));
}

#[test]
fn probes_of_init_services_are_left_out_and_it_is_said() {
    let init =
        json!([{"name": "first", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}}]);
    let case = Case::service(json!({})).with(json!({"initServices": init}));
    let rendered = case.render().unwrap();
    assert!(rendered.warnings[0].contains("init service first has probes"));
    assert_eq!(pod(&case)["initContainers"][0].get("livenessProbe"), None);
}
