//! The table of reports.

use std::collections::HashMap;

use baetyl_model::desire::Header;
use baetyl_model::{Epoch, Generation, Namespace, NodeUid};
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::live::Remembered;
use crate::store::row::{blob, flag, number, optional, parsed, signed, text, to_json};
use crate::store::{Doing as _, Store, StoreError};

/// What is stored about a node's reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReportRow {
    /// Digest of the stored status; empty = none.
    pub(crate) status_digest: String,
    /// When the status was stored.
    pub(crate) status_time: Option<Timestamp>,
    /// Epoch of the desires this node gets.
    pub(crate) epoch: Epoch,
    /// What the node has on disk.
    pub(crate) acknowledged: Option<Header>,
    /// Why it refused the last desire; empty = it did not.
    pub(crate) refused: String,
    /// The last event of its outbox that is stored.
    pub(crate) event_sequence: u64,
    /// When it was seen last, as of the last flush.
    pub(crate) last_seen: Option<Timestamp>,
}

const COLUMNS: &str = "SELECT uid, status_digest, status_time, epoch, acked_epoch, acked_generation, acked_digest, \
                       refused, event_sequence, last_seen FROM node_reports";

/// The row of one node.
pub(super) async fn one(
    store: &Store,
    namespace: &Namespace,
    uid: &NodeUid,
) -> Result<Option<ReportRow>, StoreError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE namespace = ? AND uid = ?"
    )))
    .bind(namespace.as_str())
    .bind(uid.as_str())
    .fetch_optional(store.reader())
    .await
    .doing("read the report")?;
    row.as_ref()
        .map(report_row)
        .transpose()
        .map(|row| row.map(|(_, row)| row))
}

/// The rows of all nodes of a namespace.
pub(super) async fn all(
    store: &Store,
    namespace: &Namespace,
) -> Result<Vec<(NodeUid, ReportRow)>, StoreError> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE namespace = ?"
    )))
    .bind(namespace.as_str())
    .fetch_all(store.reader())
    .await
    .doing("read the reports")?;
    rows.iter().map(report_row).collect()
}

/// Every node that was ever seen, of all namespaces.
pub(super) async fn remembered(store: &Store) -> Result<Vec<Remembered>, StoreError> {
    let rows = sqlx::query(
        "SELECT namespace, uid, last_seen, coalesce((SELECT reason = 'NodeOnline' FROM node_events e \
         WHERE e.namespace = r.namespace AND e.uid = r.uid AND reason IN ('NodeOnline', 'NodeOffline') \
         AND sequence IS NULL ORDER BY id DESC LIMIT 1), 1) AS online FROM node_reports r WHERE last_seen IS NOT NULL",
    )
    .fetch_all(store.reader())
    .await
    .doing("read when nodes were seen")?;
    let remembered = rows.iter().map(|row| {
        Ok(Remembered {
            namespace: parsed(row, "namespace")?,
            uid: parsed(row, "uid")?,
            last_seen: parsed(row, "last_seen")?,
            online: flag(row, "online")?,
        })
    });
    remembered.collect()
}

/// The statuses of these nodes, encoded.
pub(super) async fn statuses(
    store: &Store,
    namespace: &Namespace,
    uids: &[&NodeUid],
) -> Result<HashMap<NodeUid, Vec<u8>>, StoreError> {
    let uids: Vec<_> = uids.iter().map(|uid| uid.as_str()).collect();
    let rows = sqlx::query(
        "SELECT uid, status FROM node_reports WHERE namespace = ? AND status IS NOT NULL \
         AND uid IN (SELECT value FROM json_each(?))",
    )
    .bind(namespace.as_str())
    .bind(to_json("uids", &uids)?)
    .fetch_all(store.reader())
    .await
    .doing("read the statuses")?;
    let statuses = rows
        .iter()
        .map(|row| Ok((parsed(row, "uid")?, blob(row, "status")?.to_vec())));
    statuses.collect()
}

/// The encoded status of a node.
pub(super) async fn status(
    store: &Store,
    namespace: &Namespace,
    uid: &NodeUid,
) -> Result<Option<Vec<u8>>, StoreError> {
    let bytes: Option<Option<Vec<u8>>> =
        sqlx::query_scalar("SELECT status FROM node_reports WHERE namespace = ? AND uid = ?")
            .bind(namespace.as_str())
            .bind(uid.as_str())
            .fetch_optional(store.reader())
            .await
            .doing("read the status")?;
    Ok(bytes.flatten())
}

