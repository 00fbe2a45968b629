//! The shell as a service sees it: real sockets, real TLS, a real process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is the failure report of a test"
)]

mod echo;
mod grpc;
mod in_node;
mod process;
mod tls;
