//! What leaves the store, and when: secrets as soon as nobody needs them, the rest at a watermark, oldest first.
//!
//! Deciding is [`plan_collection`], a pure function; doing is [`Store::collect`].

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use baetyl_model::Digest;

use super::{Store, StoreError, failed};

/// When to make room, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// Above this much in the store, room is made …
    pub(crate) high: u64,
    /// … until this much is left.
    pub(crate) low: u64,
    /// Below this much free on the file system, room is made, too.
    pub(crate) min_free: u64,
}

/// Which part of the store a file is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    Resources,
    Sealed,
    Objects,
    /// An object on its way.
    Partial,
}

const AREAS: [(Area, &str); 4] = [
    (Area::Resources, "resources"),
    (Area::Sealed, "sealed"),
    (Area::Objects, "objects"),
    (Area::Partial, "partial"),
];

/// One file of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) area: Area,
    pub(crate) digest: Digest,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
}

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// Which of `entries` to remove so that the watermark is kept: never one of `keep`, all other secrets, and of the rest
/// the oldest first, no more than needed.
pub(crate) fn plan_collection<'a>(
    entries: &'a [Entry],
    keep: &HashSet<Digest>,
    watermark: Watermark,
    free: u64,
) -> Vec<&'a Entry> {
    let mut used: u64 = entries.iter().map(|entry| entry.size).sum();
    let mut free = free;
    let (secrets, mut rest): (Vec<_>, Vec<_>) = entries
        .iter()
        .filter(|entry| !keep.contains(&entry.digest))
        .partition(|entry| entry.area == Area::Sealed);
    let mut plan = secrets;
    for entry in &plan {
        used = used.saturating_sub(entry.size);
        free = free.saturating_add(entry.size);
    }
    if used <= watermark.high && free >= watermark.min_free {
        return plan;
    }
    rest.sort_by_key(|entry| (entry.modified, entry.digest));
    for entry in rest {
        if used <= watermark.low && free >= watermark.min_free {
            break;
        }
        used = used.saturating_sub(entry.size);
        free = free.saturating_add(entry.size);
        plan.push(entry);
    }
    plan
}

impl Store {
    /// Makes room as [`plan_collection`] says.
    ///
    /// # Errors
    /// When the store cannot be read or a file not removed; what was removed before stays removed.
    pub(crate) fn collect(
        &self,
        keep: &HashSet<Digest>,
        watermark: Watermark,
    ) -> Result<Collected, StoreError> {
        let entries = self.entries()?;
        let free =
            self.disk
                .free(&self.dir)
                .map_err(failed("ask for the free space of", &self.dir, 0))?;
        let mut collected = Collected::default();
        for entry in plan_collection(&entries, keep, watermark, free) {
            if entry.area == Area::Partial {
                self.discard(&entry.digest)?;
            } else {
                self.verified().remove(&entry.digest);
                self.disk
                    .remove(&entry.path)
                    .map_err(failed("remove", &entry.path, 0))?;
            }
            collected.files += 1;
            collected.bytes += entry.size;
        }
        if collected.files > 0 {
            tracing::info!(
                files = collected.files,
                bytes = collected.bytes,
                "made room in the store"
            );
        }
        Ok(collected)
    }

    /// Every file of the store that is named by a digest.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for (area, name) in AREAS {
            let dir = self.dir.join(name);
            if area == Area::Partial {
                read_entries(&dir, area, &mut entries)?;
                continue;
            }
            for child in fs::read_dir(&dir).map_err(failed("read", &dir, 0))? {
                let path = child.map_err(failed("read", &dir, 0))?.path();
                if path.is_dir() {
                    read_entries(&path, area, &mut entries)?;
                }
            }
        }
        Ok(entries)
    }
}

/// Files of one directory; what vanishes meanwhile or is not named by a digest is passed over.
fn read_entries(dir: &Path, area: Area, entries: &mut Vec<Entry>) -> Result<(), StoreError> {
    for child in fs::read_dir(dir).map_err(failed("read", dir, 0))? {
        let child = child.map_err(failed("read", dir, 0))?;
        let name = child.file_name();
        let Some(digest) = name
            .to_str()
            .and_then(|name| format!("sha256:{name}").parse().ok())
        else {
            continue;
        };
        let Ok(metadata) = child.metadata() else {
            continue;
        };
        entries.push(Entry {
            area,
            digest,
            path: child.path(),
            size: metadata.len(),
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        });
    }
    Ok(())
}
