//! One write: a transaction that takes the next revision of its namespace when it changed something.

use baetyl_model::{Namespace, Revision};
use sqlx::{Sqlite, SqliteConnection, Transaction};

use super::error::Doing as _;
use super::row::{signed, stamp};
use super::{By, Change, Store, StoreError};

/// An open write. Dropped without [`Tx::commit`] it leaves no trace.
pub struct Tx {
    pub(super) store: Store,
    pub(super) tx: Transaction<'static, Sqlite>,
    namespace: Namespace,
    next: Revision,
    by: By,
    changes: Vec<Change>,
}

impl Store {
    /// Opens a write in a namespace. Waits for the write before it.
    ///
    /// # Errors
    /// When the namespace does not exist or the database fails.
    pub async fn begin(&self, namespace: &Namespace, by: By) -> Result<Tx, StoreError> {
        // IMMEDIATE: a deferred transaction that reads first can fail when it wants to write.
        let mut tx = self
            .0
            .writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .doing("open a transaction")?;
        let revision: Option<i64> =
            sqlx::query_scalar("SELECT revision FROM namespaces WHERE name = ?")
                .bind(namespace.as_str())
                .fetch_optional(&mut *tx)
                .await
                .doing("read the revision")?;
        let revision = revision.ok_or_else(|| StoreError::NoNamespace(namespace.clone()))?;
        let next = Revision(u64::try_from(revision).unwrap_or(0)).next();
        Ok(Tx {
            store: self.clone(),
            tx,
            namespace: namespace.clone(),
            next,
            by,
            changes: Vec::new(),
        })
    }

    /// The newest revision of a namespace.
    ///
    /// # Errors
    /// When the namespace does not exist or the database fails.
    pub async fn revision(&self, namespace: &Namespace) -> Result<Revision, StoreError> {
        let revision: Option<i64> =
            sqlx::query_scalar("SELECT revision FROM namespaces WHERE name = ?")
                .bind(namespace.as_str())
                .fetch_optional(self.reader())
                .await
                .doing("read the revision")?;
        revision
            .map(|revision| Revision(u64::try_from(revision).unwrap_or(0)))
            .ok_or_else(|| StoreError::NoNamespace(namespace.clone()))
    }

    /// Creates a namespace. False when it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_namespace(
        &self,
        namespace: &Namespace,
        by: &By,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO namespaces (name, create_time) VALUES (?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(namespace.as_str())
        .bind(stamp(by.time))
        .execute(self.writer())
        .await
        .doing("create the namespace")?;
        Ok(done.rows_affected() > 0)
    }

    /// All namespaces, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn namespaces(&self) -> Result<Vec<Namespace>, StoreError> {
        let names: Vec<String> = sqlx::query_scalar("SELECT name FROM namespaces ORDER BY name")
            .fetch_all(self.reader())
            .await
            .doing("list the namespaces")?;
        names
            .into_iter()
            .map(|name| {
                Namespace::new(name).map_err(|error| StoreError::Row {
                    what: "namespace",
                    reason: error.to_string(),
                })
            })
            .collect()
    }
}

impl Tx {
    /// The tenant this write is in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The revision this write takes when it changes something: the version of everything it writes.
    pub fn revision(&self) -> Revision {
        self.next
    }

    /// Who writes.
    pub fn by(&self) -> &By {
        &self.by
    }

    /// The connection, for tables of other modules.
    pub fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// Appends a change. The functions of this module that write nodes and resources do it themselves.
    pub fn record(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// True when something was recorded.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Makes the write durable and wakes those who watch the namespace. The revision it took, or none when nothing
    /// was recorded.
    ///
    /// # Errors
    /// When the database fails; then nothing was written.
    pub async fn commit(mut self) -> Result<Option<Revision>, StoreError> {
        if self.changes.is_empty() {
            self.tx.commit().await.doing("commit")?;
            return Ok(None);
        }
        self.append_changes().await?;
        let Self {
            store,
            tx,
            namespace,
            next,
            ..
        } = self;
        // In a task of its own: a caller that goes away between the commit and the signal (a client that closes its
        // connection) must not leave nodes waiting for a change that is on disk.
        let finish = tokio::spawn(async move {
            tx.commit().await.doing("commit")?;
            store.signal(&namespace, next);
            Ok(())
        });
        match finish.await {
            Ok(done) => done.map(|()| Some(next)),
            Err(_) => Err(StoreError::Query {
                doing: "commit",
                source: sqlx::Error::WorkerCrashed,
            }),
        }
    }

    async fn append_changes(&mut self) -> Result<(), StoreError> {
        sqlx::query("UPDATE namespaces SET revision = ? WHERE name = ?")
            .bind(signed(self.next.get()))
            .bind(self.namespace.as_str())
            .execute(&mut *self.tx)
            .await
            .doing("take a revision")?;
        let time = stamp(self.by.time);
        for (seq, change) in (1i64..).zip(&self.changes) {
            sqlx::query(
                "INSERT INTO changes (namespace, revision, seq, time, actor, verb, kind, name, uid, old_digest, \
                 new_digest, request_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(self.namespace.as_str())
            .bind(signed(self.next.get()))
            .bind(seq)
            .bind(&time)
            .bind(&self.by.actor)
            .bind(change.verb.as_str())
            .bind(change.subject.as_str())
            .bind(&change.name)
            .bind(change.uid.as_ref().map(|uid| uid.as_str()))
            .bind(change.old.map(|digest| digest.to_string()))
            .bind(change.new.map(|digest| digest.to_string()))
            .bind(&self.by.request_id)
            .execute(&mut *self.tx)
            .await
            .doing("append to the changes")?;
        }
        Ok(())
    }
}
