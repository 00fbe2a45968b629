//! Images put together from layers, and the directory or archive they lie in: an OCI image layout.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use super::arch::Arch;
use super::catalog::{Image, Stamp, USER};
use super::compression;
use super::layer::Layer;
use super::oci::{
    CONFIG, CONTAINERD_NAME, Descriptor, Digest, History, INDEX, ImageConfig, Index, MANIFEST,
    Manifest, Process, REF_NAME, RootFs, to_json,
};

/// Content of the file that makes a directory a layout.
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Pieces of content by their sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content(BTreeMap<Digest, Vec<u8>>);

/// An image for all its platforms.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    /// Name of the image, e.g. `baetyl-node`.
    pub(crate) name: String,
    /// Its index.
    pub(crate) index: Descriptor,
    /// All its content.
    pub(crate) content: Content,
    /// What is in it, by architecture.
    pub(crate) platforms: Vec<Part>,
}

/// An image for one platform, as tables tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Part {
    /// For which machines.
    pub(crate) arch: Arch,
    /// Digest of its manifest.
    pub(crate) digest: Digest,
    /// Bytes of its layers as they travel: compressed.
    pub(crate) compressed: u64,
}

impl Content {
    /// Adds a piece.
    pub(crate) fn put(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
        };
        self.0.insert(descriptor.digest.clone(), bytes);
        descriptor
    }

    /// The piece this describes.
    ///
    /// # Errors
    /// When it is missing or not what is described.
    pub(crate) fn get(&self, descriptor: &Descriptor) -> Result<&[u8]> {
        let digest = &descriptor.digest;
        let bytes = self
            .0
            .get(digest)
            .with_context(|| format!("{digest} is missing"))?;
        let size = bytes.len() as u64;
        let described = descriptor.size;
        ensure!(
            size == described,
            "{digest} has {size} bytes, {described} are described"
        );
        ensure!(
            Digest::of(bytes) == *digest,
            "the bytes of {digest} have another sum"
        );
        Ok(bytes)
    }

    /// All pieces.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Digest, &[u8])> {
        self.0.iter().map(|(digest, bytes)| (digest, &**bytes))
    }
}

/// Puts an image together from its layers for each architecture.
///
/// # Errors
/// When something cannot be written as JSON.
pub(crate) fn assemble(
    image: &Image,
    stamp: &Stamp,
    layers: &[(Arch, Vec<Layer>)],
) -> Result<Built> {
    let mut content = Content::default();
    let mut manifests = Vec::new();
    let mut platforms = Vec::new();
    for (arch, layers) in layers {
        let config = content.put(CONFIG, to_json(&config(image, stamp, *arch, layers)?)?);
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            config,
            layers: layers.iter().map(|l| l.descriptor.clone()).collect(),
        };
        for layer in layers {
            content.put(&layer.descriptor.media_type, layer.blob.clone());
        }
        let mut descriptor = content.put(MANIFEST, to_json(&manifest)?);
        descriptor.platform = Some((*arch).into());
        platforms.push(Part {
            arch: *arch,
            digest: descriptor.digest.clone(),
            compressed: layers.iter().map(|layer| layer.descriptor.size).sum(),
        });
        manifests.push(descriptor);
    }
    let index = Index::new(manifests, image.labels(stamp));
    let index = content.put(INDEX, to_json(&index)?);
    Ok(Built {
        name: image.name.to_owned(),
        index,
        content,
        platforms,
    })
}

fn config(image: &Image, stamp: &Stamp, arch: Arch, layers: &[Layer]) -> Result<ImageConfig> {
    let created = jiff::Timestamp::from_second(i64::try_from(stamp.epoch)?)?.to_string();
    let history = History {
        created: created.clone(),
        created_by: "cargo xtask images".to_owned(),
    };
    Ok(ImageConfig {
        created,
        platform: arch.into(),
        config: Process {
            user: format!("{USER}:{USER}"),
            env: image.env(),
            entrypoint: image.entrypoint().into_iter().collect(),
            cmd: image.command.iter().map(|&arg| arg.to_owned()).collect(),
            working_dir: "/".to_owned(),
            labels: image.labels(stamp),
        },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        },
        history: vec![history; layers.len()],
    })
}

/// What an image is for one platform.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    /// For which machines.
    pub(crate) arch: Arch,
    /// How its processes are started.
    pub(crate) config: ImageConfig,
    /// Its layers as they travel.
    pub(crate) layers: Vec<Descriptor>,
}

/// Follows an image from its index (or its only manifest) down to the layers, and checks every sum, size and kind.
///
/// # Errors
/// When anything is missing, different from what is described, or not as the specification wants it.
pub(crate) fn check(content: &Content, top: &Descriptor) -> Result<Vec<Whole>> {
    let manifests = match &*top.media_type {
        MANIFEST => vec![top.clone()],
        INDEX => {
            let index: Index = serde_json::from_slice(content.get(top)?)?;
            ensure!(
                index.schema_version == 2 && index.media_type == INDEX,
                "{} is no index",
                top.digest
            );
            index.manifests
        }
        other => bail!("{} is a {other}", top.digest),
    };
    ensure!(!manifests.is_empty(), "{} lists nothing", top.digest);
    manifests
        .iter()
        .map(|manifest| {
            check_manifest(content, manifest)
                .with_context(|| format!("manifest {}", manifest.digest))
        })
        .collect()
}

