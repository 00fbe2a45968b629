//! Installing once more, taking the node away, and installing anew.

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::wait::until_within;
use serde_json::Value;

use crate::node::{CORE, NODE, Node, PATIENCE, SYSTEM, USERS, web};

#[tokio::test]
async fn installing_again_changes_nothing() -> Result<()> {
    let node = Node::alone().await?;
    let objects = || async {
        let kinds = "deployments,jobs,services,configmaps,roles,rolebindings,networkpolicies,persistentvolumeclaims";
        let all: Vec<Value> = node
            .system()
            .list(kinds, "app.kubernetes.io/part-of=baetyl")
            .await?;
        let version = |object: &Value| {
            let meta = &object["metadata"];
            (
                object["kind"].to_string(),
                meta["name"].to_string(),
                meta["generation"].to_string(),
                meta["uid"].to_string(),
            )
        };
        anyhow::Ok(all.iter().map(version).collect::<Vec<_>>())
    };
    let before = objects().await?;
    let told = node.install(&[]).await?;
    ensure!(
        told.contains(&format!("node default/{NODE} is installed")),
        "{told}"
    );
    let after = objects().await?;
    ensure!(before == after, "{before:?}\n{after:?}");
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_is_a_node_is_not_made_another() -> Result<()> {
    let node = Node::shared().await?;
    let other = serde_json::json!({"name": "shop-9", "nodeMode": "kube"});
    node.rest
        .json(http::Method::POST, "/v1/nodes", &other)
        .await?;
    let command = node.ctl(&["node", "install-command", "shop-9"]).await?;
    let refused = node.run_install(command.trim(), &[]).await;
    let error = refused
        .err()
        .context("it was made another node")?
        .to_string();
    ensure!(
        error.contains(&format!("this cluster is the node default/{NODE}")),
        "{error}"
    );
    ensure!(error.contains("nothing was changed"), "{error}");
    Ok(())
}

const TUTORIAL: &str = include_str!("../../docs/tutorials/k3s-node.md");

/// The commands of the tutorial, block by block.
fn commands_of_the_tutorial() -> Vec<String> {
    let blocks = TUTORIAL.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| Some(rest.split_once("```")?.0.to_owned()));
    blocks.collect()
}

#[tokio::test]
async fn a_node_that_is_taken_away_leaves_nothing_and_the_tutorial_makes_another() -> Result<()> {
    let node = Node::alone().await?;
    let app = node.run(&web(&node, "traveller", "here")).await?;
    node.ctl(&["node", "uninstall", NODE, "--yes"]).await?;
    let all = node.cluster.objects();
    until_within(PATIENCE, "nothing is left", || async {
        let part = "app.kubernetes.io/part-of=baetyl";
        let kinds =
            "clusterroles,clusterrolebindings,persistentvolumes,priorityclasses,storageclasses";
        let mut left = all.names(kinds, part).await?;
        // The cloud's volume is not the node's.
        left.retain(|name| !name.contains("cloud"));
        for namespace in [SYSTEM, USERS] {
            left.extend(
                all.get::<Value>("namespace", namespace)
                    .await
                    .ok()
                    .map(|_| namespace.to_owned()),
            );
        }
        left.extend(all.names("nodes", "baetyl.io/core").await?);
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    if let Some(bed) = node.cluster.bed_if_any() {
        let left: Vec<_> = std::fs::read_dir(bed.path("lib"))?.collect::<Result<_, _>>()?;
        ensure!(left.is_empty(), "{left:?}");
    }
    let image = format!("{}/box:1", node.cluster.registry()?);
    let commands = commands_of_the_tutorial();
    ensure!(commands.len() >= 8, "{} blocks", commands.len());
    for command in commands {
        // The same program, where this cluster has it.
        let command = command.replace("docker.io/library/busybox:1.37", &image);
        let told = node.shell(&command).await.context(command.clone())?;
        println!("{command}\n{told}");
    }
    let described = node.rest.get("/v1/nodes/box-1").await?;
    ensure!(described["name"] == "box-1", "{described}");
    let told = node.install(&[]).await?;
    ensure!(told.contains("is installed"), "{told}");
    for name in CORE {
        node.system().wait_for_deployment(name).await?;
    }
    node.until_running(&app).await?;
    node.delete("traveller").await
}
