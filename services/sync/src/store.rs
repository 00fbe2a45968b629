//! The content store: bodies of resources and objects, found by their sha256 digest.
//!
//! Owns `D/sync/{resources,sealed,objects,partial}`. One law: what leaves here has the digest it was asked for, also
//! after a power cut at any step; bytes that do not match are thrown away, never handed out. Secret bodies exist in
//! `sealed/` only, encrypted; their plaintext is never written. Start at [`Store::open`]. All functions block: call
//! them through [`crate::blocking`].

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baetyl_kit::crypto::{self, CryptoError, SealKey};
use baetyl_model::Digest;

pub(crate) mod disk;
pub(crate) mod gc;
pub(crate) mod partial;
pub(crate) mod pins;

use disk::{Disk, is_full};

/// What bytes become when sealed: one format byte, a nonce, a tag.
const SEAL_OVERHEAD: u64 = 64;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Bytes do not have the digest or size they were announced with.
    #[error(
        "{digest} does not match: {found}; the bytes were thrown away, check what the sender stores under this digest"
    )]
    Mismatch {
        /// What was asked for.
        digest: Digest,
        /// What came instead.
        found: String,
    },
    /// No room.
    #[error(
        "the disk is full: {needed} bytes are needed under {path}; make room or lower what this node shall hold"
    )]
    Full {
        /// Where.
        path: PathBuf,
        /// What could not be written.
        needed: u64,
    },
    /// The disk refused.
    #[error("cannot {doing} {path}; check the disk and the rights of this directory")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A secret could not be sealed.
    #[error("cannot seal {digest}")]
    Seal {
        /// Which body.
        digest: Digest,
        /// Why.
        source: CryptoError,
    },
}

/// Where a body is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Shelf {
    /// Applications and configurations: as they are.
    Plain,
    /// Secrets: encrypted.
    Sealed,
}

/// The content store of a node.
pub(crate) struct Store {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    seal: SealKey,
    /// Objects that were hashed in this process and have not been touched since: a large file is read once.
    verified: Mutex<HashMap<Digest, Stamp>>,
}

