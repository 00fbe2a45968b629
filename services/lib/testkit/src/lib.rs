//! What tests share: directories with short paths, waiting for a condition, identities, clocks, captured log
//! events, child processes that never outlive their test.
//!
//! Everything here panics with a message for the person who reads the failing test; nothing returns errors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic here is the failure report of a test"
)]

mod capture;
mod child;
mod clock;
mod dir;
mod eventually;
mod identity;
mod mount;
mod net;
mod skip;

pub use capture::{Capture, CapturedEvent};
pub use child::ChildGuard;
pub use clock::ManualClock;
pub use dir::TestDir;
pub use eventually::{PATIENCE, eventually, until};
pub use identity::{Leaf, TestCa, TestIdentity};
pub use mount::SecretMount;
pub use net::{ClosedPort, bound_listener, free_port};
pub use skip::skipped;
