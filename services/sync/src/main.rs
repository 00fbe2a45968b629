//! `baetyl-sync`: the link of an edge node to its cloud and the content store.

use std::process::ExitCode;

fn main() -> ExitCode {
    baetyl_kit::main(
        "baetyl-sync",
        "The link of an edge node to its cloud and the content store",
        baetyl_sync::run,
    )
}
