//! Python function runtime: `baetyl-runtime-python run`, started by engine for function applications.

use std::process::ExitCode;

use baetyl_runtime_host::{Args, program};
use clap::Parser;

#[derive(Parser)]
#[command(
    name = "baetyl-runtime-python",
    version,
    about = "Runs Python functions for the Baetyl function proxy"
)]
enum Cli {
    /// Serve the functions until SIGTERM or SIGINT
    Run {
        #[command(flatten)]
        args: Args,
        /// Interpreter, Python 3.7 or newer
        #[arg(
            long,
            env = "BAETYL_PYTHON",
            value_name = "PROGRAM",
            default_value = "python3"
        )]
        python: String,
    },
}

fn main() -> ExitCode {
    let Cli::Run { args, python } = Cli::parse();
    let language = baetyl_runtime_python::language(&python, None);
    program(
        "baetyl-runtime-python",
        &args.door.log.clone(),
        async move |stop| baetyl_runtime_host::run(&args, language, &stop).await,
    )
}
