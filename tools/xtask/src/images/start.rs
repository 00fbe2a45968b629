//! `--check-start`: the programs of every architecture, taken out of images that went through a registry, run until they
//! are ready, and end when they are told to; those of foreign architectures under emulation.
//!
//! All services of an architecture share a data directory, as on a node in native mode: the function proxy is ready
//! only with an engine to ask. Sync has no identity, so it is live and says what it waits for.

mod process;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use super::arch::Arch;
use super::catalog::{BIN, Base, Image, by_name};
use super::layer::Tree;
use super::layout::{self, Built};
use super::registry::{Address, Registry};
use super::served::Served;
use super::{helm, python, run};
use process::Process;

/// When a program counts as started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    /// `/readyz` of its admin port says so.
    Ready,
    /// `/livez` says so, and `/readyz` names this latch as the only one that is closed, with this reason.
    Waiting(&'static str, &'static str),
    /// Its log has this line.
    Says(&'static str),
    /// It has nothing to run for: it tells its version and checks a configuration.
    Tells,
    /// It is Helm, which tells its version another way.
    Helm,
}

/// A program of an image and when it counts as started. In this order: the proxy asks engine.
const PROGRAMS: &[(&str, Started)] = &[
    ("baetyl-engine", Started::Ready),
    ("baetyl-node", Started::Ready),
    ("baetyl-function-proxy", Started::Ready),
    (
        "baetyl-sync",
        Started::Waiting("identity", "waiting for identity"),
    ),
    ("baetyl-runtime-python", Started::Says("worker is ready")),
    (
        "baetyl-runtime-echo",
        Started::Says("not connected to the function proxy"),
    ),
    ("baetyl-init", Started::Tells),
    ("baetyl-edge", Started::Tells),
    ("baetyl-cloud", Started::Tells),
    ("baetylctl", Started::Tells),
    ("baetyl-helm", Started::Helm),
];

fn is_foreign(arch: Arch) -> bool {
    Arch::host() != Some(arch)
}

/// Packages of Debian that are missing for this check.
pub(crate) fn missing(archs: &[Arch]) -> Vec<String> {
    let mut packages = Vec::new();
    if !run::has(super::served::PROGRAM) {
        packages.push("docker-registry".to_owned());
    }
    let mut foreign = archs.iter().filter(|arch| is_foreign(**arch));
    if foreign.any(|arch| !run::has(arch.emulator())) {
        packages.push("qemu-user-static".to_owned());
    }
    packages
}

/// Pushes the images to a registry on this machine, pulls them back, and starts what is in them.
///
/// # Errors
/// When a program of the check is missing, an image comes back different, or something does not start or end.
pub(crate) async fn check(images: &[Built], tag: &str) -> Result<()> {
    let mut archs: Vec<Arch> = images
        .iter()
        .flat_map(|image| &image.platforms)
        .map(|part| part.arch)
        .collect();
    archs.sort();
    archs.dedup();
    let missing = missing(&archs);
    ensure!(
        missing.is_empty(),
        "programs cannot be started here: install {} (Debian)",
        missing.join(" ")
    );
    let dir = tempfile::Builder::new()
        .prefix("baetyl-images-")
        .tempdir()?;
    let served = Served::start(dir.path(), "", "").await?;
    let registry = Registry::new(Address::parse(&served.address, false)?, None)?;
    let mut pulled = BTreeMap::new();
    for image in images {
        registry.push(image, tag).await?;
        for (arch, tree) in pull(&registry, image, tag).await? {
            pulled.insert((arch, image.name.clone()), tree);
        }
    }
    eprintln!(
        "{} images went to {} and came back the same",
        images.len(),
        served.address
    );
    for arch in archs {
        let node = dir.path().join(arch.dir());
        check_arch(arch, &pulled, &node)
            .await
            .with_context(|| format!("on {arch}"))?;
    }
    Ok(())
}

