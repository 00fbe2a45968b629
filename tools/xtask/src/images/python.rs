//! The layer under the Python function runtime: CPython with its standard library, put together from packages of
//! Debian, without a package manager, a shell or anything else.
//!
//! Its standard library is there in compiled form alone: on a read-only root nobody could keep what each start would
//! compile, and beside it the source is a sixth of the layer that only debuggers read. Compiled code is the same for every
//! architecture, so this machine's Python compiles it for all.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::arch::Arch;
use super::compression::Compression;
use super::debian::{self, Package};
use super::layer::{Kind, Layer, Tree};
use super::oci::Digest;
use super::run;

/// The authorities of the web, for functions that call servers.
pub(crate) const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";
/// Changes whenever this file makes something else of the same packages.
const RECIPE: &str = "3";
const VERSION: &str = "python3.11";

const PACKAGES: &[&str] = &[
    "base-files",
    "ca-certificates",
    "gcc-12-base",
    "libbz2-1.0",
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libsqlite3-0",
    "libssl3",
    // For packages with compiled parts that functions bring along (numpy and the like).
    "libstdc++6",
    "libuuid1",
    "python3.11-minimal",
    "tzdata",
    "zlib1g",
];

/// Modules that need a terminal, a library that is not there, or a desk, and what later versions of Python dropped without
/// anything to replace it: nothing a function on a node calls.
const WITHOUT: &[&str] = &[
    // What decimal and io fall back to without their compiled modules, which are there.
    "_pydecimal.py",
    "_pyio.py",
    "aifc.py",
    "crypt.py",
    "curses",
    "dbm/gnu.py",
    "dbm/ndbm.py",
    "ensurepip",
    "lib2to3",
    "nntplib.py",
    "pydoc_data",
    "rlcompleter.py",
    // Asks for a module that reports crashes to Ubuntu.
    "sitecustomize.py",
    "sndhdr.py",
    "sunau.py",
    "test",
    "turtle.py",
    "venv",
];

/// Compiled modules without which the same is true, and those that test Python itself.
const WITHOUT_COMPILED: &[&str] = &[
    "_crypt",
    "_ctypes_test",
    "_curses",
    "_dbm",
    "_test",
    "_xxtest",
    "nis",
    "ossaudiodev",
    "readline",
    "xxlimited",
];

/// Libraries that come with others and that neither Python nor what functions bring along loads: for the C library's own
/// tests and profilers, for directories of users, and for C code that is compiled without exact arithmetic.
const WITHOUT_LIBRARIES: &[&str] = &[
    "libBrokenLocale",
    "libanl",
    "libc_malloc_debug",
    "libexpatw",
    "libmemusage",
    "libmvec",
    "libnsl",
    "libnss_compat",
    "libnss_hesiod",
    "libpcprofile",
    "libthread_db",
];

/// The layer for an architecture. What it is made of and what comes out is kept in `cache`.
///
/// # Errors
/// When packages cannot be fetched or read, or Python does not run.
pub(crate) fn layer(arch: Arch, cache: &Path, compression: Compression) -> Result<Layer> {
    let packages = packages(arch, cache)?;
    let sums: Vec<&str> = packages.iter().map(|p| p.digest.as_str()).collect();
    let key = Digest::of(format!("{RECIPE} {}", sums.join(" ")).as_bytes());
    let name = format!(
        "python-{}-{}.tar.{}",
        arch.dir(),
        &key.hex()[..16],
        compression.name()
    );
    let kept = cache.join(name);
    if let Ok(blob) = fs::read(&kept) {
        return Layer::from_blob(blob);
    }
    let (tree, newest) = made(arch, &packages, cache)?;
    let layer = tree.pack(newest, compression)?;
    fs::write(&kept, &layer.blob)?;
    Ok(layer)
}

/// The same, put together anew whatever is kept.
///
/// # Errors
/// As [`layer`].
pub(crate) fn layer_anew(arch: Arch, cache: &Path, compression: Compression) -> Result<Layer> {
    let (tree, newest) = made(arch, &packages(arch, cache)?, cache)?;
    tree.pack(newest, compression)
}

