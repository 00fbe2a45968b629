//! Reconciler of an edge node.

pub mod archive;
pub mod bodies;
pub mod objects;
pub mod ports;
pub mod resolve;
pub mod shape;
pub mod store;
pub mod token;
#[cfg(test)]
mod testing;
