//! Rebuilds the crate when a migration is added: the macro that embeds them cannot see new files.

#![allow(clippy::print_stdout)]

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
