//! Sizes of the release programs.

use anyhow::Result;
use baetyl_tests::world::programs_dir;

use crate::{Figure, figure};

const PROGRAMS: &[&str] = &[
    "baetyl-init",
    "baetyl-node",
    "baetyl-sync",
    "baetyl-engine",
    "baetyl-function-proxy",
    "baetyl-edge",
    "baetyl-shim",
    "baetyl-runtime-python",
    "baetyl-cloud",
    "baetylctl",
];

#[expect(clippy::cast_precision_loss, reason = "sizes of files")]
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let dir = programs_dir()?;
    PROGRAMS
        .iter()
        .map(|name| {
            let bytes = std::fs::metadata(dir.join(name))?.len();
            Ok(figure(
                format!("binary {name}"),
                bytes as f64 / 1_048_576.0,
                "MiB",
                "<= 8",
            ))
        })
        .collect()
}
