//! `baetyl-runtime-python`: started by engine for function applications whose runtime is python3.

use std::process::ExitCode;

fn main() -> ExitCode {
    baetyl_runtime_python::main()
}
