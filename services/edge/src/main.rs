//! All edge roles in one process, and their supervisor.

fn main() {}