/// Changes when anybody writes to the file or replaces it, and not when engine makes a link to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Store {
    /// Opens the store under `dir` (`D/sync`) and removes what a power cut left half-written. Parts of objects stay:
    /// fetching goes on from them.
    ///
    /// # Errors
    /// When the directories cannot be made or read.
    pub(crate) fn open(dir: &Path, disk: Arc<dyn Disk>, seal: SealKey) -> Result<Self, StoreError> {
        let store = Self {
            dir: dir.to_owned(),
            disk,
            seal,
            verified: Mutex::default(),
        };
        for area in ["resources", "sealed", "objects", "partial"] {
            let path = dir.join(area);
            store
                .disk
                .create_dir(&path)
                .map_err(failed("create", &path, 0))?;
        }
        let partial = dir.join("partial");
        for entry in fs::read_dir(&partial).map_err(failed("read", &partial, 0))? {
            let path = entry.map_err(failed("read", &partial, 0))?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                store
                    .disk
                    .remove(&path)
                    .map_err(failed("remove", &path, 0))?;
            }
        }
        Ok(store)
    }

    /// The verified body; None when it is not here. A body that does not match any more is removed and counts as
    /// not here: it can be fetched again.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub(crate) fn read_body(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        for shelf in [Shelf::Plain, Shelf::Sealed] {
            let path = self.body_path(shelf, digest);
            let stored = match fs::read(&path) {
                Ok(stored) => stored,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("read", &path, 0)(error)),
            };
            let body = match shelf {
                Shelf::Plain => Some(stored),
                Shelf::Sealed => self.seal.open(&seal_context(digest), &stored).ok(),
            };
            match body {
                Some(body) if is_digest_of(digest, &body) => return Ok(Some(body)),
                _ => self.throw_away(&path, digest)?,
            }
        }
        Ok(None)
    }

    /// Stores a body; durable when this returns.
    ///
    /// # Errors
    /// When the bytes do not have that digest (nothing is written then), or the disk refuses.
    pub(crate) fn put_body(
        &self,
        shelf: Shelf,
        digest: &Digest,
        body: &[u8],
    ) -> Result<(), StoreError> {
        if !is_digest_of(digest, body) {
            return Err(mismatch(digest, &crypto::sha256(body), body.len() as u64));
        }
        let path = self.body_path(shelf, digest);
        match shelf {
            Shelf::Plain => self.write_whole(digest, &path, body),
            Shelf::Sealed => {
                let sealed = self
                    .seal
                    .seal(&seal_context(digest), body)
                    .map_err(|source| StoreError::Seal {
                        digest: *digest,
                        source,
                    })?;
                self.write_whole(digest, &path, &sealed)
            }
        }
    }

    /// The path of a complete object whose bytes were read and match; None when it is not here. One that does not
    /// match any more is removed and counts as not here.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub(crate) fn object(&self, digest: &Digest) -> Result<Option<PathBuf>, StoreError> {
        let path = self.object_path(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path, 0)(error)),
        };
        let reading = failed("read", &path, 0);
        let stamp = Stamp::of(&file.metadata().map_err(&reading)?);
        if self.verified().get(digest) == Some(&stamp) {
            return Ok(Some(path));
        }
        let (found, _) = crypto::sha256_reader(&mut file).map_err(&reading)?;
        if found != *digest.as_bytes() {
            self.throw_away(&path, digest)?;
            return Ok(None);
        }
        // A writer during the hash changes the stamp, and the next caller hashes again.
        self.verified().insert(*digest, stamp);
        Ok(Some(path))
    }

    /// Opens a verified object for reading.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub(crate) fn open_object(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let Some(path) = self.object(digest)? else {
            return Ok(None);
        };
        File::open(&path)
            .map(Some)
            .map_err(failed("open", &path, 0))
    }

    /// Says [`StoreError::Full`] unless `needed` bytes fit and `reserve` bytes are still free then.
    ///
    /// # Errors
    /// When they do not, or the file system does not answer.
    pub(crate) fn check_room(&self, needed: u64, reserve: u64) -> Result<(), StoreError> {
        let free =
            self.disk
                .free(&self.dir)
                .map_err(failed("ask for the free space of", &self.dir, 0))?;
        if free < needed.saturating_add(reserve) {
            return Err(StoreError::Full {
                path: self.dir.clone(),
                needed,
            });
        }
        Ok(())
    }

    /// Writes beside, syncs, renames: a reader sees all of it or nothing.
    fn write_whole(&self, digest: &Digest, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = self
            .dir
            .join("partial")
            .join(format!("{}.tmp", digest.hex()));
        let needed = bytes.len() as u64 + SEAL_OVERHEAD;
        let written = self
            .disk
            .remove(&temporary)
            .and_then(|()| self.disk.open_append(&temporary))
            .and_then(|mut file| {
                self.disk.append(&mut file, bytes)?;
                self.disk.sync(&file)
            })
            .and_then(|()| self.place(&temporary, path));
        if let Err(error) = written {
            // Best effort: opening the store removes it, too.
            let _ = self.disk.remove(&temporary);
            return Err(failed("write", path, needed)(error));
        }
        Ok(())
    }

    /// Moves a complete file to its place.
    fn place(&self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some(parent) = to.parent() {
            self.disk.create_dir(parent)?;
        }
        self.disk.rename(from, to)
    }

    fn throw_away(&self, path: &Path, digest: &Digest) -> Result<(), StoreError> {
        tracing::error!(%digest, file = %path.display(),
            "stored bytes do not match their digest any more; they are thrown away and fetched again when needed");
        self.verified().remove(digest);
        self.disk.remove(path).map_err(failed("remove", path, 0))
    }

    fn body_path(&self, shelf: Shelf, digest: &Digest) -> PathBuf {
        match shelf {
            Shelf::Plain => self.place_of("resources", digest),
            Shelf::Sealed => self.place_of("sealed", digest),
        }
    }

    fn object_path(&self, digest: &Digest) -> PathBuf {
        self.place_of("objects", digest)
    }

    fn place_of(&self, area: &str, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir.join(area).join(&hex[..2]).join(&hex)
    }

    fn verified(&self) -> MutexGuard<'_, HashMap<Digest, Stamp>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_digest_of(digest: &Digest, bytes: &[u8]) -> bool {
    crypto::sha256(bytes) == *digest.as_bytes()
}

fn mismatch(digest: &Digest, found: &[u8; 32], size: u64) -> StoreError {
    StoreError::Mismatch {
        digest: *digest,
        found: format!("{size} bytes of {}", Digest::from_sha256(*found)),
    }
}

/// For bytes whose number alone shows that they are not what was announced.
pub(crate) fn wrong_size(digest: &Digest, announced: u64, found: u64) -> StoreError {
    StoreError::Mismatch {
        digest: *digest,
        found: format!("{found} bytes instead of {announced}"),
    }
}

/// A sealed body opens under its own digest only.
fn seal_context(digest: &Digest) -> Vec<u8> {
    format!("baetyl-sync body {digest}").into_bytes()
}

/// Turns what the disk says into an error that names the file; no room has its own.
fn failed(
    doing: &'static str,
    path: &Path,
    needed: u64,
) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| {
        let path = path.clone();
        if is_full(&source) {
            StoreError::Full { path, needed }
        } else {
            StoreError::Io {
                doing,
                path,
                source,
            }
        }
    }
}

/// Reads up to `limit` bytes from where the file stands; empty at the end.
///
/// # Errors
/// What the disk says.
pub(crate) fn read_chunk(file: &mut File, limit: usize) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(limit);
    file.take(limit as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

#[cfg(test)]
mod tests;
