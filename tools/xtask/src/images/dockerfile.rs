//! `--dockerfile-check`: builds every target of the Dockerfile with buildah, offline, and compares what comes out with
//! the images made without it. One service is compiled in the Dockerfile's own builder, all else is prebuilt. For other
//! architectures than this machine's that service stands for all: targets differ only in the directory programs come from.
//!
//! Base images are made here: Debian with this machine's Rust toolchain mounted into it, and the layer of Python.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::{Context as _, Result, bail, ensure};

use super::arch::Arch;
use super::catalog::{Base, Image, Stamp, by_name};
use super::compression::unpacked;
use super::layer::{Kind, Tree};
use super::layout::{self, Built, Content, Whole};
use super::oci::ImageConfig;
use super::{BIN, kept, run};

/// The service that is compiled in the Dockerfile: one of the smallest.
const COMPILED: &str = "baetyl-node";
/// Its profile: what counts here is that it compiles, not how small it gets.
const PROFILE: &str = "images-quick";
/// The name of the image of Rust that is made here.
const RUST_IMAGE: &str = "localhost/baetyl-rust:check";
/// The name of the image of Python that is made here.
const PYTHON_IMAGE: &str = "localhost/baetyl-python:check";
/// Where the toolchain of this machine is mounted.
const TOOLCHAIN: &str = "/opt/rust";
/// Where the crates this machine has already are mounted. Not where the official image has its own: the Dockerfile puts
/// a cache there.
const CARGO_HOME: &str = "/opt/cargo";

/// Packages of Debian that are missing for this check.
pub(crate) fn missing() -> Vec<String> {
    ["buildah", "mmdebstrap"]
        .into_iter()
        .filter(|program| !run::has(program))
        .map(str::to_owned)
        .collect()
}

/// Builds and compares all these images.
///
/// # Errors
/// When a program is missing, a target does not build, or an image differs.
pub(crate) fn check(images: &[Built], stamp: &Stamp, prebuilt: &Path) -> Result<()> {
    let missing = missing();
    ensure!(
        missing.is_empty(),
        "the Dockerfile cannot be built here: install {} (Debian)",
        missing.join(" ")
    );
    ensure!(
        prebuilt == kept()?.join("prebuilt"),
        "the Dockerfile takes programs from target/images/prebuilt alone; leave --prebuilt out"
    );
    let dir = tempfile::Builder::new()
        .prefix("baetyl-dockerfile-")
        .tempdir()?;
    let buildah = Buildah {
        dir: dir.path().to_path_buf(),
        stamp: stamp.clone(),
    };
    for built in images {
        let image = by_name(&built.name).context("no such image")?;
        for whole in layout::check(&built.content, &built.index)? {
            if Arch::host() != Some(whole.arch) && image.name != COMPILED {
                continue;
            }
            if image.base == Base::Python {
                buildah.python(&built.content, &whole)?;
            }
            let other = buildah.build(image, whole.arch, "prebuilt")?;
            compare(&built.content, &whole, &other, None)
                .with_context(|| format!("target {} for {}", image.name, whole.arch))?;
            eprintln!(
                "{:<22} {:<7} from the Dockerfile is the same",
                image.name, whole.arch
            );
        }
    }
    compiled(&buildah, images)
}

/// Compiles one service in the Dockerfile; everything but the program itself has to be the same, and it has to run.
fn compiled(buildah: &Buildah, images: &[Built]) -> Result<()> {
    let host = Arch::host().context("no Rust image can be made on this machine")?;
    let Some(built) = images.iter().find(|built| built.name == COMPILED) else {
        eprintln!("{COMPILED} is not among the images: nothing is compiled in the Dockerfile");
        return Ok(());
    };
    let wholes = layout::check(&built.content, &built.index)?;
    let Some(whole) = wholes.iter().find(|whole| whole.arch == host) else {
        eprintln!("{COMPILED} is not built for {host}: nothing is compiled in the Dockerfile");
        return Ok(());
    };
    buildah.rust()?;
    let image = by_name(COMPILED).context("no such image")?;
    let other = buildah.build(image, host, "builder")?;
    let program = format!("{BIN}/{COMPILED}");
    compare(&built.content, whole, &other, Some(&program))
        .with_context(|| format!("target {COMPILED}, compiled in the Dockerfile"))?;
    let root = buildah.dir.join("compiled");
    other.tree.write_to(&root)?;
    let version = run::quiet(Command::new(root.join(&program)).arg("--version"))?;
    let version = String::from_utf8_lossy(&version).trim().to_owned();
    ensure!(
        version == format!("{COMPILED} {}", env!("CARGO_PKG_VERSION")),
        "what was compiled in the Dockerfile calls itself {version:?}"
    );
    eprintln!("{COMPILED:<22} {host:<7} compiled in the Dockerfile runs");
    Ok(())
}

