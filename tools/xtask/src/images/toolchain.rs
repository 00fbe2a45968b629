//! Static programs for every architecture: which compiler builds them, what is missing for it, and how it is called.
//!
//! Where the Rust toolchain in use has the standard library of an architecture, it is taken (`rustup target add …`).
//! Else Debian's second toolchain builds the standard library from its source: packages of this machine's architecture
//! are enough, no foreign package index is read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::arch::Arch;
use super::catalog::{Image, Program, Source};
use super::helm;
use super::program;
use super::run;

/// Debian's second Rust toolchain and the source of its standard library.
const DEBIAN_RUST: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_STD: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";
/// The linker of programs for [`Arch::ArmV7`], and the package of Debian it is in. GNU's loses a bit of the addresses of the C
/// library's resolvers when a program has more than 16 MiB of code: it would crash before `main`.
const LLD: &str = "ld.lld";
const LLD_PACKAGE: &str = "lld";
/// The profile of what is published.
const PUBLISHED: &str = "release";
/// Oldest compiler the workspace builds with.
const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

/// How programs of an architecture are built here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compiler {
    /// The toolchain in use.
    InUse,
    /// Debian's, with a standard library built on the way.
    Debian,
}

/// What is built and how.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Cargo profile for this machine's architecture.
    pub(crate) profile: String,
    /// Cargo profile for the others.
    pub(crate) foreign: String,
    /// Cargo features, `crate/feature`.
    pub(crate) features: Vec<String>,
}

impl Settings {
    fn profile(&self, arch: Arch) -> &str {
        match is_native(arch) {
            true => &self.profile,
            false => &self.foreign,
        }
    }
}

