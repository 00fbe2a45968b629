//! `baetyl-engine`: reconciler of an edge node.

use std::process::ExitCode;

use baetyl_runtime_native::reaper;

fn main() -> ExitCode {
    if let Some(code) = reaper::as_first_process() {
        return code;
    }
    baetyl_kit::main(
        "baetyl-engine",
        "Reconciler of an edge node: makes what is desired run, watches it, undoes what fails",
        baetyl_engine::run,
    )
}
