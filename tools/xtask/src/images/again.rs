//! `--check-again`: the same input gives the same digests.
//!
//! All images are put together a second time from the same programs, the layer of Python from its packages. Two small
//! programs are compiled in two copies of the source at different depths; or all of this machine's in one, which have to be
//! those in the images.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use super::arch::Arch;
use super::catalog::{Base, IMAGES, Image, Program, Stamp, by_name};
use super::compression::Compression;
use super::layout::{self, Built};
use super::toolchain::{self, Settings};
use super::{assemble_all, kept, python, run};

/// Programs that are compiled twice: small ones, one of them with cryptography in C.
const PROGRAMS: [&str; 2] = ["baetyl-shim", "baetylctl"];

/// Their profile: directories find their way into programs with any.
const PROFILE: &str = "images-quick";

/// What is compiled a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Programs {
    /// Two small programs, without optimisation
    Small,
    /// All programs of the images for this machine, as they were
    All,
}

/// Puts the images together again and compares.
///
/// # Errors
/// When something cannot be made, or comes out different.
pub(crate) fn images(
    images: &[Built],
    wanted: &[(&'static Image, Vec<Arch>)],
    stamp: &Stamp,
    prebuilt: &Path,
    compression: Compression,
) -> Result<()> {
    for (one, other) in images
        .iter()
        .zip(assemble_all(wanted, stamp, prebuilt, compression)?)
    {
        same(one, &other)?;
    }
    let host = Arch::host().context("nothing is built for this machine")?;
    for image in images {
        let is_python = by_name(&image.name).is_some_and(|image| image.base == Base::Python);
        for whole in layout::check(&image.content, &image.index)? {
            if is_python && whole.arch == host {
                let again = python::layer_anew(host, &kept()?, compression)?;
                let first = whole.layers.first().context("an image without layers")?;
                ensure!(
                    first.digest == again.descriptor.digest,
                    "the layer of Python is {} the first time and {} the second",
                    first.digest,
                    again.descriptor.digest
                );
            }
        }
    }
    eprintln!(
        "{} images put together again have the same digests",
        images.len()
    );
    Ok(())
}

fn same(one: &Built, other: &Built) -> Result<()> {
    ensure!(
        one.index.digest == other.index.digest,
        "{} is {} the first time and {} the second",
        one.name,
        one.index.digest,
        other.index.digest
    );
    Ok(())
}

/// Compiles two small programs in two places and compares their bytes.
///
/// # Errors
/// When they do not compile or differ.
pub(crate) fn small_programs() -> Result<()> {
    let host = Arch::host().context("nothing is built for this machine")?;
    let mut list: Vec<Program> = IMAGES
        .iter()
        .flat_map(|image| image.programs)
        .filter(|program| PROGRAMS.contains(&program.name))
        .copied()
        .collect();
    list.sort();
    list.dedup();
    let settings = Settings {
        profile: PROFILE.to_owned(),
        foreign: PROFILE.to_owned(),
        features: Vec::new(),
    };
    let dir = scratch()?;
    let mut built = Vec::new();
    for (root, target) in [("one", "one/target"), (DEEPER, "target-of-other")] {
        let root = dir.path().join(root);
        copy(&root)?;
        let target = dir.path().join(target);
        built.push(toolchain::compile(host, &list, &settings, &root, &target)?);
    }
    let [one, other] = &built[..] else {
        bail!("nothing was compiled twice");
    };
    for ((name, one), (_, other)) in one.iter().zip(other) {
        same_bytes(host, name, one, other)?;
    }
    Ok(())
}

/// Compiles all programs of this machine's images in another place and compares them with those in the images.
///
/// # Errors
/// When they do not compile or differ.
pub(crate) fn all_programs(
    wanted: &[(&'static Image, Vec<Arch>)],
    settings: &Settings,
    prebuilt: &Path,
) -> Result<()> {
    let host = Arch::host().context("nothing is built for this machine")?;
    let mut wanted = wanted.to_vec();
    for (_, archs) in &mut wanted {
        archs.retain(|arch| *arch == host);
    }
    let dir = scratch()?;
    let root = dir.path().join(DEEPER);
    copy(&root)?;
    let target = dir.path().join("target");
    for ((arch, name), other) in toolchain::build(&wanted, settings, &root, &target)? {
        let one = prebuilt.join(arch.dir()).join("bin").join(name);
        same_bytes(arch, name, &one, &other)?;
    }
    Ok(())
}

/// Where a copy lies that is deeper down than this workspace.
const DEEPER: &str = "deeper/down/other";

fn scratch() -> Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix("baetyl-again-").tempdir();
    dir.context("no temporary directory")
}

fn same_bytes(arch: Arch, name: &str, one: &Path, other: &Path) -> Result<()> {
    ensure!(
        fs::read(one)? == fs::read(other)?,
        "{name} is not the same when it is compiled in another directory"
    );
    eprintln!("{name:<22} {arch:<7} compiled in another directory is the same");
    Ok(())
}

/// Copies the source: what the repository knows and what is new in it.
fn copy(to: &Path) -> Result<()> {
    let root = crate::root();
    let args = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let files = run::quiet(run::command("git").args(args))?;
    let files = String::from_utf8(files).context("a file is not named in UTF-8")?;
    for file in files.split('\0').filter(|file| root.join(file).is_file()) {
        let to = to.join(file);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(root.join(file), &to).with_context(|| format!("cannot copy {file}"))?;
    }
    Ok(())
}
