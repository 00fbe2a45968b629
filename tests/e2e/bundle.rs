//! A bundle: what a cluster without a network needs to become a node, in one file.

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::wait::until_within;
use serde_json::Value;

use crate::cluster::Bed;
use crate::node::{CORE_IMAGES, NODE, Node, PATIENCE, SYSTEM, USERS, VERSION};

#[tokio::test]
async fn a_bundle_makes_a_node_without_a_registry() -> Result<()> {
    let node = Node::alone().await?;
    let Some(bed) = node.cluster.bed() else {
        return Ok(());
    };
    make_bundle(&node, bed).await?;
    take_away(&node).await?;
    bed.kill_component("registry").await?;
    let outcome = install_from_bundle(&node, bed).await;
    bed.start_component("registry").await?;
    // Others go on with this node.
    if outcome.is_err() {
        node.install(&[]).await?;
    }
    outcome?;
    node.until_online().await
}

/// Makes `shop.tar` and looks what is in it.
async fn make_bundle(node: &Node, bed: &Bed) -> Result<()> {
    let registry = node.cluster.registry()?;
    let names = CORE_IMAGES.map(|image| format!("{registry}/baetyl/{image}:{VERSION}"));
    let all = node.file("images.tar", "")?.display().to_string();
    let mut export = vec!["images", "export", &all];
    export.extend(names.iter().map(String::as_str));
    bed.ctr(&export).await?;
    let printed = node
        .shell(&format!(
            "baetylctl node bundle {NODE} --images images.tar -o shop.tar; stat -c %a shop.tar; tar -tf shop.tar"
        ))
        .await?;
    let lines: Vec<&str> = printed.lines().collect();
    let [told, mode, files @ ..] = lines.as_slice() else {
        anyhow::bail!("{printed}");
    };
    ensure!(told.contains("its token is good until"), "{told}");
    ensure!(*mode == "600", "everybody may read the token: {mode}");
    let wanted = [
        "README.txt",
        "install.sh",
        "manifests.yaml",
        "ca.pem",
        "token",
        "images/00-images.tar",
    ];
    let wanted = wanted.map(|file| format!("baetyl-{NODE}/{file}"));
    ensure!(*files == wanted, "{files:?}");
    Ok(())
}

async fn take_away(node: &Node) -> Result<()> {
    node.ctl(&["node", "uninstall", NODE, "--yes"]).await?;
    let all = node.cluster.objects();
    until_within(PATIENCE, "the node is taken away", || async {
        for namespace in [SYSTEM, USERS] {
            let left = all.get::<Value>("namespace", namespace).await;
            ensure!(left.is_err(), "{namespace} is there");
        }
        Ok(())
    })
    .await?;
    Ok(())
}

async fn install_from_bundle(node: &Node, bed: &Bed) -> Result<()> {
    let is_ours = |name: &&str| CORE_IMAGES.iter().any(|image| name.contains(image));
    let there = bed.ctr(&["images", "ls", "-q"]).await?;
    let there: Vec<&str> = there.lines().filter(is_ours).collect();
    bed.ctr(&[&["images", "rm", "--sync"], there.as_slice()].concat())
        .await?;
    // That of the machine.
    let ctr = format!(
        "#!/bin/sh\nexec {} env PATH=/usr/local/bin:/usr/bin:/bin ctr \"$@\"\n",
        bed.path("in").display()
    );
    node.file("bin/ctr", &ctr)?;
    let told = node
        .shell(&format!(
            "chmod +x bin/ctr; PATH=$PWD/bin:$PATH; tar -xf shop.tar; cd baetyl-{NODE}; sh install.sh --bundle . --timeout 180"
        ))
        .await?;
    ensure!(told.contains("importing 00-images.tar"), "{told}");
    let installed = format!("node default/{NODE} is installed");
    ensure!(told.contains(&installed), "{told}");
    node.until_core_is_ready().await.context("the core")?;
    node.until_online().await
}
