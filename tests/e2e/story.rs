//! The main job on a real cluster, step by step: what `cargo xtask demo` tells of a machine without Kubernetes.

use anyhow::{Context as _, Result, ensure};
use baetyl_manifests::REGISTRY;
use baetyl_tests::wait::until_within;
use serde_json::{Value, json};

use crate::node::{CORE, NODE, Node, PATIENCE, SELECTOR, VERSION};

const WEB_PY: &str = include_str!("../../docs/examples/demo/web.py");
const GREET_PY: &str = include_str!("../../docs/examples/demo/greet.py");
const DEMO_YAML: &str = include_str!("../../docs/examples/demo/demo-kube.yaml");

/// The documents of the demo with programs, selector and image filled in.
fn demo(registry: &str) -> String {
    let quote = |text: &str| Value::from(text).to_string();
    DEMO_YAML
        .replace("\"${web.py}\"", &quote(WEB_PY))
        .replace("\"${greet.py}\"", &quote(GREET_PY))
        .replace(&format!("{REGISTRY}/"), &format!("{registry}/baetyl/"))
        .replace("site=north", SELECTOR)
}

async fn page(node: &Node) -> Result<Value> {
    let text = node.page("web", "/").await?;
    serde_json::from_str(&text).context(text)
}

async fn until_page(node: &Node, key: &str, wanted: &str) -> Result<Value> {
    let (page, _) = until_within(PATIENCE, &format!("web says {key} = {wanted}"), || async {
        let page = page(node).await?;
        ensure!(page[key] == wanted, "{page}");
        Ok(page)
    })
    .await?;
    Ok(page)
}

async fn app_of(node: &Node, name: &str) -> Result<Value> {
    node.rest.get(&format!("/v1/apps/{name}")).await
}

