//! Process supervisor of native mode.

fn main() {}
