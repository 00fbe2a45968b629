//! Simulated nodes: creates them in a cloud, activates each with a key of its own, keeps their links open, and tells
//! how long changes take to reach all of them. Prints one JSON object.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks to its user"
)]

mod cloud;
mod node;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use cloud::Cloud;
use node::Counters;

#[derive(Parser)]
#[command(about = "Simulated nodes of a Baetyl cloud, many links from one process")]
struct Args {
    /// REST address of the cloud, http://host:port.
    #[arg(long)]
    server: String,
    /// File with an API token.
    #[arg(long)]
    token_file: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// How many changes to measure.
    #[arg(long, default_value_t = 5)]
    changes: usize,
    /// Process whose memory is told once all links are up.
    #[arg(long)]
    report_pid: Option<u32>,
    /// Seconds to keep the links open afterwards.
    #[arg(long, default_value_t = 0)]
    hold: u64,
}

const PATIENCE: Duration = Duration::from_secs(300);
/// Activations at the same time.
const PARALLEL: usize = 16;

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("baetyl-fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    raise_file_limit(args.nodes);
    let token = std::fs::read_to_string(&args.token_file).context("cannot read the token file")?;
    let cloud = Arc::new(Cloud::new(&args.server, token.trim()));
    let counters = Arc::new(Counters::default());
    let (wish, wished) = watch::channel(String::new());
    let start = Instant::now();
    let identities = enrol(&cloud, args.nodes).await?;
    let enrolled = start.elapsed();
    let mut links = JoinSet::new();
    for identity in identities {
        links.spawn(node::live(identity, Arc::clone(&counters), wished.clone()));
    }
    until(&mut links, || {
        counters.online.load(Ordering::Relaxed) >= args.nodes
    })
    .await
    .context("links")?;
    let online = start.elapsed();
    let pss = args.report_pid.map(pss_kib).transpose()?;
    let mut changes = Vec::new();
    for change in 0..args.changes {
        counters.reached.store(0, Ordering::Relaxed);
        let start = Instant::now();
        let version = cloud.change(change).await?;
        wish.send_replace(version);
        until(&mut links, || {
            counters.reached.load(Ordering::Relaxed) >= args.nodes
        })
        .await
        .context("change")?;
        changes.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let told = json!({
        "nodes": args.nodes,
        "enrolledMs": enrolled.as_secs_f64() * 1000.0,
        "onlineMs": online.as_secs_f64() * 1000.0,
        "changeMs": changes,
        "pssKib": pss,
    });
    println!("{told}");
    tokio::time::sleep(Duration::from_secs(args.hold)).await;
    Ok(())
}

/// Creates and activates all nodes, some at a time.
async fn enrol(cloud: &Arc<Cloud>, count: usize) -> Result<Vec<node::Identity>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..PARALLEL {
        let (cloud, next) = (Arc::clone(cloud), Arc::clone(&next));
        workers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<_, anyhow::Error>(done);
                }
                done.push(node::enrol(&cloud, &format!("fleet-{number:05}")).await?);
            }
        });
    }
    let mut all = Vec::new();
    while let Some(done) = workers.join_next().await {
        all.extend(done??);
    }
    Ok(all)
}

/// Waits for a condition; a link that ends is an error.
async fn until(links: &mut JoinSet<Result<()>>, reached: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !reached() {
        if let Some(ended) = links.try_join_next() {
            ended??;
            bail!("a link ended");
        }
        if start.elapsed() > PATIENCE {
            bail!("not all nodes were reached within {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn raise_file_limit(nodes: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(nodes).unwrap_or(u64::MAX).saturating_add(256);
    let allowed = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limit.current.is_some_and(|current| current < allowed) {
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(allowed),
                maximum: limit.maximum,
            },
        );
    }
}

fn pss_kib(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
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
