//! Hop 10, up: the status when the cloud has another one, stats in their own time.

use std::sync::{Arc, Mutex, PoisonError};

use baetyl_model::Digest;
use baetyl_proto::link::StatusEnvelope;
use baetyl_proto::link::connect_request::Message;
use baetyl_proto::shadow::NodeStats;

use crate::node::Report;

/// What was sent of the stats, over all streams: figures that did not change since are not sent again, so that a new
/// stream with nothing new says nothing.
#[derive(Debug, Default)]
pub(crate) struct SentStats(Mutex<Option<Arc<NodeStats>>>);

impl SentStats {
    /// The stats to send, unless they were sent already.
    pub(crate) fn deliver_stats(&self, report: &Report) -> Option<Message> {
        let stats = report.stats.as_ref()?;
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.as_ref().is_some_and(|sent| Arc::ptr_eq(sent, stats)) {
            return None;
        }
        *sent = Some(Arc::clone(stats));
        Some(Message::Stats(NodeStats::clone(stats)))
    }
}

/// The whole status as it is now.
pub(crate) fn deliver_status(report: &Report) -> Option<Message> {
    let (digest, status) = report.status.as_ref()?;
    Some(Message::Status(StatusEnvelope {
        digest: digest.to_string(),
        status: Some(status.as_ref().clone()),
    }))
}

/// The cloud has stored the status with this digest.
pub(crate) fn note_stored(digest: &Digest) {
    tracing::info!(event = "report.stored", %digest, "the cloud has stored the status");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_figures_are_sent_once() {
        let sent = SentStats::default();
        let mut report = Report::default();
        assert_eq!(sent.deliver_stats(&report), None);
        report.stats = Some(Arc::default());
        assert!(sent.deliver_stats(&report).is_some());
        assert_eq!(sent.deliver_stats(&report), None);
        report.stats = Some(Arc::default());
        assert!(sent.deliver_stats(&report).is_some());
    }
}
