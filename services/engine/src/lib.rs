//! Reconciler of an edge node.
