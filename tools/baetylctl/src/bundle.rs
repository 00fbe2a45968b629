//! Everything a cluster without a network needs to become a node, in one file: a tape archive with one directory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::client::Client;
use crate::node::{KubeArgs, life, query, seconds};
use crate::resources::Kind;

#[cfg(test)]
mod tests;

/// What stands in an index of images beside a name; the first is what containerd takes it from.
const NAME_ANNOTATIONS: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// An index names a few dozen images at most.
const MAX_INDEX: u64 = 4 << 20;

#[derive(Args)]
pub(crate) struct BundleArgs {
    pub(crate) name: String,
    /// Archive with images in an OCI layout; repeatable.
    #[arg(long, required = true, num_args = 1..)]
    images: Vec<PathBuf>,
    /// The file to write. It holds an install token: keep it to yourself.
    #[arg(short, long)]
    output: PathBuf,
    #[command(flatten)]
    pub(crate) kube: KubeArgs,
    /// "k3s" takes the class made for K3s when no other is set.
    #[arg(long)]
    distribution: Option<String>,
    /// How long the token in the bundle lives, e.g. 12h or 7d; 30d at most.
    #[arg(long, value_parser = life, default_value = "7d")]
    token_life: Duration,
}

/// What the cloud gives for a bundle.
#[derive(Deserialize)]
struct Parts {
    script: String,
    manifests: String,
    ca: String,
    token: String,
    expires: String,
}

/// Fetches the parts and writes the file.
///
/// # Errors
/// When the cloud does not give them, an image is missing, or the file cannot be written.
pub(crate) async fn write(client: &Client, args: &BundleArgs) -> Result<()> {
    let query = query(&[
        ("class", args.kube.class.clone()),
        ("registry", args.kube.registry.clone()),
        ("pullSecret", args.kube.pull_secret.clone()),
        ("distribution", args.distribution.clone()),
        ("tokenSeconds", seconds(Some(args.token_life))),
    ]);
    let path = format!("{}/init/bundle{query}", Kind::Node.path(&args.name));
    let parts: Parts = serde_json::from_value(client.get(&path).await?)
        .context("the cloud answered without the parts of a bundle")?;
    check_images(&parts.manifests, &args.images)?;
    pack(&args.name, &parts, &args.images, &args.output)?;
    say!(
        "{} written; its token is good until {}",
        args.output.display(),
        parts.expires
    );
    Ok(())
}

/// A bundle that lacks an image is noticed here, not where nobody can fetch it.
fn check_images(manifests: &str, archives: &[PathBuf]) -> Result<()> {
    let mut there = BTreeSet::new();
    for archive in archives {
        let names = names_in(archive)
            .with_context(|| format!("{} is no archive of images", archive.display()))?;
        there.extend(names);
    }
    let wanted = images_of(manifests)?;
    let missing: Vec<_> = wanted.difference(&there).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let there: Vec<_> = there.iter().map(String::as_str).collect();
    bail!(
        "the archives lack images that the manifests name: {}; they have: {}",
        missing.join(", "),
        there.join(", ")
    )
}

/// Images that Pods of the manifests want.
fn images_of(manifests: &str) -> Result<BTreeSet<String>> {
    let mut images = BTreeSet::new();
    for document in serde_norway::Deserializer::from_str(manifests) {
        let document = Value::deserialize(document).context("the manifests are not YAML")?;
        let pod = document
            .pointer("/spec/template/spec")
            .unwrap_or(&Value::Null);
        for list in ["containers", "initContainers"] {
            let containers = pod[list].as_array().into_iter().flatten();
            images.extend(containers.filter_map(|c| Some(c["image"].as_str()?.to_owned())));
        }
    }
    Ok(images)
}

