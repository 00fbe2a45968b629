//! Reconciler of an edge node.

fn main() {}
