//! Command line of the cloud management suite.

fn main() {}
