//! One stream of one node, from Hello to its end.
//!
//! What to say when is decided by [`CloudLink`], the state machine of the model; this shell keeps the bytes that belong
//! to its headers and digests, verifies what comes before the machine hears of it, and stores before it confirms.
//!
//! The stream *is* the session: no task and no queue of its own, so that a thousand of them cost little. It is polled
//! while the node takes what it is sent; a node that does not read is not listened to either.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use baetyl_model::desire::Header;
use baetyl_model::link::{CloudAction, CloudInput, CloudLink, Down as Say, Periods, Up as Heard};
use baetyl_model::{Desire, Digest, Epoch};
use baetyl_proto::link::connect_request::Message as Up;
use baetyl_proto::link::connect_response::Message as Down;
use baetyl_proto::link::{Command, CommandResult, ConnectRequest, ConnectResponse, Hello};
use baetyl_proto::shadow;
use futures_util::{Stream, stream};
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tonic::{Status, Streaming};

mod desires;
mod wanted;
mod wire;

use super::LinkDeps;
use super::admit;
use super::registry::{Order, Registration, Signals};
use crate::events::EventType;
use crate::pki::{NodeIdentity, PeerIdentity};
use crate::store::Snapshot;
use wanted::Wanted;
use wire::{Greeting, Incoming, not_stored, unavailable};

/// Commands of one stream whose result is waited for.
type Pending = HashMap<String, oneshot::Sender<CommandResult>>;

/// An open stream.
pub(super) struct Session {
    deps: LinkDeps,
    node: NodeIdentity,
    peer: PeerIdentity,
    protocol: u32,
    inbound: Streaming<ConnectRequest>,
    feed: watch::Receiver<Arc<Snapshot>>,
    registration: Registration,
    signals: Signals,
    machine: CloudLink,
    opened: Instant,
    epoch: Epoch,
    wanted: Option<Wanted>,
    /// The desire that was just derived: the machine may want it sent at once. Dropped after each step.
    derived: Option<Desire>,
    status: Option<Digest>,
    /// The last event that is stored; whether one came on this stream.
    events: (u64, bool),
    pending: Pending,
    outbox: VecDeque<Down>,
    ended: bool,
}

impl Session {
    /// Takes the node's place and prepares Welcome and the first desire.
    pub(super) async fn open(
        deps: LinkDeps,
        node: NodeIdentity,
        peer: PeerIdentity,
        protocol: u32,
        hello: Hello,
        inbound: Streaming<ConnectRequest>,
    ) -> Result<Self, Status> {
        let row = deps
            .reports
            .connected(&node.namespace, &node.uid)
            .await
            .map_err(admit::unavailable)?;
        let feed = deps
            .feed
            .subscribe(&node.namespace)
            .await
            .map_err(|error| unavailable(&error))?;
        let (registration, signals) = deps.links.register(&node.namespace, &node.uid);
        tracing::info!(namespace = %node.namespace, node = %node.name, uid = %node.uid, protocol,
            fingerprint = %peer.fingerprint, "node connected");
        let config = deps.reports.config();
        let periods = Periods {
            heartbeat: Duration::from_millis(config.heartbeat_period_ms.into()),
            stats: Duration::from_millis(config.stats_period_ms.into()),
            ..Periods::default()
        };
        let status = row.status_digest.parse().ok();
        let mut session = Self {
            machine: CloudLink::new(periods, None, status, row.event_sequence, Duration::ZERO),
            opened: Instant::now(),
            epoch: row.epoch,
            wanted: None,
            derived: None,
            status,
            events: (row.event_sequence, false),
            pending: Pending::new(),
            outbox: VecDeque::new(),
            ended: false,
            deps,
            node,
            peer,
            protocol,
            inbound,
            feed,
            registration,
            signals,
        };
        session.greet(hello).await?;
        Ok(session)
    }

