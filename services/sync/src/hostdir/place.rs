//! Names on the disk: the directory of a configuration, its lock, its marker and what is being made of it.
//!
//! Beside `<hex>` there are `.<hex>.lock` (held while somebody works at it; its time is when a Pod last asked for it),
//! `.<hex>.complete` (the marker: nothing else says that the directory is whole), `.<hex>.work` (objects and the directory
//! in the making) and `.<hex>.removed` (on its way out). All functions block.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use baetyl_kit::fsio;
use baetyl_model::Digest;
use baetyl_model::objects::{configuration_of, directory_name};
use serde::{Deserialize, Serialize};

use super::StageError;

/// No Pod has asked for a directory for so long: one that starts now has its directory for certain.
const IDLE: Duration = Duration::from_secs(600);

/// What this release writes, and the oldest release that can read it.
const FORMAT: u32 = 1;
const MIN_READER: u32 = 1;

/// The marker of a complete directory.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    format: u32,
    min_reader: u32,
}

/// One directory of a configuration.
#[derive(Clone, Debug)]
pub(super) struct Place {
    root: PathBuf,
    configuration: Digest,
}

/// The right to work at a directory, until dropped. The kernel takes it back from a process that dies.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    place: Place,
}

impl Place {
    /// The directory `dir`, whose name is a digest.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn of(dir: &Path) -> Result<Self, StageError> {
        let name = dir.file_name().and_then(|name| name.to_str());
        match (dir.parent(), name.and_then(configuration_of)) {
            (Some(root), Some(configuration)) if !root.as_os_str().is_empty() => Ok(Self {
                root: root.to_owned(),
                configuration,
            }),
            _ => Err(StageError::Name(dir.to_owned())),
        }
    }

    /// Where all directories lie.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where it is made.
    pub(super) fn work(&self) -> PathBuf {
        self.beside("work")
    }

    fn dir(&self) -> PathBuf {
        self.root.join(directory_name(&self.configuration))
    }

    fn beside(&self, what: &str) -> PathBuf {
        let name = directory_name(&self.configuration);
        self.root.join(format!(".{name}.{what}"))
    }

    /// True when it is whole.
    ///
    /// # Errors
    /// When a later release made it.
    pub(super) fn is_complete(&self) -> Result<bool, StageError> {
        let marker = fsio::read_limited(&self.beside("complete"), 4096).ok();
        let marker: Option<Marker> = marker.and_then(|json| serde_json::from_slice(&json).ok());
        match marker {
            Some(marker) if marker.min_reader > FORMAT => Err(StageError::TooNew {
                path: self.dir(),
                wanted: marker.min_reader,
            }),
            Some(_) => Ok(self.dir().is_dir()),
            None => Ok(false),
        }
    }

    /// Waits until nobody else works at it.
    ///
    /// # Errors
    /// When the lock cannot be made.
    pub(super) fn lock(&self) -> Result<Lock, StageError> {
        if !self.root.is_dir() {
            fsio::create_dir_mode(&self.root, 0o755)
                .map_err(StageError::io("create", &self.root))?;
        }
        let path = self.beside("lock");
        let fail = |source| StageError::io("lock", &path)(source);
        loop {
            let file = self.open_lock().map_err(fail)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    tracing::info!(dir = %self.dir().display(), "another Pod makes this directory; waiting for it");
                    file.lock().map_err(fail)?;
                }
                Err(TryLockError::Error(error)) => return Err(fail(error)),
            }
            if let Some(lock) = self.locked(file) {
                return Ok(lock);
            }
        }
    }

    /// The lock unless somebody has it.
    fn try_lock(&self) -> io::Result<Option<Lock>> {
        let file = self.open_lock()?;
        match file.try_lock() {
            Ok(()) => Ok(self.locked(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn open_lock(&self) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.beside("lock"))
    }

    /// The lock that `file` is; None when the one before removed the file with the directory.
    fn locked(&self, file: File) -> Option<Lock> {
        let (ours, now) = (
            file.metadata().ok()?,
            fs::metadata(self.beside("lock")).ok()?,
        );
        let same = (ours.dev(), ours.ino()) == (now.dev(), now.ino());
        same.then(|| Lock {
            file,
            place: self.clone(),
        })
    }

    /// Moves the finished tree to its place, marks it, and removes what it was made of. Durable when this returns.
    ///
    /// # Errors
    /// When the disk refuses; the marker is not there then.
    pub(super) fn publish(&self, tree: &Path) -> Result<(), StageError> {
        let (dir, marker) = (self.dir(), self.beside("complete"));
        let json = serde_json::to_vec(&Marker {
            format: FORMAT,
            min_reader: MIN_READER,
        });
        let published = json.map_err(io::Error::from).and_then(|json| {
            // No Pod uses what has no marker; the runtime of containers makes such directories, empty.
            remove(&marker)?;
            self.set_aside()?;
            fs::rename(tree, &dir)?;
            fsio::sync_parent(&dir)?;
            fsio::atomic_write(&marker, &json, 0o644)
        });
        published.map_err(StageError::io("put into place", &dir))?;
        self.tidy();
        Ok(())
    }

    /// Removes what the finished directory was made of, also what a run left that was killed right after the marker.
    pub(super) fn tidy(&self) {
        if let Err(error) = self.sweep() {
            tracing::warn!(%error, "leftovers cannot be removed; they stay until the directory is asked for again");
        }
    }

    /// Removes what is being made.
    pub(super) fn give_up(&self) -> io::Result<()> {
        remove(&self.work())
    }

    fn set_aside(&self) -> io::Result<()> {
        let (dir, removed) = (self.dir(), self.beside("removed"));
        if fs::symlink_metadata(&dir).is_err() {
            return Ok(());
        }
        remove(&removed)?;
        fs::rename(&dir, &removed)
    }

    /// Removes everything beside the directory but its lock and its marker.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            let keep = [self.dir(), self.beside("lock"), self.beside("complete")];
            if owner_of(&path) == Some(self.configuration) && !keep.contains(&path) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the directory of another configuration unless somebody works at it or asked for it a moment ago; tells
    /// whether it did.
    pub(super) fn remove_other(&self, configuration: &Digest) -> io::Result<bool> {
        let other = Self {
            root: self.root.clone(),
            configuration: *configuration,
        };
        let Some(lock) = other.try_lock()? else {
            return Ok(false);
        };
        // One without a lock file has got one now, and its time begins.
        if !is_idle(&lock.file.metadata()?) {
            return Ok(false);
        }
        // The marker first: half a directory must not count as one.
        remove(&other.beside("complete"))?;
        fsio::sync_parent(&other.dir())?;
        other.set_aside()?;
        other.sweep()?;
        remove(&other.beside("lock"))?;
        Ok(true)
    }
}

impl Lock {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Notes that a Pod asks for the directory. On a read-only disk nothing is removed either.
    pub(super) fn touch(&self) {
        let _ = self.file.set_modified(SystemTime::now());
    }

    /// Other configurations that have anything here and that no Pod asked for lately.
    pub(super) fn idle_others(&self) -> io::Result<Vec<Digest>> {
        let mut others = BTreeSet::new();
        for entry in fs::read_dir(&self.place.root)? {
            others.extend(owner_of(&entry?.path()));
        }
        others.remove(&self.place.configuration);
        let idle = |configuration: &Digest| {
            let place = Place {
                root: self.place.root.clone(),
                configuration: *configuration,
            };
            fs::metadata(place.beside("lock")).map_or(true, |lock| is_idle(&lock))
        };
        Ok(others.into_iter().filter(idle).collect())
    }
}

/// A time in the future is that of a clock that was wrong, and proves nothing.
fn is_idle(lock: &fs::Metadata) -> bool {
    let asked = lock.modified().ok();
    let since = asked.and_then(|asked| SystemTime::now().duration_since(asked).ok());
    since.is_some_and(|since| since >= IDLE)
}

/// Whose this is: `<hex>` and every `.<hex>.<what>`, temporary files included.
fn owner_of(path: &Path) -> Option<Digest> {
    let name = path.file_name()?.to_str()?.trim_start_matches('.');
    configuration_of(name.split('.').next()?)
}

/// Removes a file or directory; absent is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
