//! The real program.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod stage;
