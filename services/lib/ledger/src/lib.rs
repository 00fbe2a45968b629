//! The files in which node, engine and sync remember: one redb file each, with the same care for damage and full disks.
//!
//! Start at [`LedgerFile::open`]. It owns opening, checking, putting aside and reopening; what is in the tables belongs
//! to the service, which says in its [`Rules`] how a file is prepared and what in it must be readable. All functions
//! block.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baetyl_kit::fsio;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase as _, WriteTransaction};

pub mod medium;

use medium::{Disk, Medium};

/// Why a ledger file could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Opening failed for a reason that is not the content.
    #[error(
        "cannot open {path}; check that no other process runs on this data directory and that the disk works"
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// A newer release wrote it.
    #[error(
        "{path} was written by a newer release (it wants a reader of format {wanted}, this one knows {known}); start that release, or restore the copy made before the upgrade"
    )]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// The format a reader must know.
        wanted: u64,
        /// The newest format this program knows.
        known: u64,
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

impl LedgerError {
    /// True when there is no room on the disk.
    pub fn is_full(&self) -> bool {
        matches!(self.database(), Some(redb::Error::Io(error)) if is_full(error))
    }

    /// True while another has the file open; one that is ending in this process still may for a moment.
    pub fn is_in_use(&self) -> bool {
        matches!(self.database(), Some(redb::Error::DatabaseAlreadyOpen))
    }

    fn database(&self) -> Option<&redb::Error> {
        match self {
            Self::Open { source, .. } | Self::Transaction { source, .. } => Some(source),
            Self::TooNew { .. } | Self::Quarantine { .. } => None,
        }
    }
}

/// True for "no space left" and "quota exceeded".
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// What a service wants of its file.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bytes of pages in memory. The page cache of the system serves the rest.
    pub cache: usize,
    /// The newest format this program can read.
    pub known: u64,
    /// Makes what a fresh file lacks, and gives the oldest format a reader must know. It must not write to a file that
    /// lacks nothing: a full disk keeps no sound file closed.
    pub prepare: fn(&Database) -> Result<u64, redb::Error>,
    /// Reads all that must be readable. Not asked about a file that is too new.
    pub validate: fn(&Database) -> Result<(), redb::Error>,
}

/// The open file. One transaction at a time: writes are rare, and one lock makes reopening simple.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    rules: Rules,
    medium: Arc<dyn Medium>,
    /// None while it could not be reopened after an I/O error (a full disk); the next use tries again.
    open: Mutex<Option<Database>>,
}

/// What opening found.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: LedgerFile,
    /// Where one that could not be used is now kept.
    pub put_aside: Option<PathBuf>,
}

impl LedgerFile {
    /// Opens the file, checking all of it; a damaged one is put aside and a fresh one begun.
    ///
    /// # Errors
    /// When the disk refuses, another process has it open, or a newer release wrote it.
    pub fn open(path: &Path, rules: Rules) -> Result<Opened, LedgerError> {
        Self::open_on(Arc::new(Disk), path, rules)
    }

