//! Engine's own copies of the objects its applications use, so that a start needs neither sync nor the cloud.
//!
//! `<dir>/<hex>` is the verified file as sync handed it out (a hard link where both share a file system, so it costs
//! nothing); `<dir>/<hex>.<format>` is what was unpacked from it. Both appear by rename, complete or not at all.
//! Applications get copies, never these files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baetyl_archive::ArchiveError;
use baetyl_kit::{crypto, fsio};
use baetyl_model::Digest;
use baetyl_model::desire::{ObjectRef, Unpack};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::registry::Registry;

/// Why an object is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The disk refuses.
    #[error("object {digest} cannot be stored in {dir}; check free space and permissions")]
    Io {
        /// Which object.
        digest: Digest,
        /// Where.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The copy is not what was asked for.
    #[error("object {digest} was handed out with other content; it is asked for again")]
    Differs {
        /// Which object.
        digest: Digest,
    },
    /// It cannot be unpacked.
    #[error("object {digest} ({file}) cannot be unpacked")]
    Archive {
        /// Which object.
        digest: Digest,
        /// Its file name.
        file: String,
        /// Why.
        #[source]
        source: ArchiveError,
    },
}

/// The directory of objects. All functions but [`turn`](Self::turn) block.
#[derive(Debug, Clone)]
pub struct Objects {
    dir: PathBuf,
    max_unpacked: u64,
    /// One object is taken at a time: the process has few threads for blocking work, and records must still be written
    /// while large archives are unpacked.
    turns: Arc<Semaphore>,
}

impl Objects {
    /// In `dir`, which is made; leftovers of an interrupted run are removed.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: PathBuf, max_unpacked: u64) -> io::Result<Self> {
        fsio::create_dir_private(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                remove(&entry.path())?;
            }
        }
        let turns = Arc::new(Semaphore::new(1));
        Ok(Self {
            dir,
            max_unpacked,
            turns,
        })
    }

    /// True when the object, and what is unpacked from it, is complete.
    pub fn has(&self, object: &ObjectRef) -> bool {
        self.file(&object.digest).exists()
            && (object.unpack == Unpack::None || self.tree(&object.digest, object.unpack).exists())
    }

    /// The file.
    pub fn file(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// The directory with what was unpacked.
    pub fn tree(&self, digest: &Digest, unpack: Unpack) -> PathBuf {
        self.dir
            .join(format!("{}.{}", digest.hex(), unpack.as_str()))
    }

    /// A place for the bytes of an object that has no path here.
    ///
    /// # Errors
    /// Without randomness.
    pub fn spool(&self, digest: &Digest) -> io::Result<PathBuf> {
        self.temporary(&self.file(digest))
    }

    /// Waits for the turn to [`take`](Self::take); given back when what this gives is dropped.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    /// Takes the complete file at `source` and unpacks it when the reference says so. Does nothing when it is there.
    ///
    /// # Errors
    /// When it cannot be stored, is not what the reference names, or cannot be unpacked.
    pub fn take(&self, object: &ObjectRef, source: &Path) -> Result<(), ObjectError> {
        let digest = object.digest;
        let file = self.file(&digest);
        if !file.exists() {
            self.link_or_copy(&digest, source, &file)?;
        }
        let tree = self.tree(&digest, object.unpack);
        if object.unpack == Unpack::None || tree.exists() {
            return Ok(());
        }
        let fail = |source| self.io(digest, source);
        let temporary = self.temporary(&tree).map_err(fail)?;
        fsio::create_dir_private(&temporary).map_err(fail)?;
        if let Err(source) =
            baetyl_archive::unpack(&file, object.unpack, &temporary, self.max_unpacked)
        {
            let _ = remove(&temporary);
            let file = object.file_name.to_string();
            return Err(ObjectError::Archive {
                digest,
                file,
                source,
            });
        }
        match fs::rename(&temporary, &tree) {
            Ok(()) => fsio::sync_parent(&tree).map_err(fail),
            // Another application took the same object at the same time.
            Err(_) if tree.exists() => remove(&temporary).map_err(fail),
            Err(error) => Err(fail(error)),
        }
    }

    fn link_or_copy(&self, digest: &Digest, source: &Path, file: &Path) -> Result<(), ObjectError> {
        let fail = |source| self.io(*digest, source);
        let temporary = self.temporary(file).map_err(fail)?;
        if fs::hard_link(source, &temporary).is_err() {
            fs::copy(source, &temporary).map_err(fail)?;
            let mut copy = fs::File::open(&temporary).map_err(fail)?;
            let (found, _) = crypto::sha256_reader(&mut copy).map_err(fail)?;
            if found != *digest.as_bytes() {
                let _ = remove(&temporary);
                return Err(ObjectError::Differs { digest: *digest });
            }
            copy.sync_all().map_err(fail)?;
        }
        fs::rename(&temporary, file)
            .and_then(|()| fsio::sync_parent(file))
            .map_err(fail)
    }

    /// Removes everything that is not needed.
    ///
    /// # Errors
    /// When the directory cannot be read or a file not removed.
    pub fn retain(&self, needed: &Registry) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let hex = name.split('.').next().unwrap_or_default();
            // Temporary names begin with a dot and belong to a `take` that runs now.
            let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() else {
                continue;
            };
            // Only the rename is done while nobody can begin to need it: removing a tree takes long.
            let aside = self.temporary(&entry.path())?;
            let renamed = needed.unless_needed(&digest, || fs::rename(entry.path(), &aside));
            if let Some(renamed) = renamed {
                renamed?;
                remove(&aside)?;
            }
        }
        Ok(())
    }

    /// A name of its own for each attempt: two applications may take one object at the same time.
    fn temporary(&self, path: &Path) -> io::Result<PathBuf> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let random = crypto::random_hex::<4>().map_err(io::Error::other)?;
        Ok(self.dir.join(format!("{TEMPORARY}{name}-{random}")))
    }

    fn io(&self, digest: Digest, source: io::Error) -> ObjectError {
        ObjectError::Io {
            digest,
            dir: self.dir.clone(),
            source,
        }
    }
}

