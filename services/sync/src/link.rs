//! The link to the cloud: one outbound stream, opened again for ever.
//!
//! [`Link::run`] decides when to connect and with which identity; [`session`] is one stream; what is said on it is
//! decided by `baetyl_model::link`. Bodies and objects travel beside the stream on the same connection, which is shown
//! to others as [`Link::uplink`].

use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_kit::clock::Clock;
use baetyl_kit::metrics::{Counter, Metrics};
use baetyl_proto::convert::time;
use baetyl_proto::link::CommandResult;
use baetyl_proto::shadow::Event;
use baetyl_proto::sync::LinkState;
use baetyl_proto::sync::link_state::Phase;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::transport::Channel;

pub(crate) mod dial;
mod session;
mod verdict;
mod wire;

use crate::command::Dispatcher;
use crate::config;
use crate::identity::Identity;
use crate::identity::renew::Renewal;
use crate::identity::store::IdentityStore;
use crate::node::{Held, Node};
use crate::outbox::Outbox;
use crate::report::SentStats;
use crate::trust::TrustClock;
use dial::{Dialed, Dialing, NotDialed};

/// A stream that lasted this long was a good one: the next attempt comes soon.
const GOOD: Duration = Duration::from_secs(15);

/// Results that wait for a stream; the cloud asks again for what is beyond.
const UNTOLD: usize = 64;

/// Everything a link works with.
pub(crate) struct Parts {
    pub(crate) config: config::Link,
    pub(crate) clock: Clock,
    pub(crate) identity: Arc<IdentityStore>,
    pub(crate) trust: Arc<TrustClock>,
    pub(crate) node: Node,
    pub(crate) outbox: Outbox,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) metrics: Metrics,
}

/// What is counted.
struct Counts {
    connects: Counter,
    delivered: Counter,
    refused: Counter,
}

/// The link.
pub(crate) struct Link {
    parts: Parts,
    results: mpsc::Receiver<CommandResult>,
    /// Results that no stream has taken yet.
    untold: Vec<CommandResult>,
    sent_stats: SentStats,
    counts: Counts,
    state: watch::Sender<LinkState>,
    uplink: watch::Sender<Option<Channel>>,
    /// Whether the successor of the identity is tried next, if there is one.
    successors_turn: bool,
    /// The successor was refused, not merely out of reach.
    successor_refused: bool,
    /// No renewal is asked for before this.
    renew_after: Option<Instant>,
    /// What the cloud was last told to be refused, for one event each.
    refused: Option<(String, String)>,
}

/// How a stream ended.
pub(crate) enum Ended {
    /// It broke, or none could be opened; a sentence.
    Lost(String),
    /// Something about us has changed: open another one at once.
    Renewed,
    /// The cloud deleted this node; its reason.
    Removed(String),
}

impl Link {
    /// A link that is not connected. `results` gives what commands came to; `untold` is what an earlier run left.
    pub(crate) fn new(
        parts: Parts,
        results: mpsc::Receiver<CommandResult>,
        untold: Vec<CommandResult>,
        uplink: watch::Sender<Option<Channel>>,
    ) -> Self {
        let state = watch::Sender::new(LinkState {
            phase: Phase::WaitingForIdentity.into(),
            message: String::new(),
            since: Some(time::to_wire(parts.clock.now())),
            connects: 0,
        });
        let counts = Counts {
            connects: parts.metrics.counter(
                "connects_total",
                "Streams to the cloud that were established.",
                &[],
            ),
            delivered: parts.metrics.counter(
                "desires_delivered_total",
                "Desires that node took, or held already.",
                &[],
            ),
            refused: parts.metrics.counter(
                "desires_refused_total",
                "Desires that were not taken, by sync or by node.",
                &[],
            ),
        };
        Self {
            parts,
            results,
            untold,
            sent_stats: SentStats::default(),
            counts,
            state,
            uplink,
            successors_turn: true,
            successor_refused: false,
            renew_after: None,
            refused: None,
        }
    }

