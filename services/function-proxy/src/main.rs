//! Function proxy: HTTP and gRPC in, registered runtimes out.

fn main() {}
