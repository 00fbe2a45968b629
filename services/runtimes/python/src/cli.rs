//! The command line of `baetyl-runtime-python`.

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

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let Cli::Run { args, python } = Cli::parse();
    program("baetyl-runtime-python", &args.door.log, async |stop| {
        let language = crate::language(&python, None);
        baetyl_runtime_host::run(&args, language, &stop).await
    })
}
