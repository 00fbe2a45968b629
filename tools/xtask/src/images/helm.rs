//! Helm for the image `baetyl-helm`, built by `tools/helm/build.sh` from the Go modules that are pinned beside it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::arch::Arch;
use super::run;

/// Name of the program.
pub(crate) const PROGRAM: &str = "helm";
const MODULE: &str = "helm.sh/helm/v3";

/// Builds it for an architecture; gives its path.
///
/// # Errors
/// When Go is missing or too old, modules cannot be fetched, or it does not compile.
pub(crate) fn build(arch: Arch) -> Result<PathBuf> {
    if !run::has("go") {
        bail!(
            "Helm is built with Go, which is missing: install the version that tools/helm/go.mod names, or leave baetyl-helm out"
        );
    }
    let dir = crate::target_dir()?.join("cross/helm").join(arch.dir());
    fs::create_dir_all(&dir)?;
    let path = dir.join(PROGRAM);
    let mut command = run::command("tools/helm/build.sh");
    command.arg(&path).env("GOARCH", arch.oci());
    if arch == Arch::ArmV7 {
        command.env("GOARM", "7");
    }
    run::loud(&mut command)?;
    Ok(path)
}

/// The version that is pinned, e.g. `v3.22.0`.
///
/// # Errors
/// When `tools/helm/go.mod` names none.
pub(crate) fn version() -> Result<String> {
    let file = "tools/helm/go.mod";
    let text = fs::read_to_string(crate::root().join(file)).context(file)?;
    let version = text.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("require ");
        let version = line.strip_prefix(MODULE)?.strip_prefix(' ')?;
        version.split(' ').next()
    });
    Ok(version
        .with_context(|| format!("{file} requires no {MODULE}"))?
        .to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_pinned_version_is_one_of_helm_3() {
        let version = super::version().unwrap();
        assert!(version.starts_with("v3."), "{version}");
    }
}