/// The files of an image by architecture, as a registry gives them.
async fn pull(registry: &Registry, image: &Built, tag: &str) -> Result<Vec<(Arch, Tree)>> {
    let name = &image.name;
    let (top, content) = registry
        .pull(name, tag)
        .await
        .with_context(|| format!("cannot pull {name}"))?;
    ensure!(
        top.digest == image.index.digest && content == image.content,
        "{name} came back different from what was pushed"
    );
    let mut trees = Vec::new();
    for whole in layout::check(&content, &top)? {
        let mut blobs = Vec::new();
        for layer in &whole.layers {
            blobs.push(content.get(layer)?);
        }
        trees.push((whole.arch, Tree::unpack(blobs)?));
    }
    Ok(trees)
}

/// Starts every program of an architecture, beside one another, then ends them.
async fn check_arch(
    arch: Arch,
    pulled: &BTreeMap<(Arch, String), Tree>,
    node: &Path,
) -> Result<()> {
    let data = node.join("data");
    fs::create_dir_all(&data)?;
    let mut running = Vec::new();
    for (name, started) in PROGRAMS {
        let Some(tree) = pulled.get(&(arch, (*name).to_owned())) else {
            continue;
        };
        let image = by_name(name).context("a program without an image")?;
        let root = node.join("images").join(name);
        tree.write_to(&root)?;
        let begun = Instant::now();
        let process = start(arch, image, *started, &root, &data)
            .await
            .with_context(|| format!("{name} does not start"))?;
        eprintln!(
            "{arch:<8} {name:<22} {} after {:.1} s",
            told(*started),
            begun.elapsed().as_secs_f64()
        );
        running.extend(process);
    }
    for process in running.into_iter().rev() {
        let name = process.name().to_owned();
        let took = process
            .end()
            .await
            .with_context(|| format!("{name} does not end"))?;
        eprintln!(
            "{arch:<8} {name:<22} ended with 0 after {:.1} s",
            took.as_secs_f64()
        );
    }
    Ok(())
}

fn told(started: Started) -> String {
    match started {
        Started::Ready => "ready".to_owned(),
        Started::Waiting(_, reason) => format!("live, {reason}"),
        Started::Says(line) => format!("runs ({line})"),
        Started::Tells | Started::Helm => "tells its version".to_owned(),
    }
}

/// Starts one program and waits until it counts as started. Nothing for one that does not stay.
async fn start(
    arch: Arch,
    image: &Image,
    started: Started,
    root: &Path,
    data: &Path,
) -> Result<Option<Process>> {
    let entrypoint = image.entrypoint().context("no entry point")?;
    let program = root.join(entrypoint.trim_start_matches('/'));
    let made = |args: &[&str]| {
        let mut command = match is_foreign(arch) {
            true => {
                let mut command = run::command(arch.emulator());
                command.arg(&program);
                command
            }
            false => std::process::Command::new(&program),
        };
        command
            .args(args)
            .env("BAETYL_DATA_DIR", data)
            .current_dir(data);
        command
    };
    match started {
        Started::Tells => return tells(image, made).map(|()| None),
        Started::Helm => return tells_helm(made).map(|()| None),
        _ => {}
    }
    let mut command = made(&["run"]);
    match started {
        Started::Says(_) => runtime(&mut command, arch, image, root, data)?,
        _ => {
            let service = image.name.trim_start_matches("baetyl-");
            let upper = service.replace('-', "_").to_uppercase();
            for listener in ["ADMIN", "HTTP", "GRPC"] {
                if listener == "ADMIN" || service == "function-proxy" {
                    command.env(format!("BAETYL_{upper}__{listener}__LISTEN"), "127.0.0.1:0");
                }
            }
        }
    }
    let mut process = Process::spawn(image.name, &mut command, &root.with_extension("log"))?;
    match started {
        Started::Says(line) => process.says(line).await?,
        Started::Waiting(latch, reason) => process.waits_for(data, latch, reason).await?,
        _ => process.ready(data).await?,
    }
    Ok(Some(process))
}

