//! What the program does and how it is installed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod decommission;
mod units;
