//! Measures speed and size: `cargo xtask bench [what …] [--nodes N]`. Prints a table and, at the end, the same as JSON.
//!
//! Every figure (but the sizes of the programs) is the median of repeated runs on this machine; nothing is asserted.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks to its user"
)]

mod change;
mod function;
mod idle;
mod links;
mod process;
mod size;
mod start;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "Measures speed and size of the release programs")]
struct Args {
    /// What to measure: size, idle, start, change, function, links; nothing = everything.
    what: Vec<String>,
    /// Simulated nodes of `links`.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// One short round of everything: shows that it works, its figures mean nothing.
    #[arg(long, hide = true)]
    quick: bool,
}

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Fresh nodes or clouds a figure comes from.
    rounds: usize,
    /// Starts of one program.
    starts: usize,
    /// Changes of an application.
    changes: usize,
    /// Samples of the memory of a process.
    samples: u32,
    /// After that a node has nothing more to do.
    settle: Duration,
    /// How long an idle node is watched.
    watch: Duration,
    /// How long functions are called, in each round.
    load: Duration,
}

impl Effort {
    const FULL: Self = Self {
        rounds: 3,
        starts: 5,
        changes: 11,
        samples: 10,
        settle: Duration::from_secs(20),
        watch: Duration::from_secs(30),
        load: Duration::from_secs(4),
    };
    const QUICK: Self = Self {
        rounds: 1,
        starts: 1,
        changes: 2,
        samples: 2,
        settle: Duration::from_secs(1),
        watch: Duration::from_secs(1),
        load: Duration::from_millis(300),
    };
}

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    name: String,
    /// The median.
    value: f64,
    unit: &'static str,
    /// What is aimed at, in words; empty without an aim.
    aim: &'static str,
}

/// A figure.
pub(crate) fn figure(
    name: impl Into<String>,
    value: f64,
    unit: &'static str,
    aim: &'static str,
) -> Figure {
    Figure {
        name: name.into(),
        value,
        unit,
        aim,
    }
}

/// The middle of some values.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}

/// The value below which `share` percent of the values lie.
pub(crate) fn percentile(values: &mut [f64], share: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() * share / 100).min(values.len().saturating_sub(1));
    values.get(index).copied().unwrap_or(f64::NAN)
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // Whatever ends the measurement, dropping it ends the processes it started and removes its directories.
    let ended = tokio::select! {
        ended = run(&args) => ended,
        signal = interrupted() => signal.and_then(|()| bail!("interrupted")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the measurement failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// SIGINT or SIGTERM.
async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

type Measurement = Pin<Box<dyn Future<Output = Result<Vec<Figure>>>>>;

async fn run(args: &Args) -> Result<()> {
    let effort = if args.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let all: [(&str, Measurement); 6] = [
        ("size", Box::pin(async { size::measure() })),
        ("idle", Box::pin(idle::measure(effort))),
        ("start", Box::pin(start::measure(effort))),
        ("change", Box::pin(change::measure(effort))),
        ("function", Box::pin(function::measure(effort))),
        ("links", Box::pin(links::measure(args.nodes, effort))),
    ];
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = args
        .what
        .iter()
        .find(|what| !names.contains(&what.as_str()))
    {
        bail!("{unknown:?} is not measured; choose from {names:?}");
    }
    let mut figures = Vec::new();
    for (name, measurement) in all {
        if !args.what.is_empty() && !args.what.iter().any(|what| what == name) {
            continue;
        }
        println!("\n{name}");
        let measured = measurement.await?;
        for figure in &measured {
            println!(
                "  {:<64} {:>12.2} {:<8} {}",
                figure.name, figure.value, figure.unit, figure.aim
            );
        }
        figures.extend(measured);
    }
    println!("\n{}", serde_json::to_string(&figures)?);
    Ok(())
}