    /// As [`open`](Self::open), on something else than the disk of this machine.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(
        medium: Arc<dyn Medium>,
        path: &Path,
        rules: Rules,
    ) -> Result<Opened, LedgerError> {
        let (database, put_aside) = match open_checked(&*medium, path, &rules) {
            Ok(database) => (database, None),
            Err(Refused::Damaged(source)) => {
                let kept = fsio::quarantine(path).map_err(|source| LedgerError::Quarantine {
                    path: path.to_owned(),
                    source,
                })?;
                tracing::error!(file = %path.display(), kept_as = %kept.display(), reason = %source,
                    "the records are damaged; beginning with none");
                let fresh = open_checked(&*medium, path, &rules);
                let fresh = fresh.map_err(|refused| refused.into_error(path))?;
                (fresh, Some(kept))
            }
            Err(refused) => return Err(refused.into_error(path)),
        };
        // Best effort: the directory is private anyway.
        let _ = fs::set_permissions(path, Permissions::from_mode(0o600));
        let file = Self {
            path: path.to_owned(),
            rules,
            medium,
            open: Mutex::new(Some(database)),
        };
        Ok(Opened { file, put_aside })
    }

    /// Runs `body` on a snapshot.
    ///
    /// # Errors
    /// What the database says.
    pub fn read<T>(
        &self,
        body: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, LedgerError> {
        self.with(|database| body(&database.begin_read()?))
    }

    /// Runs `body` in one transaction that is on disk when this returns.
    ///
    /// # Errors
    /// What the database says; nothing of the transaction is kept then.
    pub fn write<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, LedgerError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    /// As [`write`](Self::write), but nothing changes when `body` gives None.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_if<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<Option<T>, redb::Error>,
    ) -> Result<Option<T>, LedgerError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let value = body(&transaction)?;
            if value.is_some() {
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            Ok(value)
        })
    }

    fn with<T>(
        &self,
        body: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, LedgerError> {
        let mut guard = self.lock();
        let database = match guard.take() {
            Some(database) => database,
            None => self.reopen().map_err(|error| self.failed(error))?,
        };
        let done = catching(|| body(&database));
        if !done.as_ref().is_err_and(is_latched) {
            *guard = Some(database);
        }
        done.map_err(|error| self.failed(error))
    }

    /// Without checking again: what was there was checked, and a full disk may be why this is called.
    fn reopen(&self) -> Result<Database, redb::Error> {
        catching(|| {
            self.medium
                .open(&builder(&self.rules), &self.path)
                .map_err(Into::into)
        })
    }

    fn failed(&self, source: redb::Error) -> LedgerError {
        LedgerError::Transaction {
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
    Damaged(redb::Error),
    TooNew { wanted: u64, known: u64 },
    Failed(redb::Error),
}

impl From<redb::Error> for Refused {
    fn from(error: redb::Error) -> Self {
        if is_damage(&error) {
            Self::Damaged(error)
        } else {
            Self::Failed(error)
        }
    }
}

impl Refused {
    fn into_error(self, path: &Path) -> LedgerError {
        let path = path.to_owned();
        match self {
            Self::Damaged(source) | Self::Failed(source) => LedgerError::Open {
                path,
                source: Box::new(source),
            },
            Self::TooNew { wanted, known } => LedgerError::TooNew {
                path,
                wanted,
                known,
            },
        }
    }
}

fn open_checked(medium: &dyn Medium, path: &Path, rules: &Rules) -> Result<Database, Refused> {
    // redb takes an empty file for a new database; one that was there before lost its content.
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
        let empty = redb::Error::Corrupted("the file is empty".to_owned());
        return Err(Refused::Damaged(empty));
    }
    let (database, wanted) = catching(|| {
        let mut checking = builder(rules);
        checking.set_check_integrity_on_open(true);
        let database = match medium.open(&checking, path) {
            // The check wants to write; on a full disk an unchecked state is better than none.
            Err(DatabaseError::Storage(redb::StorageError::Io(error))) if is_full(&error) => {
                medium.open(&builder(rules), path)?
            }
            other => other?,
        };
        let wanted = (rules.prepare)(&database)?;
        // A format that is not known is no damage: nothing beyond it is looked at.
        if wanted <= rules.known {
            (rules.validate)(&database)?;
        }
        Ok((database, wanted))
    })?;
    if wanted > rules.known {
        let known = rules.known;
        return Err(Refused::TooNew { wanted, known });
    }
    Ok(database)
}

fn builder(rules: &Rules) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(rules.cache);
    builder
}

/// Some damage makes redb panic instead of reporting it.
fn catching<T>(body: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        Err(redb::Error::Corrupted(
            "the file could not be understood".to_owned(),
        ))
    })
}

/// After these redb refuses everything until the file is opened anew.
fn is_latched(error: &redb::Error) -> bool {
    matches!(
        error,
        redb::Error::Io(_)
            | redb::Error::PreviousIo
            | redb::Error::DatabaseClosed
            | redb::Error::LockPoisoned(_)
            | redb::Error::Corrupted(_)
    )
}

/// Whether the file, not the machine, is at fault.
fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_) => true,
        redb::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
