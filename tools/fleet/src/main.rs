//! Node simulator and load generator.

fn main() {}