/// The version, and that a configuration is read.
fn tells(image: &Image, made: impl Fn(&[&str]) -> std::process::Command) -> Result<()> {
    let version = run::quiet(&mut made(&["--version"]))?;
    let version = String::from_utf8_lossy(&version).trim().to_owned();
    let wanted = format!("{} {}", image.name, env!("CARGO_PKG_VERSION"));
    ensure!(
        version == wanted,
        "it calls itself {version:?}, not {wanted:?}"
    );
    if let [run] = image.command {
        let checked = run::quiet(&mut made(&[run, "--check-config"]))?;
        let checked = String::from_utf8_lossy(&checked);
        ensure!(
            checked.contains("valid"),
            "it says of its configuration: {checked}"
        );
    }
    Ok(())
}

fn tells_helm(made: impl Fn(&[&str]) -> std::process::Command) -> Result<()> {
    let version = run::quiet(&mut made(&["version", "--template", "{{.Version}}"]))?;
    let (version, wanted) = (String::from_utf8_lossy(&version), helm::version()?);
    ensure!(version == *wanted, "it is {version:?}, not {wanted:?}");
    Ok(())
}

/// What engine would tell a function runtime, and for Python a function to load.
fn runtime(
    command: &mut std::process::Command,
    arch: Arch,
    image: &Image,
    root: &Path,
    data: &Path,
) -> Result<()> {
    let code = data.join("code");
    fs::create_dir_all(&code)?;
    fs::write(code.join("hello.py"), HELLO)?;
    let functions = data.join("functions.yml");
    fs::write(
        &functions,
        "functions:\n  - name: hello\n    handler: hello.handler\n",
    )?;
    command
        .env("BAETYL_FUNCTION_SOCKET", data.join("nobody.sock"))
        .env("BAETYL_TOKEN_FILE", data.join("token"))
        .env("BAETYL_FUNCTIONS_FILE", functions)
        .env("BAETYL_CODE_PATH", code);
    if image.base == Base::Python {
        command.env("BAETYL_PYTHON", interpreter(arch, root)?);
    }
    Ok(())
}

/// Loads what functions use most: a module that is missing or does not load keeps the worker from being ready.
const HELLO: &str = "\
import asyncio, base64, concurrent.futures, csv, ctypes, datetime, decimal, email, hashlib, http.client, json, logging
import multiprocessing, pathlib, random, re, sqlite3, ssl, subprocess, tempfile, urllib.request, uuid, xml.etree.ElementTree
import bz2, lzma, zlib, zoneinfo

zoneinfo.ZoneInfo('Europe/Berlin')
assert json.__cached__ and __import__('os').path.exists(json.__cached__), 'the standard library is not compiled'
if not ssl.create_default_context().get_ca_certs():
    raise SystemExit('no authorities of the web')

def handler(event, context):
    return {}
";

/// A script that runs the Python of an image where it lies: a program that is emulated cannot start another one of its
/// kind itself.
fn interpreter(arch: Arch, root: &Path) -> Result<PathBuf> {
    let python = python::python(arch, root, is_foreign(arch));
    let mut script = String::from("#!/bin/sh\n");
    for (name, value) in python.get_envs() {
        if let Some(value) = value {
            script += &format!("export {}='{}'\n", name.display(), value.display());
        }
    }
    script += &format!(
        "export SSL_CERT_FILE='{}'\nexec",
        root.join(python::AUTHORITIES).display()
    );
    for word in [python.get_program()].into_iter().chain(python.get_args()) {
        let word = word.to_str().context("a path is not named in UTF-8")?;
        if word.contains('\'') {
            bail!("{word} has a quote in its name");
        }
        script += &format!(" '{word}'");
    }
    script += " \"$@\"\n";
    let path = root.join(BIN).join("python3-here");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
