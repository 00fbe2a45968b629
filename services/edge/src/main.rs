//! `baetyl-edge`: all edge roles in one process, or a supervisor of the separate programs.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use baetyl_edge::decommission;
use baetyl_kit::RunArgs;
use baetyl_kit::cli::Service;
use baetyl_runtime_native::reaper;
use clap::{Args, Parser};

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
    /// End all applications and remove everything of the node but <data-dir>/host
    Decommission(Decommission),
}

#[derive(Args)]
struct Decommission {
    /// Directory of the node
    #[arg(
        long,
        value_name = "DIR",
        env = "BAETYL_DATA_DIR",
        default_value = "/var/lib/baetyl"
    )]
    data_dir: PathBuf,
    /// Do it; without it is only told what would be removed
    #[arg(long)]
    yes: bool,
}

fn main() -> ExitCode {
    if let Some(code) = reaper::as_first_process() {
        return code;
    }
    match Cli::parse() {
        Cli::Run(args) => Service::new("baetyl-edge").run(&args, baetyl_edge::run),
        Cli::Supervise(args) => {
            Service::new("baetyl-supervise").run(&args, baetyl_edge::supervise::run)
        }
        Cli::Decommission(args) => decommission(&args),
    }
}

fn decommission(args: &Decommission) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            let done = runtime.block_on(decommission::run(&args.data_dir, args.yes));
            done.map_err(|error| error.to_string())
        });
    match done {
        Ok(inventory) => {
            let _ = write!(std::io::stdout(), "removed:\n{inventory}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "baetyl-edge decommission: {}",
                error.trim_end()
            );
            ExitCode::FAILURE
        }
    }
}
