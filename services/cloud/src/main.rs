//! Cloud management suite.

fn main() {}
