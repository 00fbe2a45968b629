//! Measures speed and size: `cargo xtask bench [what …]`. Prints a table and, at the end, the same as JSON.
//!
//! Every figure is the median of repeated runs on this machine; nothing is asserted.
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

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use serde::Serialize;

#[derive(Parser)]
#[command(about = "Measures speed and size of the release programs")]
struct Args {
    /// What to measure: size, idle, change, function, links; nothing = everything.
    what: Vec<String>,
    /// Simulated nodes of `links`.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
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
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the measurement failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

type Measurement = Pin<Box<dyn Future<Output = Result<Vec<Figure>>>>>;

async fn run(args: &Args) -> Result<()> {
    let all: [(&str, Measurement); 5] = [
        ("size", Box::pin(async { size::measure() })),
        ("idle", Box::pin(idle::measure())),
        ("change", Box::pin(change::measure())),
        ("function", Box::pin(function::measure())),
        ("links", Box::pin(links::measure(args.nodes))),
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
