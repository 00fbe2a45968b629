//! `baetyl-init`: activates an edge node.

use std::path::PathBuf;
use std::process::ExitCode;

use baetyl_kit::cli::Service;
use clap::{Args, Parser};

#[derive(Parser)]
#[command(
    name = "baetyl-init",
    version,
    about = "Activates an edge node and hands its identity to sync"
)]
enum Cli {
    /// Activate if needed, wait until the core services are ready, exit
    Run(Run),
    /// Removes what an edge node kept in a directory of a machine: the last step of an uninstallation
    Purge {
        /// The directory; it goes with everything in it.
        dir: PathBuf,
    },
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    shell: baetyl_kit::RunArgs,
    /// Activation server of the cloud, https://host:port
    #[arg(long)]
    activate_url: Option<String>,
    /// sha256 of the authority certificate of that server
    #[arg(long)]
    activate_ca_pin: Option<String>,
}

fn main() -> ExitCode {
    let args = match Cli::parse() {
        Cli::Run(args) => args,
        Cli::Purge { dir } => return baetyl_init::purge::main(&dir),
    };
    Service::new("baetyl-init").run(
        &args.shell.clone(),
        |mut config: baetyl_init::Config, kit| {
            config.activate.url = args.activate_url.or(config.activate.url);
            config.activate.ca_pin = args.activate_ca_pin.or(config.activate.ca_pin);
            baetyl_init::run(config, kit)
        },
    )
}
