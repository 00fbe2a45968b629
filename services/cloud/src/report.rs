//! What nodes say: the last hop of the way up.
//!
//! *Status* is durable, the latest wins. *Stats* and the time a node was seen last live in memory; the time is written
//! now and then. Online and offline are derived from it, and each change of them is an event of the node.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::clock::Clock;
use baetyl_model::desire::Header;
use baetyl_model::link::Periods;
use baetyl_model::{Epoch, Generation, Namespace, NodeStatus, NodeUid};
use baetyl_proto::shadow;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

mod live;
mod presence;
mod rows;
mod view;
mod writer;

#[cfg(test)]
mod tests;

use crate::config::checked::within;
use crate::events::{EventType, NewEvent};
use crate::store::{Store, StoreError};
use live::{Live, LiveNodes};
pub use presence::ReportTask;
pub(crate) use rows::ReportRow;
pub use view::{NodeReport, NodeSummary, Ready};
use view::{decode_stats, decode_status, summary};
use writer::{What, Write, Writer};

/// How many heartbeat periods a node may be silent and still be online: one lost heartbeat is nothing.
const PATIENCE: f64 = 2.5;

/// Settings of reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportConfig {
    /// Milliseconds between two signs of life of a node.
    #[serde(deserialize_with = "within::<_, 100, 3_600_000>")]
    pub heartbeat_period_ms: u32,
    /// Milliseconds between two stats of a node.
    #[serde(deserialize_with = "within::<_, 100, 3_600_000>")]
    pub stats_period_ms: u32,
    /// Seconds between two writes of the times nodes were seen last.
    #[serde(deserialize_with = "within::<_, 1, 86_400>")]
    pub flush_seconds: u32,
    /// How many events are kept per node.
    #[serde(deserialize_with = "within::<_, 1, 100_000>")]
    pub events_per_node: u32,
}

impl Default for ReportConfig {
    fn default() -> Self {
        let periods = Periods::default();
        let millis = |period: Duration| u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
        Self {
            heartbeat_period_ms: millis(periods.heartbeat),
            stats_period_ms: millis(periods.stats),
            flush_seconds: 60,
            events_per_node: 500,
        }
    }
}

impl ReportConfig {
    fn patience(&self) -> Duration {
        Duration::from_millis(self.heartbeat_period_ms.into()).mul_f64(PATIENCE)
    }
}

/// A report could not be made durable.
#[derive(Debug, thiserror::Error)]
#[error("the cloud cannot store reports at the moment; send it again")]
pub struct NotStored;

/// Reports of all nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reports(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Clock,
    config: ReportConfig,
    live: LiveNodes,
    writer: Writer,
}

impl Reports {
    /// The reports in a database, and the task that writes them.
    pub fn new(store: Store, config: ReportConfig, clock: Clock) -> (Self, ReportTask) {
        let (writer, queue) = writer::queue();
        let live = LiveNodes::new(config.patience());
        let reports = Self(Arc::new(Inner {
            store,
            clock,
            config,
            live,
            writer,
        }));
        (reports.clone(), ReportTask::new(reports, queue))
    }

    /// The settings.
    pub fn config(&self) -> &ReportConfig {
        &self.0.config
    }

