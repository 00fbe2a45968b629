//! Versions that fail: the one before goes on, and the report says what Kubernetes says.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::node::{IDLE, Node, busybox, set_env, web};

/// Changes a running application into one that fails; the version before serves all the time.
async fn is_rolled_back(name: &str, spoil: impl Fn(&mut Value), words: &str) -> Result<()> {
    let node = Node::shared().await?;
    let good = node.run(&web(&node, name, "good")).await?;
    node.until_page(name, "good").await?;
    let lives = node.lives(name).await?;
    let mut bad = good.clone();
    spoil(&mut bad);
    let bad = node.change(&bad).await?;
    let failed = node.until_failed(&bad, words).await?;
    ensure!(failed["version"] == good["version"], "{failed}");
    ensure!(failed["status"] == "Running", "{failed}");
    ensure!(node.page(name, "/").await?.trim() == "good");
    ensure!(node.lives(name).await? == lives, "it was touched");
    ensure!(node.view().await?["ready"] == 1, "the node is online");
    node.delete(name).await
}

#[tokio::test]
async fn an_image_that_is_not_there_is_rolled_back() -> Result<()> {
    let spoil = |app: &mut Value| app["services"][0]["image"] = json!("localhost/nothing:1");
    // ErrImagePull and ImagePullBackOff take turns.
    is_rolled_back("bad-image", spoil, "ImagePull").await
}

#[tokio::test]
async fn a_name_that_is_no_image_is_rolled_back_at_once() -> Result<()> {
    let spoil = |app: &mut Value| app["services"][0]["image"] = json!("LOCALHOST/No Image");
    is_rolled_back("no-image", spoil, "InvalidImageName").await
}

#[tokio::test]
async fn a_crash_loop_is_rolled_back() -> Result<()> {
    let spoil = |app: &mut Value| app["services"][0]["args"] = json!(["echo it breaks; exit 3"]);
    is_rolled_back("crash-loop", spoil, "exit code 3").await
}

#[tokio::test]
async fn a_version_that_is_never_ready_is_rolled_back() -> Result<()> {
    let spoil = |app: &mut Value| {
        app["services"][0]["readinessProbe"]["httpGet"]["path"] = json!("/nothing");
    };
    is_rolled_back("never-ready", spoil, "not ready").await
}

#[tokio::test]
async fn a_version_no_machine_has_room_for_is_rolled_back_in_the_schedulers_words() -> Result<()> {
    let spoil = |app: &mut Value| {
        app["services"][0]["resources"] = json!({"requests": {"memory": "900Gi"}});
    };
    is_rolled_back("too-large", spoil, "Insufficient memory").await
}

#[tokio::test]
async fn a_first_version_that_fails_is_told_and_stops_nobody() -> Result<()> {
    let node = Node::shared().await?;
    let bad = node.create(&busybox(&node, "born-bad", "exit 7")).await?;
    let good = node.run(&web(&node, "born-good", "good")).await?;
    let failed = node.until_failed(&bad, "exit code 7").await?;
    ensure!(failed["phase"] == "Failed", "{failed}");
    // The mended one is taken.
    let mut mended = bad;
    mended["services"][0]["args"] = json!([IDLE]);
    let mended = node.change(&mended).await?;
    node.until_running(&mended).await?;
    node.until_running(&good).await?;
    node.delete("born-bad").await?;
    node.delete("born-good").await
}

#[tokio::test]
async fn what_is_out_of_memory_says_so() -> Result<()> {
    let node = Node::shared().await?;
    let script = "busybox tail /dev/zero";
    let mut app = busybox(&node, "hungry", script);
    app["services"][0]["resources"] = json!({"limits": {"memory": "8Mi"}});
    let app = node.create(&app).await?;
    node.until_failed(&app, "OOMKilled").await?;
    node.delete("hungry").await
}

#[tokio::test]
async fn old_pods_serve_until_the_new_ones_are_ready_and_nothing_is_lost() -> Result<()> {
    let node = Node::shared().await?;
    let mut app = web(&node, "steady", "round");
    // As a server does that loses nothing: it goes on for the moment until its Service no longer sends anybody to it.
    let script = app["services"][0]["args"][0].as_str().context("a script")?;
    let lingers = script.replace("'exit 0' TERM", "'busybox sleep 3; exit 0' TERM");
    ensure!(lingers != script, "{script}");
    app["services"][0]["args"] = json!([lingers]);
    let mut app = node.run(&app).await?;
    node.until_page("steady", "round").await?;
    for round in ["1", "2"] {
        set_env(&mut app, "ROUND", round);
        app = node.change(&app).await?;
        let version = app["version"].as_str().context("a version")?.to_owned();
        loop {
            ensure!(node.page("steady", "/").await?.trim() == "round");
            let told = node.app("steady").await?;
            if told["version"] == version && told["phase"] == "Healthy" {
                break;
            }
        }
    }
    node.delete("steady").await
}
