//! Events for the cloud: a bounded queue before sync's durable outbox.

use baetyl_kit::backoff::Backoff;
use tokio::sync::mpsc;

use crate::ports::{CloudEvent, Content};

/// Sync is away only for moments; what happens meanwhile is told by the report anyway.
const QUEUE: usize = 64;

/// Where events are put in; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Events(mpsc::Sender<CloudEvent>);

impl Events {
    /// The queue and its reading end.
    pub(crate) fn new() -> (Self, mpsc::Receiver<CloudEvent>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Puts an event in; the log has it when the queue is full.
    pub(crate) fn tell(&self, event: CloudEvent) {
        if event.warning {
            tracing::warn!(
                reason = event.reason,
                about = event.about,
                "{}",
                event.message
            );
        } else {
            tracing::info!(
                reason = event.reason,
                about = event.about,
                "{}",
                event.message
            );
        }
        if let Err(error) = self.0.try_send(event) {
            tracing::warn!(%error, "an event for the cloud is dropped");
        }
    }
}

/// Hands events to sync, one after the other, until the queue is closed.
pub(crate) async fn deliver_events<C: Content>(content: C, mut queue: mpsc::Receiver<CloudEvent>) {
    let mut backoff = Backoff::local();
    while let Some(event) = queue.recv().await {
        while let Err(error) = content.put_event(&event).await {
            if error.is_permanent() {
                tracing::warn!(%error, reason = event.reason, "an event for the cloud was refused");
                break;
            }
            backoff.wait().await;
        }
        backoff.reset();
    }
}
