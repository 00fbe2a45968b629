//! The runtime with real shims and real processes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod adoption;
mod ends;
mod jobs;
mod launches;
mod limits;
mod logs;
mod node;
mod probes;
mod running;
mod shim;