    /// Derives first: the answer to Hello may already bring a desire.
    async fn greet(&mut self, hello: Hello) -> Result<(), Status> {
        self.derive_wanted().await?;
        let held = hello.held.and_then(|held| Header::try_from(held).ok());
        let held = held.filter(|held| held.node_uid == self.node.uid);
        let status = hello.status_digest.parse().ok();
        self.tell(
            CloudInput::Received(Heard::Hello { held, status }),
            Incoming::None,
        )
        .await?;
        if self.machine.is_in_sync()
            && let (Some(held), Some(wanted)) = (self.machine.held().cloned(), &self.wanted)
        {
            // As good as an acknowledgement, whose own message may have been lost.
            self.registration.delivered(wanted.apps.clone());
            self.deps
                .reports
                .acknowledged(&self.node.namespace, held)
                .await;
        }
        Ok(())
    }

    /// The messages to the node, until the stream ends.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<ConnectResponse, Status>> + Send {
        // Boxed once: the state moves through every step.
        stream::unfold(Box::new(self), |mut session| async move {
            let next = session.next().await?;
            Some((next, session))
        })
    }

    async fn next(&mut self) -> Option<Result<ConnectResponse, Status>> {
        loop {
            if let Some(message) = self.outbox.pop_front() {
                return Some(Ok(ConnectResponse {
                    message: Some(message),
                }));
            }
            if self.ended {
                return None;
            }
            self.derived = None;
            if let Err(status) = self.step().await {
                self.ended = true;
                return Some(Err(status));
            }
        }
    }

    /// Waits for one thing and does it. An error ends the stream.
    async fn step(&mut self) -> Result<(), Status> {
        let wake = self
            .machine
            .wake_in(self.opened.elapsed())
            .unwrap_or_default();
        tokio::select! {
            message = self.inbound.message() => match message? {
                Some(ConnectRequest { message: Some(message) }) => {
                    self.deps.reports.seen(&self.node.namespace, &self.node.uid).await;
                    self.take(message).await
                }
                // A message of a newer protocol.
                Some(ConnectRequest { message: None }) => Ok(()),
                None => {
                    self.ended = true;
                    Ok(())
                }
            },
            changed = self.feed.changed() => match changed {
                Ok(()) => self.derive_wanted().await,
                Err(_) => Err(Status::unavailable("the cloud is stopping or the namespace was deleted")),
            },
            status = &mut self.signals.end => {
                Err(status.unwrap_or_else(|_| Status::unavailable("the cloud ended the stream; connect again")))
            }
            Some(order) = self.signals.orders.recv() => {
                self.send_order(order);
                Ok(())
            }
            () = tokio::time::sleep(wake) => self.tell(CloudInput::Tick, Incoming::None).await,
        }
    }

    async fn take(&mut self, message: Up) -> Result<(), Status> {
        let (heard, incoming) = match message {
            Up::Hello(_) => {
                return Err(Status::invalid_argument(
                    "Hello is the first message of a stream and comes once",
                ));
            }
            Up::Heartbeat(_) if self.peer.is_expired(self.now()) => {
                return Err(admit::expired(&self.peer));
            }
            Up::Heartbeat(_) => (Heard::Heartbeat, Incoming::None),
            Up::Stats(stats) => (Heard::Stats, Incoming::Stats(stats)),
            Up::Status(envelope) => wire::read_status(envelope)?,
            Up::Event(event) => self.read_event(event),
            Up::DesireAck(ack) => wire::read_ack(ack)?,
            Up::Presented(signed) => return self.take_presented(signed).await,
            Up::CommandResult(result) => {
                if let Some(answer) = self.pending.remove(&result.command_id) {
                    // Who asked may have given up.
                    let _ = answer.send(result);
                }
                return Ok(());
            }
        };
        self.tell(CloudInput::Received(heard), incoming).await
    }

    /// The stream keeps order: a hole before its first event was not made by it. Events are missing because this cloud's
    /// state went back after it had acknowledged them; they are counted as dropped.
    fn read_event(&mut self, mut event: shadow::Event) -> (Heard, Incoming) {
        let (stored, begun) = self.events;
        if !begun {
            event.dropped = event
                .dropped
                .max(event.sequence.saturating_sub(stored.saturating_add(1)));
            self.events.1 = true;
        }
        (
            Heard::Event {
                sequence: event.sequence,
                dropped: event.dropped,
            },
            Incoming::Event(event),
        )
    }

    /// Tells the machine and does what it says, until it says nothing more.
    async fn tell(&mut self, input: CloudInput, mut incoming: Incoming) -> Result<(), Status> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let ticked = input == CloudInput::Tick;
            for action in self.machine.next(input, self.opened.elapsed(), self.now()) {
                match action {
                    CloudAction::Send(message) => self.say(message).await?,
                    CloudAction::Close { reason } if ticked => {
                        return Err(Status::deadline_exceeded(reason));
                    }
                    CloudAction::Close { reason } => return Err(Status::invalid_argument(reason)),
                    action => inputs.extend(self.perform(action, &mut incoming).await?),
                }
            }
        }
        Ok(())
    }

    /// Stores what the machine wants stored. What it is told then.
    async fn perform(
        &mut self,
        action: CloudAction,
        incoming: &mut Incoming,
    ) -> Result<Option<CloudInput>, Status> {
        let incoming = std::mem::replace(incoming, Incoming::None);
        let (namespace, uid) = (&self.node.namespace, &self.node.uid);
        let reports = &self.deps.reports;
        Ok(match (action, incoming) {
            (CloudAction::StoreStatus(digest), Incoming::Status(status)) => {
                if self.status != Some(digest) {
                    let text = digest.to_string();
                    reports
                        .store_status(namespace, uid, &text, status)
                        .await
                        .map_err(not_stored)?;
                    self.status = Some(digest);
                }
                Some(CloudInput::StatusStored(digest))
            }
            (CloudAction::StoreEvent(sequence), Incoming::Event(event)) => {
                reports
                    .store_event(namespace, uid, event)
                    .await
                    .map_err(not_stored)?;
                self.events.0 = sequence;
                Some(CloudInput::EventsStored(sequence))
            }
            (CloudAction::KeepStats, Incoming::Stats(stats)) => {
                reports.put_stats(namespace, uid, &stats);
                None
            }
            (CloudAction::Delivered(header), _) => {
                reports.acknowledged(namespace, header).await;
                None
            }
            (CloudAction::Refused { refused, .. }, Incoming::Refusal(message)) => {
                reports
                    .refused(namespace, uid, refused.as_str(), &message)
                    .await;
                None
            }
            (CloudAction::RaiseEpoch { above }, Incoming::Presented(presented)) => {
                self.epoch = above.next();
                reports
                    .raise_epoch(namespace, uid, self.epoch, &presented)
                    .await
                    .map_err(not_stored)?;
                let desire = self
                    .wanted
                    .as_ref()
                    .and_then(|wanted| wanted.derive(self.epoch).ok());
                desire.map(|desire| CloudInput::Wanted(desire.header()))
            }
            // The machine asks only for what it was just told of.
            _ => None,
        })
    }

    /// Puts a message of the machine on the wire.
    async fn say(&mut self, message: Say) -> Result<(), Status> {
        if let Say::Desire(header) = message {
            return self.deliver(&header).await;
        }
        let about = Greeting {
            protocol: self.protocol,
            config: self.deps.reports.config(),
            node: &self.node,
        };
        self.outbox.extend(wire::to_wire(message, &about));
        Ok(())
    }

    fn send_order(&mut self, order: Order) {
        self.pending.retain(|_, answer| !answer.is_closed());
        let command = Command {
            id: order.id.clone(),
            kind: order.kind,
            arguments: order.arguments.into(),
            timeout_ms: u32::try_from(order.timeout.as_millis()).unwrap_or(u32::MAX),
        };
        self.pending.insert(order.id, order.answer);
        self.outbox.push_back(Down::Command(command));
    }

    async fn raise(&self, reason: &str, message: String) -> Result<(), Status> {
        let (namespace, uid) = (&self.node.namespace, &self.node.uid);
        let stored = self
            .deps
            .reports
            .raise(namespace, uid, EventType::Warning, reason, message);
        stored.await.map_err(not_stored)
    }

    fn now(&self) -> Timestamp {
        self.deps.pki.clock().now()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        tracing::info!(namespace = %self.node.namespace, node = %self.node.name, "node disconnected");
    }
}
