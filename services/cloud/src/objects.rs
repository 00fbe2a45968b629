//! The bytes of uploaded files: a directory where each file lies under its digest, once, whoever uploaded it.
//!
//! The names are rows of the store. A file is complete and on disk before its row is; a file without a row or a
//! configuration that is pinned to it is removed, at the latest at the next start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baetyl_kit::config::ByteSize;
use baetyl_kit::{crypto, fsio};
use baetyl_model::{Digest, Namespace};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt as _;

use crate::store::{By, ObjectRow, Store, StoreError};

#[cfg(test)]
mod tests;

/// Directory of unfinished uploads, beside the digests.
const UPLOADS: &str = "uploads";

/// File that says until when the bytes nobody needs stay.
const KEEP_UNTIL: &str = "keep-until";

/// How long bytes stay that a database which was put back does not know: the one before may be wanted after all.
const GRACE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Settings of the object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectsConfig {
    /// Largest file that is taken.
    pub max_size: ByteSize,
}

impl Default for ObjectsConfig {
    fn default() -> Self {
        Self {
            max_size: ByteSize::gib(4),
        }
    }
}

/// Why a file is not kept.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The sender stopped in the middle.
    #[error("the upload broke off")]
    BrokenOff,
    /// Longer than `objects.max_size`.
    #[error("the file is larger than {0} bytes, the most this cloud takes (objects.max_size)")]
    TooLarge(u64),
    /// Not what the sender announced.
    #[error("the file has the digest {found}, {wanted} was announced")]
    Digest {
        /// Announced.
        wanted: Digest,
        /// Received.
        found: Digest,
    },
    /// The directory.
    #[error("cannot keep the file in {path}", path = .path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The object directory; cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    max_size: u64,
    /// Held from the moment a file appears under its digest until its row is written, and while a file without user
    /// is looked for and removed: otherwise one could remove what the other just keeps.
    files: tokio::sync::Mutex<()>,
}

