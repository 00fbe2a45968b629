//! The edge's side.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::{Down, Periods, Refused, Up};
use crate::desire::Header;
use crate::digest::Digest;

/// How many events may be under way without an acknowledgement.
const WINDOW: u64 = 64;

/// How many command ids are remembered to execute each only once.
const REMEMBERED_COMMANDS: usize = 256;

/// Where the link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgePhase {
    /// No stream.
    Offline,
    /// A stream, and the cloud has not answered yet.
    Greeting,
    /// Working.
    Online,
    /// The cloud deleted this node: nothing is sent any more.
    Removed,
}

/// What the edge's side is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EdgeInput {
    /// A stream was opened.
    Connected,
    /// The stream ended.
    Closed,
    /// A message came.
    Received(Down),
    /// The node holds this desire now (told at start, and after an offer was taken or was held already).
    Held(Header),
    /// An offered desire was not taken: by the verification of its signature or by the node.
    Refused {
        /// Which.
        header: Header,
        /// Why.
        refused: Refused,
    },
    /// The node's status has this digest now.
    Status(Digest),
    /// The outbox has events up to this number.
    Queued(u64),
    /// Time passed.
    Tick,
}

/// What the edge's side wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EdgeAction {
    /// Send this.
    Send(Up),
    /// Send an event from the outbox. A number that is not in it (it was full, the event was dropped) is skipped.
    SendEvent {
        /// Its number.
        sequence: u64,
        /// The last event the cloud has, as far as is known. What is missing between it, or the event before this one
        /// in the outbox, and this one was dropped: that many go into the event's `dropped`.
        stored: u64,
    },
    /// Send the signed desire the node holds, if it holds one.
    Present,
    /// Hand the desire that just came to the node; answer with `Held` or `Refused`.
    Offer(Header),
    /// Events up to this number may leave the outbox.
    DropEvents(u64),
    /// Number the events of the outbox anew, beginning after this number: the cloud has seen these numbers from an
    /// outbox that is no more. Answer with `Queued`.
    Renumber {
        /// The last number that is taken.
        after: u64,
    },
    /// Execute the command with this id.
    Execute(String),
    /// The cloud's clock, over an authenticated link: raises the floor of the trusted time.
    CloudTime(Timestamp),
    /// End the stream: nothing was heard for too long.
    Close,
    /// The cloud deleted this node.
    Removed,
}

/// The edge's side of one link.
#[derive(Debug, Clone)]
pub struct EdgeLink {
    phase: EdgePhase,
    periods: Periods,
    held: Option<Header>,
    status: Option<Digest>,
    /// What the cloud stored last, as far as is known.
    acked_status: Option<Digest>,
    status_sent: Option<Duration>,
    /// Events: acknowledged ≤ sent ≤ queued.
    acked: u64,
    /// The last event the cloud has. Less than `acked` when its database was put back.
    stored: u64,
    sent: u64,
    queued: u64,
    events_sent: Duration,
    commands: VecDeque<String>,
    last_heard: Duration,
    last_sent: Duration,
    /// The last heartbeat: the only message that the cloud answers in any case.
    last_heartbeat: Duration,
    /// `None`: none were sent on this stream.
    last_stats: Option<Duration>,
}

