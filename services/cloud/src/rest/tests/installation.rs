//! How machines become nodes, and what the core of a node shall be.

use baetyl_proto::shadow;

use super::nodes::put_status;
use super::*;

#[tokio::test]
async fn the_install_command_of_a_native_node_carries_a_token() {
    let c = cloud().await;
    c.created("/v1/nodes", json!({"name": "n1", "nodeMode": "native"}))
        .await;
    let answer = c.read("/v1/nodes/n1/init?path=/data").await;
    let command = answer["cmd"].as_str().unwrap();
    for part in [
        "baetyl-init",
        "https://cloud.example:9003",
        "/data",
        "sha256:",
    ] {
        assert!(command.contains(part), "{part} in {command}");
    }
    assert!(answer["expires"].is_string());
    assert_eq!(
        c.get("/v1/nodes/n1/init?path=relative").await.fields(),
        ["path"]
    );
    assert_eq!(
        c.get("/v1/nodes/nosuch/init").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn the_install_command_of_a_cluster_carries_the_options_that_were_asked_for() {
    let c = cloud().await;
    c.created("/v1/nodes", json!({"name": "n1"})).await;
    let path =
        "/v1/nodes/n1/init?mode=kube&method=wget&class=node-1gb&registry=r%3A5000/b&kubeNode=box-1";
    let answer = c.read(path).await;
    let command = answer["cmd"].as_str().unwrap();
    for part in [
        "BAETYL_INIT__TOKEN=bi1.",
        "https://cloud.example:9003/v1/init/kube/install.sh",
        "-----BEGIN CERTIFICATE-----",
        "baetyl-install --class node-1gb --registry r:5000/b --kube-node box-1",
    ] {
        assert!(command.contains(part), "{part} in {command}");
    }
    for (query, field) in [
        ("class=huge", "class"),
        ("registry=a%20b", "registry"),
        ("kubeNode=%24(reboot)", "kubeNode"),
        ("tokenSeconds=x", "tokenSeconds"),
        ("tokenSeconds=2592001", "tokenSeconds"),
    ] {
        let wrong = c.get(&format!("/v1/nodes/n1/init?{query}")).await;
        assert_eq!(wrong.fields(), [field], "{}", wrong.text);
    }
}

#[tokio::test]
async fn a_node_is_installed_the_way_it_is_described() {
    let c = cloud().await;
    c.created("/v1/nodes", json!({"name": "n1", "nodeMode": "native"}))
        .await;
    c.created("/v1/nodes", json!({"name": "n2"})).await;
    for (path, words) in [
        (
            "/v1/nodes/n1/init?mode=kube",
            "described with nodeMode native",
        ),
        (
            "/v1/nodes/n2/init?mode=native",
            "described with nodeMode kube",
        ),
        ("/v1/nodes/n1/init?mode=bogus", "not one of kube, native"),
        ("/v1/nodes/n1/init/bundle", "described with nodeMode native"),
    ] {
        let answer = c.get(path).await;
        assert_eq!(answer.fields(), ["mode"], "{path}: {}", answer.text);
        assert!(answer.message().contains(words), "{path}: {}", answer.text);
    }
    for path in ["/v1/nodes/n1/init?mode=native", "/v1/nodes/n2/init?mode="] {
        c.read(path).await;
    }
}

#[tokio::test]
async fn a_bundle_has_everything_but_images() {
    let c = cloud().await;
    c.created("/v1/nodes", json!({"name": "n1"})).await;
    let bundle = c
        .read("/v1/nodes/n1/init/bundle?class=cluster&tokenSeconds=604800")
        .await;
    let text = |field: &str| bundle[field].as_str().unwrap();
    assert_eq!(text("script"), crate::install::kube::SCRIPT);
    assert!(text("manifests").contains("# baetyl.io/class: cluster\n"));
    assert!(text("ca").starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert!(text("token").starts_with("bi1."));
    let expires: jiff::Timestamp = text("expires").parse().unwrap();
    let life = expires.duration_since(jiff::Timestamp::now());
    assert!((604_700..=604_800).contains(&life.as_secs()), "{life:?}");
    let wrong = c.get("/v1/nodes/n1/init/bundle?class=huge").await;
    assert_eq!(wrong.fields(), ["class"]);
    let viewer = c.token_of("default", Role::Viewer).await;
    let path = "/v1/nodes/n1/init/bundle";
    let answer = c.call_as(&viewer, Method::GET, path, &Value::Null).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "it holds a token");
}

fn reported(version: &str) -> shadow::NodeStatus {
    shadow::NodeStatus {
        core: Some(baetyl_proto::meta::ProgramInfo {
            version: version.to_owned(),
            ..Default::default()
        }),
        run_mode: "kube".to_owned(),
        ..Default::default()
    }
}

const CORE: &str = "/v1/nodes/n1/core/configs";

#[tokio::test]
async fn the_settings_of_a_core_are_kept() {
    let c = cloud().await;
    let node = c.created("/v1/nodes", json!({"name": "n1"})).await;
    let before = c.read(CORE).await;
    assert_eq!(
        (
            &before["frequency"],
            &before["logLevel"],
            &before["version"]
        ),
        (&json!(20), &json!("debug"), &json!(baetyl_kit::VERSION))
    );
    let mut wanted = before.clone();
    wanted["frequency"] = json!(30);
    wanted["logLevel"] = json!("warn");
    assert_eq!(c.ok(Method::PUT, CORE, &wanted).await, wanted);
    assert_eq!(c.read(CORE).await, wanted);
    c.ok(Method::PUT, "/v1/nodes/n1", &node).await;
    assert_eq!(
        c.read(CORE).await,
        wanted,
        "describing the node leaves them"
    );
    let wrong = c
        .put(
            CORE,
            &json!({"frequency": 301, "apiport": 80, "logLevel": "loud"}),
        )
        .await;
    assert_eq!(wrong.fields(), ["frequency", "apiport", "logLevel"]);
    assert_eq!(
        c.read("/v1/nodes/n1").await["desire"].get("core"),
        None,
        "nobody wished a version"
    );
}

#[tokio::test]
async fn a_wished_version_of_the_core_goes_down_with_the_desire_and_back_to_the_one_before() {
    let c = cloud().await;
    let node = c.created("/v1/nodes", json!({"name": "n1"})).await;
    put_status(&c, &node, &reported("0.0.9")).await;
    assert_eq!(c.read(CORE).await["version"], "0.0.9", "what it reports");
    let unknown = c.put(CORE, &json!({"version": "v9.9.9"})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{}", unknown.text);
    let same = c.ok(Method::PUT, CORE, &json!({"version": "0.0.9"})).await;
    assert_eq!(same["version"], "0.0.9");
    assert_eq!(c.read("/v1/nodes/n1").await["desire"].get("core"), None);

    let wish = json!({"version": "0.9.1", "class": "node-1gb", "registry": "r:5000/b"});
    let set = c.ok(Method::PUT, CORE, &wish).await;
    assert_eq!(
        (&set["version"], &set["class"]),
        (&json!("0.9.1"), &json!("node-1gb"))
    );
    let shown = c.read("/v1/nodes/n1").await;
    assert_eq!(shown["desire"]["core"], wish);
    assert_eq!(
        shown["report"]["core"]["binVersion"], "0.0.9",
        "what runs is what is reported"
    );
    assert_eq!(
        c.read("/v1/nodes/n1/core/versions").await["versions"],
        json!(["0.0.9", "0.9.1", baetyl_kit::VERSION])
    );
    let bundle = c.read("/v1/nodes/n1/init/bundle").await;
    let manifests = bundle["manifests"].as_str().unwrap();
    assert!(manifests.contains("image: r:5000/b/baetyl-engine:0.9.1"));

    let back = c.ok(Method::PUT, CORE, &json!({"version": "0.0.9"})).await;
    assert_eq!(back["version"], "0.0.9", "the one before is known");
    assert_eq!(back.get("class"), None, "a PUT replaces");
    let desire = c.read("/v1/nodes/n1").await["desire"].clone();
    assert_eq!(desire["core"]["version"], "0.0.9");
}

#[tokio::test]
async fn what_a_core_cannot_be_is_refused() {
    let c = cloud().await;
    c.created("/v1/nodes", json!({"name": "n1"})).await;
    for (body, field) in [
        (json!({"class": "huge"}), "class"),
        (json!({"registry": "https://r"}), "registry"),
    ] {
        assert_eq!(c.put(CORE, &body).await.fields(), [field], "{body}");
    }
    c.created("/v1/nodes", json!({"name": "n2", "nodeMode": "native"}))
        .await;
    let native = "/v1/nodes/n2/core/configs";
    for (body, field) in [
        (json!({"version": "0.9.1"}), "version"),
        (json!({"class": "node-1gb"}), "class"),
    ] {
        assert_eq!(c.put(native, &body).await.fields(), [field], "{body}");
    }
    assert_eq!(
        c.read("/v1/nodes/n2/core/versions").await["versions"],
        json!([baetyl_kit::VERSION])
    );
}
