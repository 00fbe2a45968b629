//! Development commands of the workspace: `cargo xtask help` lists them.
#![allow(clippy::print_stdout, reason = "a command line program talks to its user")]

mod codegen;

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
    /// Generates Rust code from the contracts in `proto/`.
    Codegen {
        /// Only says whether the checked-in code is up to date.
        #[arg(long)]
        check: bool,
    },
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Codegen { check } => codegen::run(check),
    }
}
