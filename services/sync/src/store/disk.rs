//! What the store does to a disk, as a port: a test fills the disk or cuts the power between two steps.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use baetyl_kit::fsio;
pub(crate) use baetyl_ledger::is_full;

/// Every step of the store that changes the disk.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Bytes this user may still write on the file system of `path`.
    fn free(&self, path: &Path) -> io::Result<u64>;
    /// Creates the directory with mode 0700; an existing one is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens for writing at the end, mode 0600; creates it when it does not exist.
    fn open_append(&self, path: &Path) -> io::Result<File>;
    /// Writes all bytes at the end.
    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to nothing.
    fn truncate(&self, file: &File) -> io::Result<()>;
    /// Takes the right to write from everybody.
    fn make_read_only(&self, file: &File) -> io::Result<()>;
    /// Content and length are on the medium when this returns.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Renames within a file system; durable when this returns.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; a missing one is fine.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn free(&self, path: &Path) -> io::Result<u64> {
        fsio::free_space(path).map(|space| space.free)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        fsio::create_dir_private(path)?;
        fsio::sync_parent(path)
    }

    fn open_append(&self, path: &Path) -> io::Result<File> {
        use std::os::unix::fs::PermissionsExt as _;
        // Complete and closed, but the power went before it had its place: only root may write to it as it is.
        if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().readonly()) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        }
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
    }

    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn truncate(&self, file: &File) -> io::Result<()> {
        file.set_len(0)
    }

    fn make_read_only(&self, file: &File) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(fs::Permissions::from_mode(0o444))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        fsio::sync_parent(to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_was_closed_too_early_can_be_written_again_by_everybody_who_owns_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part");
        let mut file = RealDisk.open_append(&path).unwrap();
        RealDisk.append(&mut file, b"a").unwrap();
        RealDisk.make_read_only(&file).unwrap();
        let mut again = RealDisk.open_append(&path).unwrap();
        RealDisk.append(&mut again, b"b").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ab");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A disk that fills up or loses its power.

    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

    use super::*;

    /// The real disk with two limits.
    #[derive(Debug)]
    pub(crate) struct FakeDisk {
        /// Bytes that may still be written.
        pub(crate) room: AtomicI64,
        /// Steps until the power is cut; nothing changes the disk afterwards. A write that is cut is cut in half.
        pub(crate) steps: AtomicU64,
        /// How often the disk still claims to be empty: somebody else fills it between the question and the write.
        pub(crate) claims: AtomicU64,
    }

    impl FakeDisk {
        pub(crate) fn with_room(bytes: i64) -> Self {
            Self {
                room: AtomicI64::new(bytes),
                steps: AtomicU64::new(u64::MAX),
                claims: AtomicU64::new(0),
            }
        }

        pub(crate) fn dying_after(steps: u64) -> Self {
            Self {
                room: AtomicI64::new(i64::MAX),
                steps: AtomicU64::new(steps),
                claims: AtomicU64::new(0),
            }
        }

        pub(crate) fn is_dead(&self) -> bool {
            self.steps.load(SeqCst) == 0
        }

        fn step(&self) -> io::Result<()> {
            let step = |left: u64| left.checked_sub(1);
            match self.steps.fetch_update(SeqCst, SeqCst, step) {
                Ok(1) | Err(_) => Err(io::Error::other("the power is cut")),
                Ok(_) => Ok(()),
            }
        }
    }

    impl Disk for FakeDisk {
        fn free(&self, _: &Path) -> io::Result<u64> {
            let claim = self
                .claims
                .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
            if claim.is_ok() {
                return Ok(u64::MAX);
            }
            Ok(u64::try_from(self.room.load(SeqCst)).unwrap_or(0))
        }

        fn create_dir(&self, path: &Path) -> io::Result<()> {
            if path.is_dir() {
                return Ok(());
            }
            self.step()?;
            RealDisk.create_dir(path)
        }

        fn open_append(&self, path: &Path) -> io::Result<File> {
            self.step()?;
            RealDisk.open_append(path)
        }

        fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
            let was_dead = self.is_dead();
            if let Err(error) = self.step() {
                if !was_dead {
                    RealDisk.append(file, &bytes[..bytes.len() / 2])?;
                }
                return Err(error);
            }
            let room = usize::try_from(self.room.load(SeqCst)).unwrap_or(0);
            let fits = room.min(bytes.len());
            RealDisk.append(file, &bytes[..fits])?;
            self.room
                .fetch_sub(i64::try_from(fits).unwrap_or(i64::MAX), SeqCst);
            if fits < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }

        fn truncate(&self, file: &File) -> io::Result<()> {
            self.step()?;
            let length = i64::try_from(file.metadata()?.len()).unwrap_or(0);
            self.room.fetch_add(length, SeqCst);
            RealDisk.truncate(file)
        }

        fn make_read_only(&self, file: &File) -> io::Result<()> {
            self.step()?;
            RealDisk.make_read_only(file)
        }

        fn sync(&self, file: &File) -> io::Result<()> {
            self.step()?;
            RealDisk.sync(file)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step()?;
            RealDisk.rename(from, to)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            self.step()?;
            let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
            self.room
                .fetch_add(i64::try_from(length).unwrap_or(0), SeqCst);
            RealDisk.remove(path)
        }
    }
}
