//! A cloud with many simulated links.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::world::{Cloud, program};
use serde_json::Value;
use tokio::process::Command;

use crate::idle::sampled;
use crate::{Effort, Figure, figure, median};

/// What one round told.
struct Round {
    online_s: f64,
    memory_kib: f64,
    changes_ms: Vec<f64>,
}

pub(crate) async fn measure(nodes: usize, effort: Effort) -> Result<Vec<Figure>> {
    let (mut online, mut memory, mut changes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let round = round(nodes, effort).await?;
        online.push(round.online_s);
        memory.push(round.memory_kib);
        changes.extend(round.changes_ms);
    }
    Ok(vec![
        figure(
            format!("cloud: {nodes} nodes created, activated and online"),
            median(&mut online),
            "s",
            "",
        ),
        figure(
            format!("cloud: memory per link, at {nodes} nodes"),
            median(&mut memory),
            "KiB",
            "",
        ),
        figure(
            format!("cloud: one change at {nodes} nodes"),
            median(&mut changes),
            "ms",
            "",
        ),
    ])
}

/// A cloud on an empty directory, and a fleet.
#[expect(clippy::cast_precision_loss, reason = "a number of nodes")]
async fn round(nodes: usize, effort: Effort) -> Result<Round> {
    let dir = tempfile::Builder::new().prefix("bb-").tempdir()?;
    let cloud = Cloud::start(&dir.path().join("cloud")).await?;
    let pid = cloud.pid().context("the cloud does not run")?;
    let before = sampled(pid, effort).await?;
    let output = Command::new(program("baetyl-fleet")?)
        .args(["--server", &cloud.address()])
        .args(["--nodes", &nodes.to_string()])
        .args(["--changes", &effort.changes.to_string()])
        .args(["--report-pid", &pid.to_string()])
        .arg("--token-file")
        .arg(cloud.token_file())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot start baetyl-fleet")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let told: Value =
        serde_json::from_slice(&output.stdout).context("baetyl-fleet did not answer with JSON")?;
    let number = |key: &str| {
        told[key]
            .as_f64()
            .with_context(|| format!("baetyl-fleet told no {key}"))
    };
    let changes = told["changeMs"].as_array().context("no changes")?;
    Ok(Round {
        online_s: number("onlineMs")? / 1000.0,
        memory_kib: (number("pssKib")? - before * 1024.0) / nodes as f64,
        changes_ms: changes.iter().filter_map(Value::as_f64).collect(),
    })
}
