//! Core services that believe in a wrong date: 1970, and five years ahead. Only their own clock is moved (feature
//! `test-clock` of the images); that of the machine is the kubelet's and the API server's, too.

use anyhow::{Context as _, Result, ensure};
use baetyl_model::jiff::Timestamp;
use serde_json::Value;

use crate::node::{CORE, Node, SYSTEM, set_env, web};

const OFFSET: &str = "BAETYL_TEST_CLOCK_OFFSET_SECONDS";
const FIVE_YEARS: i64 = 5 * 365 * 24 * 3600;

impl Node {
    /// Starts the core services anew with this in their environment.
    async fn restart_core_with(&self, setting: &str) -> Result<()> {
        let deployments = CORE.map(|name| format!("deployment/{name}"));
        let mut args = vec!["-n", SYSTEM, "set", "env"];
        args.extend(deployments.iter().map(String::as_str));
        args.push(setting);
        self.cluster.kubectl().run(&args).await?;
        self.until_core_is_ready().await
    }
}

/// What the application's state says of when it changed is off by this much: the node's clock was really moved.
async fn tells_times_off_by(node: &Node, offset: i64) -> Result<()> {
    let told = node.app("timeless").await?;
    let conditions = told["conditions"].as_array().context("no conditions")?;
    let times = conditions
        .iter()
        .filter_map(|condition| condition["lastTransitionTime"].as_str()?.parse().ok());
    let off = |time: Timestamp| time.as_second() - Timestamp::now().as_second() - offset;
    ensure!(times.map(off).any(|off| off.abs() < 600), "{told}");
    Ok(())
}

async fn at_another_time(node: &Node, app: &mut Value, offset: i64) -> Result<()> {
    let before = node.lives("timeless").await?;
    node.restart_core_with(&format!("{OFFSET}={offset}"))
        .await?;
    node.until_online().await?;
    node.until_running(app).await?;
    ensure!(node.lives("timeless").await? == before, "it was restarted");
    set_env(app, "OFFSET", &offset.to_string());
    *app = node.change(app).await?;
    node.until_running(app).await?;
    tells_times_off_by(node, offset).await
}

#[tokio::test]
async fn whatever_date_the_core_believes_in_applications_run_and_the_cloud_is_reached() -> Result<()>
{
    let node = Node::alone().await?;
    if node.cluster.bed().is_none() {
        return Ok(());
    }
    let mut app = node.run(&web(&node, "timeless", "timeless")).await?;
    for offset in [-Timestamp::now().as_second(), FIVE_YEARS] {
        let tried = at_another_time(&node, &mut app, offset).await;
        node.restart_core_with(&format!("{OFFSET}-")).await?;
        tried.with_context(|| format!("{offset} seconds"))?;
        node.until_online().await?;
    }
    node.delete("timeless").await
}
