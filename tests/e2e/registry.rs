//! Images of registries that want credentials, and images that cannot run here.

use anyhow::Result;
use serde_json::json;

use crate::node::{IDLE, Node, busybox};

#[tokio::test]
async fn an_image_behind_credentials_is_pulled_with_those_of_the_application() -> Result<()> {
    let node = Node::shared().await?;
    let Some(bed) = node.cluster.bed() else {
        return Ok(());
    };
    bed.push(&bed.path("images/box"), "closed/box:1").await?;
    let (server, credentials) = bed.closed_registry()?;
    let mut app = busybox(&node, "closed", IDLE);
    app["services"][0]["image"] = json!(format!("{server}/closed/box:1"));
    let without = node.create(&app).await?;
    node.until_failed(&without, "401 Unauthorized").await?;
    let registry = json!({
        "name": "e2e-closed", "address": server,
        "username": credentials.user, "password": credentials.password,
    });
    node.rest.post("/v1/registries", &registry).await?;
    app["registries"] = json!([{"name": "e2e-closed"}]);
    app["version"] = without["version"].clone();
    let with = node.change(&app).await?;
    node.until_running(&with).await?;
    node.delete("closed").await
}
