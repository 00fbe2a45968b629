//! One stream of one node, from Hello to its end.
//!
//! The stream *is* the session: no task and no queue of its own, so that a thousand of them cost little. It is polled
//! while the node takes what it is sent; a node that does not read is not listened to either.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::error::chain;
use baetyl_model::Digest;
use baetyl_model::desire::Header;
use baetyl_proto::link::connect_request::Message as Up;
use baetyl_proto::link::connect_response::Message as Down;
use baetyl_proto::link::{
    Command, CommandResult, ConnectRequest, ConnectResponse, DesireAck, EventAck, Hello, HeartbeatAck, PresentDesire,
    Removed, StatusAck, StatusEnvelope, Welcome,
};
use baetyl_proto::shadow::SignedDesire;
use baetyl_proto::convert::time::to_wire;
use baetyl_proto::sign;
use futures_util::{Stream, stream};
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::admit::{self, DELETED};
use super::offer::{Offer, Step};
use super::registry::{Order, Registration, Signals};
use super::{FEATURES, LinkDeps};
use crate::desire::{self, DeriveError};
use crate::events::EventType;
use crate::pki::{NodeIdentity, PeerIdentity};
use crate::report::NotStored;
use crate::store::{AppRow, NodeRow, Snapshot};

/// How many heartbeat periods a stream may be silent before it is taken for dead.
const SILENCE: f64 = 2.5;

/// Commands of one stream whose result is waited for.
type Pending = HashMap<String, oneshot::Sender<CommandResult>>;

