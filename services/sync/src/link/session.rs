//! One stream to the cloud, from Hello to its end.
//!
//! What to say is decided by [`EdgeLink`]; here are the bodies that belong to it, the order in which things that happen
//! are told to it, and what it wants done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::error::chain;
use baetyl_kit::trace::TraceContext;
use baetyl_model::Digest;
use baetyl_model::desire::Header;
use baetyl_model::link::{Down, EdgeInput, EdgeLink, EdgePhase};
use baetyl_proto::link::connect_response::Message as Response;
use baetyl_proto::link::link_service_client::LinkServiceClient;
use baetyl_proto::link::{ConnectRequest, ConnectResponse};
use baetyl_proto::shadow::SignedDesire;
use baetyl_proto::sync::link_state::Phase;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::{Ended, Link, wire};
use crate::blocking;
use crate::desire::{Refusal, deliver_desire, receive_desire};
use crate::identity::Identity;
use crate::identity::renew::RenewError;
use crate::identity::store::IdentityError;
use crate::node::{Held, Report};
use crate::report::note_stored;

/// Messages on their way into the stream; what follows waits here, not in the connection.
const IN_FLIGHT: usize = 4;

/// With more than this waiting to be sent, nothing more is read: the cloud must take before it gives.
const BACKLOG: usize = 64;

/// Between two attempts to renew on one stream.
const RENEW_AGAIN: Duration = Duration::from_secs(600);

/// How long a Hello may stay unanswered before headers come: the machine's own patience begins after that.
const OPENING: Duration = Duration::from_secs(30);

mod acting;

struct Session<'a> {
    link: &'a mut Link,
    identity: Arc<Identity>,
    /// The identity is a successor that has not worked yet.
    is_successor: bool,
    channel: Channel,
    machine: EdgeLink,
    begun: Instant,
    queue: VecDeque<ConnectRequest>,
    /// The newest desire of the cloud that node has not answered yet.
    offer: Option<Offer>,
    /// Why the last desire was refused, for the acknowledgement.
    why: String,
    renewing: Option<BoxFuture<'static, Result<(), RenewError>>>,
    /// What the cloud stored last, while the outbox could not be told for want of room.
    unmet: Option<u64>,
    ended: Option<Ended>,
}

struct Offer {
    header: Header,
    answer: BoxFuture<'static, Result<Header, Refusal>>,
}

/// Opens a stream on `channel` and serves it.
pub(super) async fn run(
    link: &mut Link,
    identity: &Arc<Identity>,
    is_successor: bool,
    channel: Channel,
    identities: &mut watch::Receiver<Option<Arc<Identity>>>,
) -> Ended {
    let outbox = link.parts.outbox.clone();
    let numbers = match blocking(move || outbox.numbers()).await {
        Ok(numbers) => numbers,
        Err(error) => return Ended::Lost(chain(&error)),
    };
    let held = link.parts.node.held().borrow().header().cloned();
    let status = status_of(&link.parts.node.report().borrow());
    let mut session = Session {
        link,
        identity: Arc::clone(identity),
        is_successor,
        channel,
        machine: EdgeLink::new(held, status, numbers),
        begun: Instant::now(),
        queue: VecDeque::new(),
        offer: None,
        why: String::new(),
        renewing: None,
        unmet: None,
        ended: None,
    };
    session.renew_if_due();
    if let Some(renewing) = session.renewing.take() {
        // Before the stream: a cloud that sees an expired certificate allows nothing else.
        if let Some(ended) = session.renewed(renewing.await).await {
            return ended;
        }
    }
    match session.open().await {
        Ok((sender, inbound)) => {
            let ended = session.serve(sender, inbound, identities).await;
            session.salvage();
            ended
        }
        Err(status) => session.refused(status).await,
    }
}

fn status_of(report: &Report) -> Option<Digest> {
    report.status.as_ref().map(|(digest, _)| *digest)
}

