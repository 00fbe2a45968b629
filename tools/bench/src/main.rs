//! Measures speed and size of the workspace programs.

fn main() {}
