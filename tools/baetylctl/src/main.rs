//! Command line of the cloud management suite: `baetylctl help`.
#![allow(
    clippy::print_stderr,
    reason = "a command line program talks to its user"
)]

/// Writes to standard output; see [`out::write`].
macro_rules! write_out {
    ($($arg:tt)*) => { $crate::out::write(format_args!($($arg)*)) };
}

/// Writes a line to standard output.
macro_rules! say {
    ($($arg:tt)*) => {{
        $crate::out::write(format_args!($($arg)*));
        $crate::out::write(format_args!("\n"));
    }};
}

mod apply;
mod bundle;
mod cli;
mod client;
mod context;
mod document;
mod invoke;
mod kubectl;
mod node;
mod out;
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
