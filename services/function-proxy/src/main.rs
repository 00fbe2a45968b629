//! `baetyl-function-proxy`: HTTP and gRPC in, registered runtimes out.

use std::process::ExitCode;

fn main() -> ExitCode {
    baetyl_kit::main(
        "baetyl-function-proxy",
        "Function proxy: HTTP and gRPC in, registered runtimes out",
        baetyl_function_proxy::run,
    )
}
