//! Objects on their way: a file that grows, is hashed as it grows, and moves to its place when it matches.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::PathBuf;

use baetyl_kit::crypto::Sha256;
use baetyl_model::Digest;

use super::{Stamp, Store, StoreError, failed, mismatch};

/// The part of an object that is here. After an error of the store it must be begun again: the file may be longer
/// than what was counted.
pub(crate) struct Partial {
    digest: Digest,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    length: u64,
    resumed: bool,
}

impl Partial {
    /// Bytes that are here.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// True when an earlier fetch left some of the bytes: a mismatch may be its fault.
    pub(crate) fn is_resumed(&self) -> bool {
        self.resumed
    }
}

/// Which version of a URL a part was fetched from, so that a changed one is not mixed with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The URL.
    pub(crate) url: String,
    /// Its strong entity tag.
    pub(crate) etag: String,
}

impl Store {
    /// Opens the part of an object that is here, or begins an empty one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn begin(&self, digest: &Digest) -> Result<Partial, StoreError> {
        let path = self.partial_path(digest);
        let failed_open = failed("open", &path, 0);
        let file = self.disk.open_append(&path).map_err(&failed_open)?;
        let mut hasher = Sha256::new();
        let mut length = 0;
        let mut reader = File::open(&path).map_err(&failed_open)?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = reader.read(&mut buffer).map_err(failed("read", &path, 0))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            length += count as u64;
        }
        Ok(Partial {
            digest: *digest,
            path,
            file,
            hasher,
            length,
            resumed: length > 0,
        })
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// When the disk refuses; begin again then.
    pub(crate) fn append(&self, partial: &mut Partial, bytes: &[u8]) -> Result<(), StoreError> {
        self.disk.append(&mut partial.file, bytes).map_err(failed(
            "write",
            &partial.path,
            bytes.len() as u64,
        ))?;
        partial.hasher.update(bytes);
        partial.length += bytes.len() as u64;
        Ok(())
    }

    /// Forgets all bytes: the sender begins from the start.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn restart(&self, partial: &mut Partial) -> Result<(), StoreError> {
        self.disk
            .truncate(&partial.file)
            .map_err(failed("truncate", &partial.path, 0))?;
        partial.hasher = Sha256::new();
        partial.length = 0;
        partial.resumed = false;
        Ok(())
    }

    /// Checks the bytes and moves the file to its place; durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`], with the bytes thrown away; or when the disk refuses.
    pub(crate) fn finish(&self, partial: Partial) -> Result<PathBuf, StoreError> {
        let found = partial.hasher.clone().finish();
        if found != *partial.digest.as_bytes() {
            self.discard(&partial.digest)?;
            return Err(mismatch(&partial.digest, &found, partial.length));
        }
        let path = self.object_path(&partial.digest);
        self.disk
            .make_read_only(&partial.file)
            .and_then(|()| self.disk.sync(&partial.file))
            .and_then(|()| self.place(&partial.path, &path))
            .map_err(failed("write", &path, partial.length))?;
        // What was hashed on the way in need not be hashed again.
        if let Ok(metadata) = partial.file.metadata() {
            self.verified().insert(partial.digest, Stamp::of(&metadata));
        }
        // Best effort: it says nothing any more.
        let _ = self.disk.remove(&self.origin_path(&partial.digest));
        Ok(path)
    }

    /// Throws the part of an object away.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        for path in [self.origin_path(digest), self.partial_path(digest)] {
            self.disk
                .remove(&path)
                .map_err(failed("remove", &path, 0))?;
        }
        Ok(())
    }

    /// Remembers where a part comes from.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn set_origin(&self, digest: &Digest, origin: &Origin) -> Result<(), StoreError> {
        let path = self.origin_path(digest);
        let text = format!("{}\n{}\n", origin.url, origin.etag);
        self.disk
            .remove(&path)
            .and_then(|()| self.disk.open_append(&path))
            .and_then(|mut file| self.disk.append(&mut file, text.as_bytes()))
            .map_err(failed("write", &path, text.len() as u64))
    }

    /// Where the part comes from, if that is known.
    pub(crate) fn origin(&self, digest: &Digest) -> Option<Origin> {
        let text = fs::read_to_string(self.origin_path(digest)).ok()?;
        // The last line end proves that the file is whole.
        let (url, etag) = text.strip_suffix('\n')?.split_once('\n')?;
        Some(Origin {
            url: url.to_owned(),
            etag: etag.to_owned(),
        })
    }

    fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("partial").join(digest.hex())
    }

    fn origin_path(&self, digest: &Digest) -> PathBuf {
        self.dir
            .join("partial")
            .join(format!("{}.origin", digest.hex()))
    }
}
