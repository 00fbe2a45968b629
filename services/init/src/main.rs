//! Activates an edge node and hands its identity to sync.

fn main() {}
