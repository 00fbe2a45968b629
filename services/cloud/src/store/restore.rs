//! Putting a backup in the place of the database.
//!
//! At every moment the path of the database holds a whole one: the old, then, by one rename, the new. The old one is
//! kept under a name of its own with everything its write-ahead log held.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use baetyl_kit::fsio;
use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::OpenError;
use super::open::refuse_newer;

/// By how much the counter of every namespace is raised: more than anybody wrote since the backup was made, so that no
/// version that was given out then is given out again for something else.
const REVISION_GAP: i64 = 1_000_000;

fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::File { path, source }
}

fn in_database(path: &Path) -> impl Fn(sqlx::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::Database {
        path: path.clone(),
        source,
    }
}

/// `cloud.db` and "-wal": `cloud.db-wal`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Puts a backup in the place of the database, which no running program may have open. Where the old one is now, if
/// there was one.
///
/// # Errors
/// When the backup is no database this program can read, or a file cannot be written; then the old one is in its place.
pub async fn restore(
    backup: &Path,
    database: &Path,
    now: Timestamp,
) -> Result<Option<PathBuf>, OpenError> {
    let staged = database.with_extension("restoring");
    let prepared = prepare(backup, &staged).await;
    if prepared.is_err() {
        let _ = fs::remove_file(&staged);
    }
    prepared?;
    let kept = if database.exists() {
        Some(keep(database, now).await?)
    } else {
        None
    };
    fs::rename(&staged, database).map_err(at(database))?;
    fsio::sync_parent(database).map_err(at(database))?;
    Ok(kept)
}

/// A private, checked copy that is on disk.
async fn prepare(backup: &Path, staged: &Path) -> Result<(), OpenError> {
    // What a restore that broke off left would be taken for the journal of this copy.
    for suffix in ["-journal", "-wal", "-shm"] {
        remove(&beside(staged, suffix))?;
    }
    fs::copy(backup, staged).map_err(at(backup))?;
    fs::set_permissions(staged, Permissions::from_mode(0o600)).map_err(at(staged))?;
    check_and_raise(staged).await?;
    let synced = File::open(staged).and_then(|file| file.sync_all());
    synced.map_err(at(staged))
}

/// Reads every page once, compares the format, and raises the counters.
async fn check_and_raise(path: &Path) -> Result<(), OpenError> {
    let failed = in_database(path);
    let options = SqliteConnectOptions::new()
        .filename(path)
        // No companion: the one file is what is renamed.
        .journal_mode(SqliteJournalMode::Delete)
        .disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options)
        .await
        .map_err(&failed)?;
    refuse_newer(path, &mut connection).await?;
    let answer: String = sqlx::query_scalar("PRAGMA integrity_check(1)")
        .fetch_one(&mut connection)
        .await
        .map_err(&failed)?;
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = 'namespaces'")
            .fetch_one(&mut connection)
            .await
            .map_err(&failed)?;
    let problem = match (answer.as_str(), tables) {
        (_, 0) => Some("it is no database of baetyl-cloud".to_owned()),
        ("ok", _) => None,
        _ => Some(answer),
    };
    if let Some(problem) = problem {
        return Err(at(path)(io::Error::other(problem)));
    }
    sqlx::query("UPDATE namespaces SET revision = revision + ?")
        .bind(REVISION_GAP)
        .execute(&mut connection)
        .await
        .map_err(&failed)?;
    connection.close().await.map_err(failed)
}

/// Gives the old database a second name, and leaves no log that could be taken for one of the new.
async fn keep(database: &Path, now: Timestamp) -> Result<PathBuf, OpenError> {
    let kept = database.with_extension(format!(
        "before-restore-{}.db",
        now.strftime("%Y%m%dT%H%M%S%3fZ")
    ));
    let wal = beside(database, "-wal");
    // A database that is too damaged for that is kept with its log beside it.
    if checkpoint(database).await.is_err() && wal.exists() {
        fs::copy(&wal, beside(&kept, "-wal")).map_err(at(&wal))?;
    }
    if fs::hard_link(database, &kept).is_err() {
        // Not every file system has links.
        fs::copy(database, &kept).map_err(at(&kept))?;
    }
    let synced = File::open(&kept).and_then(|file| file.sync_all());
    synced.map_err(at(&kept))?;
    fsio::sync_parent(database).map_err(at(database))?;
    for log in [wal, beside(database, "-shm")] {
        remove(&log)?;
    }
    Ok(kept)
}

fn remove(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// Writes what the log holds into the file itself.
async fn checkpoint(database: &Path) -> Result<(), sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(database)
        .disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let busy: i64 = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    if busy == 0 {
        Ok(())
    } else {
        Err(sqlx::Error::Protocol("the database is in use".to_owned()))
    }
}
