//! What changed: push signal, event feed and audit log at once.

use std::fmt;
use std::str::FromStr;

use baetyl_model::{Digest, Kind, Namespace, NodeUid, Revision};
use jiff::Timestamp;
use serde::Serialize;

use super::error::Doing as _;
use super::row::{number, optional, parsed, revision, signed, text};
use super::{Store, StoreError};

/// Who writes, for which request, and when.
#[derive(Debug, Clone)]
pub struct By {
    /// Name of the token or program, e.g. "token:ci", "activation", "node:<uid>".
    pub actor: String,
    /// Id of the request, found again in logs and answers.
    pub request_id: String,
    /// Wall clock of the cloud.
    pub time: Timestamp,
}

/// What was done to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It was not there before.
    Create,
    /// It was there.
    Update,
    /// It is gone.
    Delete,
}

/// What kind of thing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A node.
    Node,
    /// An application.
    Application,
    /// A configuration.
    Configuration,
    /// A secret, registry or certificate.
    Secret,
}

impl Verb {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl Subject {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Application => Kind::Application.as_str(),
            Self::Configuration => Kind::Configuration.as_str(),
            Self::Secret => Kind::Secret.as_str(),
        }
    }
}

impl From<Kind> for Subject {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Application => Self::Application,
            Kind::Configuration => Self::Configuration,
            Kind::Secret => Self::Secret,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Verb {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        [Self::Create, Self::Update, Self::Delete]
            .into_iter()
            .find(|verb| verb.as_str() == word)
            .ok_or_else(|| format!("\"{word}\" is no verb of a change"))
    }
}

impl FromStr for Subject {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        [
            Self::Node,
            Self::Application,
            Self::Configuration,
            Self::Secret,
        ]
        .into_iter()
        .find(|subject| subject.as_str() == word)
        .ok_or_else(|| format!("\"{word}\" is no subject of a change"))
    }
}

/// One change, as a transaction records it.
#[derive(Debug, Clone)]
pub struct Change {
    /// What was done.
    pub verb: Verb,
    /// To what kind of thing.
    pub subject: Subject,
    /// Its name.
    pub name: String,
    /// Uid of a node.
    pub uid: Option<NodeUid>,
    /// Digest of the body before.
    pub old: Option<Digest>,
    /// Digest of the body after.
    pub new: Option<Digest>,
}

/// One change, as it was committed.
#[derive(Debug, Clone)]
pub struct ChangeRow {
    /// Revision of the namespace.
    pub revision: Revision,
    /// Order inside the revision, from 1.
    pub seq: u64,
    /// Wall clock of the cloud.
    pub time: Timestamp,
    /// Who.
    pub actor: String,
    /// For which request.
    pub request_id: String,
    /// What.
    pub change: Change,
}

impl Store {
    /// The newest changes after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn changes_after(
        &self,
        namespace: &Namespace,
        after: Revision,
        limit: u32,
    ) -> Result<Vec<ChangeRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM changes WHERE namespace = ? AND revision > ? ORDER BY revision, seq LIMIT ?",
        )
        .bind(namespace.as_str())
        .bind(signed(after.get()))
        .bind(limit)
        .fetch_all(self.reader())
        .await
        .doing("read the changes")?;
        rows.iter().map(change_row).collect()
    }

    /// The changes of one thing, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn changes_of(
        &self,
        namespace: &Namespace,
        subject: Subject,
        name: &str,
        limit: u32,
    ) -> Result<Vec<ChangeRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM changes WHERE namespace = ? AND kind = ? AND name = ? \
             ORDER BY revision DESC, seq DESC LIMIT ?",
        )
        .bind(namespace.as_str())
        .bind(subject.as_str())
        .bind(name)
        .bind(limit)
        .fetch_all(self.reader())
        .await
        .doing("read the history")?;
        rows.iter().map(change_row).collect()
    }
}

fn change_row(row: &sqlx::sqlite::SqliteRow) -> Result<ChangeRow, StoreError> {
    Ok(ChangeRow {
        revision: revision(row, "revision")?,
        seq: number(row, "seq")?,
        time: parsed(row, "time")?,
        actor: text(row, "actor")?.to_owned(),
        request_id: text(row, "request_id")?.to_owned(),
        change: Change {
            verb: parsed(row, "verb")?,
            subject: parsed(row, "kind")?,
            name: text(row, "name")?.to_owned(),
            uid: optional(row, "uid")?,
            old: optional(row, "old_digest")?,
            new: optional(row, "new_digest")?,
        },
    })
}