    /// What is known about one node. For a node that was never seen: uninstalled and nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn report(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
    ) -> Result<NodeReport, StoreError> {
        let row = rows::one(&self.0.store, namespace, uid)
            .await?
            .unwrap_or_default();
        let status = rows::status(&self.0.store, namespace, uid).await?;
        Ok(self.assemble(namespace, uid, row, status.as_deref()))
    }

    /// What a list of the namespace's nodes shows, with one query. A node that is not in it was never seen.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn summaries(
        &self,
        namespace: &Namespace,
    ) -> Result<HashMap<NodeUid, NodeSummary>, StoreError> {
        let rows = rows::all(&self.0.store, namespace).await?;
        let mut live = self.0.live.of_namespace(namespace, self.0.clock.uptime());
        let with_live = rows.into_iter().map(|(uid, row)| {
            let seen = live.remove(&uid);
            (uid, summary(row, seen))
        });
        Ok(with_live.collect())
    }

    /// What is known about these nodes, in their order, with few queries.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reports(
        &self,
        namespace: &Namespace,
        uids: &[&NodeUid],
    ) -> Result<Vec<NodeReport>, StoreError> {
        let mut rows: HashMap<_, _> = rows::all(&self.0.store, namespace)
            .await?
            .into_iter()
            .collect();
        let mut statuses = rows::statuses(&self.0.store, namespace, uids).await?;
        let reports = uids.iter().map(|&uid| {
            let row = rows.remove(uid).unwrap_or_default();
            self.assemble(namespace, uid, row, statuses.remove(uid).as_deref())
        });
        Ok(reports.collect())
    }

    fn assemble(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
        row: ReportRow,
        status: Option<&[u8]>,
    ) -> NodeReport {
        let live = self.0.live.get(namespace, uid);
        let stats = live.as_ref().and_then(|live| live.stats.clone());
        let address = live.as_ref().and_then(|live| live.address);
        let seen = live.map(|live| (live.last_seen, self.is_online(&live)));
        NodeReport {
            status_time: row.status_time,
            summary: summary(row, seen),
            status: status.and_then(decode_status),
            stats: stats.and_then(decode_stats),
            address,
        }
    }

    /// How many events of a node are kept.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_events(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
    ) -> Result<u64, StoreError> {
        crate::events::count(&self.0.store, namespace, uid).await
    }

    /// The events of a node with an id below `before` (none: the newest), newest first, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn events(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<crate::events::NodeEvent>, StoreError> {
        crate::events::list(&self.0.store, namespace, uid, before, limit).await
    }

    /// A node connected: what is stored about it.
    pub(crate) async fn connected(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
    ) -> Result<ReportRow, StoreError> {
        let row = match rows::one(&self.0.store, namespace, uid).await? {
            Some(row) => row,
            None => {
                rows::ensure(&self.0.store, namespace, uid).await?;
                ReportRow::default()
            }
        };
        self.seen(namespace, uid).await;
        if row.last_seen.is_none() {
            self.write(namespace, uid, What::LastSeen(self.0.clock.now()), None)
                .await;
        }
        Ok(row)
    }

    /// A node gave a sign of life.
    pub(crate) async fn seen(&self, namespace: &Namespace, uid: &NodeUid) {
        let back = self
            .0
            .live
            .seen(namespace, uid, self.0.clock.now(), self.0.clock.uptime());
        if let Some(transition) = back {
            self.note(transition).await;
        }
    }

    /// Where a node's link comes from: kept in memory.
    pub(crate) fn put_address(&self, namespace: &Namespace, uid: &NodeUid, address: IpAddr) {
        self.0.live.put_address(namespace, uid, address);
    }

    /// Figures: kept in memory.
    pub(crate) fn put_stats(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
        stats: &shadow::NodeStats,
    ) {
        self.0
            .live
            .put_stats(namespace, uid, stats.encode_to_vec().into());
    }

    /// Hop 10: a status is stored before it is acknowledged. One that cannot be read is not stored: an event tells, and
    /// the node goes on.
    pub(crate) async fn store_status(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
        digest: &str,
        status: shadow::NodeStatus,
    ) -> Result<(), NotStored> {
        let bytes = status.encode_to_vec();
        let (apps, observed) = (
            status.apps.len(),
            status
                .observed
                .as_ref()
                .map_or(0, |header| header.generation),
        );
        if let Err(error) = NodeStatus::try_from(status) {
            let message = format!("the node's status was ignored: {error}");
            return self
                .raise(
                    namespace,
                    uid,
                    EventType::Warning,
                    "StatusUnreadable",
                    message,
                )
                .await;
        }
        let what = What::Status {
            digest: digest.to_owned(),
            status: bytes,
            now: self.0.clock.now(),
        };
        self.write_durably(namespace, uid, what).await?;
        tracing::info!(event = "report.stored", %namespace, %uid, digest, observed, apps, "report stored");
        Ok(())
    }

    /// An event of the node's outbox; one that was stored before is not stored again.
    pub(crate) async fn store_event(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
        event: shadow::Event,
    ) -> Result<(), NotStored> {
        let event = NewEvent::from_node(event, self.0.clock.now());
        self.write_durably(namespace, uid, What::Event(Box::new(event)))
            .await
    }

    /// The node has a desire on disk. Written with the next batch.
    pub(crate) async fn acknowledged(&self, namespace: &Namespace, header: Header) {
        let uid = header.node_uid.clone();
        self.write(namespace, &uid, What::Acknowledged(header), None)
            .await;
    }

    /// The node refused a desire.
    pub(crate) async fn refused(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
        refused: &str,
        message: &str,
    ) {
        self.write(namespace, uid, What::Refused(refused.to_owned()), None)
            .await;
        let message = format!("the node refused a desire: {refused}: {message}");
        let _ = self
            .raise(namespace, uid, EventType::Warning, "DesireRefused", message)
            .await;
    }

    /// The node holds a desire of ours that is newer than our state. Durable before the next desire goes out.
    pub(crate) async fn raise_epoch(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
        epoch: Epoch,
        presented: &Header,
    ) -> Result<(), NotStored> {
        let generation: Generation = presented.generation;
        self.write_durably(namespace, uid, What::Epoch { epoch, generation })
            .await?;
        tracing::warn!(%namespace, %uid, %epoch, %presented, "the state of this cloud went back; epoch raised");
        let message = format!(
            "the node holds {presented}, which this cloud signed and does not know any more: its database was put \
             back to an older copy; the node follows the cloud from epoch {epoch} on"
        );
        self.raise(
            namespace,
            uid,
            EventType::Warning,
            "CloudStateWentBack",
            message,
        )
        .await
    }

    /// An event the cloud noticed.
    pub(crate) async fn raise(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
        kind: EventType,
        reason: &str,
        message: String,
    ) -> Result<(), NotStored> {
        let event = NewEvent::of_cloud(kind, reason, message, self.0.clock.now());
        self.write_durably(namespace, uid, What::Event(Box::new(event)))
            .await
    }

    /// The node is gone for good.
    pub(crate) fn forget(&self, namespace: &Namespace, uid: &NodeUid) {
        self.0.live.forget(namespace, uid);
    }

    fn is_online(&self, live: &Live) -> bool {
        self.0.live.is_online(live, self.0.clock.uptime())
    }

    async fn write(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
        what: What,
        done: Option<oneshot::Sender<()>>,
    ) {
        let write = Write {
            namespace: namespace.clone(),
            uid: uid.clone(),
            what,
            done,
        };
        // Fails only when the writer ended: the process stops, and who waits for `done` is told.
        let _ = self.0.writer.send(write).await;
    }

    async fn write_durably(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
        what: What,
    ) -> Result<(), NotStored> {
        let (done, stored) = oneshot::channel();
        self.write(namespace, uid, what, Some(done)).await;
        stored.await.map_err(|_| NotStored)
    }
}
