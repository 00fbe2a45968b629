//! `cargo xtask images`: the images of all services and runtimes without a container engine.
//!
//! Static programs for each architecture (`toolchain`) become layers (`layer`), layers become images with one index over
//! the architectures (`layout`), and images go to directories, to one archive, or to a registry. The same programs give
//! the same digests. The Dockerfile makes the same images with an engine; `--dockerfile-check` compares.
#![allow(
    clippy::print_stderr,
    reason = "standard output holds the result, standard error tells what happens"
)]

mod again;
mod arch;
mod catalog;
mod compression;
mod debian;
mod dockerfile;
mod helm;
mod layer;
mod layout;
mod oci;
mod program;
mod python;
mod registry;
pub(crate) mod run;
mod served;
mod stamp;
mod start;
mod toolchain;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use arch::Arch;
use catalog::{BIN, Base, Image, Stamp, USER};
use compression::Compression;
use layer::{Kind, Layer, Node, Tree};
use layout::{Built, Part};
use oci::Digest;
use registry::{Address, Registry};
use toolchain::{Programs, Settings};

/// What an image should not exceed, in bytes as it travels; Python's is larger and known to be.
const AIM: u64 = 8_000_000;

/// How the result is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A table.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// The options of `cargo xtask images`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Architectures: amd64, arm64, arm/v7. Default: that of this machine
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Only these images
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 1..)]
    only: Vec<String>,
    /// Only the images of edge nodes
    #[arg(long)]
    edge: bool,
    /// Where each image gets a directory in OCI layout
    #[arg(long, value_name = "DIR", default_value = "target/images/oci")]
    out: PathBuf,
    /// Cargo profile; images-ci builds faster and larger
    #[arg(long, value_name = "NAME", default_value = "release")]
    profile: String,
    /// Cargo profile for other architectures than this machine's. Default: that of --profile
    #[arg(long, value_name = "NAME")]
    foreign_profile: Option<String>,
    /// Cargo features, e.g. baetyl-kit/test-clock
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    features: Vec<String>,
    /// Builds nothing; takes programs from DIR/<architecture>/bin
    #[arg(long, value_name = "DIR")]
    prebuilt: Option<PathBuf>,
    /// How layers are compressed
    #[arg(long, value_enum, default_value_t)]
    compression: Compression,
    /// Tag of the images. Default: the version of the workspace
    #[arg(long)]
    tag: Option<String>,
    /// Sends the images to this registry, e.g. 127.0.0.1:5000 or https://registry.example/team
    #[arg(long, value_name = "REGISTRY")]
    push: Option<String>,
    /// Allows plain HTTP to a registry that is neither loopback nor private
    #[arg(long)]
    insecure: bool,
    /// PEM file with authorities of the registry, besides those of the web
    #[arg(long, value_name = "FILE")]
    registry_ca: Option<PathBuf>,
    /// Writes all images to one archive, for `ctr images import`
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// What names in layouts and archive begin with. Default: the registry of --push, else docker.io/baetyltech
    #[arg(long, value_name = "REGISTRY")]
    registry: Option<String>,
    /// Sends the images to a registry on this machine and back, and starts their programs (foreign ones emulated)
    #[arg(long)]
    check_start: bool,
    /// Builds the Dockerfile with buildah and compares its images with these
    #[arg(long)]
    dockerfile_check: bool,
    /// Puts the images together and compiles two small programs, or all of this machine's, a second time; everything has to
    /// be the same
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "small", value_name = "PROGRAMS")]
    check_again: Option<again::Programs>,
    /// First installs with apt what is missing; for CI machines
    #[arg(long)]
    install: bool,
    /// How the result is told
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// The result, as JSON tells it.
#[derive(Debug, Serialize)]
struct Report<'a> {
    version: &'a str,
    revision: &'a str,
    tag: &'a str,
    /// What names begin with.
    registry: &'a str,
    images: Vec<Told<'a>>,
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    name: &'a str,
    /// Digest of the index.
    digest: &'a Digest,
    platforms: &'a [Part],
}

/// Where this command keeps what it makes.
fn kept() -> Result<PathBuf> {
    Ok(crate::target_dir()?.join("images"))
}