/// Makes the row of a node, so that the updates below find one. Nothing for a node that is not there.
pub(super) async fn ensure(
    store: &Store,
    namespace: &Namespace,
    uid: &NodeUid,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO node_reports (namespace, uid) SELECT namespace, uid FROM nodes WHERE namespace = ? AND uid = ? \
         ON CONFLICT DO NOTHING",
    )
    .bind(namespace.as_str())
    .bind(uid.as_str())
    .execute(store.writer())
    .await
    .doing("make the report")?;
    Ok(())
}

pub(super) async fn put_status(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
    uid: &NodeUid,
    digest: &str,
    status: &[u8],
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE node_reports SET status_digest = ?, status = ?, status_time = ?, last_seen = ? \
         WHERE namespace = ? AND uid = ?",
    )
    .bind(digest)
    .bind(status)
    .bind(now.to_string())
    .bind(now.to_string())
    .bind(namespace.as_str())
    .bind(uid.as_str())
    .execute(connection)
    .await
    .doing("write the status")?;
    Ok(())
}

pub(super) async fn put_acknowledged(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
    header: &Header,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE node_reports SET acked_epoch = ?, acked_generation = ?, acked_digest = ?, refused = '' \
         WHERE namespace = ? AND uid = ?",
    )
    .bind(signed(header.epoch.get()))
    .bind(signed(header.generation.get()))
    .bind(header.digest.to_string())
    .bind(namespace.as_str())
    .bind(header.node_uid.as_str())
    .execute(connection)
    .await
    .doing("write the acknowledgement")?;
    Ok(())
}

pub(super) async fn put_refused(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
    uid: &NodeUid,
    refused: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE node_reports SET refused = ? WHERE namespace = ? AND uid = ?")
        .bind(refused)
        .bind(namespace.as_str())
        .bind(uid.as_str())
        .execute(connection)
        .await
        .doing("write the refusal")?;
    Ok(())
}

/// The epoch never goes back; and the namespace's counter goes at least to the presented generation, so that no version
/// that was given out before the state went back is given out again for something else.
pub(super) async fn put_epoch(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
    uid: &NodeUid,
    epoch: Epoch,
    generation: Generation,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE node_reports SET epoch = max(epoch, ?) WHERE namespace = ? AND uid = ?")
        .bind(signed(epoch.get()))
        .bind(namespace.as_str())
        .bind(uid.as_str())
        .execute(&mut *connection)
        .await
        .doing("raise the epoch")?;
    sqlx::query("UPDATE namespaces SET revision = max(revision, ?) WHERE name = ?")
        .bind(signed(generation.get()))
        .bind(namespace.as_str())
        .execute(connection)
        .await
        .doing("raise the revision")?;
    Ok(())
}

/// True when the event is new: its sequence was not stored before.
pub(super) async fn take_sequence(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
    uid: &NodeUid,
    sequence: u64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE node_reports SET event_sequence = ?1 WHERE namespace = ?2 AND uid = ?3 AND event_sequence < ?1",
    )
    .bind(signed(sequence))
    .bind(namespace.as_str())
    .bind(uid.as_str())
    .execute(connection)
    .await
    .doing("write the sequence")?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn put_last_seen(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
    uid: &NodeUid,
    time: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE node_reports SET last_seen = ? WHERE namespace = ? AND uid = ?")
        .bind(time.to_string())
        .bind(namespace.as_str())
        .bind(uid.as_str())
        .execute(connection)
        .await
        .doing("write when a node was seen")?;
    Ok(())
}

fn report_row(row: &SqliteRow) -> Result<(NodeUid, ReportRow), StoreError> {
    let bad = |reason: String| StoreError::Row {
        what: "report",
        reason,
    };
    let uid: NodeUid = text(row, "uid")?
        .parse()
        .map_err(|error| bad(format!("{error}")))?;
    let time = |column| -> Result<Option<Timestamp>, StoreError> { optional(row, column) };
    let acknowledged = match row
        .try_get::<&str, _>("acked_digest")
        .doing("read the report")?
    {
        "" => None,
        digest => Some(Header {
            node_uid: uid.clone(),
            epoch: Epoch(number(row, "acked_epoch")?),
            generation: Generation(number(row, "acked_generation")?),
            digest: digest.parse().map_err(|error| bad(format!("{error}")))?,
        }),
    };
    let report = ReportRow {
        status_digest: text(row, "status_digest")?.to_owned(),
        status_time: time("status_time")?,
        epoch: Epoch(number(row, "epoch")?),
        acknowledged,
        refused: text(row, "refused")?.to_owned(),
        event_sequence: number(row, "event_sequence")?,
        last_seen: time("last_seen")?,
    };
    Ok((uid, report))
}
