//! The parent of one application instance; see [`baetyl_runtime_native::shim`].

use std::process::ExitCode;

fn main() -> ExitCode {
    baetyl_runtime_native::shim::main(std::env::args_os().skip(1))
}
