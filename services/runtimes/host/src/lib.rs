//! What function runtimes share: the connection to the function proxy and the pool of worker processes.
//!
//! A runtime is started by engine as an application's program. It reads its functions ([`functions`]), starts its
//! workers ([`Pool`]; a runtime in Rust brings its own [`Executor`]), registers with the proxy ([`serve`]) and then
//! runs what it is told to run until it is asked to stop. [`run`] is all of that for an interpreted language.
//!
//! It never listens, never retries an invocation, and never tells a caller more than one line about a failure.

mod call;
mod frame;
pub mod functions;
mod identity;
mod link;
mod pool;
mod runtime;
mod worker;

pub use call::{Answer, Call, Gone, Kind};
pub use frame::MAX_PAYLOAD;
pub use link::{Door, Executor, Profile, Way, serve};
pub use pool::{Pool, PoolError, PoolSettings};
pub use runtime::{Args, DoorArgs, Language, RuntimeError, program, run, specs};
pub use worker::Program;

#[cfg(test)]
mod tests;