async fn functions_answer(node: &Node) -> Result<()> {
    let hello = json!({"hello": "Ada", "function": "hello"});
    node.until_answered("/greet", r#"{"name":"Ada"}"#, &hello)
        .await
}

#[tokio::test]
async fn the_main_job() -> Result<()> {
    let node = Node::alone().await?;
    step_1_to_3(&node).await?;
    step_4(&node).await.context("step 4")?;
    step_5(&node).await.context("step 5")?;
    step_6(&node).await.context("step 6")?;
    step_7(&node).await.context("step 7")?;
    step_8_and_9(&node).await.context("steps 8 and 9")?;
    step_10(&node).await.context("step 10")
}

/// The cloud wants a token; the node is installed and shows its machine; another is only described.
async fn step_1_to_3(node: &Node) -> Result<()> {
    let stranger = node.rest.with_token(None);
    let refused = stranger.send(http::Method::GET, "/v1/nodes", &[], bytes::Bytes::new());
    ensure!(refused.await?.status == 401);
    let other = json!({"name": "shop-2", "labels": {"site": "elsewhere"}});
    let made = node
        .rest
        .json(http::Method::POST, "/v1/nodes", &other)
        .await?;
    ensure!(made.status.is_success() || made.status == 409);
    node.until_online().await?;
    until_within(
        PATIENCE,
        "the report has figures of the machine",
        || async {
            let view = node.view().await?;
            let machines = view["report"]["nodestats"].as_object().context("none")?;
            let (name, figures) = machines.iter().next().context("no machine")?;
            ensure!(figures["capacity"]["memory"].is_string(), "{figures}");
            ensure!(view["report"]["node"][name]["arch"].is_string(), "{view}");
            ensure!(view["report"]["core"]["binVersion"] == VERSION, "{view}");
            Ok(())
        },
    )
    .await?;
    let listed = node.ctl(&["get", "nodes"]).await?;
    let line = |name: &str| listed.lines().find(|line| line.starts_with(name));
    ensure!(line("shop-2").is_some_and(|line| line.contains("uninstalled")));
    ensure!(
        line(NODE).is_some_and(|line| line.contains("online")),
        "{listed}"
    );
    Ok(())
}

/// A configuration, a secret, an application and a function reach the node.
async fn step_4(node: &Node) -> Result<()> {
    let file = node.file("demo.yaml", &demo(&node.cluster.registry()?))?;
    let file = file.display().to_string();
    node.ctl(&["apply", "-f", &file]).await?;
    for name in ["web", "greet"] {
        node.until_running(&app_of(node, name).await?).await?;
    }
    let page = until_page(node, "greeting", "hello one").await?;
    for (key, wanted) in [
        ("app", "web"),
        ("node", NODE),
        ("mode", "kube"),
        (
            "secretSha256",
            "4e738ca5563c06cfd0018299933d58db1dd8bf97f6973dc99bf6cdc64b5550bd",
        ),
    ] {
        ensure!(page[key] == wanted, "{key}: {page}");
    }
    let elsewhere = node.rest.get("/v1/nodes/shop-2/apps").await?;
    ensure!(elsewhere["total"] == 0, "{elsewhere}");
    Ok(())
}

/// The function answers over HTTP and gRPC; an exception tells no secrets.
async fn step_5(node: &Node) -> Result<()> {
    functions_answer(node).await?;
    let (status, body) = node.invoke("/greet/fail", r#"{"t":1}"#).await?;
    ensure!(
        status >= 500 && body.contains("ValueError"),
        "{status} {body}"
    );
    ensure!(!body.contains("Traceback"), "{body}");
    let answer = node
        .call_over_grpc("greet", "hello", r#"{"name":"Bob"}"#)
        .await?;
    ensure!(answer["hello"] == "Bob", "{answer}");
    Ok(())
}

/// A changed configuration restarts the application once; a changed application serves all the time.
async fn step_6(node: &Node) -> Result<()> {
    let before = node.lives("web").await?;
    let greeting = baetyl_tests::apps::config("greeting", &[("message.txt", "hello two")]);
    node.rest.put("/v1/configs/greeting", &greeting).await?;
    until_page(node, "greeting", "hello two").await?;
    node.until_running(&app_of(node, "web").await?).await?;
    let after = node.lives("web").await?;
    ensure!(after.len() == 1 && before.keys().all(|name| !after.contains_key(name)));
    let mut app = app_of(node, "web").await?;
    crate::node::set_env(&mut app, "RELEASE", "two");
    let app = node.change(&app).await?;
    until_page(node, "release", "two").await?;
    node.until_running(&app).await?;
    Ok(())
}

/// A release that crashes and one that is never ready are rolled back, while the one before serves.
async fn step_7(node: &Node) -> Result<()> {
    for (variable, value) in [("CRASH", "true"), ("HEALTHY", "false")] {
        let good = app_of(node, "web").await?;
        let lives = node.lives("web").await?;
        let mut bad = good.clone();
        crate::node::set_env(&mut bad, variable, value);
        let bad = node.change(&bad).await?;
        let failed = node.until_failed(&bad, "").await?;
        ensure!(failed["version"] == good["version"], "{variable}: {failed}");
        ensure!(failed["status"] == "Running", "{variable}: {failed}");
        ensure!(page(node).await?["release"] == "two");
        ensure!(
            node.lives("web").await? == lives,
            "{variable}: web was touched"
        );
        // What the operator wishes is good again.
        let mut mended = good;
        mended["version"] = bad["version"].clone();
        let mended = node.change(&mended).await?;
        node.until_running(&mended).await?;
    }
    Ok(())
}

/// The cloud is gone, and the node loses power: everything comes back and answers. Then each core service is killed, and no
/// application notices; the cloud returns.
async fn step_8_and_9(node: &Node) -> Result<()> {
    let Some(bed) = node.cluster.bed() else {
        return Ok(());
    };
    node.cloud.leave().await?;
    bed.reboot().await?;
    until_page(node, "greeting", "hello two").await?;
    functions_answer(node).await?;
    node.until_core_is_ready().await?;
    let before = (node.lives("web").await?, node.lives("greet").await?);
    for service in CORE {
        node.kill_core(service).await?;
        node.until_core_is_ready().await?;
        functions_answer(node).await.context(service)?;
    }
    node.cloud.come_back().await?;
    node.until_online().await?;
    for name in ["web", "greet"] {
        node.until_running(&app_of(node, name).await?).await?;
    }
    let after = (node.lives("web").await?, node.lives("greet").await?);
    ensure!(before == after, "{before:?} {after:?}");
    Ok(())
}

/// Properties travel both ways; an application is deleted.
async fn step_10(node: &Node) -> Result<()> {
    node.ctl(&["node", "property", NODE, "door=open"]).await?;
    let path = format!("/v1/nodes/{NODE}/properties");
    until_within(PATIENCE, "the wish is kept", || async {
        let state = node.rest.get(&path).await?;
        ensure!(state["state"]["desire"]["door"] == "open", "{state}");
        Ok(())
    })
    .await?;
    let token = node.app_token("web").await?;
    let change = json!({"changes": [{"key": "door", "value": "closed"}]});
    let method = "baetyl.node.v1.LocalService/UpdateProperties";
    node.grpcurl("baetyl-node", 50021, method, &change, Some(&token))
        .await?;
    until_within(PATIENCE, "the cloud knows what was reported", || async {
        let state = node.rest.get(&path).await?;
        ensure!(state["state"]["report"]["door"] == "closed", "{state}");
        Ok(())
    })
    .await?;
    node.delete("web").await?;
    functions_answer(node).await?;
    node.delete("greet").await
}
