//! Integration tests: real programs, real TLS, real SQLite, real Python.
//!
//! They need the programs of the workspace (`cargo xtask test` builds them first).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

/// Runs each of these functions with the five separate programs and with all roles in one process.
macro_rules! both_shapes {
    ($($name:ident),+ $(,)?) => {
        mod five {
            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                super::$name(baetyl_tests::world::Shape::Five).await
            })+
        }
        mod one {
            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                super::$name(baetyl_tests::world::Shape::One).await
            })+
        }
    };
}

mod bad_input;
mod changes;
mod clocks;
mod contracts;
mod faults;
mod flows;
mod functions;
mod identity;
mod manifests;
mod supervise;
mod tcp;
