//! Reconciler of an edge node.

pub mod archive;
pub mod bodies;
pub mod objects;
pub mod resolve;
pub mod shape;
pub mod token;
#[cfg(test)]
mod testing;
