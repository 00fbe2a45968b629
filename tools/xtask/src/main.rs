//! Development commands of the workspace: `cargo xtask help` lists them.
#![allow(
    clippy::print_stdout,
    reason = "a command line program talks to its user"
)]

mod ci;
mod codegen;
mod contracts;
mod tidy;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development commands of the workspace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the main job on this machine: a cloud, an edge node, applications, functions, faults.
    Demo {
        /// Asserts every step, needs no terminal, and exits.
        #[arg(long)]
        check: bool,
    },
    /// Runs all tests that need nothing but this machine; says what it skipped and why.
    Test,
    /// Measures speed and size with release builds; prints a table and JSON.
    Bench {
        /// What to measure, e.g. `idle`, `function`; nothing = everything.
        what: Vec<String>,
    },
    /// Everything continuous integration checks.
    Ci,
    /// Generates Rust code from the contracts in `proto/`.
    Codegen {
        /// Only says whether the checked-in code is up to date.
        #[arg(long)]
        check: bool,
    },
    /// Lints the contracts and refuses breaking changes against the baseline.
    Contracts {
        /// Writes the baseline anew when nothing broke.
        #[arg(long)]
        accept: bool,
    },
    /// Checks crate directions, orphan files, cited paths, licences and lengths.
    Tidy,
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where continuous integration puts grpcurl when the machine has none.
pub(crate) fn grpcurl() -> PathBuf {
    root().join("target/tools/grpcurl")
}

/// Builds the programs and runs the demo.
///
/// # Errors
/// When something does not build or, with `check`, a step is not as told.
pub(crate) fn demo(check: bool) -> Result<()> {
    println!("building the programs (the first time takes some minutes)");
    ci::build_programs()?;
    let mut args = vec![
        "run",
        "--quiet",
        "--package",
        "baetyl-tests",
        "--bin",
        "baetyl-demo",
        "--features",
    ];
    args.extend([ci::TEST_FEATURES, "--"]);
    if check {
        args.push("--check");
    }
    ci::sh("cargo", &args, &[])
}

fn bench(what: &[String]) -> Result<()> {
    ci::sh(
        "cargo",
        &["build", "--release", "--workspace", "--bins", "--locked"],
        &[],
    )?;
    let mut args = vec![
        "run",
        "--quiet",
        "--release",
        "--package",
        "baetyl-bench",
        "--",
    ];
    args.extend(what.iter().map(String::as_str));
    ci::sh("cargo", &args, &[])
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Demo { check } => demo(check),
        Command::Test => ci::test(false),
        Command::Bench { what } => bench(&what),
        Command::Ci => ci::run(),
        Command::Codegen { check } => codegen::run(check),
        Command::Contracts { accept } => contracts::run(accept),
        Command::Tidy => tidy::run(),
    }
}
