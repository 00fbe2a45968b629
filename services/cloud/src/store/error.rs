//! What can go wrong with the database.

use std::path::PathBuf;

use baetyl_model::Namespace;

use super::open::FORMAT;
use crate::seal::SealError;

/// The database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its directory.
    #[error("cannot use {path} as the database file; is the directory there and writable?", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot open the database {path}", path = .path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// Written by a program this one cannot follow.
    #[error(
        "the database {path} was written by a newer baetyl-cloud: it has format {format} and wants a program that \
         knows format {min_reader}, this one knows {FORMAT}; run a newer baetyl-cloud, or restore a backup made \
         with this one",
        path = .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The oldest program format that may open it.
        min_reader: u32,
    },
    /// A schema change failed; the database is as it was before that change.
    #[error("cannot bring the database {path} to the schema of this program", path = .path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: sqlx::migrate::MigrateError,
    },
}

/// No backup was made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file.
    #[error("cannot write the backup {path}; it must not exist yet", path = .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A read or write failed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the database failed to {doing}")]
    Query {
        /// What was tried, as an infinitive.
        doing: &'static str,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// A row that this program did not write, or a damaged one.
    #[error("the database holds a {what} that cannot be read: {reason}")]
    Row {
        /// Table or column.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The tenant is not there.
    #[error("namespace \"{0}\" does not exist; create it first")]
    NoNamespace(Namespace),
    /// A body cannot be encrypted or decrypted.
    #[error("a secret in the database cannot be {verb}")]
    Seal {
        /// "sealed" or "opened".
        verb: &'static str,
        /// Why.
        source: SealError,
    },
}

impl StoreError {
    /// True when it may work in a moment: another program or request has the database.
    pub fn is_busy(&self) -> bool {
        // SQLITE_BUSY and SQLITE_LOCKED, the low byte of their extended codes.
        const BUSY: [i64; 2] = [5, 6];
        match self {
            Self::Query {
                source: sqlx::Error::PoolTimedOut,
                ..
            } => true,
            Self::Query {
                source: sqlx::Error::Database(error),
                ..
            } => {
                let code = error.code().and_then(|code| code.parse::<i64>().ok());
                code.is_some_and(|code| BUSY.contains(&(code & 0xff)))
            }
            _ => false,
        }
    }
}

/// Says what a statement was for when it fails.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Query { doing, source })
    }
}
