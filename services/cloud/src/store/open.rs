//! Opening: format check, migrations, pools; and making a backup.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::error::Doing as _;
use super::{BackupError, Inner, OpenError, Store, StoreError};
use crate::seal::Seal;

/// The format this program writes. A database whose `min_reader` is greater is refused.
pub const FORMAT: u32 = 1;

/// Readers beside the one writer. Each costs about 2 MiB of page cache at most; queries are short.
const READERS: u32 = 4;

/// How long a statement waits for another process (a backup, the command line) before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

fn migrator() -> sqlx::migrate::Migrator {
    let mut migrator = sqlx::migrate!("./migrations");
    // A newer release may have added tables this program does not know and still let it read: `min_reader` decides,
    // not the list of applied migrations.
    migrator.set_ignore_missing(true);
    migrator
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // Statements carry bodies; they are never logged.
        .disable_statement_logging()
}

impl Store {
    /// Opens the database, creates it when it is not there, and brings it to this program's schema.
    ///
    /// # Errors
    /// When the file cannot be used, is no database, or was written by a newer program.
    pub async fn open(path: &Path, seal: Seal) -> Result<Self, OpenError> {
        create_private(path).map_err(|source| OpenError::File {
            path: path.to_owned(),
            source,
        })?;
        let store = Self::open_existing(path, seal).await?;
        migrator()
            .run(store.writer())
            .await
            .map_err(|source| OpenError::Migrate {
                path: path.to_owned(),
                source,
            })?;
        Ok(store)
    }

    /// Opens a database that is there and leaves its schema as it is.
    ///
    /// # Errors
    /// When it is not there, is no database, or was written by a newer program.
    pub async fn open_existing(path: &Path, seal: Seal) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Database {
            path: path.to_owned(),
            source,
        };
        let mut connection = SqliteConnection::connect_with(&options(path))
            .await
            .map_err(failed)?;
        refuse_newer(path, &mut connection).await?;
        connection.close().await.map_err(failed)?;

        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .connect_with(options(path))
            .await
            .map_err(failed)?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options(path).pragma("query_only", "true"))
            .await
            .map_err(failed)?;
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            writer,
            reader,
            seal,
            revisions: Default::default(),
            snapshots: Default::default(),
        })))
    }

    /// Writes a consistent copy of the whole database to `target`, which must not exist: private, and on disk when this
    /// returns. Other work goes on.
    ///
    /// # Errors
    /// When the target exists or cannot be written.
    pub async fn backup(&self, target: &Path) -> Result<(), BackupError> {
        let failed = |source| BackupError::File {
            path: target.to_owned(),
            source,
        };
        // SQLite writes into an empty file, and would make one with the umask's mode.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(target)
            .map_err(failed)?;
        let copied = sqlx::query("VACUUM INTO ?")
            .bind(target.display().to_string())
            .execute(self.writer())
            .await
            .doing("write the backup");
        if let Err(error) = copied {
            let _ = std::fs::remove_file(target);
            return Err(error.into());
        }
        let synced = File::open(target).and_then(|file| file.sync_all());
        synced
            .and_then(|()| baetyl_kit::fsio::sync_parent(target))
            .map_err(failed)
    }

    /// Asks the database for an answer: the readiness check.
    ///
    /// # Errors
    /// When it gives none.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM meta")
            .execute(self.reader())
            .await
            .doing("answer")?;
        Ok(())
    }
}

pub(super) async fn refuse_newer(
    path: &Path,
    connection: &mut SqliteConnection,
) -> Result<(), OpenError> {
    let failed = |source| OpenError::Database {
        path: path.to_owned(),
        source,
    };
    let there: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'meta'",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(failed)?;
    if there == 0 {
        return Ok(());
    }
    let rows = sqlx::query("SELECT key, value FROM meta")
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let number = |wanted: &str| {
        rows.iter()
            .find(|row| row.get::<&str, _>(0) == wanted)
            .and_then(|row| row.get::<&str, _>(1).parse().ok())
            // A record that cannot be read is one of a future we do not know.
            .unwrap_or(u32::MAX)
    };
    let (format, min_reader) = (number("format"), number("min_reader"));
    if min_reader > FORMAT {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            format,
            min_reader,
        });
    }
    Ok(())
}

/// SQLite would create the file with the umask's mode; its companions inherit the mode of the file.
fn create_private(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}
