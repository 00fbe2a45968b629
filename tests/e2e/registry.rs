//! Images of registries that want credentials, and images that cannot run here.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use baetyl_kit::crypto;
use baetyl_model::Digest;
use serde_json::{Value, json};

use crate::node::{IDLE, Node, busybox};

#[tokio::test]
async fn an_image_behind_credentials_is_pulled_with_those_of_the_application() -> Result<()> {
    let node = Node::shared().await?;
    let Some(bed) = node.cluster.bed() else {
        return Ok(());
    };
    bed.push(&bed.path("images/box"), "guarded/box:1").await?;
    let (server, credentials) = bed.closed_registry()?;
    let mut app = busybox(&node, "closed", IDLE);
    app["services"][0]["image"] = json!(format!("{server}/guarded/box:1"));
    let without = node.create(&app).await?;
    node.until_failed(&without, "401 Unauthorized").await?;
    let registry = json!({
        "name": "e2e-closed", "address": server,
        "username": credentials.user, "password": credentials.password,
    });
    node.make("registries", &registry).await?;
    app["registries"] = json!([{"name": "e2e-closed"}]);
    app["version"] = without["version"].clone();
    let with = node.change(&app).await?;
    node.until_running(&with).await?;
    node.delete("closed").await
}

/// A copy of an OCI layout with one image, as an index that has it for another architecture only.
fn of_another_architecture(layout: &Path, copy: &Path) -> Result<()> {
    let status = std::process::Command::new("cp")
        .args(["-r", "--"])
        .args([layout, copy])
        .status()?;
    ensure!(status.success(), "cp: {status}");
    let read =
        |path: PathBuf| -> Result<Value> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
    let blobs = copy.join("blobs/sha256");
    let blob = |descriptor: &Value| -> Result<Value> {
        let digest = descriptor["digest"].as_str().context("a digest")?;
        read(blobs.join(digest.trim_start_matches("sha256:")))
    };
    let write = |content: &Value, descriptor: &mut Value| -> Result<()> {
        let bytes = content.to_string();
        let digest = Digest::from_sha256(crypto::sha256(bytes.as_bytes()));
        std::fs::write(blobs.join(digest.hex()), &bytes)?;
        descriptor["size"] = json!(bytes.len());
        descriptor["digest"] = json!(digest.to_string());
        Ok(())
    };
    let mut layout = read(copy.join("index.json"))?;
    let mut manifest = blob(&layout["manifests"][0])?;
    let mut config = blob(&manifest["config"])?;
    config["architecture"] = json!("s390x");
    write(&config, &mut manifest["config"])?;
    let mut of_manifest = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "platform": {"architecture": "s390x", "os": "linux"},
    });
    write(&manifest, &mut of_manifest)?;
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [of_manifest]});
    layout["manifests"][0]["mediaType"] = json!(kind);
    write(&index, &mut layout["manifests"][0])?;
    std::fs::write(copy.join("index.json"), layout.to_string())?;
    Ok(())
}

#[tokio::test]
async fn an_image_for_another_architecture_is_a_failure_that_says_so() -> Result<()> {
    let node = Node::shared().await?;
    let Some(bed) = node.cluster.bed() else {
        return Ok(());
    };
    let copies = tempfile::tempdir()?;
    let copy = copies.path().join("box");
    of_another_architecture(&bed.path("images/box"), &copy)?;
    bed.push(&copy, "foreign/box:s390x").await?;
    let mut app = busybox(&node, "foreign", IDLE);
    app["services"][0]["image"] = json!(format!("{}/foreign/box:s390x", node.cluster.registry()?));
    let app = node.create(&app).await?;
    node.until_failed(&app, "no match for platform").await?;
    node.delete("foreign").await
}