impl Session<'_> {
    /// The Hello is in the stream before it is opened: a server may answer only then.
    async fn open(
        &mut self,
    ) -> Result<(mpsc::Sender<ConnectRequest>, Streaming<ConnectResponse>), Status> {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        self.tell(EdgeInput::Connected).await;
        while let Some(message) = self.queue.pop_front() {
            if sender.try_send(message).is_err() {
                break;
            }
        }
        let mut client = LinkServiceClient::new(self.channel.clone())
            .max_decoding_message_size(2 * baetyl_kit::grpc::MAX_MESSAGE);
        let opened = client.connect(ReceiverStream::new(receiver));
        let answer = tokio::time::timeout(OPENING, opened).await.map_err(|_| {
            Status::deadline_exceeded("the cloud did not open the stream in time")
        })??;
        Ok((sender, answer.into_inner()))
    }

    async fn serve(
        &mut self,
        sender: mpsc::Sender<ConnectRequest>,
        mut inbound: Streaming<ConnectResponse>,
        identities: &mut watch::Receiver<Option<Arc<Identity>>>,
    ) -> Ended {
        let mut held = self.link.parts.node.held();
        let mut report = self.link.parts.node.report();
        let mut events = self.link.parts.outbox.changes();
        // What changed since the Hello was made is seen at once.
        held.mark_changed();
        report.mark_changed();
        loop {
            if let Some(ended) = self.ended.take() {
                return ended;
            }
            let wake = self.machine.wake_in(self.now()).unwrap_or(Duration::MAX);
            tokio::select! {
                message = inbound.next(), if self.queue.len() < BACKLOG => {
                    match message {
                        Some(Ok(message)) => self.hear(message).await,
                        Some(Err(status)) => return self.refused(status).await,
                        None => return Ended::Lost("the cloud ended the stream".to_owned()),
                    }
                }
                permit = sender.reserve(), if !self.queue.is_empty() => {
                    match (permit, self.queue.pop_front()) {
                        (Ok(permit), Some(message)) => permit.send(message),
                        _ => return Ended::Lost("the stream takes nothing any more".to_owned()),
                    }
                }
                Ok(()) = held.changed() => {
                    let now = held.borrow_and_update().clone();
                    self.held_changed(&now).await;
                }
                Ok(()) = report.changed() => {
                    let status = status_of(&report.borrow_and_update());
                    if let Some(digest) = status {
                        self.tell(EdgeInput::Status(digest)).await;
                    }
                }
                Ok(()) = events.changed() => self.count_events().await,
                Some(result) = self.link.results.recv() => self.tell_result(result),
                answer = answer_of(&mut self.offer) => self.answered(answer).await,
                renewed = renewal_of(&mut self.renewing) => {
                    self.renewing = None;
                    self.ended = self.renewed(renewed).await;
                }
                Ok(()) = identities.changed() => {
                    if self.is_another(identities.borrow_and_update().as_deref()) {
                        return Ended::Renewed;
                    }
                }
                () = tokio::time::sleep(wake) => self.tell(EdgeInput::Tick).await,
            }
        }
    }

    /// Takes in a message of the cloud.
    async fn hear(&mut self, message: ConnectResponse) {
        match message.message {
            Some(Response::Desire(signed)) => self.receive(signed).await,
            Some(Response::Command(command)) => {
                self.tell(EdgeInput::Received(Down::Command(command.id.clone())))
                    .await;
                self.link.parts.dispatcher.dispatch(command);
            }
            Some(message) => {
                if let Response::Welcome(welcome) = &message {
                    self.must(wire::check_protocol(welcome));
                    self.meet(welcome.event_sequence).await;
                }
                if let Response::Removed(removed) = &message {
                    self.ended = Some(Ended::Removed(removed.reason.clone()));
                }
                let was_online = self.machine.phase() == EdgePhase::Online;
                if let Some(down) = wire::down(&message) {
                    if let Down::StatusAck(digest) = &down {
                        note_stored(digest);
                    }
                    self.tell(EdgeInput::Received(down)).await;
                }
                if !was_online && self.machine.phase() == EdgePhase::Online {
                    self.online().await;
                }
            }
            // A message of a newer cloud.
            None => {}
        }
    }

    /// The cloud has answered the Hello: this identity works, and others may use the connection.
    async fn online(&mut self) {
        if let Err(error) = self.settle_identity().await {
            self.must(Err(chain(&error)));
            return;
        }
        tracing::info!(node = %self.identity.node_name, "the link to the cloud is up");
        self.link.show(Phase::Online, "");
        self.link.counts.connects.inc();
        self.link.uplink.send_replace(Some(self.channel.clone()));
        for result in std::mem::take(&mut self.link.untold) {
            self.tell_result(result);
        }
    }

    /// A successor that works takes over; one that was refused while the old one works is given up. One that was
    /// merely out of reach has its turn with the next stream.
    async fn settle_identity(&mut self) -> Result<(), IdentityError> {
        let store = Arc::clone(&self.link.parts.identity);
        let undecided = !self.is_successor && !self.link.successor_refused;
        if store.pending().is_none() || undecided {
            return Ok(());
        }
        let (reason, kind, message) = if self.is_successor {
            blocking(move || store.promote()).await?;
            self.is_successor = false;
            (
                "CertificateRenewed",
                "Normal",
                "the node uses its new certificate",
            )
        } else {
            blocking(move || store.withdraw()).await?;
            let message = "the new certificate did not work; the old one stays in use";
            ("CertificateRenewFailed", "Warning", message)
        };
        self.link.successor_refused = false;
        self.link.event(reason, kind, message).await;
        Ok(())
    }

    /// Hop 3 begins: only what is verified is told to the machine as a desire.
    async fn receive(&mut self, signed: SignedDesire) {
        match receive_desire(&self.identity, &signed) {
            Ok(header) => {
                let under_way = self
                    .offer
                    .as_ref()
                    .is_some_and(|offer| offer.header.order() >= header.order());
                if under_way {
                    // The same again, or one that came late: the answer to the newer one says it all.
                    self.tell(EdgeInput::Received(Down::HeartbeatAck { time: None }))
                        .await;
                    return;
                }
                let node = self.link.parts.node.clone();
                self.offer = Some(Offer {
                    header: header.clone(),
                    answer: TraceContext::root()
                        .scope(deliver_desire(node, header.clone(), signed))
                        .boxed(),
                });
                self.tell(EdgeInput::Received(Down::Desire(header))).await;
            }
            Err(refusal) => self.refuse(refusal).await,
        }
    }

    async fn answered(&mut self, answer: Result<Header, Refusal>) {
        self.offer = None;
        match answer {
            Ok(header) => {
                self.link.counts.delivered.inc();
                self.tell(EdgeInput::Held(header)).await;
            }
            Err(refusal) => self.refuse(refusal).await,
        }
    }

    /// Says why a desire is not taken, and raises an event once.
    async fn refuse(&mut self, refusal: Refusal) {
        self.link.counts.refused.inc();
        let Refusal {
            header,
            refused,
            message,
        } = refusal;
        let what = header
            .as_ref()
            .map_or_else(|| "an unreadable desire".to_owned(), ToString::to_string);
        let told = (what, format!("{}: {message}", refused.as_str()));
        if self.link.refused.as_ref() != Some(&told) {
            let text = format!("{} is refused: {}", told.0, told.1);
            self.link.refused = Some(told);
            self.link.event("DesireRefused", "Warning", &text).await;
        }
        match header {
            Some(header) => {
                self.why = message;
                self.tell(EdgeInput::Refused { header, refused }).await;
            }
            None => {
                let ack = wire::desire_ack(None, refused.as_str(), &message);
                self.queue.push_back(wire::request(ack));
            }
        }
    }

    /// Node holds something else than the cloud was told: a new stream begins with the truth. What node took from us a
    /// moment ago is told by the answer to the offer.
    async fn held_changed(&mut self, now: &Held) {
        if matches!(now, Held::Unknown) || now.header() == self.machine.held() {
            return;
        }
        let offered = self.offer.as_ref().map(|offer| offer.header.clone());
        match offered {
            Some(header) if now.header() == Some(&header) => {
                self.offer = None;
                self.tell(EdgeInput::Held(header)).await;
            }
            Some(_) => {}
            None => {
                tracing::info!(
                    "node holds another desire than the cloud was told; saying hello again"
                );
                self.ended = Some(Ended::Renewed);
            }
        }
    }

    fn renew_if_due(&mut self) {
        let now = Instant::now();
        let early = self.link.renew_after.is_some_and(|after| now < after);
        if self.is_successor || self.renewing.is_some() || early {
            return;
        }
        let renewal = self.link.renewal(&self.channel);
        if renewal.is_due(&self.identity) {
            self.link.renew_after = Some(now + RENEW_AGAIN);
            self.renewing = Some(renewal.renew(Arc::clone(&self.identity)).boxed());
        }
    }

    /// A renewed identity is used at once, on a new stream.
    async fn renewed(&mut self, renewed: Result<(), RenewError>) -> Option<Ended> {
        match renewed {
            Ok(()) => {
                self.link.successor_refused = false;
                Some(Ended::Renewed)
            }
            Err(error) => {
                let message = chain(&error);
                tracing::warn!(
                    error = message,
                    "the certificate is not renewed; trying again later"
                );
                self.link
                    .event("CertificateRenewFailed", "Warning", &message)
                    .await;
                None
            }
        }
    }

    /// The stream was refused or broke. A cloud that sees an expired certificate allows a renewal and nothing else.
    async fn refused(&mut self, status: Status) -> Ended {
        let reason = match status.code() {
            Code::Aborted => format!(
                "another connection of this node took over: {}",
                status.message()
            ),
            code => format!("{code:?}: {}", status.message()),
        };
        let denied = matches!(
            status.code(),
            Code::PermissionDenied | Code::Unauthenticated
        );
        let never_online = self.machine.phase() != EdgePhase::Online;
        if denied && never_online && self.is_successor {
            self.link.successor_refused = true;
        }
        if denied
            && never_online
            && !self.is_successor
            && self.link.parts.identity.pending().is_none()
        {
            let renewal = self.link.renewal(&self.channel);
            match renewal.renew(Arc::clone(&self.identity)).await {
                Ok(()) => return Ended::Renewed,
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "a renewal does not help");
                }
            }
        }
        Ended::Lost(reason)
    }

    fn is_another(&self, installed: Option<&Identity>) -> bool {
        installed.is_none_or(|installed| !installed.is_same(&self.identity))
    }

    /// Without its database the stream cannot go on: what it says could not be remembered.
    fn must(&mut self, done: Result<(), String>) {
        if let Err(reason) = done {
            self.ended.get_or_insert(Ended::Lost(reason));
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}

async fn answer_of(offer: &mut Option<Offer>) -> Result<Header, Refusal> {
    match offer {
        Some(offer) => (&mut offer.answer).await,
        None => std::future::pending().await,
    }
}

async fn renewal_of(
    renewing: &mut Option<BoxFuture<'static, Result<(), RenewError>>>,
) -> Result<(), RenewError> {
    match renewing {
        Some(renewing) => renewing.await,
        None => std::future::pending().await,
    }
}
