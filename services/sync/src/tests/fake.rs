//! The others, as far as sync sees them.

pub(super) mod cloud;
pub(super) mod edge;
