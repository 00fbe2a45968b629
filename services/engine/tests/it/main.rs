//! Engine over its real socket and with real processes, between a scripted node and a scripted sync.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod api;
mod node;
mod peers;
mod processes;
mod users;