/// Names of the images of an OCI layout in an archive.
fn names_in(archive: &Path) -> Result<BTreeSet<String>> {
    let file = File::open(archive)?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let path = entry.path()?;
        if path.strip_prefix("./").unwrap_or(&path) == Path::new("index.json") {
            let index: Value = serde_json::from_reader(entry.take(MAX_INDEX))?;
            let named = index["manifests"].as_array().into_iter().flatten();
            let name = |image: &Value| {
                NAME_ANNOTATIONS
                    .iter()
                    .find_map(|key| Some(image["annotations"][*key].as_str()?.to_owned()))
            };
            return Ok(named.filter_map(name).collect());
        }
    }
    bail!("it has no index.json, so it is no OCI layout")
}

/// Writes the file beside its place and then puts it there: a bundle is whole or not there.
fn pack(node: &str, parts: &Parts, archives: &[PathBuf], output: &Path) -> Result<()> {
    let mut partial = output.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let cannot = || format!("cannot write {}", output.display());
    // Only for its owner: of a file that is there already the rights stay, therefore a new one.
    let _ = fs::remove_file(&partial);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let file = options.open(&partial).with_context(cannot)?;
    let written = fill(node, parts, archives, BufWriter::new(file));
    let placed = written.and_then(|()| fs::rename(&partial, output).map_err(Into::into));
    if placed.is_err() {
        let _ = fs::remove_file(&partial);
    }
    placed.with_context(cannot)
}

fn fill(node: &str, parts: &Parts, archives: &[PathBuf], file: impl Write) -> Result<()> {
    let mut bundle = tar::Builder::new(file);
    let root = format!("baetyl-{node}");
    let readme = readme(node, parts);
    let files: [(&str, u32, &str); 5] = [
        ("README.txt", 0o644, &readme),
        ("install.sh", 0o755, &parts.script),
        ("manifests.yaml", 0o644, &parts.manifests),
        ("ca.pem", 0o644, &parts.ca),
        ("token", 0o600, &parts.token),
    ];
    for (name, mode, text) in files {
        let size = u64::try_from(text.len())?;
        add(
            &mut bundle,
            &format!("{root}/{name}"),
            mode,
            size,
            text.as_bytes(),
        )?;
    }
    for (number, archive) in archives.iter().enumerate() {
        let from =
            File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
        let size = from.metadata()?.len();
        // Two archives may have one name.
        let name = format!("{root}/images/{number:02}-{}", file_name(archive));
        add(&mut bundle, &name, 0o644, size, BufReader::new(from))?;
    }
    let mut file = bundle.into_inner()?;
    file.flush()?;
    Ok(())
}

fn file_name(archive: &Path) -> String {
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    // The script imports *.tar.
    let name = name.strip_suffix(".tar").unwrap_or(&name);
    format!("{name}.tar")
}

fn add(
    bundle: &mut tar::Builder<impl Write>,
    path: &str,
    mode: u32,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    header.set_mtime(now.map_or(0, |now| now.as_secs()));
    bundle.append_data(&mut header, path, content)
}

fn readme(node: &str, parts: &Parts) -> String {
    let about = |name: &str| {
        let prefix = format!("# baetyl.io/{name}: ");
        let line = parts
            .manifests
            .lines()
            .find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or("?").to_owned()
    };
    format!(
        "Edge node {node}, version {version}, class {class}.

On the machine of the cluster, as root, in the directory this file lies in:

    sh install.sh --bundle .

It needs kubectl or k3s, and ctr or k3s to import the images. Options: sh install.sh --help

images/          what the Pods run, as OCI layouts; in a cluster with several machines to be imported on each of them
manifests.yaml   what is applied
ca.pem           authority of the cloud at {cloud}
token            install token, good for this node until {expires}; delete it afterwards

The machine must reach the cloud at {cloud} to be activated. When the token has expired, take that of a new install
command: BAETYL_INIT__TOKEN=... sh install.sh --bundle .
",
        version = about("version"),
        class = about("class"),
        cloud = about("cloud"),
        expires = parts.expires,
    )
}
