//! `baetyl-node`: owner of the node shadow.

use std::process::ExitCode;

fn main() -> ExitCode {
    baetyl_kit::main(
        "baetyl-node",
        "Owner of the node shadow: desire ledger, properties, node information",
        baetyl_node::run,
    )
}