/// An image that buildah made.
struct Other {
    config: ImageConfig,
    tree: Tree,
}

/// buildah with a store of its own.
struct Buildah {
    dir: PathBuf,
    stamp: Stamp,
}

impl Buildah {
    fn command(&self) -> Command {
        let mut command = run::command("buildah");
        command
            .arg("--root")
            .arg(self.dir.join("store"))
            .arg("--runroot")
            .arg(self.dir.join("run"))
            .args(["--storage-driver", "vfs"]);
        command
    }

    /// Builds one target for one platform. One command each: versions of buildah mix up variants otherwise.
    fn build(&self, image: &Image, arch: Arch, binaries: &str) -> Result<Other> {
        let name = format!("localhost/{}:check", image.name);
        let mut build = self.command();
        build
            .args([
                "build",
                "--isolation",
                "chroot",
                "--pull-never",
                "--format",
                "oci",
            ])
            // The layers that several targets share are found again by what is in them, not by platform: kept apart.
            .args(["--layers=false", "--network", "host"])
            .args(["--platform", &format!("linux/{arch}")])
            .args(["--target", image.name, "--tag", &name])
            .args(["--build-arg", &format!("BINARIES={binaries}")])
            .args(["--build-arg", &format!("RUST_IMAGE={RUST_IMAGE}")])
            .args(["--build-arg", &format!("PYTHON_IMAGE={PYTHON_IMAGE}")])
            .args(["--build-arg", &format!("VERSION={}", self.stamp.version)])
            .args(["--build-arg", &format!("REVISION={}", self.stamp.revision)]);
        if binaries == "builder" {
            build
                .args(["--build-arg", &format!("PROGRAMS={}", image.name)])
                .args(["--build-arg", &format!("PROFILE={PROFILE}")])
                .arg("--volume")
                .arg(format!("{}:{TOOLCHAIN}:ro", toolchain()?.display()))
                .arg("--volume")
                .arg(format!("{}:{CARGO_HOME}/registry", registry()?.display()));
        }
        build.arg("--file").arg("Dockerfile").arg(".");
        match binaries {
            "builder" => run::loud(&mut build)?,
            _ => drop(run::quiet(&mut build)?),
        }
        self.read(&name)
    }

    /// Takes an image out of the store.
    fn read(&self, name: &str) -> Result<Other> {
        let out = self.dir.join("out");
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        let to = format!("oci:{}:check", out.display());
        run::quiet(self.command().args(["push", "--quiet", name, &to]))?;
        let (content, tops) = layout::read(&out)?;
        let [top] = &tops[..] else {
            bail!("buildah gives {} images for one", tops.len());
        };
        let mut wholes = layout::check(&content, top)?;
        let whole = wholes.pop().context("buildah gives no image")?;
        Ok(Other {
            tree: tree(&content, &whole)?,
            config: whole.config,
        })
    }

    /// Makes an image from an archive of files.
    fn import(
        &self,
        name: &str,
        archive: &Path,
        arch: Arch,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let container = run::quiet(self.command().args(["from", "scratch"]))?;
        let container = String::from_utf8(container)?.trim().to_owned();
        run::quiet(
            self.command()
                .args(["add", "--quiet", &container])
                .arg(archive)
                .arg("/"),
        )?;
        let mut config = self.command();
        config.args(["config", "--arch", arch.oci()]);
        if let Some(variant) = arch.variant() {
            config.args(["--variant", variant]);
        }
        for (option, value) in settings {
            config.args([*option, *value]);
        }
        run::quiet(config.arg(&container))?;
        run::quiet(
            self.command()
                .args(["commit", "--quiet", "--rm", &container, name]),
        )?;
        Ok(())
    }

