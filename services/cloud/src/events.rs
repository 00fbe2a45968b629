//! What happened to nodes: events of their own outbox, and what the cloud noticed about them. Bounded per node.

use baetyl_model::{Namespace, NodeUid};
use baetyl_proto::convert::time::from_wire;
use baetyl_proto::shadow;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::store::row::{number, parsed, signed, text};
use crate::store::{Doing as _, Store, StoreError};

#[cfg(test)]
mod tests;

/// Longest texts that are kept, in characters; the rest is cut off.
const MAX_REASON: usize = 128;
const MAX_ABOUT: usize = 256;
const MAX_MESSAGE: usize = 4096;

/// Whether somebody should look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    /// Worth knowing.
    Normal,
    /// Something went wrong.
    Warning,
}

impl EventType {
    /// The word in contracts and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }

    fn from_word(word: &str) -> Self {
        if word == "Normal" {
            Self::Normal
        } else {
            Self::Warning
        }
    }
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEvent {
    /// Counts up per node, in order of arrival; the place to go on reading from.
    pub id: u64,
    /// Number in the node's outbox; none for what the cloud noticed.
    pub sequence: Option<u64>,
    /// By the clock of who raised it.
    pub time: Timestamp,
    /// By the clock of the cloud.
    pub received: Timestamp,
    /// Normal or Warning.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// CamelCase word.
    pub reason: String,
    /// What it is about: "app/name", "node", "sync".
    pub about: String,
    /// A sentence for people.
    pub message: String,
    /// How many events before this one were lost on the node.
    pub dropped: u64,
}

/// An event that is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewEvent {
    pub(crate) sequence: Option<u64>,
    pub(crate) time: Timestamp,
    pub(crate) received: Timestamp,
    pub(crate) kind: EventType,
    pub(crate) reason: String,
    pub(crate) about: String,
    pub(crate) message: String,
    pub(crate) dropped: u64,
}

impl NewEvent {
    /// From a node's outbox.
    pub(crate) fn from_node(event: shadow::Event, now: Timestamp) -> Self {
        let time = event.time.and_then(|time| from_wire("time", time).ok());
        Self {
            sequence: Some(event.sequence),
            time: time.unwrap_or(now),
            received: now,
            kind: EventType::from_word(&event.r#type),
            reason: event.reason,
            about: event.about,
            message: event.message,
            dropped: event.dropped,
        }
    }

    /// Noticed by the cloud, about the node as a whole.
    pub(crate) fn of_cloud(kind: EventType, reason: &str, message: String, now: Timestamp) -> Self {
        Self {
            sequence: None,
            time: now,
            received: now,
            kind,
            reason: reason.to_owned(),
            about: "node".to_owned(),
            message,
            dropped: 0,
        }
    }
}

fn cut(text: &str, max: usize) -> &str {
    text.char_indices()
        .nth(max)
        .map_or(text, |(end, _)| &text[..end])
}

/// Appends an event and lets the oldest beyond `keep` go. Writes nothing for a node that is not there.
pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
    uid: &NodeUid,
    event: &NewEvent,
    keep: u32,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO node_events (namespace, uid, id, sequence, time, received, type, reason, about, message, dropped) \
         SELECT namespace, uid, 1 + coalesce((SELECT max(id) FROM node_events e WHERE e.namespace = nodes.namespace \
         AND e.uid = nodes.uid), 0), ?, ?, ?, ?, ?, ?, ?, ? FROM nodes WHERE namespace = ? AND uid = ?",
    )
    .bind(event.sequence.map(signed))
    .bind(event.time.to_string())
    .bind(event.received.to_string())
    .bind(event.kind.as_str())
    .bind(cut(&event.reason, MAX_REASON))
    .bind(cut(&event.about, MAX_ABOUT))
    .bind(cut(&event.message, MAX_MESSAGE))
    .bind(signed(event.dropped))
    .bind(namespace.as_str())
    .bind(uid.as_str())
    .execute(&mut *connection)
    .await
    .doing("write an event")?;
    sqlx::query(
        "DELETE FROM node_events WHERE namespace = ?1 AND uid = ?2 AND id <= \
         (SELECT max(id) FROM node_events WHERE namespace = ?1 AND uid = ?2) - ?3",
    )
    .bind(namespace.as_str())
    .bind(uid.as_str())
    .bind(keep)
    .execute(connection)
    .await
    .doing("drop old events")?;
    Ok(())
}

/// The events of a node with an id below `before` (none: the newest), newest first, at most `limit`.
///
/// # Errors
/// When the database fails.
pub async fn list(
    store: &Store,
    namespace: &Namespace,
    uid: &NodeUid,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<NodeEvent>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM node_events WHERE namespace = ? AND uid = ? AND id < ? ORDER BY id DESC LIMIT ?",
    )
    .bind(namespace.as_str())
    .bind(uid.as_str())
    .bind(before.map_or(i64::MAX, signed))
    .bind(limit)
    .fetch_all(store.reader())
    .await
    .doing("list the events")?;
    rows.iter().map(event_row).collect()
}

/// How many events of a node are kept.
///
/// # Errors
/// When the database fails.
pub async fn count(store: &Store, namespace: &Namespace, uid: &NodeUid) -> Result<u64, StoreError> {
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM node_events WHERE namespace = ? AND uid = ?")
            .bind(namespace.as_str())
            .bind(uid.as_str())
            .fetch_one(store.reader())
            .await
            .doing("count the events")?;
    Ok(u64::try_from(count).unwrap_or(0))
}

fn event_row(row: &SqliteRow) -> Result<NodeEvent, StoreError> {
    use sqlx::Row as _;
    let sequence: Option<i64> = row.try_get("sequence").doing("read an event")?;
    Ok(NodeEvent {
        id: number(row, "id")?,
        sequence: sequence.and_then(|sequence| u64::try_from(sequence).ok()),
        time: parsed(row, "time")?,
        received: parsed(row, "received")?,
        kind: EventType::from_word(text(row, "type")?),
        reason: text(row, "reason")?.to_owned(),
        about: text(row, "about")?.to_owned(),
        message: text(row, "message")?.to_owned(),
        dropped: number(row, "dropped")?,
    })
}