/// What is in the layer, and the newest time of its packages.
fn made(arch: Arch, packages: &[Package], cache: &Path) -> Result<(Tree, u64)> {
    let host = Arch::host().context("this machine is none that Python can be put together on")?;
    eprintln!("putting Python together for {arch}");
    let (mut tree, newest) = assemble(arch, packages)?;
    let root = scratch(cache, &format!("root-{}", arch.dir()), &tree)?;
    if arch == host {
        compile(arch, &root, &root)?;
    } else {
        let own = assemble(host, &self::packages(host, cache)?)?.0;
        let own = scratch(cache, &format!("root-{}", host.dir()), &own)?;
        compile(host, &own, &root)?;
    }
    collect(&mut tree, &root)?;
    Ok((tree, newest))
}

fn packages(arch: Arch, cache: &Path) -> Result<Vec<Package>> {
    debian::fetch(arch, PACKAGES, &cache.join(format!("apt-{}", arch.dir())))
        .with_context(|| format!("packages for {arch} cannot be fetched"))
}

/// What is wanted of the packages, and the newest time in them.
fn assemble(arch: Arch, packages: &[Package]) -> Result<(Tree, u64)> {
    let mut tree = Tree::default();
    let mut newest = 0;
    let mut controls = Vec::new();
    for package in packages {
        newest = newest.max(tree.overlay(&*package.files()?)?);
        let control = String::from_utf8_lossy(&package.control()?).into_owned();
        let name = control
            .lines()
            .find_map(|line| line.strip_prefix("Package: "))
            .context("a package without a name")?;
        controls.push((name.to_owned(), control.clone()));
    }
    let authorities = authorities(&tree);
    ensure!(
        !authorities.is_empty(),
        "ca-certificates has no certificate"
    );
    tree.retain(|path| is_wanted(path, arch));
    tree.add(AUTHORITIES, Kind::File(authorities), 0o644);
    tree.add("usr/bin/python3", Kind::Link(VERSION.to_owned()), 0o777);
    // Where scanners of images without a package manager look for what is installed.
    for (name, control) in controls {
        tree.add(
            &format!("var/lib/dpkg/status.d/{name}"),
            Kind::File(control.into_bytes()),
            0o644,
        );
    }
    Ok((tree, newest))
}

/// All authorities Mozilla trusts, as `update-ca-certificates` joins them.
fn authorities(tree: &Tree) -> Vec<u8> {
    let mut all = Vec::new();
    for (path, node) in tree.iter() {
        if let Kind::File(bytes) = &node.kind
            && path.starts_with("usr/share/ca-certificates/mozilla/")
        {
            all.extend_from_slice(bytes);
            if !bytes.ends_with(b"\n") {
                all.push(b'\n');
            }
        }
    }
    all
}

fn is_wanted(path: &str, arch: Arch) -> bool {
    let gnu = arch.gnu();
    let below = |dir: &str| {
        path.strip_prefix(dir)
            .and_then(|rest| rest.strip_prefix('/'))
    };
    if let Some(module) = below(&format!("usr/lib/{VERSION}")) {
        return is_module_wanted(module);
    }
    if let Some(library) = below(&format!("usr/lib/{gnu}")) {
        // Not the converters of the C library: Python has its own.
        return library.contains(".so") && !library.contains('/') && is_library_wanted(library)
            || library.starts_with("ossl-modules/");
    }
    if let Some(library) = below(&format!("lib/{gnu}")) {
        // The same again, where they are not yet in one place.
        return !library.contains('/') && is_library_wanted(library);
    }
    if let Some(zone) = below("usr/share/zoneinfo") {
        return !zone.starts_with("right/") && !zone.starts_with("posix/");
    }
    path.starts_with("lib/")
        || path.starts_with("lib64/")
        || path.starts_with("usr/share/common-licenses/")
        || path.starts_with("usr/share/doc/")
            && (path.ends_with("/copyright") || path.matches('/').count() == 3)
        || path == format!("usr/bin/{VERSION}")
        || path == "usr/lib/os-release"
        || path == "etc/os-release"
        || path == "etc/debian_version"
        || path == "usr/lib/ssl/openssl.cnf"
}

fn is_library_wanted(file: &str) -> bool {
    let name = file.split(".so").next().unwrap_or_default();
    !WITHOUT_LIBRARIES.contains(&name)
}

