//! The cloud's side of one node's link.

use std::time::Duration;

use jiff::Timestamp;

use super::{Down, Periods, Refused, Up};
use crate::desire::Header;
use crate::digest::Digest;
use crate::name::Epoch;

/// What the cloud's side is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudInput {
    /// A message came.
    Received(Up),
    /// The node shall have this desire: told at the start of a link and whenever it is derived anew.
    Wanted(Header),
    /// The status with this digest is stored.
    StatusStored(Digest),
    /// Events up to this number are stored.
    EventsStored(u64),
    /// The node was deleted.
    Deleted,
    /// Time passed.
    Tick,
}

/// What the cloud's side wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudAction {
    /// Send this. A `Welcome` and a `HeartbeatAck` are sent with the time of now.
    Send(Down),
    /// Store the status that just came; answer with `StatusStored`.
    StoreStatus(Digest),
    /// Store the event that just came; answer with `EventsStored`.
    StoreEvent(u64),
    /// Keep the stats that just came in memory.
    KeepStats,
    /// The node has this desire on disk.
    Delivered(Header),
    /// The node refused the desire it was sent: tell an operator.
    Refused {
        /// Which.
        header: Header,
        /// Why.
        refused: Refused,
    },
    /// The cloud's own signature on something newer than its state: its state went back. Set the node's epoch to more
    /// than this one, raise an event, derive again and answer with `Wanted`.
    RaiseEpoch {
        /// The epoch that was presented.
        above: Epoch,
    },
    /// End the stream: the peer broke the protocol or was silent for too long.
    Close {
        /// Why, as a sentence.
        reason: &'static str,
    },
}

/// The cloud's side of one stream.
#[derive(Debug, Clone)]
pub struct CloudLink {
    periods: Periods,
    greeted: bool,
    ended: bool,
    /// What the node shall have.
    wanted: Option<Header>,
    /// What the node says it has.
    held: Option<Header>,
    /// What was sent last, and when; `None` when it was answered.
    sent: Option<(Header, Duration)>,
    /// What the node refused on this stream.
    refused: Option<Header>,
    /// When the node was asked to present what it claims; `None` when it was not or has.
    asked: Option<Duration>,
    /// The node claims something newer and cannot show the cloud's signature on it: its claims count no more.
    distrusted: bool,
    status: Option<Digest>,
    events: u64,
    last_heard: Duration,
}

impl CloudLink {
    /// A stream that was just opened. `wanted`: what the node shall have; `status`: digest of the status stored last;
    /// `events`: the last event stored.
    pub fn new(
        periods: Periods,
        wanted: Option<Header>,
        status: Option<Digest>,
        events: u64,
        now: Duration,
    ) -> Self {
        Self {
            periods,
            greeted: false,
            ended: false,
            wanted,
            held: None,
            sent: None,
            refused: None,
            asked: None,
            distrusted: false,
            status,
            events,
            last_heard: now,
        }
    }

    /// What the node says it has.
    pub fn held(&self) -> Option<&Header> {
        self.held.as_ref()
    }

    /// True when the node has what it shall have.
    pub fn is_in_sync(&self) -> bool {
        self.greeted && self.wanted.as_ref().is_none_or(|wanted| self.has(wanted))
    }

    /// Takes an input and gives what is to be done. `time` is the cloud's clock, for what it tells the edge.
    pub fn next(&mut self, input: CloudInput, now: Duration, time: Timestamp) -> Vec<CloudAction> {
        if self.ended {
            return Vec::new();
        }
        let mut actions = match input {
            CloudInput::Received(message) => self.received(message, now, time),
            CloudInput::Wanted(header) => {
                self.wanted = Some(header);
                Vec::new()
            }
            CloudInput::StatusStored(digest) => {
                self.status = Some(digest);
                vec![CloudAction::Send(Down::StatusAck(digest))]
            }
            CloudInput::EventsStored(sequence) => {
                self.events = self.events.max(sequence);
                vec![CloudAction::Send(Down::EventAck(self.events))]
            }
            CloudInput::Deleted => {
                self.ended = true;
                return vec![CloudAction::Send(Down::Removed)];
            }
            CloudInput::Tick => {
                if now.saturating_sub(self.last_heard) >= self.periods.silence() {
                    return self.close("the node was silent for three heartbeats");
                }
                Vec::new()
            }
        };
        // A raised epoch is answered with what is wanted then; until that, everything sent would be refused.
        let raised = actions
            .iter()
            .any(|action| matches!(action, CloudAction::RaiseEpoch { .. }));
        if self.greeted && !self.ended && !raised {
            actions.extend(self.deliver(now));
        }
        actions
    }

    /// After how much time a [`CloudInput::Tick`] is due.
    pub fn wake_in(&self, now: Duration) -> Option<Duration> {
        let silence = self.last_heard + self.periods.silence();
        let waiting = [self.sent.as_ref().map(|(_, at)| *at), self.asked];
        let retries = waiting
            .into_iter()
            .flatten()
            .map(|at| at + self.periods.retry);
        let due = retries.chain([silence]).min().unwrap_or(silence);
        (!self.ended).then(|| due.saturating_sub(now))
    }

