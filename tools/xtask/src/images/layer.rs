//! A layer: files in an archive that is the same whenever its files are the same.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use anyhow::{Context as _, Result, bail};
use tar::{EntryType, Header};

use super::compression::{Compression, kind, unpacked};
use super::oci::{Descriptor, Digest};

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Dir,
    /// A file.
    File(Vec<u8>),
    /// A symbolic link to this path.
    Link(String),
}

/// An entry of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) kind: Kind,
    /// Permissions.
    pub(crate) mode: u32,
    /// User and group.
    pub(crate) owner: (u32, u32),
}

/// Files by path without the leading slash. Parents are made as needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<String, Node>);

/// A compressed archive.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// What it is called in a manifest.
    pub(crate) descriptor: Descriptor,
    /// Its sum before compression.
    pub(crate) diff_id: Digest,
    /// Its bytes.
    pub(crate) blob: Vec<u8>,
}

impl Layer {
    fn new(diff_id: Digest, blob: Vec<u8>) -> Result<Self> {
        let descriptor = Descriptor {
            media_type: kind(&blob)?.to_owned(),
            digest: Digest::of(&blob),
            size: blob.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
        };
        Ok(Self {
            descriptor,
            diff_id,
            blob,
        })
    }

    /// From its bytes.
    ///
    /// # Errors
    /// When they are not compressed.
    pub(crate) fn from_blob(blob: Vec<u8>) -> Result<Self> {
        let mut raw = Vec::new();
        unpacked(&blob)?.read_to_end(&mut raw)?;
        Self::new(Digest::of(&raw), blob)
    }
}

impl Tree {
    /// Adds an entry of root; parents that are missing are made with mode 0755.
    pub(crate) fn add(&mut self, path: &str, kind: Kind, mode: u32) {
        self.insert(
            path,
            Node {
                kind,
                mode,
                owner: (0, 0),
            },
        );
    }

    /// As [`add`](Self::add), with an owner.
    pub(crate) fn insert(&mut self, path: &str, node: Node) {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            let parent = path.get(..end).unwrap_or_default();
            if !self.0.contains_key(parent) {
                self.add(parent, Kind::Dir, 0o755);
            }
        }
        self.0.insert(path.to_owned(), node);
    }

    /// Its entries, sorted by path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// The entry of this path.
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path.trim_matches('/'))
    }

    /// Packs it; every entry gets the time `epoch` (seconds since 1970).
    ///
    /// # Errors
    /// When a path or link is longer than an archive can hold.
    pub(crate) fn pack(&self, epoch: u64, compression: Compression) -> Result<Layer> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, node) in &self.0 {
            append(&mut archive, path, node, epoch)
                .with_context(|| format!("cannot pack {path}"))?;
        }
        let raw = archive.into_inner()?;
        Layer::new(Digest::of(&raw), compression.pack(&raw)?)
    }

    /// Puts the layers of an image over one another, lowest first.
    ///
    /// # Errors
    /// When one of them is no compressed archive or holds an entry no image of ours has.
    pub(crate) fn unpack<'a>(blobs: impl IntoIterator<Item = &'a [u8]>) -> Result<Self> {
        let mut tree = Self::default();
        for blob in blobs {
            tree.overlay(unpacked(blob)?)?;
        }
        Ok(tree)
    }

    /// Lays the entries of a plain archive over what is there; gives the newest time in it (seconds since 1970).
    ///
    /// # Errors
    /// When it cannot be read or has something else than directories, files and links, or removes files.
    pub(crate) fn overlay(&mut self, archive: impl Read) -> Result<u64> {
        let mut archive = tar::Archive::new(archive);
        let mut newest = 0;
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().into_owned();
            let path = path.trim_start_matches("./").trim_matches('/').to_owned();
            if path.is_empty() || path == "." {
                continue;
            }
            if path.split('/').any(|part| part == "..") {
                bail!("the archive has an entry outside of itself: {path}");
            }
            if path
                .rsplit('/')
                .next()
                .is_some_and(|name| name.starts_with(".wh."))
            {
                bail!("the archive removes files of another layer ({path})");
            }
            let kind = match entry.header().entry_type() {
                EntryType::Directory => Kind::Dir,
                EntryType::Regular => {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes)?;
                    Kind::File(bytes)
                }
                EntryType::Symlink => {
                    let link = entry.link_name()?.context("a link without a target")?;
                    Kind::Link(link.to_string_lossy().into_owned())
                }
                EntryType::Link => self.linked(
                    &entry
                        .link_name()?
                        .context("a link to nothing")?
                        .to_string_lossy(),
                )?,
                other => bail!("the archive has an entry of kind {other:?}: {path}"),
            };
            let header = entry.header();
            newest = newest.max(header.mtime()?);
            let node = Node {
                kind,
                mode: header.mode()? & 0o7777,
                owner: (u32::try_from(header.uid()?)?, u32::try_from(header.gid()?)?),
            };
            self.insert(&path, node);
        }
        Ok(newest)
    }

    /// Keeps the entries for which `keep` is true, and the directories that lead to one.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let all = std::mem::take(&mut self.0);
        for (path, node) in all
            .iter()
            .filter(|(path, node)| node.kind != Kind::Dir && keep(path))
        {
            for (end, _) in path.match_indices('/') {
                let parent = path.get(..end).unwrap_or_default();
                if let Some(node) = all.get(parent) {
                    self.0
                        .entry(parent.to_owned())
                        .or_insert_with(|| node.clone());
                }
            }
            self.insert(path, node.clone());
        }
    }

    /// The content a hard link shares.
    fn linked(&self, target: &str) -> Result<Kind> {
        let target = target.trim_start_matches("./");
        let node = self
            .get(target)
            .with_context(|| format!("a link to {target}, which is not there"))?;
        Ok(node.kind.clone())
    }

    /// Writes it below `dir`, with permissions but without owners.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn write_to(&self, dir: &std::path::Path) -> Result<()> {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        std::fs::create_dir_all(dir)?;
        for (path, node) in &self.0 {
            let to = dir.join(path);
            let written = match &node.kind {
                Kind::Dir => std::fs::create_dir_all(&to),
                Kind::File(bytes) => std::fs::write(&to, bytes),
                Kind::Link(target) => symlink(target, &to),
            };
            written.with_context(|| format!("cannot write {}", to.display()))?;
            if !matches!(node.kind, Kind::Link(_)) {
                std::fs::set_permissions(&to, std::fs::Permissions::from_mode(node.mode))?;
            }
        }
        Ok(())
    }
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, node: &Node, epoch: u64) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(node.mode);
    header.set_uid(u64::from(node.owner.0));
    header.set_gid(u64::from(node.owner.1));
    header.set_mtime(epoch);
    header.set_size(0);
    match &node.kind {
        Kind::Dir => {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, format!("{path}/"), std::io::empty())?;
        }
        Kind::File(bytes) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, Cursor::new(bytes))?;
        }
        Kind::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            archive.append_link(&mut header, path, target)?;
        }
    }
    Ok(())
}