const TEMPORARY: &str = ".tmp-";

/// Removes a file or directory; absent is fine.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        dir: tempfile::TempDir,
        objects: Objects,
    }

    fn case() -> Case {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path().join("objects"), 1 << 20).unwrap();
        Case { dir, objects }
    }

    impl Case {
        fn object(&self, content: &[u8], unpack: Unpack) -> (ObjectRef, PathBuf) {
            let path = self.dir.path().join("source");
            fs::write(&path, content).unwrap();
            let object = ObjectRef {
                digest: Digest::from_sha256(crypto::sha256(content)),
                size: content.len() as u64,
                url: None,
                configuration: "code".try_into().unwrap(),
                configuration_version: "1".try_into().unwrap(),
                file_name: "code.tar".try_into().unwrap(),
                unpack,
            };
            (object, path)
        }
    }

    fn tar() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "index.py", &b"ok"[..])
            .unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn an_object_outlives_the_file_it_was_taken_from() {
        let case = case();
        let (object, source) = case.object(&tar(), Unpack::Tar);
        assert!(!case.objects.has(&object));
        case.objects.take(&object, &source).unwrap();
        fs::remove_file(source).unwrap();
        assert!(case.objects.has(&object));
        let tree = case.objects.tree(&object.digest, Unpack::Tar);
        assert_eq!(fs::read(tree.join("index.py")).unwrap(), b"ok");
        case.objects.take(&object, Path::new("/gone")).unwrap();
    }

    #[test]
    fn an_archive_that_cannot_be_unpacked_leaves_nothing_half_done() {
        let case = case();
        let (object, source) = case.object(b"no archive", Unpack::Zip);
        assert!(matches!(
            case.objects.take(&object, &source),
            Err(ObjectError::Archive { .. })
        ));
        assert!(!case.objects.has(&object));
        assert!(!case.objects.tree(&object.digest, Unpack::Zip).exists());
    }

    #[test]
    fn what_is_no_longer_used_is_removed_and_the_rest_stays() {
        let case = case();
        let (used, source) = case.object(&tar(), Unpack::Tar);
        case.objects.take(&used, &source).unwrap();
        let (unused, source) = case.object(b"old", Unpack::None);
        case.objects.take(&unused, &source).unwrap();
        let registry = Registry::default();
        let needs = crate::registry::Needs {
            digests: [used.digest].into(),
            ..Default::default()
        };
        registry.set(&"app".try_into().unwrap(), needs);
        case.objects.retain(&registry).unwrap();
        assert!(case.objects.has(&used) && !case.objects.has(&unused));
    }

    #[test]
    fn leftovers_of_an_interrupted_run_are_removed_at_the_start() {
        let case = case();
        let leftover = case.dir.path().join("objects/.tmp-abc");
        fs::create_dir_all(leftover.join("deep")).unwrap();
        Objects::open(case.dir.path().join("objects"), 1).unwrap();
        assert!(!leftover.exists());
    }
}
