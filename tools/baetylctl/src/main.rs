//! Command line of the cloud management suite: `baetylctl help`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks to its user"
)]

mod apply;
mod bundle;
mod cli;
mod client;
mod context;
mod document;
mod invoke;
mod kubectl;
mod node;
mod output;
mod resources;
mod uninstall;
mod validate;

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("baetylctl: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli::run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("baetylctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
