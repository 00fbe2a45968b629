//! A cloud with many simulated links.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::world::{Cloud, program};
use serde_json::Value;

use crate::process::pss_kib;
use crate::{Figure, figure, median};

#[expect(clippy::cast_precision_loss, reason = "a number of nodes")]
pub(crate) async fn measure(nodes: usize) -> Result<Vec<Figure>> {
    let dir = tempfile::Builder::new().prefix("bb-").tempdir()?;
    let cloud = Cloud::start(&dir.path().join("cloud")).await?;
    let pid = cloud.pid().context("the cloud does not run")?;
    let before = pss_kib(pid)?;
    let (address, token) = (cloud.address(), cloud.token_file());
    let count = nodes.to_string();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(program("baetyl-fleet")?)
            .args([
                "--server",
                &address,
                "--nodes",
                &count,
                "--changes",
                "5",
                "--report-pid",
                &pid.to_string(),
            ])
            .arg("--token-file")
            .arg(token)
            .output()
            .context("cannot start baetyl-fleet")
    })
    .await??;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let told: Value =
        serde_json::from_slice(&output.stdout).context("baetyl-fleet did not answer with JSON")?;
    let mut spread: Vec<f64> = told["changeMs"]
        .as_array()
        .context("no changes")?
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    let after = told["pssKib"].as_f64().context("no memory")?;
    let ready = told["onlineMs"]
        .as_f64()
        .map(|ms| Duration::from_secs_f64(ms / 1000.0))
        .unwrap_or_default();
    Ok(vec![
        figure(
            format!("cloud: {nodes} nodes created, activated and online"),
            ready.as_secs_f64(),
            "s",
            "",
        ),
        figure(
            "cloud: memory per link",
            (after - before) / nodes as f64,
            "KiB",
            "",
        ),
        figure(
            format!("cloud: one change at {nodes} nodes"),
            median(&mut spread),
            "ms",
            "",
        ),
    ])
}
