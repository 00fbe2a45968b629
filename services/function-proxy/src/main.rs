//! `baetyl-function-proxy`: HTTP and gRPC in, registered runtimes out.

use std::process::ExitCode;

use baetyl_function_proxy::ShellSections;
use baetyl_kit::cli::Service;

fn main() -> ExitCode {
    Service::new("baetyl-function-proxy").main_with::<ShellSections, _, _, _, _>(
        "Function proxy: HTTP and gRPC in, registered runtimes out",
        baetyl_function_proxy::run,
    )
}
