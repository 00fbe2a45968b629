//! Integration tests: real programs, real TLS, real SQLite, real Python.
//!
//! They need the programs of the workspace (`cargo xtask test` builds them first).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod clocks;
mod contracts;
mod faults;
mod flows;
mod identity;
mod supervise;
