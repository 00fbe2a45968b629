//! `sync.redb`: what sync remembers over a power cut. Nobody else opens this file.
//!
//! Owns opening, checking, putting aside and reopening; what is in the tables belongs to the modules that write
//! them (identity, pins, outbox, commands, trust). All functions block: call them through [`crate::blocking`].

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use baetyl_kit::fsio;
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase as _, StorageError, TableDefinition,
    TableError, WriteTransaction,
};

/// Numbers and texts with a name.
pub(crate) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// What this release writes, and the oldest release that can read it.
const FORMAT: u32 = 1;
const MIN_READER: u32 = 1;

/// The tables are small and read rarely; the page cache of the system serves the rest.
const CACHE_BYTES: usize = 128 * 1024;

/// Why the database could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DbError {
    /// Opening failed for a reason that is not the content.
    #[error(
        "cannot open {path}; check that no other sync runs on this data directory and that the disk works"
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// A newer release wrote it.
    #[error(
        "{path} was written by a newer release (it wants a reader of format {wanted}); start that release, or restore the copy made before the upgrade"
    )]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// The format a reader must know.
        wanted: u32,
    },
    /// The damaged file could not be moved out of the way.
    #[error("{path} is damaged and cannot be put aside; move it away by hand")]
    Quarantine {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A transaction failed; nothing of it is kept.
    #[error("cannot read or write {path}; check the free space and the disk")]
    Transaction {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
}

impl DbError {
    /// True when there is no room on the disk.
    pub(crate) fn is_full(&self) -> bool {
        let (Self::Open { source, .. } | Self::Transaction { source, .. }) = self else {
            return false;
        };
        matches!(source.as_ref(), redb::Error::Io(error) if crate::store::disk::is_full(error))
    }
}

/// The database. One transaction at a time: writes are rare, and one lock makes reopening simple.
#[derive(Debug)]
pub(crate) struct Db {
    path: PathBuf,
    /// None while it could not be reopened after an I/O error (a full disk); the next use tries again.
    open: Mutex<Option<Database>>,
}

/// What opening found.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) db: Db,
    /// Where a file that could not be used is now kept.
    pub(crate) put_aside: Option<PathBuf>,
}

impl Db {
    /// Opens the file, checking all of it; a damaged one is put aside and a fresh one begun.
    ///
    /// # Errors
    /// When the disk refuses, another process has it open, or a newer release wrote it.
    pub(crate) fn open(path: &Path) -> Result<Opened, DbError> {
        let (database, put_aside) = match open_checked(path) {
            Ok(database) => (database, None),
            Err(Refused::Damaged(reason)) => {
                let kept = fsio::quarantine(path).map_err(|source| DbError::Quarantine {
                    path: path.to_owned(),
                    source,
                })?;
                tracing::error!(file = %path.display(), kept_as = %kept.display(), reason,
                    "the state of sync is damaged; starting with an empty one");
                let fresh = open_checked(path).map_err(|refused| refused.into_error(path))?;
                (fresh, Some(kept))
            }
            Err(refused) => return Err(refused.into_error(path)),
        };
        let db = Self {
            path: path.to_owned(),
            open: Mutex::new(Some(database)),
        };
        // Best effort: the directory is private anyway.
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
        db.check_format()?;
        Ok(Opened { db, put_aside })
    }

    /// Runs `body` on a snapshot.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) fn read<T>(
        &self,
        body: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, DbError> {
        self.with(|database| body(&database.begin_read()?))
    }

    /// Runs `body` in one transaction that is on disk when this returns.
    ///
    /// # Errors
    /// What the database says; nothing of the transaction is kept then.
    pub(crate) fn write<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, DbError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    fn with<T>(
        &self,
        body: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, DbError> {
        let mut guard = self.lock();
        let database = match guard.take() {
            Some(database) => database,
            None => open_plain(&self.path).map_err(|error| self.failed(error.into()))?,
        };
        match body(&database) {
            Ok(value) => {
                *guard = Some(database);
                Ok(value)
            }
            Err(error) => {
                // After an I/O error redb refuses everything until the file is opened anew.
                if !matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
                    *guard = Some(database);
                }
                Err(self.failed(error))
            }
        }
    }

    fn check_format(&self) -> Result<(), DbError> {
        let wanted = self.read(|transaction| {
            let meta = match transaction.open_table(META) {
                Ok(meta) => meta,
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let wanted = meta.get("min_reader")?;
            Ok(wanted.and_then(|value| read_u32(value.value())))
        })?;
        let Some(wanted) = wanted else {
            return self.write(|transaction| {
                let mut meta = transaction.open_table(META)?;
                meta.insert("format", FORMAT.to_be_bytes().as_slice())?;
                meta.insert("min_reader", MIN_READER.to_be_bytes().as_slice())?;
                Ok(())
            });
        };
        if wanted > FORMAT {
            return Err(DbError::TooNew {
                path: self.path.clone(),
                wanted,
            });
        }
        Ok(())
    }

    fn failed(&self, source: redb::Error) -> DbError {
        DbError::Transaction {
            path: self.path.clone(),
            source: Box::new(source),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a file is not opened.
enum Refused {
    Damaged(String),
    Failed(Box<redb::Error>),
}

impl Refused {
    fn into_error(self, path: &Path) -> DbError {
        let source = match self {
            Self::Failed(source) => source,
            Self::Damaged(reason) => Box::new(redb::Error::Corrupted(reason)),
        };
        DbError::Open {
            path: path.to_owned(),
            source,
        }
    }
}

fn open_checked(path: &Path) -> Result<Database, Refused> {
    // redb takes an empty file for a new database; one that was there before lost its content.
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
        return Err(Refused::Damaged("the file is empty".to_owned()));
    }
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
        match builder().set_check_integrity_on_open(true).create(path) {
            // The check wants to write; on a full disk an unchecked state is better than none.
            Err(DatabaseError::Storage(StorageError::Io(error)))
                if error.kind() == io::ErrorKind::StorageFull =>
            {
                open_plain(path)
            }
            other => other,
        }
    }));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(refusal(error)),
        Err(_) => Err(Refused::Damaged(
            "the file could not be understood".to_owned(),
        )),
    }
}

fn open_plain(path: &Path) -> Result<Database, DatabaseError> {
    builder().create(path)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn refusal(error: DatabaseError) -> Refused {
    match &error {
        DatabaseError::Storage(StorageError::Corrupted(reason)) => Refused::Damaged(reason.clone()),
        DatabaseError::Storage(StorageError::Io(io))
            if matches!(
                io.kind(),
                io::ErrorKind::InvalidData
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            Refused::Damaged(io.to_string())
        }
        _ => Refused::Failed(Box::new(error.into())),
    }
}

fn read_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
