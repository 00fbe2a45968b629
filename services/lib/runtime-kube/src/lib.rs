//! Kube mode: applications as Kubernetes objects. The only crate that names what Kubernetes has.
//!
//! [`render`] turns one version of an application into the objects it consists of, purely: equal input, equal objects.
//! [`names`] says what they are called and how they are labelled.
//!
//! [`KubeRuntime`] applies them, takes them away, and tells how they do: what is watched (`watch.rs`) is kept in few fields
//! (`seen.rs`, `world.rs`) and looked at as a whole after every change (`observe.rs`), purely.

mod apply;
mod ask;
mod client;
mod config;
mod core;
mod error;
mod helm;
mod inventory;
mod ledger;
mod logs;
mod machines;
pub mod names;
mod object;
mod observe;
mod prune;
mod quantity;
pub mod render;
mod restart;
mod runtime;
mod secrets;
mod seen;
#[cfg(test)]
mod testing;
mod usage;
mod watch;
mod world;

pub use crate::core::CoreObjects;
pub use config::{KubeConfig, OpenError, Times};
pub use error::{ErrorKind, KubeError};
pub use logs::{LogPosition, LogStart, PositionError};
pub use object::Object;
pub use render::{RenderError, Rendered, render};
pub use runtime::KubeRuntime;
pub use secrets::JobState;
