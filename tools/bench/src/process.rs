//! What the kernel says of a process.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Proportional set size in KiB: its own pages, and its share of those it shares.
pub(crate) fn pss_kib(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .context("no Pss")?;
    Ok(line
        .split_whitespace()
        .next()
        .context("no number")?
        .parse()?)
}

/// CPU seconds used so far.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("no stat")?
        .1
        .split_whitespace()
        .collect();
    let ticks = |i: usize| {
        fields
            .get(i)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    // Fields 14 and 15 (utime, stime), counted from the one after the name; 100 ticks a second on Linux.
    Ok((ticks(11) + ticks(12)) / 100.0)
}

/// Parent, and process ids of the children of `pid`.
pub(crate) fn parent(pid: u32) -> Result<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("no stat")?
        .1
        .split_whitespace()
        .collect();
    Ok(fields.get(1).context("no parent")?.parse()?)
}

/// CPU use of a process over some time, as a share of one core.
pub(crate) async fn cpu_share(pids: &[u32], time: Duration) -> Result<f64> {
    let sum = || {
        pids.iter()
            .map(|pid| cpu_seconds(*pid))
            .sum::<Result<f64>>()
    };
    let (before, start) = (sum()?, Instant::now());
    tokio::time::sleep(time).await;
    Ok((sum()? - before) / start.elapsed().as_secs_f64())
}
