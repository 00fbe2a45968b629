//! Python function runtime.

fn main() {}