/// Builds the images and does with them what the options say.
///
/// # Errors
/// When something is missing on this machine (the message names it), does not build, or does not pass a check.
pub(crate) fn run(args: &Args) -> Result<()> {
    let archs = match args.arch.is_empty() {
        true => vec![Arch::host().context("images are not built for this machine; give --arch")?],
        false => args.arch.clone(),
    };
    let wanted = catalog::select(&args.only, args.edge, &archs)?;
    if args.install {
        install(&archs, args.check_start, args.dockerfile_check)?;
    }
    let stamp = stamp::stamp()?;
    let tag = args.tag.clone().unwrap_or_else(|| stamp.version.clone());
    ensure!(
        is_tag(&tag),
        "{tag:?} is no tag: letters, digits, dots, dashes and underscores, at most 128"
    );
    let target = args
        .push
        .as_deref()
        .map(|text| Address::parse(text, args.insecure))
        .transpose()?;
    let prefix = match (&args.registry, &target) {
        (Some(name), _) => format!("{}/", name.trim_end_matches('/')),
        (None, Some(address)) => address.prefix(),
        (None, None) => format!("{}/", baetyl_manifests::REGISTRY),
    };
    let prebuilt = took("programs", || programs(args, &wanted))?;
    let images = took("layers", || {
        assemble_all(&wanted, &stamp, &prebuilt, args.compression)
    })?;
    let out = crate::root().join(&args.out);
    for image in &images {
        layout::write(&out.join(&image.name), image, &prefix, &tag)?;
    }
    if let Some(file) = &args.bundle {
        layout::bundle(file, &images, &prefix, &tag, stamp.epoch)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if let Some(address) = target {
        let registry = Registry::new(address, args.registry_ca.as_deref())?;
        for image in &images {
            runtime.block_on(Box::pin(registry.push(image, &tag)))?;
            eprintln!("pushed {prefix}{}:{tag}", image.name);
        }
    }
    if args.check_start {
        took("start", || {
            runtime.block_on(Box::pin(start::check(&images, &tag)))
        })?;
    }
    if let Some(which) = args.check_again {
        took("again", || {
            again::images(&images, &wanted, &stamp, &prebuilt, args.compression)?;
            match which {
                again::Programs::Small => again::small_programs(),
                again::Programs::All => again::all_programs(&wanted, &settings(args), &prebuilt),
            }
        })?;
    }
    if args.dockerfile_check {
        took("Dockerfile", || {
            dockerfile::check(&images, &stamp, &prebuilt)
        })?;
    }
    tell(args.output, &images, &stamp, &prefix, &tag)
}

fn is_tag(tag: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=128).contains(&tag.len()) && !tag.starts_with(['.', '-']) && tag.chars().all(fits)
}

/// Installs with apt what building and checking images needs and this machine has not.
///
/// # Errors
/// When apt fails.
pub(crate) fn install(archs: &[Arch], start: bool, dockerfile: bool) -> Result<()> {
    let mut packages = toolchain::missing(archs);
    if start {
        packages.extend(start::missing(archs));
    }
    if dockerfile {
        packages.extend(dockerfile::missing());
    }
    if packages.is_empty() {
        return Ok(());
    }
    let wait = ["-o", "DPkg::Lock::Timeout=600"];
    run::loud(run::command("apt-get").args(wait).args(["update", "-q"]))?;
    let mut install = run::command("apt-get");
    install
        .args(wait)
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run::loud(&mut install)
}

/// Tells how long a part took.
fn took<T>(part: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let result = work()?;
    eprintln!("{part}: {:.1} min", begun.elapsed().as_secs_f64() / 60.0);
    Ok(result)
}

fn settings(args: &Args) -> Settings {
    let profile = &args.profile;
    Settings {
        profile: profile.clone(),
        foreign: args.foreign_profile.as_ref().unwrap_or(profile).clone(),
        features: args.features.clone(),
    }
}

