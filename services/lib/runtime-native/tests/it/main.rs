//! The runtime with real shims and real processes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod adoption;
mod ends;
mod erase;
mod jobs;
mod launches;
mod limits;
mod logs;
mod node;
mod probes;
mod reaper;
mod running;
mod shim;
