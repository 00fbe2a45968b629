//! Who is there: what was known before the start, who went away, when each was seen last.

use std::time::Duration;

use baetyl_kit::error::chain;
use tokio_util::sync::CancellationToken;

use super::live::Transition;
use super::writer::{self, What};
use super::{Reports, rows};
use crate::events::{EventType, NewEvent};

impl Reports {
    /// Takes in who was there before this start: a node that went away meanwhile is noticed like any other.
    pub(super) async fn remember(&self) {
        let uptime = self.0.clock.uptime();
        match rows::remembered(&self.0.store).await {
            Ok(nodes) => {
                for node in nodes {
                    self.0.live.remember(node, uptime);
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "cannot read which nodes were seen before the start");
            }
        }
    }

    async fn sweep_until(&self, stop: CancellationToken) {
        self.remember().await;
        let heartbeat = Duration::from_millis(self.0.config.heartbeat_period_ms.max(1).into());
        let flush = Duration::from_secs(self.0.config.flush_seconds.into()).max(heartbeat);
        let mut sweep = tokio::time::interval(heartbeat);
        let mut unflushed = Duration::ZERO;
        while stop.run_until_cancelled(sweep.tick()).await.is_some() {
            self.sweep().await;
            unflushed += heartbeat;
            if unflushed >= flush {
                unflushed = Duration::ZERO;
                self.flush().await;
            }
        }
        self.flush().await;
    }

    pub(super) async fn sweep(&self) {
        for transition in self.0.live.sweep(self.0.clock.uptime()) {
            self.note(transition).await;
        }
    }

    async fn flush(&self) {
        for (namespace, uid, time) in self.0.live.take_unflushed() {
            self.write(&namespace, &uid, What::LastSeen(time), None)
                .await;
        }
    }

    pub(super) async fn note(&self, transition: Transition) {
        let Transition {
            namespace,
            uid,
            online,
        } = transition;
        let (kind, reason) = if online {
            (EventType::Normal, "NodeOnline")
        } else {
            (EventType::Warning, "NodeOffline")
        };
        tracing::info!(%namespace, %uid, reason, "node changed");
        let message = format!(
            "the node is {}",
            if online {
                "back"
            } else {
                "not heard of any more"
            }
        );
        let event = NewEvent::of_cloud(kind, reason, message, self.0.clock.now());
        self.write(&namespace, &uid, What::Event(Box::new(event)), None)
            .await;
    }
}

/// Writes reports and notices who went away.
#[derive(Debug)]
pub struct ReportTask {
    reports: Reports,
    queue: writer::Queue,
}

impl ReportTask {
    pub(super) const fn new(reports: Reports, queue: writer::Queue) -> Self {
        Self { reports, queue }
    }

    /// Runs until `stop`; writes what is waiting and when nodes were seen last, and returns.
    pub async fn run(self, stop: CancellationToken) {
        let Self { reports, queue } = self;
        let finish = CancellationToken::new();
        let write = writer::run(
            reports.0.store.clone(),
            reports.0.config.events_per_node,
            queue,
            finish.clone(),
        );
        let sweep = async {
            reports.sweep_until(stop).await;
            finish.cancel();
        };
        tokio::join!(sweep, write);
    }
}
