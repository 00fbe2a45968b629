//! The one database of the cloud: who wishes what, in which revision.
//!
//! Every write that can change what a node runs goes through [`Store::begin`]: one transaction that takes the next
//! revision of its namespace, appends what changed to `changes`, and after the commit wakes those who watch that
//! namespace ([`Store::watch`]). A transaction that recorded no change takes no revision.
//!
//! SQLite in WAL mode: one writer connection (`synchronous = FULL`: acknowledged means on disk) and a few readers.
//! Secret bodies are encrypted before they are written, by [`Seal`]. Nothing here knows HTTP, or the
//! meaning of a body.
//!
//! Start at [`Tx`] (writing), [`Snapshot`] (what desires are derived from), then [`resources`], [`nodes`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use baetyl_model::{Namespace, Revision};
use sqlx::SqlitePool;
use tokio::sync::watch;

use crate::seal::Seal;

pub mod changes;
mod error;
pub mod nodes;
pub mod objects;
mod open;
pub mod resources;
mod restore;
pub(crate) mod row;
mod snapshot;
pub mod tokens;
mod tx;

#[cfg(test)]
pub(crate) mod tests;

pub use changes::{By, Change, ChangeRow, Subject, Verb};
pub(crate) use error::Doing;
pub use error::{BackupError, OpenError, StoreError};
pub use nodes::{CoreSettings, DesiredProperty, NodeRow, NodeSpec, Tombstone};
pub use objects::{ConfigObject, ObjectRow};
pub use open::FORMAT;
pub use resources::{NewResource, Reference, ResourceRow, VersionBody, VersionRow};
pub use restore::restore;
pub use snapshot::{AppRow, Snapshot};
pub use tokens::{Role, TokenRow};
pub use tx::Tx;

/// The database; cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    path: PathBuf,
    writer: SqlitePool,
    reader: SqlitePool,
    seal: Seal,
    revisions: Mutex<HashMap<Namespace, watch::Sender<Revision>>>,
    snapshots: tokio::sync::Mutex<HashMap<Namespace, Arc<Snapshot>>>,
}

impl Store {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The pool with the single writing connection, for tables that take no revision (acknowledgements, reports).
    /// Hold it shortly: every other write waits.
    pub fn writer(&self) -> &SqlitePool {
        &self.0.writer
    }

    /// The pool of reading connections.
    pub fn reader(&self) -> &SqlitePool {
        &self.0.reader
    }

    /// Wakes after every commit that took a revision in this namespace, with the newest revision. Starts at 0 for a
    /// namespace nothing was written to since the start: read [`Store::revision`] or a snapshot first, then wait.
    pub fn watch(&self, namespace: &Namespace) -> watch::Receiver<Revision> {
        let mut revisions = self
            .0
            .revisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        revisions
            .entry(namespace.clone())
            .or_insert_with(|| watch::Sender::new(Revision(0)))
            .subscribe()
    }

    fn signal(&self, namespace: &Namespace, revision: Revision) {
        let mut revisions = self
            .0
            .revisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let sender = revisions
            .entry(namespace.clone())
            .or_insert_with(|| watch::Sender::new(Revision(0)));
        sender.send_if_modified(|current| {
            let newer = revision > *current;
            if newer {
                *current = revision;
            }
            newer
        });
    }

    /// Waits for running statements and closes the file.
    pub async fn close(&self) {
        self.0.reader.close().await;
        self.0.writer.close().await;
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.0.path)
            .finish_non_exhaustive()
    }
}