    fn close(&mut self, reason: &'static str) -> Vec<CloudAction> {
        self.ended = true;
        vec![CloudAction::Close { reason }]
    }

    fn received(&mut self, message: Up, now: Duration, time: Timestamp) -> Vec<CloudAction> {
        self.last_heard = now;
        match message {
            Up::Hello { held, status: _ } => {
                self.greeted = true;
                self.held = held;
                vec![CloudAction::Send(Down::Welcome {
                    periods: self.periods,
                    status: self.status,
                    events: self.events,
                    time: Some(time),
                })]
            }
            _ if !self.greeted => self.close("the first message of a stream is Hello"),
            Up::Status(digest) => vec![CloudAction::StoreStatus(digest)],
            Up::Stats => vec![CloudAction::KeepStats],
            Up::Heartbeat => vec![CloudAction::Send(Down::HeartbeatAck { time: Some(time) })],
            Up::DesireAck { header, refused } => self.acked(header, refused),
            Up::Presented { header, genuine } => self.presented(header, genuine),
            Up::Event { sequence, dropped } => self.event(sequence, dropped),
        }
    }

    fn acked(&mut self, header: Header, refused: Option<Refused>) -> Vec<CloudAction> {
        if self.sent.as_ref().is_some_and(|(sent, _)| *sent == header) {
            self.sent = None;
        }
        let Some(refused) = refused else {
            // An acknowledgement that comes late names something older than the node is known to have.
            let late = self
                .held
                .as_ref()
                .is_some_and(|held| held.order() > header.order());
            if late && !self.distrusted {
                return Vec::new();
            }
            self.held = Some(header.clone());
            return vec![CloudAction::Delivered(header)];
        };
        if self.wanted.as_ref() != Some(&header) {
            return Vec::new();
        }
        // It is not sent again on this stream; what is derived next is.
        self.refused = Some(header.clone());
        let behind = matches!(refused, Refused::Stale | Refused::Conflict);
        let ask = (behind && !self.distrusted).then_some(CloudAction::Send(Down::PresentDesire));
        [CloudAction::Refused { header, refused }]
            .into_iter()
            .chain(ask)
            .collect()
    }

    /// What the node presents decides only when this cloud signed it.
    fn presented(&mut self, header: Header, genuine: bool) -> Vec<CloudAction> {
        self.asked = None;
        if !genuine {
            self.distrusted = true;
            return Vec::new();
        }
        self.held = Some(header.clone());
        match &self.wanted {
            Some(wanted) if is_ahead(&header, wanted) => vec![CloudAction::RaiseEpoch {
                above: header.epoch,
            }],
            _ => Vec::new(),
        }
    }

    /// Events are stored without holes: what comes too early is not stored and comes again.
    fn event(&mut self, sequence: u64, dropped: u64) -> Vec<CloudAction> {
        let follows = sequence.saturating_sub(dropped) <= self.events.saturating_add(1);
        if sequence > self.events && follows {
            vec![CloudAction::StoreEvent(sequence)]
        } else {
            vec![CloudAction::Send(Down::EventAck(self.events))]
        }
    }

    /// Whether the node has the wanted content, for all that is known. While another desire is under way, it may have
    /// that one.
    fn has(&self, wanted: &Header) -> bool {
        let other = self
            .sent
            .as_ref()
            .is_some_and(|(sent, _)| sent.digest != wanted.digest);
        let held = self.held.as_ref();
        !other && held.is_some_and(|held| held.digest == wanted.digest && !is_ahead(held, wanted))
    }

    /// Hop 2: what is wanted is sent when the node has something else, and again until it is answered.
    fn deliver(&mut self, now: Duration) -> Vec<CloudAction> {
        let Some(wanted) = self.wanted.clone() else {
            return Vec::new();
        };
        let waits = |since: Option<Duration>| {
            since.is_some_and(|since| now.saturating_sub(since) < self.periods.retry)
        };
        let ahead = self
            .held
            .as_ref()
            .is_some_and(|held| is_ahead(held, &wanted));
        if ahead && !self.distrusted {
            if waits(self.asked) {
                return Vec::new();
            }
            self.asked = Some(now);
            return vec![CloudAction::Send(Down::PresentDesire)];
        }
        let under_way = self
            .sent
            .as_ref()
            .filter(|(sent, _)| *sent == wanted)
            .map(|(_, at)| *at);
        if self.has(&wanted) || self.refused.as_ref() == Some(&wanted) || waits(under_way) {
            return Vec::new();
        }
        self.sent = Some((wanted.clone(), now));
        vec![CloudAction::Send(Down::Desire(wanted))]
    }
}

/// True when a node that holds `held` would refuse `wanted`.
fn is_ahead(held: &Header, wanted: &Header) -> bool {
    held.order() > wanted.order()
        || (held.order() == wanted.order() && held.digest != wanted.digest)
}