/// A file that was received and lies in the upload directory. Removed when dropped.
#[derive(Debug)]
pub struct Upload {
    path: PathBuf,
    digest: Digest,
    md5: String,
    size: u64,
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Gone already when it was kept.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Objects {
    /// The directory, made when it is not there; unfinished uploads of an earlier run are removed.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(dir: &Path, config: &ObjectsConfig) -> Result<Self, ObjectError> {
        let uploads = dir.join(UPLOADS);
        let failed = |source| ObjectError::File {
            path: dir.to_owned(),
            source,
        };
        fsio::create_dir_private(dir).map_err(failed)?;
        match std::fs::remove_dir_all(&uploads) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        fsio::create_dir_private(&uploads).map_err(failed)?;
        let inner = Inner {
            dir: dir.to_owned(),
            max_size: config.max_size.bytes(),
            files: Default::default(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Where the bytes of a digest are, if they are there.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.0.dir.join(&hex[..2]).join(hex)
    }

    /// Receives a file.
    ///
    /// # Errors
    /// When it breaks off, is too large, or the disk is full.
    pub async fn receive<E>(
        &self,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Upload, ObjectError> {
        let random =
            crypto::random_hex::<8>().map_err(|error| self.failed(io::Error::other(error)))?;
        let path = self.0.dir.join(UPLOADS).join(random);
        // From here on dropped with what was written.
        let mut upload = Upload {
            path,
            digest: Digest::from_sha256([0; 32]),
            md5: String::new(),
            size: 0,
        };
        let failed = |source| self.failed(source);
        let mut file = File::create_new(&upload.path).await.map_err(failed)?;
        let (mut sha256, mut md5) = (crypto::Sha256::new(), Md5::new());
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| ObjectError::BrokenOff)?;
            upload.size += chunk.len() as u64;
            if upload.size > self.0.max_size {
                return Err(ObjectError::TooLarge(self.0.max_size));
            }
            sha256.update(&chunk);
            md5.update(&chunk);
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        upload.digest = Digest::from_sha256(sha256.finish());
        upload.md5 = crypto::hex(&md5.finalize());
        Ok(upload)
    }

    /// Keeps a received file under a name.
    ///
    /// # Errors
    /// When the disk or the database fails; then the name is what it was.
    pub async fn keep(
        &self,
        upload: Upload,
        store: &Store,
        namespace: &Namespace,
        by: By,
        name: &str,
    ) -> Result<ObjectRow, ObjectError> {
        // The lock before the transaction, as in `release`: the other way round the two would wait for each other.
        let guard = self.0.files.lock().await;
        let path = self.path(&upload.digest);
        self.place(&upload.path, &path)
            .await
            .map_err(|source| ObjectError::File { path, source })?;
        let mut tx = store.begin(namespace, by).await?;
        let before = tx.object(name).await?.map(|row| row.digest);
        let row = tx
            .put_object(name, upload.digest, &upload.md5, upload.size)
            .await?;
        tx.commit().await?;
        drop(guard);
        if let Some(before) = before.filter(|before| *before != row.digest) {
            self.release(store, &[before]).await?;
        }
        Ok(row)
    }

    async fn place(&self, from: &Path, to: &Path) -> io::Result<()> {
        if fs::try_exists(to).await? {
            return Ok(());
        }
        let dir = to.parent().unwrap_or(&self.0.dir);
        let is_new = !fs::try_exists(dir).await?;
        fs::create_dir_all(dir).await?;
        fs::rename(from, to).await?;
        fsio::sync_parent(to)?;
        if is_new {
            fsio::sync_parent(dir)
        } else {
            Ok(())
        }
    }

    /// Removes the bytes of these digests as far as nobody needs them any more.
    ///
    /// # Errors
    /// When the disk or the database fails.
    pub async fn release(&self, store: &Store, digests: &[Digest]) -> Result<(), ObjectError> {
        let _guard = self.0.files.lock().await;
        for digest in digests {
            if store.is_digest_used(digest).await? {
                continue;
            }
            let path = self.path(digest);
            match fs::remove_file(&path).await {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(ObjectError::File { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// From now on and for a week [`Objects::sweep`] removes nothing: the database was put back to another one.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn keep_unknown(dir: &Path, now: Timestamp) -> Result<(), ObjectError> {
        let path = dir.join(KEEP_UNTIL);
        let until = now.saturating_add(GRACE).unwrap_or(Timestamp::MAX);
        fsio::create_dir_private(dir)
            .and_then(|()| fsio::atomic_write(&path, until.to_string().as_bytes(), 0o600))
            .map_err(|source| ObjectError::File { path, source })
    }

    /// Removes all bytes nobody needs: what a crash between the file and its row left.
    ///
    /// # Errors
    /// When the disk or the database fails.
    pub async fn sweep(&self, store: &Store, now: Timestamp) -> Result<(), ObjectError> {
        let failed = |source| self.failed(source);
        let keep = fsio::read_limited(&self.0.dir.join(KEEP_UNTIL), 64).ok();
        let until =
            keep.and_then(|text| str::from_utf8(&text).ok()?.trim().parse::<Timestamp>().ok());
        if until.is_some_and(|until| now < until) {
            return Ok(());
        }
        let mut digests = Vec::new();
        let mut dirs = fs::read_dir(&self.0.dir).await.map_err(failed)?;
        while let Some(dir) = dirs.next_entry().await.map_err(failed)? {
            if dir.file_name() == UPLOADS || !dir.file_type().await.map_err(failed)?.is_dir() {
                continue;
            }
            let mut files = fs::read_dir(dir.path()).await.map_err(failed)?;
            while let Some(file) = files.next_entry().await.map_err(failed)? {
                let name = file.file_name();
                digests.extend(
                    name.to_str()
                        .and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()),
                );
            }
        }
        self.release(store, &digests).await
    }

    fn failed(&self, source: io::Error) -> ObjectError {
        ObjectError::File {
            path: self.0.dir.clone(),
            source,
        }
    }
}

impl Upload {
    /// Compares with what the sender announced.
    ///
    /// # Errors
    /// When it is something else.
    pub fn expect(&self, wanted: Digest) -> Result<(), ObjectError> {
        if self.digest == wanted {
            Ok(())
        } else {
            Err(ObjectError::Digest {
                wanted,
                found: self.digest,
            })
        }
    }
}
