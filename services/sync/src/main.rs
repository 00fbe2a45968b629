//! `baetyl-sync`: the link of an edge node to its cloud and the content store.

use std::process::ExitCode;

use baetyl_kit::cli::{Command, Service};
use baetyl_sync::hostdir::{self, StageArgs};
use clap::{CommandFactory as _, Parser};

#[derive(Parser)]
#[command(
    name = "baetyl-sync",
    version,
    about = "The link of an edge node to its cloud and the content store"
)]
enum Cli {
    #[command(flatten)]
    Service(Command),
    /// In a Pod: make the directory of a configuration with objects on the machine of the Pod
    Stage(StageArgs),
}

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::Service(command) => {
            Service::new("baetyl-sync").execute(command, Cli::command(), baetyl_sync::run)
        }
        Cli::Stage(args) => hostdir::main(&args),
    }
}
