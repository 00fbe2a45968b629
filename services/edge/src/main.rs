//! `baetyl-edge`: all edge roles in one process, or a supervisor of the separate programs.

use std::process::ExitCode;

use baetyl_kit::RunArgs;
use baetyl_kit::cli::Service;
use clap::Parser;

#[derive(Parser)]
#[command(
    name = "baetyl-edge",
    version,
    about = "All edge roles in one process, or a supervisor of the separate programs"
)]
enum Cli {
    /// Run node, sync, engine and function-proxy in this process
    Run(RunArgs),
    /// Start the separate programs and keep them running
    Supervise(RunArgs),
}

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::Run(args) => Service::new("baetyl-edge").run(&args, baetyl_edge::run),
        Cli::Supervise(args) => {
            Service::new("baetyl-supervise").run(&args, baetyl_edge::supervise::run)
        }
    }
}
