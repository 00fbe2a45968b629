//! `baetyl-shim` as the integration tests of engine start it: built with them, so it is never another version.

use std::process::ExitCode;

fn main() -> ExitCode {
    baetyl_runtime_native::shim::main(std::env::args_os().skip(1))
}