impl EdgeLink {
    /// A link that is not connected. `held`: what the node holds; `events`: the numbers of the outbox, as (last that
    /// left it, last that is in it).
    pub fn new(held: Option<Header>, status: Option<Digest>, events: (u64, u64)) -> Self {
        Self {
            phase: EdgePhase::Offline,
            periods: Periods::default(),
            held,
            status,
            acked_status: None,
            status_sent: None,
            acked: events.0,
            stored: events.0,
            sent: events.0,
            queued: events.1,
            events_sent: Duration::ZERO,
            commands: VecDeque::new(),
            last_heard: Duration::ZERO,
            last_sent: Duration::ZERO,
            last_heartbeat: Duration::ZERO,
            last_stats: None,
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> EdgePhase {
        self.phase
    }

    /// The desire the node holds.
    pub fn held(&self) -> Option<&Header> {
        self.held.as_ref()
    }

    /// True when the cloud has everything the edge wants it to have.
    pub fn is_in_sync(&self) -> bool {
        self.phase == EdgePhase::Online
            && self.status == self.acked_status
            && self.acked == self.queued
    }

    /// Takes an input and gives what is to be done.
    pub fn next(&mut self, input: EdgeInput, now: Duration) -> Vec<EdgeAction> {
        let mut actions = match input {
            EdgeInput::Connected => self.connected(now),
            EdgeInput::Closed => {
                if self.phase != EdgePhase::Removed {
                    self.phase = EdgePhase::Offline;
                }
                Vec::new()
            }
            EdgeInput::Received(message) => self.received(message, now),
            EdgeInput::Held(header) => {
                self.held = Some(header.clone());
                self.if_connected(Up::DesireAck {
                    header,
                    refused: None,
                })
            }
            EdgeInput::Refused { header, refused } => self.if_connected(Up::DesireAck {
                header,
                refused: Some(refused),
            }),
            EdgeInput::Status(digest) => {
                if self.status != Some(digest) {
                    self.status = Some(digest);
                    self.status_sent = None;
                }
                Vec::new()
            }
            EdgeInput::Queued(sequence) => {
                self.queued = sequence.max(self.acked);
                self.sent = self.sent.min(self.queued);
                Vec::new()
            }
            EdgeInput::Tick => self.tick(now),
        };
        if self.phase == EdgePhase::Online {
            self.report(now, &mut actions);
        }
        if is_any_sent(&actions) {
            self.last_sent = now;
        }
        actions
    }

    /// After how much time a [`EdgeInput::Tick`] is due.
    pub fn wake_in(&self, now: Duration) -> Option<Duration> {
        let at = match self.phase {
            EdgePhase::Offline | EdgePhase::Removed => return None,
            EdgePhase::Greeting => self.last_heard + self.periods.silence(),
            EdgePhase::Online => {
                let unacked_status = self.status_sent.map(|sent| sent + self.periods.retry);
                let unacked_events =
                    (self.sent > self.acked).then(|| self.events_sent + self.periods.retry);
                let always = [
                    self.last_heard + self.periods.silence(),
                    self.heartbeat_due(),
                    self.last_stats
                        .map_or(now, |last| last + self.periods.stats),
                ];
                let all = always
                    .into_iter()
                    .chain(unacked_status)
                    .chain(unacked_events);
                all.min().unwrap_or(now)
            }
        };
        Some(at.saturating_sub(now))
    }

    fn if_connected(&self, message: Up) -> Vec<EdgeAction> {
        if matches!(self.phase, EdgePhase::Greeting | EdgePhase::Online) {
            vec![EdgeAction::Send(message)]
        } else {
            Vec::new()
        }
    }

    fn connected(&mut self, now: Duration) -> Vec<EdgeAction> {
        self.phase = EdgePhase::Greeting;
        self.acked_status = None;
        self.status_sent = None;
        self.sent = self.acked;
        self.last_heard = now;
        vec![EdgeAction::Send(Up::Hello {
            held: self.held.clone(),
            status: self.status,
        })]
    }

    fn received(&mut self, message: Down, now: Duration) -> Vec<EdgeAction> {
        if matches!(self.phase, EdgePhase::Offline | EdgePhase::Removed) {
            return Vec::new();
        }
        // A cloud that talks but never welcomes is left as a silent one is.
        if self.phase == EdgePhase::Online || matches!(message, Down::Welcome { .. }) {
            self.last_heard = now;
        }
        match message {
            Down::Welcome {
                periods,
                status,
                events,
                time,
            } => self.welcome(periods, status, events, time),
            Down::Desire(header) => vec![EdgeAction::Offer(header)],
            Down::StatusAck(digest) => {
                self.acked_status = Some(digest);
                self.status_sent = None;
                Vec::new()
            }
            Down::EventAck(sequence) => self.events_stored(sequence),
            Down::Command(id) => self.command(id),
            Down::PresentDesire => vec![EdgeAction::Present],
            Down::Removed => {
                self.phase = EdgePhase::Removed;
                vec![EdgeAction::Removed]
            }
            Down::HeartbeatAck { time } => time.map(EdgeAction::CloudTime).into_iter().collect(),
        }
    }

    fn welcome(
        &mut self,
        periods: Periods,
        status: Option<Digest>,
        events: u64,
        time: Option<Timestamp>,
    ) -> Vec<EdgeAction> {
        if self.phase == EdgePhase::Online {
            return Vec::new();
        }
        self.phase = EdgePhase::Online;
        self.periods = periods;
        self.acked_status = status;
        self.last_stats = None;
        self.stored = events;
        let time = time.map(EdgeAction::CloudTime);
        let events = if events > self.queued {
            // The numbers of this outbox are behind what the cloud has: it was emptied. Nothing is sent until it is
            // numbered anew.
            self.acked = events;
            self.sent = events;
            self.queued = events;
            vec![EdgeAction::Renumber { after: events }]
        } else {
            self.events_stored(events)
        };
        time.into_iter().chain(events).collect()
    }

    fn events_stored(&mut self, sequence: u64) -> Vec<EdgeAction> {
        self.stored = self.stored.max(sequence);
        if sequence <= self.acked || sequence > self.queued {
            return Vec::new();
        }
        self.acked = sequence;
        self.sent = self.sent.max(sequence);
        vec![EdgeAction::DropEvents(sequence)]
    }

    fn command(&mut self, id: String) -> Vec<EdgeAction> {
        if self.commands.contains(&id) {
            return Vec::new();
        }
        if self.commands.len() == REMEMBERED_COMMANDS {
            self.commands.pop_front();
        }
        self.commands.push_back(id.clone());
        vec![EdgeAction::Execute(id)]
    }

    fn tick(&mut self, now: Duration) -> Vec<EdgeAction> {
        let quiet = now.saturating_sub(self.last_heard) >= self.periods.silence();
        match self.phase {
            EdgePhase::Greeting | EdgePhase::Online if quiet => {
                self.phase = EdgePhase::Offline;
                vec![EdgeAction::Close]
            }
            EdgePhase::Online => {
                let due = |since: Option<Duration>, period| {
                    since.is_some_and(|since| now.saturating_sub(since) >= period)
                };
                if due(self.status_sent, self.periods.retry) {
                    self.status_sent = None;
                }
                if self.sent > self.acked && due(Some(self.events_sent), self.periods.retry) {
                    self.sent = self.acked;
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Hop 10: the status when it differs from what the cloud has, events, stats on their own period, else a heartbeat.
    fn report(&mut self, now: Duration, actions: &mut Vec<EdgeAction>) {
        if let Some(status) = self.status
            && self.acked_status != Some(status)
            && self.status_sent.is_none()
        {
            self.status_sent = Some(now);
            actions.push(EdgeAction::Send(Up::Status(status)));
        }
        while self.sent < self.queued && self.sent < self.acked + WINDOW {
            self.sent += 1;
            self.events_sent = now;
            actions.push(EdgeAction::SendEvent {
                sequence: self.sent,
                stored: self.stored,
            });
        }
        if self
            .last_stats
            .is_none_or(|last| now.saturating_sub(last) >= self.periods.stats)
        {
            self.last_stats = Some(now);
            actions.push(EdgeAction::Send(Up::Stats));
        }
        if is_any_sent(actions) {
            self.last_sent = now;
        }
        if now >= self.heartbeat_due() {
            self.last_heartbeat = now;
            actions.push(EdgeAction::Send(Up::Heartbeat));
        }
    }

    /// When nothing was said for a period, or nothing was heard: a heartbeat is the one message that the cloud always
    /// answers, and a link that says only what is not answered (stats) would take a living cloud for a dead one.
    fn heartbeat_due(&self) -> Duration {
        let asked = self.last_heard.max(self.last_heartbeat);
        self.last_sent.min(asked) + self.periods.heartbeat
    }
}

fn is_any_sent(actions: &[EdgeAction]) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, EdgeAction::Send(_) | EdgeAction::SendEvent { .. }))
}