    /// Makes the image with Python: the layer the other images have, too.
    fn python(&self, content: &Content, whole: &Whole) -> Result<()> {
        let lowest = whole.layers.first().context("an image without layers")?;
        let archive = self.dir.join("python.tar");
        let mut file = fs::File::create(&archive)?;
        io::copy(&mut unpacked(content.get(lowest)?)?, &mut file)?;
        let image = by_name("baetyl-runtime-python").context("no such image")?;
        let env = image.env();
        let settings: Vec<_> = env.iter().map(|env| ("--env", env.as_str())).collect();
        self.import(PYTHON_IMAGE, &archive, whole.arch, &settings)
    }

    /// Makes the image with what Rust needs besides itself: a C compiler, on Debian.
    fn rust(&self) -> Result<()> {
        let host = Arch::host().context("no Rust image can be made on this machine")?;
        let archive = kept()?.join(format!("debian-{}.tar", host.dir()));
        if !archive.exists() {
            let mut bootstrap = run::command("mmdebstrap");
            bootstrap
                .args([
                    "--mode=root",
                    "--variant=essential",
                    "--include=gcc,libc6-dev",
                    "bookworm",
                ])
                .arg(&archive);
            run::loud(&mut bootstrap)?;
        }
        let path = format!("PATH={TOOLCHAIN}/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let home = format!("CARGO_HOME={CARGO_HOME}");
        let offline = "CARGO_NET_OFFLINE=true";
        self.import(
            RUST_IMAGE,
            &archive,
            host,
            &[("--env", &path), ("--env", &home), ("--env", offline)],
        )
    }
}

/// The directory of the Rust toolchain in use.
fn toolchain() -> Result<PathBuf> {
    let root = run::quiet(run::command("rustc").args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(String::from_utf8(root)?.trim()))
}

/// The crates that cargo has fetched.
fn registry() -> Result<PathBuf> {
    Ok(super::toolchain::cargo_home()?.join("registry"))
}

fn tree(content: &Content, whole: &Whole) -> Result<Tree> {
    let mut blobs = Vec::new();
    for layer in &whole.layers {
        blobs.push(content.get(layer)?);
    }
    Tree::unpack(blobs)
}

/// Compares configuration and files. `except` is a file whose content may differ.
fn compare(content: &Content, whole: &Whole, other: &Other, except: Option<&str>) -> Result<()> {
    let (own, theirs) = (&whole.config, &other.config);
    ensure!(
        own.platform == theirs.platform,
        "it is for {:?}, not {:?}",
        theirs.platform,
        own.platform
    );
    let mut process = theirs.config.clone();
    // buildah adds a label of its own.
    process.labels.remove("io.buildah.version");
    ensure!(
        own.config == process,
        "its configuration is {process:#?}, not {:#?}",
        own.config
    );
    let own = tree(content, whole)?;
    let mut differences = Vec::new();
    for (path, node) in own.iter() {
        match other.tree.get(path) {
            None => differences.push(format!("{path} is missing")),
            Some(their) if their == node => {}
            Some(their) => {
                let same_rest = (their.mode, their.owner) == (node.mode, node.owner);
                let is_file = |kind: &Kind| matches!(kind, Kind::File(_));
                let may = except == Some(path) && is_file(&their.kind) && is_file(&node.kind);
                if !(same_rest && may) {
                    differences.push(format!(
                        "{path} is {:o} of {:?}, not {:o} of {:?}, or has other content",
                        their.mode, their.owner, node.mode, node.owner
                    ));
                }
            }
        }
    }
    let more = other
        .tree
        .iter()
        .filter(|(path, _)| own.get(path).is_none());
    differences.extend(more.map(|(path, _)| format!("{path} is not in the other")));
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests;
