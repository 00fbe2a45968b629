//! `--check-start`: the programs of every architecture, taken out of images that went through a registry, run until they
//! are ready, and end when they are told to; those of foreign architectures under emulation.
//!
//! All services of an architecture share a data directory, as on a node in native mode: the function proxy is ready
//! only with an engine to ask. Where the image of a cloud for this machine is among them, it runs, too, and `baetyl-init`
//! activates the nodes: only then sync is ready. Without one sync is live and says what it waits for.

mod cloud;
mod process;
mod words;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::arch::Arch;
use super::catalog::{Base, Image, by_name};
use super::layer::Tree;
use super::layout::{self, Built};
use super::registry::{Address, Registry};
use super::served::Served;
use super::{helm, run};
use cloud::Cloud;
use process::Process;
use words::{command_line, interpreter, script};

/// When a program counts as started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    /// `/readyz` of its admin port says so.
    Ready,
    /// `/livez` says so, and `/readyz` names this latch as the only one that is closed: for want of an identity.
    Waiting(&'static str),
    /// Its log has this line.
    Says(&'static str),
    /// It has nothing to run for: it tells its version and checks a configuration.
    Tells,
    /// It is Helm, which tells its version another way.
    Helm,
}

/// What a service without an identity says it waits for.
const NO_IDENTITY: &str = "waiting for identity";
/// For listeners that nobody looks for.
const ANY_PORT: &str = "127.0.0.1:0";
/// Activates nodes; waits until all services are ready.
const INIT: &str = "baetyl-init";
/// All services in one, on a node of its own.
const EDGE: &str = "baetyl-edge";

/// A program of an image and when it counts as started. In this order: the proxy asks engine, init asks all.
const PROGRAMS: &[(&str, Started)] = &[
    ("baetyl-engine", Started::Ready),
    ("baetyl-node", Started::Ready),
    ("baetyl-function-proxy", Started::Ready),
    ("baetyl-sync", Started::Waiting("identity")),
    ("baetyl-runtime-python", Started::Says("worker is ready")),
    (
        "baetyl-runtime-echo",
        Started::Says("not connected to the function proxy"),
    ),
    (INIT, Started::Tells),
    (EDGE, Started::Waiting("sync/identity")),
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
    let cloud = match Arch::host().and_then(|host| pulled.get(&(host, "baetyl-cloud".to_owned()))) {
        Some(tree) => Some(Cloud::start(tree, &dir.path().join("cloud")).await?),
        None => None,
    };
    for arch in archs {
        let node = dir.path().join(arch.dir());
        check_arch(arch, &pulled, &node, cloud.as_ref())
            .await
            .with_context(|| format!("on {arch}"))?;
    }
    match cloud {
        Some(cloud) => cloud.end().await,
        None => Ok(()),
    }
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
    cloud: Option<&Cloud>,
) -> Result<()> {
    let root = |name: &str| node.join("images").join(name);
    let has = |name: &str| pulled.contains_key(&(arch, name.to_owned()));
    let mut running: Vec<Process> = Vec::new();
    for (name, started) in PROGRAMS {
        let Some(tree) = pulled.get(&(arch, (*name).to_owned())) else {
            continue;
        };
        let image = by_name(name).context("a program without an image")?;
        let root = root(name);
        tree.write_to(&root)?;
        let data = node.join(if *name == EDGE { "edge" } else { "data" });
        fs::create_dir_all(&data)?;
        let begun = Instant::now();
        let process = start(arch, image, *started, &root, &data)
            .await
            .with_context(|| format!("{name} does not start"))?;
        say(arch, name, &told(*started), begun);
        running.extend(process);
    }
    if let Some(cloud) = cloud.filter(|_| has(INIT)) {
        let init = command_line(arch, by_name(INIT).context("no init")?, &root(INIT))?;
        let five = has("baetyl-sync") && has("baetyl-engine") && has("baetyl-node");
        let five = five && has("baetyl-function-proxy");
        for (waiting, data, is_there) in [("baetyl-sync", "data", five), (EDGE, "edge", has(EDGE))]
        {
            let process = running.iter_mut().find(|process| process.name() == waiting);
            if let Some(process) = process.filter(|_| is_there) {
                let begun = Instant::now();
                let name = format!("check-{}-{data}", arch.dir());
                let data = node.join(data);
                activate(cloud, &name, &init, &data).await?;
                say(
                    arch,
                    INIT,
                    &format!("activated {name} and ended with 0"),
                    begun,
                );
                process
                    .ready(&data)
                    .await
                    .with_context(|| format!("{waiting} with an identity"))?;
                say(arch, waiting, "ready", begun);
            }
        }
    }
    for process in running.into_iter().rev() {
        let (name, begun) = (process.name().to_owned(), Instant::now());
        process
            .end()
            .await
            .with_context(|| format!("{name} does not end"))?;
        say(arch, &name, "ended with 0", begun);
    }
    Ok(())
}

fn say(arch: Arch, name: &str, what: &str, since: Instant) {
    let took = since.elapsed().as_secs_f64();
    eprintln!("{arch:<8} {name:<22} {what} after {took:.1} s");
}

/// Makes a node of the services in `data`, by the command the cloud gives for it; init ends when all of them are ready.
async fn activate(cloud: &Cloud, node: &str, init: &[String], data: &Path) -> Result<()> {
    let bin = data.join("init");
    fs::create_dir_all(&bin)?;
    script(&bin.join(INIT), &[], init)?;
    let path = std::env::var("PATH").context("PATH is not set")?;
    let mut command = std::process::Command::new("sh");
    command
        .arg("-c")
        .arg(cloud.install_command(node).await?)
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("BAETYL_DATA_DIR", data);
    Process::spawn(INIT, &mut command, &bin.join("log"))?
        .ends()
        .await
        .with_context(|| format!("{node} is not activated"))
}

fn told(started: Started) -> String {
    match started {
        Started::Ready => "ready".to_owned(),
        Started::Waiting(_) => format!("live, {NO_IDENTITY}"),
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
    let words = command_line(arch, image, root)?;
    let made = |args: &[&str]| {
        let (program, before) = words
            .split_first()
            .map_or(("", &[][..]), |(p, b)| (p.as_str(), b));
        let mut command = std::process::Command::new(program);
        command
            .args(before)
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
            command.env(format!("BAETYL_{upper}__ADMIN__LISTEN"), ANY_PORT);
            let proxy = match service {
                "function-proxy" => upper,
                _ => format!("{upper}__FUNCTION_PROXY"),
            };
            if matches!(service, "function-proxy" | "edge") {
                command.env(format!("BAETYL_{proxy}__HTTP__LISTEN"), ANY_PORT);
                command.env(format!("BAETYL_{proxy}__GRPC__LISTEN"), ANY_PORT);
            }
        }
    }
    let mut process = Process::spawn(image.name, &mut command, &root.with_extension("log"))?;
    match started {
        Started::Says(line) => process.says(line).await?,
        Started::Waiting(latch) => process.waits_for(data, latch, NO_IDENTITY).await?,
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
