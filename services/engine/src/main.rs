//! `baetyl-engine`: reconciler of an edge node.

use std::process::ExitCode;

fn main() -> ExitCode {
    baetyl_kit::main(
        "baetyl-engine",
        "Reconciler of an edge node: makes what is desired run, watches it, undoes what fails",
        baetyl_engine::run,
    )
}
