//! Starts real programs of the workspace and drives them as a user would.
//!
//! [`world`] starts and kills processes, [`rest`] talks to the cloud, [`edge`] looks at one node from inside, [`story`] is the main
//! job step by step: `cargo xtask demo` tells it, the integration tests assert it.

pub mod apps;
pub mod edge;
pub mod rest;
pub mod story;
pub mod wait;
pub mod world;
