//! The runtime with real shims and real processes.

mod adoption;
mod ends;
mod jobs;
mod limits;
mod logs;
mod node;
mod probes;
mod running;
mod shim;
