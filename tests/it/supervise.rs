//! `baetyl-edge supervise`: the separate programs without a service manager.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::wait::until;
use baetyl_tests::world::Process;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn start(dir: &Path) -> Result<Process> {
    let env = ["HTTP", "GRPC"].map(|name| {
        (
            format!("BAETYL_FUNCTION_PROXY__{name}__LISTEN"),
            "127.0.0.1:0".to_owned(),
        )
    });
    let text = dir.display().to_string();
    Process::start(
        "baetyl-edge",
        &["supervise", "--data-dir", &text],
        &env,
        &dir.join("supervise.log"),
    )
}

/// Process ids as the supervisor wrote them down, once all four run.
async fn pids(dir: &Path) -> Result<BTreeMap<String, u64>> {
    let (pids, _) = until("all four programs run", || async {
        let text = std::fs::read_to_string(dir.join("run/supervise.json"))?;
        let marks: BTreeMap<String, Value> = serde_json::from_str(&text)?;
        let pids: BTreeMap<String, u64> = marks
            .into_iter()
            .filter_map(|(name, mark)| Some((name, mark["pid"].as_u64()?)))
            .collect();
        ensure!(pids.len() == 4, "{pids:?}");
        Ok(pids)
    })
    .await?;
    Ok(pids)
}

fn kill(pid: u64, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")?;
    Ok(kill_process(pid, signal)?)
}

fn lives(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn a_killed_program_is_started_again_and_a_killed_supervisor_leaves_no_second_set()
-> Result<()> {
    let dir = tempfile::Builder::new().prefix("bt-").tempdir()?;
    let mut supervisor = start(dir.path())?;
    let first = pids(dir.path()).await?;
    kill(*first.get("baetyl-node").context("no node")?, Signal::KILL)?;
    let (second, _) = until("node runs again", || async {
        let now = pids(dir.path()).await?;
        ensure!(
            now.get("baetyl-node") != first.get("baetyl-node"),
            "the same process"
        );
        Ok(now)
    })
    .await?;
    for (program, pid) in &first {
        ensure!(
            program == "baetyl-node" || second.get(program) == Some(pid),
            "{program} was restarted too"
        );
    }
    supervisor.kill()?;
    let mut supervisor = start(dir.path())?;
    let (third, _) = until("a new set runs", || async {
        let now = pids(dir.path()).await?;
        ensure!(
            now.values()
                .all(|pid| !second.values().any(|old| old == pid)),
            "an old process"
        );
        Ok(now)
    })
    .await?;
    ensure!(
        second.values().all(|pid| !lives(*pid)),
        "a process of the first set still runs"
    );
    supervisor.stop().await?;
    ensure!(
        third.values().all(|pid| !lives(*pid)),
        "a process outlived its supervisor"
    );
    Ok(())
}
