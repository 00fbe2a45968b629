//! What others see of a node's report.

use std::net::IpAddr;

use baetyl_model::desire::Header;
use baetyl_model::{NodeStats, NodeStatus};
use baetyl_proto::shadow;
use bytes::Bytes;
use jiff::Timestamp;
use prost::Message as _;

use super::rows::ReportRow;

/// Baetyl v2's `ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Never seen.
    Uninstalled,
    /// Seen within 2.5 heartbeat periods.
    Online,
    /// Seen before that.
    Offline,
}

impl Ready {
    /// The number in the REST interface.
    pub const fn code(self) -> u8 {
        match self {
            Self::Uninstalled => 0,
            Self::Online => 1,
            Self::Offline => 2,
        }
    }
}

/// What a list of nodes shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSummary {
    /// Whether it is there.
    pub ready: Ready,
    /// The last sign of life, by the clock of the cloud.
    pub last_seen: Option<Timestamp>,
    /// The desire the node has on disk.
    pub acknowledged: Option<Header>,
    /// Why it refused the last desire; empty = it did not.
    pub refused: String,
}

/// Everything that is known about a node's report.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeReport {
    /// See [`NodeSummary`].
    pub summary: NodeSummary,
    /// What it reported last; none = nothing yet.
    pub status: Option<NodeStatus>,
    /// When that was, by the clock of the cloud.
    pub status_time: Option<Timestamp>,
    /// Figures; none while it was not seen since the cloud started.
    pub stats: Option<NodeStats>,
    /// Where its link comes from; none while it was not seen since the cloud started.
    pub address: Option<IpAddr>,
}

/// A row with what memory knows better: last seen and whether that is online.
pub(super) fn summary(row: ReportRow, live: Option<(Timestamp, bool)>) -> NodeSummary {
    let last_seen = live.map(|(last_seen, _)| last_seen).or(row.last_seen);
    let ready = match (live, last_seen) {
        (Some((_, true)), _) => Ready::Online,
        (_, Some(_)) => Ready::Offline,
        (_, None) => Ready::Uninstalled,
    };
    NodeSummary {
        ready,
        last_seen,
        acknowledged: row.acknowledged,
        refused: row.refused,
    }
}

/// What was stored was readable then; a release that reads less shows nothing rather than failing.
pub(super) fn decode_status(bytes: &[u8]) -> Option<NodeStatus> {
    let status = shadow::NodeStatus::decode(bytes).ok()?;
    NodeStatus::try_from(status)
        .map_err(|error| tracing::warn!(%error, "a stored status cannot be read"))
        .ok()
}

pub(super) fn decode_stats(bytes: Bytes) -> Option<NodeStats> {
    let stats = shadow::NodeStats::decode(bytes).ok()?;
    NodeStats::try_from(stats)
        .map_err(|error| tracing::warn!(%error, "stats cannot be read"))
        .ok()
}
