//! Function applications: what is generated for them.

use super::*;

async fn function_app(c: &TestCloud, mode: &str) -> Value {
    c.created("/v1/configs", json!({
        "name": "code", "labels": {"baetyl-config-type": "baetyl-function", "baetyl-function": "python3"},
        "data": [{"key": "index.py", "value": {"type": "kv", "value": "def handler(event, context): return event"}}],
    })).await;
    json!({
        "name": "fn1", "type": "function", "mode": mode, "selector": "env=test",
        "services": [{
            "name": "greet", "functionConfig": {"name": "code", "runtime": "python3"},
            "functions": [{"name": "hello", "handler": "index.handler", "codedir": "."}],
        }],
    })
}

#[tokio::test]
async fn the_list_of_functions_and_the_code_are_mounted() {
    let c = cloud().await;
    let body = function_app(&c, "native").await;
    let shown = c.created("/v1/apps", body).await;
    let service = &shown["services"][0];
    let mounts: Vec<_> = service["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| {
            (
                mount["name"].as_str().unwrap(),
                mount["mountPath"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        mounts,
        [
            ("baetyl-function-code-greet", "/var/lib/baetyl/code"),
            ("baetyl-function-config-greet", "/etc/baetyl")
        ]
    );
    assert!(
        service.get("image").is_none(),
        "a native node has its own runtime"
    );
    let generated = shown["volumes"][1]["config"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        generated.starts_with("baetyl-function-config-fn1-greet-"),
        "{generated}"
    );
    let config = c.read(&format!("/v1/configs/{generated}")).await;
    assert_eq!(config["data"][0]["key"], "conf.yml");
    let conf: Value =
        serde_json::from_str(config["data"][0]["value"]["value"].as_str().unwrap()).unwrap();
    assert_eq!(
        conf,
        json!({"functions": [{"name": "hello", "handler": "index.handler", "codedir": "."}]})
    );
    assert_eq!(
        (&config["system"], &config["labels"]["baetyl-cloud-system"]),
        (&json!(true), &json!("true"))
    );
    assert_eq!(
        c.read("/v1/configs").await["total"],
        1,
        "what is generated is hidden"
    );
    assert_eq!(
        c.read("/v1/configs?selector=baetyl-cloud-system").await["total"],
        1
    );
}

#[tokio::test]
async fn in_kube_mode_the_image_of_the_runtime_and_its_port_are_set() {
    let c = cloud().await;
    let body = function_app(&c, "kube").await;
    let shown = c.created("/v1/apps", body).await;
    assert_eq!(shown["services"][0]["image"], "registry/python3:1");
    assert_eq!(
        shown["services"][0]["ports"],
        json!([{"containerPort": 80, "protocol": "TCP", "serviceType": "ClusterIP"}])
    );
}

#[tokio::test]
async fn what_was_posted_and_what_is_shown_can_be_written_back_without_a_new_version() {
    let c = cloud().await;
    let body = function_app(&c, "kube").await;
    let created = c.created("/v1/apps", body.clone()).await;
    let revision = c.revision().await;
    for again in [&body, &created] {
        assert_eq!(&c.ok(Method::PUT, "/v1/apps/fn1", again).await, &created);
    }
    assert_eq!(c.revision().await, revision);
}

#[tokio::test]
async fn a_mount_of_the_code_by_its_author_stays_where_it_is() {
    let c = cloud().await;
    let mut body = function_app(&c, "native").await;
    body["services"][0]["volumeMounts"] = json!([{"name": "baetyl-function-code-greet", "mountPath": "/var/lib/baetyl/code", "readOnly": true}]);
    body["volumes"] = json!([{"name": "baetyl-function-code-greet", "config": {"name": "code"}}]);
    let shown = c.created("/v1/apps", body).await;
    assert_eq!(
        shown["services"][0]["volumeMounts"]
            .as_array()
            .unwrap()
            .len(),
        2,
        "{shown}"
    );
    assert_eq!(shown["volumes"].as_array().unwrap().len(), 2, "{shown}");
}

#[tokio::test]
async fn generated_configurations_follow_the_functions_and_go_with_the_application() {
    let c = cloud().await;
    let mut body = function_app(&c, "native").await;
    let first = c.created("/v1/apps", body.clone()).await;
    body["services"][0]["functions"][0]["handler"] = json!("index.other");
    let second = c.ok(Method::PUT, "/v1/apps/fn1", &body).await;
    assert_ne!(
        first["volumes"][1]["config"]["version"],
        second["volumes"][1]["config"]["version"]
    );
    body["services"][0]["name"] = json!("renamed");
    c.ok(Method::PUT, "/v1/apps/fn1", &body).await;
    assert_eq!(
        c.read("/v1/configs?selector=baetyl-cloud-system").await["total"],
        1,
        "the old one is gone"
    );
    c.delete("/v1/apps/fn1").await;
    assert_eq!(
        c.read("/v1/configs?selector=baetyl-cloud-system").await["total"],
        0
    );
    assert_eq!(
        c.delete("/v1/configs/code").await.status,
        StatusCode::OK,
        "free again"
    );
}

#[tokio::test]
async fn new_code_is_a_new_version_of_the_application() {
    let c = cloud().await;
    let body = function_app(&c, "native").await;
    let before = c.created("/v1/apps", body).await["version"].clone();
    let code = json!({"data": [{"key": "index.py", "value": {"type": "kv", "value": "new"}}]});
    let code = c.ok(Method::PUT, "/v1/configs/code", &code).await;
    let after = c.read("/v1/apps/fn1").await["version"].clone();
    assert_ne!(before, after);
    assert_eq!(after, code["version"]);
}

#[tokio::test]
async fn functions_of_a_node_and_runtimes_are_listed() {
    let c = cloud().await;
    c.created(
        "/v1/nodes",
        json!({"name": "n1", "labels": {"env": "test"}}),
    )
    .await;
    let body = function_app(&c, "native").await;
    c.created("/v1/apps", body).await;
    assert_eq!(
        c.read("/v1/nodes/n1/functions").await,
        json!({"functions": ["fn1/hello"]})
    );
    assert_eq!(
        c.read("/v1/functions").await,
        json!({"sources": [], "runtimes": {"python3": "registry/python3:1"}})
    );
}

#[tokio::test]
async fn long_names_stay_within_the_limit_and_apart() {
    let c = cloud().await;
    let body = function_app(&c, "native").await;
    let mut names = std::collections::BTreeSet::new();
    for (app, service) in [
        ("a".repeat(55), "s".repeat(63)),
        ("a".repeat(54), "s".repeat(63)),
    ] {
        let mut body = body.clone();
        body["name"] = json!(app);
        body["services"][0]["name"] = json!(service);
        let shown = c.created("/v1/apps", body).await;
        for volume in shown["volumes"].as_array().unwrap() {
            assert!(volume["name"].as_str().unwrap().len() <= 63, "{volume}");
        }
        let config = shown["volumes"][1]["config"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(config.len() <= 63, "{config}");
        names.insert(config);
    }
    assert_eq!(names.len(), 2);
}

#[tokio::test]
async fn what_was_generated_for_one_application_cannot_be_used_by_another() {
    let c = cloud().await;
    let body = function_app(&c, "native").await;
    let shown = c.created("/v1/apps", body).await;
    let generated = shown["volumes"][1]["config"]["name"].clone();
    let mut other = app("a1");
    other["volumes"] = json!([{"name": "vol", "config": {"name": generated}}]);
    let answer = c.post("/v1/apps", &other).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text);
    let path = format!("/v1/configs/{}", generated.as_str().unwrap());
    assert_eq!(
        c.put(&path, &config("x1", "x")).await.code(),
        "ErrResourceInvisible"
    );
    assert_eq!(c.delete(&path).await.code(), "nonBaetyl");
}
