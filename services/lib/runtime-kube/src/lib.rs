//! Kube mode: applications as Kubernetes objects. The only crate that names what Kubernetes has.
//!
//! [`render`] turns one version of an application into the objects it consists of, purely: equal input, equal objects.
//! [`names`] says what they are called and how they are labelled.

pub mod names;
mod object;
pub mod render;

pub use object::Object;
pub use render::{RenderError, Rendered, render};