/// Builds the programs and lays them where the Dockerfile finds them; gives that directory.
fn programs(args: &Args, wanted: &[(&'static Image, Vec<Arch>)]) -> Result<PathBuf> {
    if let Some(dir) = &args.prebuilt {
        let dir = std::path::absolute(dir)?;
        toolchain::find(wanted, &dir)?;
        return Ok(dir);
    }
    let target = crate::target_dir()?.join("cross");
    let programs = toolchain::build(wanted, &settings(args), &crate::root(), &target)?;
    let dir = kept()?.join("prebuilt");
    lay_out(&programs, &dir)?;
    Ok(dir)
}

/// `<dir>/<architecture>/bin/<program>`, and `<dir>/<architecture>/rootfs` with what lies beside programs.
fn lay_out(programs: &Programs, dir: &Path) -> Result<()> {
    for ((arch, name), from) in programs {
        let dir = dir.join(arch.dir());
        skeleton().write_to(&dir.join("rootfs"))?;
        let to = dir.join("bin").join(name);
        fs::create_dir_all(dir.join("bin"))?;
        fs::copy(from, &to).with_context(|| format!("cannot write {}", to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// What lies in every image beside its programs, without the directory for data.
fn skeleton() -> Tree {
    let mut tree = Tree::default();
    let passwd = format!(
        "root:x:0:0:root:/:/sbin/nologin\nbaetyl:x:{USER}:{USER}:baetyl:/var/lib/baetyl:/sbin/nologin\n"
    );
    let group = format!("root:x:0:\nbaetyl:x:{USER}:\n");
    tree.add("etc/passwd", Kind::File(passwd.into_bytes()), 0o644);
    tree.add("etc/group", Kind::File(group.into_bytes()), 0o644);
    tree.add("tmp", Kind::Dir, 0o1777);
    // Above the directory for data, which belongs to the user and is made by a WORKDIR of the Dockerfile.
    tree.add("var/lib", Kind::Dir, 0o755);
    tree
}

fn assemble_all(
    wanted: &[(&'static Image, Vec<Arch>)],
    stamp: &Stamp,
    prebuilt: &Path,
    compression: Compression,
) -> Result<Vec<Built>> {
    let mut pythons = BTreeMap::new();
    for (image, archs) in wanted {
        for arch in archs.iter().filter(|_| image.base == Base::Python) {
            pythons.insert(*arch, python::layer(*arch, &kept()?, compression)?);
        }
    }
    let mut own = pack_all(wanted, stamp, prebuilt, compression)?.into_iter();
    let mut images = Vec::new();
    for (image, archs) in wanted {
        let mut layers = Vec::new();
        for arch in archs {
            let below = match image.base {
                Base::Scratch => None,
                Base::Python => pythons.get(arch).cloned(),
            };
            layers.push((*arch, below.into_iter().chain(own.next()).collect()));
        }
        let built = layout::assemble(image, stamp, &layers)?;
        layout::check(&built.content, &built.index)
            .with_context(|| format!("image {}", image.name))?;
        images.push(built);
    }
    Ok(images)
}

/// The layers with programs, in order; packed side by side, because compressing takes long.
fn pack_all(
    wanted: &[(&'static Image, Vec<Arch>)],
    stamp: &Stamp,
    prebuilt: &Path,
    compression: Compression,
) -> Result<Vec<Layer>> {
    let jobs: Vec<(&Image, Arch)> = wanted
        .iter()
        .flat_map(|(image, archs)| archs.iter().map(|arch| (*image, *arch)))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((image, arch)) = jobs.get(at) else {
                return done;
            };
            let layer = programs_tree(image, *arch, prebuilt)
                .and_then(|tree| tree.pack(stamp.epoch, compression));
            done.push((at, layer));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut layers = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = running.into_iter().map(|thread| {
            let packed = thread.join();
            packed.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ended.flatten().collect::<Vec<_>>()
    });
    layers.sort_by_key(|(at, _)| *at);
    layers.into_iter().map(|(_, layer)| layer).collect()
}

/// The programs of an image and what lies beside them.
fn programs_tree(image: &Image, arch: Arch, prebuilt: &Path) -> Result<Tree> {
    let mut tree = skeleton();
    let data = Node {
        kind: Kind::Dir,
        mode: 0o755,
        owner: (USER, USER),
    };
    tree.insert("var/lib/baetyl", data);
    for program in image.programs {
        let path = prebuilt.join(arch.dir()).join("bin").join(program.name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        tree.add(&format!("{BIN}/{}", program.name), Kind::File(bytes), 0o755);
    }
    Ok(tree)
}

fn tell(output: Output, images: &[Built], stamp: &Stamp, prefix: &str, tag: &str) -> Result<()> {
    if output == Output::Json {
        let report = Report {
            version: &stamp.version,
            revision: &stamp.revision,
            tag,
            registry: prefix.trim_end_matches('/'),
            images: images
                .iter()
                .map(|image| Told {
                    name: &image.name,
                    digest: &image.index.digest,
                    platforms: &image.platforms,
                })
                .collect(),
        };
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{:<22} {:<7} {:>10}  digest", "image", "arch", "compressed");
    for image in images {
        for part in &image.platforms {
            let size = format!("{:.2} MB", to_mega(part.compressed));
            let over = if part.compressed > AIM {
                "  (over 8 MB)"
            } else {
                ""
            };
            println!(
                "{:<22} {:<7} {size:>10}  {}{over}",
                image.name, part.arch, part.digest
            );
        }
        println!(
            "{:<22} {:<7} {:>10}  {}",
            "", "index", "", image.index.digest
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "sizes are told with two digits")]
fn to_mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests;