/// Programs on disk by architecture and name.
pub(crate) type Programs = BTreeMap<(Arch, &'static str), PathBuf>;

/// Packages of Debian that are missing to build for these architectures.
pub(crate) fn missing(archs: &[Arch]) -> Vec<String> {
    let mut packages = Vec::new();
    for arch in archs {
        if !is_native(*arch) && !run::has(&format!("{}-gcc", arch.gnu())) {
            packages.push(format!("crossbuild-essential-{}", arch.debian()));
        }
        if *arch == Arch::ArmV7 && !run::has(LLD) {
            packages.push(LLD_PACKAGE.to_owned());
        }
        if compiler(*arch).is_none() {
            packages.extend(DEBIAN_RUST.map(str::to_owned));
        }
    }
    packages.sort();
    packages.dedup();
    packages
}

fn is_native(arch: Arch) -> bool {
    Arch::host() == Some(arch)
}

/// The compiler for an architecture, if there is one.
fn compiler(arch: Arch) -> Option<Compiler> {
    let library = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", arch.triple()])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let library = String::from_utf8_lossy(&library.stdout);
    if Path::new(library.trim()).is_dir() {
        return Some(Compiler::InUse);
    }
    is_debian_usable().then_some(Compiler::Debian)
}

fn is_debian_usable() -> bool {
    let version = Command::new(DEBIAN_RUSTC).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    Path::new(DEBIAN_STD).exists()
        && Path::new(DEBIAN_CARGO).exists()
        && version.is_ok_and(|text| is_new_enough(&text))
}

/// Whether `rustc 1.96.0 (…)` can build the workspace.
fn is_new_enough(version: &str) -> bool {
    let minor = |text: &str| -> Option<u32> { text.split('.').nth(1)?.parse().ok() };
    let has = version.split_whitespace().nth(1).and_then(minor);
    has >= minor(RUST_VERSION) && has.is_some()
}

/// Builds the programs of these images, each for its architectures, from the workspace in `root` to the directory `target`;
/// Helm always from here.
///
/// # Errors
/// When a compiler is missing (the message names packages), something does not compile, or what came out is not
/// static, is for another machine, or tells directories of this one.
pub(crate) fn build(
    wanted: &[(&'static Image, Vec<Arch>)],
    settings: &Settings,
    root: &Path,
    target: &Path,
) -> Result<Programs> {
    let mut programs = Programs::new();
    for arch in Arch::ALL {
        // baetyl-edge alone: in one call with the others it would get the features of their dependencies, too. Where minutes
        // count more than bytes it may have them.
        let apart = settings.profile(arch) == PUBLISHED;
        for alone in [false, true] {
            let mut list: Vec<Program> = wanted
                .iter()
                .filter(|(image, archs)| {
                    archs.contains(&arch) && (apart && image.name == "baetyl-edge") == alone
                })
                .flat_map(|(image, _)| image.programs)
                .copied()
                .filter(|program| !programs.contains_key(&(arch, program.name)))
                .collect();
            list.sort();
            list.dedup();
            if list.iter().any(|program| program.source == Source::Helm) {
                let path = helm::build(arch)?;
                let private = private_paths(&crate::root(), &crate::target_dir()?)?;
                program::check(&path, arch, &private)?;
                programs.insert((arch, helm::PROGRAM), path);
            }
            list.retain(|program| program.source != Source::Helm);
            if !list.is_empty() {
                for (program, path) in compile(arch, &list, settings, root, target)? {
                    programs.insert((arch, program), path);
                }
            }
        }
    }
    Ok(programs)
}

/// Compiles programs for an architecture from the workspace in `root` to the directory `target`.
///
/// # Errors
/// As [`build`].
pub(crate) fn compile(
    arch: Arch,
    list: &[Program],
    settings: &Settings,
    root: &Path,
    target: &Path,
) -> Result<Vec<(&'static str, PathBuf)>> {
    let missing = missing(&[arch]);
    if !missing.is_empty() {
        bail!(
            "programs for {arch} cannot be built here: install {} (Debian), or run: rustup target add {}",
            missing.join(" "),
            arch.triple()
        );
    }
    let compiler = compiler(arch).context("no compiler")?;
    let private = private_paths(root, target)?;
    let profile = settings.profile(arch);
    let mut command = cargo(arch, compiler, &private)?;
    command
        .current_dir(root)
        .args(["build", "--locked", "--target", arch.triple()])
        .args(["--profile", profile])
        .arg("--target-dir")
        .arg(target);
    for program in list {
        if let Source::Crate(package) = program.source {
            command.args(["-p", package, "--bin", program.name]);
        }
    }
    // A feature of a crate is known only where the crate itself is selected.
    for (krate, _) in settings.features.iter().filter_map(|f| f.split_once('/')) {
        command.args(["-p", krate]);
    }
    if !settings.features.is_empty() {
        command.args(["--features", &settings.features.join(",")]);
    }
    run::loud(&mut command)?;
    let dir = match profile {
        "dev" => "debug",
        other => other,
    };
    let dir = target.join(arch.triple()).join(dir);
    let mut programs = Vec::new();
    for program in list {
        let path = dir.join(program.name);
        program::check(&path, arch, &private)?;
        programs.push((program.name, path));
    }
    Ok(programs)
}

/// Directories of this machine, with what they are called in what is built.
fn private_paths(root: &Path, target: &Path) -> Result<Vec<(String, &'static str)>> {
    let text = |path: PathBuf| -> Result<String> {
        let path = path.canonicalize().unwrap_or(path);
        path.into_os_string()
            .into_string()
            .ok()
            .context("a directory is not named in UTF-8")
    };
    Ok(vec![
        (text(target.to_path_buf())?, "/target"),
        (text(root.to_path_buf())?, "/baetyl"),
        (text(cargo_home()?)?, "/cargo"),
    ])
}

/// Where cargo keeps what it fetched.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    Ok(PathBuf::from(home).join(".cargo"))
}

/// Cargo with everything that makes its programs static, and the same on every machine.
fn cargo(arch: Arch, compiler: Compiler, private: &[(String, &str)]) -> Result<Command> {
    let mut command = match compiler {
        Compiler::InUse => run::command("cargo"),
        Compiler::Debian => {
            let mut command = run::command(DEBIAN_CARGO);
            // The bootstrap variable admits -Z with a stable compiler.
            command
                .env("RUSTC", DEBIAN_RUSTC)
                .env("RUSTC_BOOTSTRAP", "1")
                .env_remove("RUSTUP_TOOLCHAIN")
                .args(["-Z", "build-std=std,panic_unwind"]);
            command
        }
    };
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let mut cflags = Vec::new();
    // The last one that fits wins: the target directory may lie in the workspace.
    for (path, called) in private.iter().rev() {
        flags.push(format!("--remap-path-prefix={path}={called}"));
        cflags.push(format!("-ffile-prefix-map={path}={called}"));
    }
    ensure!(
        !flags.iter().any(|flag| flag.contains('\u{1f}')),
        "a directory has a control character in its name"
    );
    if arch == Arch::ArmV7 {
        flags.push("-Clink-arg=-fuse-ld=lld".to_owned());
        command.env("PATH", path_to_lld(arch)?);
    }
    let lower = arch.triple().replace('-', "_");
    command
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env(format!("CFLAGS_{lower}"), cflags.join(" "));
    if !is_native(arch) {
        let gcc = format!("{}-gcc", arch.gnu());
        let linker = format!("CARGO_TARGET_{}_LINKER", lower.to_uppercase());
        command.env(linker, &gcc).env(format!("CC_{lower}"), gcc);
    }
    Ok(command)
}

/// A search path on which GCC finds the linker: one that compiles for other machines asks for it by a name of their own.
fn path_to_lld(arch: Arch) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let lld = all
        .iter()
        .map(|dir| dir.join(LLD))
        .find(|file| file.is_file());
    let lld = lld.with_context(|| format!("{LLD} is not installed"))?;
    let dir = crate::target_dir()?.join("cross/lld");
    std::fs::create_dir_all(&dir)?;
    let link = dir.join(format!("{}-{LLD}", arch.gnu()));
    if std::fs::read_link(&link).ok().as_ref() != Some(&lld) {
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&lld, &link)
            .with_context(|| format!("cannot make {}", link.display()))?;
    }
    Ok(std::env::join_paths(std::iter::once(dir).chain(all))?)
}

/// Takes the programs from a directory instead, where they lie as `<architecture>/bin/<program>`.
///
/// # Errors
/// When one is missing, not static or for another machine.
pub(crate) fn find(wanted: &[(&'static Image, Vec<Arch>)], dir: &Path) -> Result<Programs> {
    let mut programs = Programs::new();
    for (image, archs) in wanted {
        for (arch, program) in archs
            .iter()
            .flat_map(|arch| image.programs.iter().map(|p| (*arch, p)))
        {
            let path = dir.join(arch.dir()).join("bin").join(program.name);
            program::check(&path, arch, &[])?;
            programs.insert((arch, program.name), path);
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_compiler_is_not_used() {
        assert!(is_new_enough("rustc 1.96.0 (ac68faa20 2026-05-25)"));
        assert!(is_new_enough(&format!("rustc {RUST_VERSION}.0")));
        assert!(!is_new_enough("rustc 1.63.0"));
        assert!(!is_new_enough(""));
    }
}