/// An open stream.
pub(super) struct Session {
    deps: LinkDeps,
    node: NodeIdentity,
    peer: PeerIdentity,
    inbound: Streaming<ConnectRequest>,
    feed: watch::Receiver<Arc<Snapshot>>,
    registration: Registration,
    signals: Signals,
    offer: Offer,
    /// What the last derivation was made of: a revision that changed nothing for this node costs no derivation.
    basis: Option<(Vec<Arc<AppRow>>, Arc<NodeRow>)>,
    status_digest: String,
    event_sequence: u64,
    pending: Pending,
    outbox: VecDeque<Down>,
    silent_at: Instant,
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
        let row = deps.reports.connected(&node.namespace, &node.uid).await.map_err(admit::unavailable)?;
        let feed = deps.feed.subscribe(&node.namespace).await.map_err(|error| unavailable(&error))?;
        let (registration, signals) = deps.links.register(&node.namespace, &node.uid);
        tracing::info!(namespace = %node.namespace, node = %node.name, uid = %node.uid, protocol,
            fingerprint = %peer.fingerprint, "node connected");
        let held = hello.held.and_then(|held| Header::try_from(held).ok()).filter(|held| held.node_uid == node.uid);
        let mut session = Self {
            offer: Offer::new(row.epoch, held),
            status_digest: row.status_digest,
            event_sequence: row.event_sequence,
            basis: None,
            pending: Pending::new(),
            outbox: VecDeque::new(),
            silent_at: Instant::now(),
            ended: false,
            deps,
            node,
            peer,
            inbound,
            feed,
            registration,
            signals,
        };
        session.heard();
        let welcome = session.welcome(protocol);
        session.outbox.push_back(Down::Welcome(welcome));
        session.offer_desire(true).await?;
        Ok(session)
    }

    fn welcome(&self, protocol: u32) -> Welcome {
        let config = self.deps.reports.config();
        Welcome {
            protocol,
            features: FEATURES.iter().map(|&feature| feature.to_owned()).collect(),
            heartbeat_period_ms: config.heartbeat_period_ms,
            stats_period_ms: config.stats_period_ms,
            status_digest: self.status_digest.clone(),
            event_sequence: self.event_sequence,
            time: Some(to_wire(self.now())),
            namespace: self.node.namespace.to_string(),
            node_name: self.node.name.to_string(),
        }
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
                return Some(Ok(ConnectResponse { message: Some(message) }));
            }
            if self.ended {
                return None;
            }
            if let Err(status) = self.step().await {
                self.ended = true;
                return Some(Err(status));
            }
        }
    }

    /// Waits for one thing and does it. An error ends the stream.
    async fn step(&mut self) -> Result<(), Status> {
        let silent_at = self.silent_at;
        tokio::select! {
            message = self.inbound.message() => match message? {
                Some(ConnectRequest { message: Some(message) }) => {
                    self.heard();
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
                Ok(()) => self.offer_desire(false).await,
                Err(_) => Err(Status::unavailable("the cloud is stopping or the namespace was deleted")),
            },
            status = &mut self.signals.end => {
                Err(status.unwrap_or_else(|_| Status::unavailable("the cloud ended the stream; connect again")))
            }
            Some(order) = self.signals.orders.recv() => {
                self.send_order(order);
                Ok(())
            }
            () = tokio::time::sleep_until(silent_at) => {
                Err(Status::deadline_exceeded("no heartbeat for 2.5 periods; connect again"))
            }
        }
    }

    fn heard(&mut self) {
        let heartbeat = Duration::from_millis(self.deps.reports.config().heartbeat_period_ms.into());
        self.silent_at = Instant::now() + heartbeat.mul_f64(SILENCE);
    }

    async fn take(&mut self, message: Up) -> Result<(), Status> {
        match message {
            Up::Hello(_) => Err(Status::invalid_argument("Hello is the first message of a stream and comes once")),
            Up::Heartbeat(_) => self.take_heartbeat(),
            Up::Stats(stats) => {
                self.deps.reports.put_stats(&self.node.namespace, &self.node.uid, &stats);
                Ok(())
            }
            Up::Status(envelope) => self.take_status(envelope).await,
            Up::Event(event) => self.take_event(event).await,
            Up::DesireAck(ack) => self.take_ack(ack).await,
            Up::Presented(signed) => self.take_presented(signed).await,
            Up::CommandResult(result) => {
                if let Some(answer) = self.pending.remove(&result.command_id) {
                    // Who asked may have given up.
                    let _ = answer.send(result);
                }
                Ok(())
            }
        }
    }

    fn take_heartbeat(&mut self) -> Result<(), Status> {
        if self.peer.is_expired(self.now()) {
            return Err(admit::expired(&self.peer));
        }
        self.outbox.push_back(Down::HeartbeatAck(HeartbeatAck { time: Some(to_wire(self.now())) }));
        Ok(())
    }

    async fn take_status(&mut self, envelope: StatusEnvelope) -> Result<(), Status> {
        let (Ok(_), Some(status)) = (envelope.digest.parse::<Digest>(), envelope.status) else {
            return Err(Status::invalid_argument("a status needs its content and a digest, sha256:<64 hex digits>"));
        };
        if envelope.digest != self.status_digest {
            let stored = self.deps.reports.store_status(
                &self.node.namespace,
                &self.node.uid,
                &envelope.digest,
                status,
            );
            stored.await.map_err(not_stored)?;
            self.status_digest.clone_from(&envelope.digest);
        }
        self.outbox.push_back(Down::StatusAck(StatusAck { digest: envelope.digest }));
        Ok(())
    }

    async fn take_event(&mut self, event: baetyl_proto::shadow::Event) -> Result<(), Status> {
        let sequence = event.sequence;
        if sequence > self.event_sequence {
            let stored = self.deps.reports.store_event(&self.node.namespace, &self.node.uid, event);
            stored.await.map_err(not_stored)?;
            self.event_sequence = sequence;
        }
        self.outbox.push_back(Down::EventAck(EventAck { sequence: self.event_sequence }));
        Ok(())
    }

    async fn take_ack(&mut self, ack: DesireAck) -> Result<(), Status> {
        let header = ack.header.map(Header::try_from).transpose();
        let Ok(header) = header else {
            return Err(Status::invalid_argument("the acknowledgement names no desire"));
        };
        if !ack.refused.is_empty() {
            self.offer.refused(&ack.refused);
            let (namespace, uid) = (&self.node.namespace, &self.node.uid);
            self.deps.reports.refused(namespace, uid, &ack.refused, &ack.message).await;
            return self.offer_desire(true).await;
        }
        if let Some(header) = header
            && self.offer.acknowledged(&header)
        {
            self.deps.reports.acknowledged(&self.node.namespace, header).await;
        }
        Ok(())
    }

    /// The answer to PresentDesire. Only our own signature counts.
    async fn take_presented(&mut self, signed: SignedDesire) -> Result<(), Status> {
        if !self.offer.is_asking() {
            return Ok(());
        }
        let key = self.deps.pki.desire_key(&self.node.namespace).await.map_err(|error| unavailable(&error))?;
        let presented = match sign::verify_desire(&[key.public_key()], Some(&self.node.uid), &signed) {
            Ok(desire) => desire.header(),
            Err(error) => {
                self.offer.disproved();
                let message = format!("the node claims a desire that this cloud did not sign for it: {error}");
                self.raise("DesireNotProved", message).await?;
                return self.offer_desire(true).await;
            }
        };
        // The newest rows, not those of the feed: a feed that lags is not a state that went back.
        let snapshot = self.deps.feed.current(&self.node.namespace).await.map_err(|error| unavailable(&error))?;
        let current = self.derive(&snapshot).ok().flatten().map(|(desire, _)| desire.header());
        let current = current.unwrap_or_else(|| Header {
            epoch: self.offer.epoch(),
            generation: snapshot.revision.into(),
            ..presented.clone()
        });
        if let Some(epoch) = self.offer.proved(presented.clone(), &current) {
            let (namespace, uid) = (&self.node.namespace, &self.node.uid);
            self.deps.reports.raise_epoch(namespace, uid, epoch, &presented).await.map_err(not_stored)?;
        }
        self.offer_desire(true).await
    }

    /// Hop 2: derives the node's desire at the newest revision and sends it if the node does not have it. `always`:
    /// also when nothing it is made of changed, because what is known about the node did.
    async fn offer_desire(&mut self, always: bool) -> Result<(), Status> {
        let snapshot = Arc::clone(&self.feed.borrow_and_update());
        let Some(node) = snapshot.nodes.get(&self.node.uid) else {
            return self.removed().await;
        };
        if !always && self.is_unchanged(node, &snapshot) {
            return Ok(());
        }
        let (desire, apps) = match self.derive(&snapshot) {
            Ok(Some(derived)) => derived,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::error!(uid = %self.node.uid, error = %chain(&error), "no desire can be derived");
                return self.raise("DesireUnderivable", error.to_string()).await;
            }
        };
        self.basis = Some((apps.clone(), Arc::clone(node)));
        let header = desire.header();
        if self.offer.holds(&header) && self.offer.step(&header) == Step::Nothing {
            self.registration.delivered(apps);
            return Ok(());
        }
        match self.offer.step(&header) {
            Step::Nothing => {}
            Step::AskPresent => {
                self.offer.asked();
                self.outbox.push_back(Down::PresentDesire(PresentDesire {}));
            }
            Step::Send => {
                let key = self.deps.pki.desire_key(&self.node.namespace).await.map_err(|error| unavailable(&error))?;
                // Known before it is sent: the node may fetch at once.
                self.registration.delivered(apps);
                self.outbox.push_back(Down::Desire(desire::deliver_desire(&key, desire)));
                self.offer.sent(header);
            }
        }
        Ok(())
    }

    fn derive(
        &self,
        snapshot: &Snapshot,
    ) -> Result<Option<(baetyl_model::Desire, Vec<Arc<AppRow>>)>, DeriveError> {
        let Some(node) = snapshot.nodes.get(&self.node.uid) else { return Ok(None) };
        let Some(apps) = desire::select_apps(node, snapshot) else { return Ok(None) };
        let desire = desire::derive_desire(node, &apps, self.offer.epoch(), snapshot.revision.into())?;
        Ok(Some((desire, apps)))
    }

    /// True when the desire at this revision has the content of the last derivation: (name, version) of its
    /// applications determine all they reference.
    fn is_unchanged(&self, node: &NodeRow, snapshot: &Snapshot) -> bool {
        let Some((apps, basis)) = &self.basis else { return false };
        let Some(now) = desire::select_apps(node, snapshot) else { return false };
        let version = |app: &Arc<AppRow>| (app.version, app.digest);
        basis.properties == node.properties
            && apps.len() == now.len()
            && apps.iter().zip(&now).all(|(a, b)| a.name == b.name && version(a) == version(b))
    }

    /// The node is not in the namespace any more.
    async fn removed(&mut self) -> Result<(), Status> {
        let tombstone = self.deps.store.deleted_node(&self.node.namespace, &self.node.uid).await;
        if tombstone.map_err(admit::unavailable)?.is_none() {
            return Err(Status::not_found("this cloud does not know the node any more"));
        }
        tracing::info!(namespace = %self.node.namespace, uid = %self.node.uid, "node removed");
        self.deps.reports.forget(&self.node.namespace, &self.node.uid);
        self.outbox.push_back(Down::Removed(Removed { reason: DELETED.to_owned() }));
        self.ended = true;
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
        let stored = self.deps.reports.raise(namespace, uid, EventType::Warning, reason, message);
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

fn unavailable(error: &dyn std::error::Error) -> Status {
    tracing::error!(error = %chain(error), "the link cannot serve a node");
    Status::unavailable("the cloud cannot serve nodes at the moment; try again")
}

fn not_stored(error: NotStored) -> Status {
    Status::unavailable(error.to_string())
}