fn check_manifest(content: &Content, descriptor: &Descriptor) -> Result<Whole> {
    let kind = &descriptor.media_type;
    ensure!(kind == MANIFEST, "it is a {kind}");
    let manifest: Manifest = serde_json::from_slice(content.get(descriptor)?)?;
    let kind = &manifest.media_type;
    ensure!(
        manifest.schema_version == 2 && kind == MANIFEST,
        "it says it is a {kind}"
    );
    let kind = &manifest.config.media_type;
    ensure!(kind == CONFIG, "its configuration is a {kind}");
    let config: ImageConfig = serde_json::from_slice(content.get(&manifest.config)?)?;
    if let Some(platform) = &descriptor.platform {
        ensure!(
            *platform == config.platform,
            "it is listed for {platform:?} and made for {:?}",
            config.platform
        );
    }
    let sums = &config.rootfs.diff_ids;
    ensure!(
        config.rootfs.kind == "layers" && sums.len() == manifest.layers.len(),
        "it has {} layers and sums of {}",
        manifest.layers.len(),
        sums.len()
    );
    for (layer, sum) in manifest.layers.iter().zip(sums) {
        let blob = content.get(layer)?;
        let (said, kind) = (&layer.media_type, compression::kind(blob)?);
        ensure!(said == kind, "a layer is a {kind} and listed as {said}");
        let mut raw = Vec::new();
        compression::unpacked(blob)?.read_to_end(&mut raw)?;
        ensure!(
            Digest::of(&raw) == *sum,
            "layer {} unpacks to something else than {sum}",
            layer.digest
        );
    }
    Ok(Whole {
        arch: config.platform.arch()?,
        config,
        layers: manifest.layers,
    })
}

/// The files of a layout with these images, by path. `prefix` is what names begin with (`registry.example/team/`); a
/// layout of one image has the bare tag as its name.
fn files(images: &[Built], prefix: &str, tag: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::from([("oci-layout".to_owned(), LAYOUT.as_bytes().to_vec())]);
    let mut tops = Vec::new();
    for image in images {
        let whole = format!("{prefix}{}:{tag}", image.name);
        let mut top = image.index.clone();
        let name = if images.len() == 1 { tag } else { &whole };
        top.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        top.annotations.insert(CONTAINERD_NAME.to_owned(), whole);
        tops.push(top);
        for (digest, bytes) in image.content.iter() {
            let path = format!("blobs/sha256/{}", digest.hex());
            files.entry(path).or_insert_with(|| bytes.to_vec());
        }
    }
    let index = to_json(&Index::new(tops, BTreeMap::new()))?;
    files.insert("index.json".to_owned(), index);
    Ok(files)
}

/// Writes the layout of one image to `dir`, which holds nothing else afterwards.
///
/// # Errors
/// When something cannot be written, or `dir` has files that no layout has.
pub(crate) fn write(dir: &Path, image: &Built, prefix: &str, tag: &str) -> Result<()> {
    clear(dir)?;
    for (path, bytes) in files(std::slice::from_ref(image), prefix, tag)? {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Removes a layout that an earlier run left.
fn clear(dir: &Path) -> Result<()> {
    if dir.join("oci-layout").exists() {
        return fs::remove_dir_all(dir)
            .with_context(|| format!("cannot remove what is in {}", dir.display()));
    }
    let is_free = fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
    ensure!(
        is_free,
        "{} is neither empty nor an image layout; give another directory",
        dir.display()
    );
    Ok(())
}

/// Writes all images to one archive, which `ctr images import` and K3s take. Same images, same bytes.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn bundle(
    file: &Path,
    images: &[Built],
    prefix: &str,
    tag: &str,
    epoch: u64,
) -> Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    let out = fs::File::create(file).with_context(cannot)?;
    let mut archive = tar::Builder::new(std::io::BufWriter::new(out));
    for (path, bytes) in files(images, prefix, tag)? {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(epoch);
        header.set_size(bytes.len() as u64);
        archive
            .append_data(&mut header, path, &*bytes)
            .with_context(cannot)?;
    }
    archive
        .into_inner()
        .and_then(|out| out.into_inner().map_err(|error| error.into_error()))
        .and_then(|out| out.sync_all())
        .with_context(cannot)
}

/// Reads a layout back: its content and what its `index.json` lists.
///
/// # Errors
/// When it is no layout or a piece of it has another sum than its name says.
pub(crate) fn read(dir: &Path) -> Result<(Content, Vec<Descriptor>)> {
    let layout: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("oci-layout"))?)?;
    ensure!(
        layout
            .get("imageLayoutVersion")
            .is_some_and(|version| version == "1.0.0"),
        "{layout} is another version of layouts"
    );
    let index: Index = serde_json::from_slice(&fs::read(dir.join("index.json"))?)?;
    let mut content = Content::default();
    for entry in fs::read_dir(dir.join("blobs/sha256"))? {
        let entry = entry?;
        let put = content.put("", fs::read(entry.path())?);
        ensure!(
            *entry.file_name() == *put.digest.hex(),
            "{:?} has another sum",
            entry.file_name()
        );
    }
    Ok((content, index.manifests))
}
