//! The others, as far as sync sees them.

pub(crate) mod cloud;
pub(crate) mod edge;
