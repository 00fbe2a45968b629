//! What a file lies on, as a port: the disk of this machine, or in tests one that fills up.

use std::collections::HashSet;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};

/// Opens files.
pub trait Medium: fmt::Debug + Send + Sync + 'static {
    /// Opens the file, or makes one.
    ///
    /// # Errors
    /// What the database says.
    fn open(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError>;
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Medium for Disk {
    fn open(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
        builder.create(path)
    }
}

/// A disk for tests with one file on it, which a test declares full: what has room already can be overwritten, as on a
/// file system, and nothing more is written. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct FillingDisk(Arc<Mutex<Room>>);

#[derive(Debug, Default)]
struct Room {
    is_full: bool,
    refuses_next: bool,
    /// Blocks that were written once.
    taken: HashSet<u64>,
}

const BLOCK: u64 = 4096;

impl FillingDisk {
    /// From now on there is room, or there is none.
    pub fn set_full(&self, is_full: bool) {
        self.room().is_full = is_full;
    }

    /// The next write finds no room, wherever it goes; those after it do.
    pub fn refuse_next(&self) {
        self.room().refuses_next = true;
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Medium for FillingDisk {
    fn open(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(redb::StorageError::Io)?;
        builder.create_with_backend(FillingFile {
            disk: self.clone(),
            file: FileBackend::new(file)?,
        })
    }
}

#[derive(Debug)]
struct FillingFile {
    disk: FillingDisk,
    file: FileBackend,
}

impl StorageBackend for FillingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // Sparse: a longer file takes no room yet.
        self.disk
            .room()
            .taken
            .retain(|block| *block < len.div_ceil(BLOCK));
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        let mut room = self.disk.room();
        if std::mem::take(&mut room.refuses_next) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        for block in offset / BLOCK..end.div_ceil(BLOCK) {
            if room.is_full && !room.taken.contains(&block) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            room.taken.insert(block);
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