    /// Where it stands, and every change.
    pub(crate) fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Keeps a stream open until it is dropped.
    pub(crate) async fn run(mut self) {
        let config = &self.parts.config;
        let mut backoff = Backoff::new(config.backoff_min, config.backoff_max);
        let mut identity = self.parts.identity.watch();
        loop {
            let Some(current) = identity.borrow_and_update().clone() else {
                self.show(Phase::WaitingForIdentity, "no identity is installed");
                if identity.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let begun = self.parts.clock.uptime();
            let ended = self.connect(current, &mut identity).await;
            self.uplink.send_replace(None);
            if self.parts.clock.uptime().saturating_sub(begun) >= GOOD {
                backoff.reset();
            }
            let pause = match ended {
                Ended::Renewed => continue,
                Ended::Lost(reason) => {
                    tracing::info!(
                        reason,
                        attempt = backoff.attempt(),
                        "no link to the cloud; trying again"
                    );
                    self.show(Phase::Connecting, &reason);
                    backoff.next_delay()
                }
                Ended::Removed(reason) => {
                    tracing::warn!(reason, "the cloud deleted this node; applications go on");
                    self.show(Phase::Removed, &reason);
                    self.parts.config.removed_retry
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Another identity is another chance.
                Ok(()) = identity.changed() => backoff.reset(),
            }
        }
    }

    /// One attempt: dial, renew if due, and a stream until it ends.
    async fn connect(
        &mut self,
        current: Arc<Identity>,
        identity: &mut watch::Receiver<Option<Arc<Identity>>>,
    ) -> Ended {
        let phase = self.state.borrow().phase();
        if phase != Phase::Removed && phase != Phase::Connecting {
            self.show(Phase::Connecting, "");
        }
        let successor = self
            .parts
            .identity
            .pending()
            .filter(|_| self.successors_turn);
        let is_successor = successor.is_some();
        // After a failure of the successor the one that worked has its turn, and so on.
        self.successors_turn = !is_successor;
        let used = successor.unwrap_or(current);
        self.wait_for_node().await;
        let how = Dialing {
            connect_timeout: self.parts.config.connect_timeout,
            keepalive: self.parts.config.keepalive,
        };
        match dial::dial(&used, &self.parts.trust, how).await {
            Ok(Dialed { channel, verdict }) => {
                let ended = session::run(self, &used, is_successor, channel, identity).await;
                self.successor_refused |= is_successor && verdict.is_refusal();
                ended
            }
            Err(NotDialed { reason, is_refusal }) => {
                self.successor_refused |= is_successor && is_refusal;
                Ended::Lost(reason)
            }
        }
    }

    /// The first message tells the cloud what node holds; without node it tells that nothing is known.
    async fn wait_for_node(&self) {
        let mut held = self.parts.node.held();
        let known = held.wait_for(|held| !matches!(held, Held::Unknown));
        let _ = tokio::time::timeout(self.parts.config.node_wait, known).await;
    }

    /// A renewal over this connection.
    fn renewal(&self, channel: &Channel) -> Renewal {
        Renewal::new(
            channel.clone(),
            Arc::clone(&self.parts.identity),
            Arc::clone(&self.parts.trust),
        )
    }

    /// For the next stream; bounded like the memory of commands.
    fn keep_result(&mut self, result: CommandResult) {
        if self.untold.len() < UNTOLD {
            self.untold.push(result);
        }
    }

    fn show(&self, phase: Phase, message: &str) {
        let now = self.parts.clock.now();
        self.state.send_if_modified(|state| {
            if state.phase() == phase && state.message == message {
                return false;
            }
            if state.phase() != phase {
                state.since = Some(time::to_wire(now));
                if phase == Phase::Online {
                    state.connects += 1;
                }
            }
            state.set_phase(phase);
            message.clone_into(&mut state.message);
            true
        });
    }

    /// Tells the cloud what happened here. An event that cannot be kept is in the log at least.
    async fn event(&self, reason: &str, kind: &str, message: &str) {
        let event = Event {
            time: Some(time::to_wire(self.parts.clock.now())),
            reason: reason.to_owned(),
            message: message.to_owned(),
            about: "sync".to_owned(),
            r#type: kind.to_owned(),
            ..Event::default()
        };
        crate::put_event(&self.parts.outbox, event).await;
    }
}