fn is_module_wanted(module: &str) -> bool {
    let compiled = module.strip_prefix("lib-dynload/");
    !WITHOUT
        .iter()
        .any(|without| module == *without || module.starts_with(&format!("{without}/")))
        && !compiled.is_some_and(|name| {
            WITHOUT_COMPILED
                .iter()
                .any(|without| name.starts_with(without))
        })
}

/// Writes a tree to a directory that held nothing.
fn scratch(cache: &Path, name: &str, tree: &Tree) -> Result<std::path::PathBuf> {
    let dir = cache.join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    tree.write_to(&dir)?;
    Ok(dir)
}

/// Python of a root on disk, run without changing into it; with an emulator for another architecture.
pub(crate) fn python(arch: Arch, root: &Path, emulated: bool) -> Command {
    let libraries = format!("{0}/lib/{1}:{0}/usr/lib/{1}", root.display(), arch.gnu());
    let loader = root.join("lib").join(arch.gnu()).join(arch.loader());
    let mut command = if emulated {
        let mut command = run::command(arch.emulator());
        command.arg(loader);
        command
    } else {
        let mut command = Command::new(loader);
        command.current_dir(crate::root());
        command
    };
    command
        .arg("--library-path")
        .arg(libraries)
        .arg(root.join("usr/bin").join(VERSION))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PYTHONHOME", root.join("usr"));
    command
}

/// Compiles the standard library in `root` with the Python in `own`.
fn compile(arch: Arch, own: &Path, root: &Path) -> Result<()> {
    let library = root.join("usr/lib").join(VERSION);
    // A fixed seed, one process and no times: the same source always gives the same bytes.
    let mut command = python(arch, own, false);
    command
        .env("PYTHONHASHSEED", "0")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["-S", "-m", "compileall", "-q", "-f", "-b", "-j", "1"])
        .args(["--invalidation-mode", "unchecked-hash"])
        .arg("-s")
        .arg(root)
        .args(["-p", "/"])
        .arg(&library);
    run::loud(&mut command).context("the standard library of Python cannot be compiled")
}

/// Takes what was compiled into the tree, each in the place of its source.
fn collect(tree: &mut Tree, root: &Path) -> Result<()> {
    let is_source = |path: &str| path.starts_with("usr/lib/") && path.ends_with(".py");
    let sources: Vec<String> = tree
        .iter()
        .map(|(path, _)| path)
        .filter(|path| is_source(path))
        .map(str::to_owned)
        .collect();
    tree.retain(|path| !is_source(path));
    for source in sources {
        let compiled = format!("{source}c");
        let bytes =
            fs::read(root.join(&compiled)).with_context(|| format!("{source} was not compiled"))?;
        tree.add(&compiled, Kind::File(bytes), 0o644);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_functions_need_is_wanted_and_the_rest_is_not() {
        let wanted = |path: &str| is_wanted(path, Arch::Arm64);
        for path in [
            "lib/aarch64-linux-gnu/libc.so.6",
            "lib/ld-linux-aarch64.so.1",
            "usr/bin/python3.11",
            "usr/lib/python3.11/asyncio/base_events.py",
            "usr/lib/python3.11/lib-dynload/_ssl.cpython-311-aarch64-linux-gnu.so",
            "usr/lib/aarch64-linux-gnu/libssl.so.3",
            "usr/lib/aarch64-linux-gnu/libexpat.so.1",
            "usr/lib/aarch64-linux-gnu/libstdc++.so.6.0.30",
            "usr/share/zoneinfo/Europe/Berlin",
            "usr/share/doc/libc6/copyright",
        ] {
            assert!(wanted(path), "{path}");
        }
        for path in [
            "usr/lib/python3.11/test/support.py",
            "usr/lib/python3.11/lib2to3/pytree.py",
            "usr/lib/python3.11/lib-dynload/readline.cpython-311-aarch64-linux-gnu.so",
            "usr/lib/aarch64-linux-gnu/gconv/BIG5.so",
            "lib/aarch64-linux-gnu/libmvec.so.1",
            "usr/lib/aarch64-linux-gnu/libexpatw.so.1.8.10",
            "usr/lib/python3.11/_pydecimal.py",
            "usr/lib/python3.11/sitecustomize.py",
            "usr/share/zoneinfo/right/Europe/Berlin",
            "usr/share/doc/libc6/changelog.Debian.gz",
            "usr/sbin/update-ca-certificates",
        ] {
            assert!(!wanted(path), "{path}");
        }
    }
}
