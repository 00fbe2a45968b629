//! What the state machine of a stream wants done, and the bodies that belong to it.

use baetyl_kit::error::chain;
use baetyl_model::link::{EdgeAction, EdgeInput, EdgePhase, Up};
use baetyl_proto::link::CommandResult;
use baetyl_proto::link::connect_request::Message as Request;
use jiff::Timestamp;

use super::Session;
use crate::blocking;
use crate::link::{Ended, wire};
use crate::node::Held;
use crate::report::deliver_status;

impl Session<'_> {
    /// Tells the machine what happened and does what it wants.
    pub(super) async fn tell(&mut self, input: EdgeInput) {
        let actions = self.machine.next(input, self.now());
        for action in actions {
            self.act(action).await;
        }
    }

    async fn act(&mut self, action: EdgeAction) {
        match action {
            EdgeAction::Send(message) => self.send(message),
            // Their numbers are not the cloud's.
            EdgeAction::SendEvent { .. } | EdgeAction::DropEvents(_) if self.unmet.is_some() => {}
            EdgeAction::SendEvent { sequence, stored } => self.send_event(sequence, stored).await,
            EdgeAction::Present => {
                let held = self.link.parts.node.held().borrow().clone();
                if let Held::Desire(held) = held {
                    let presented = Request::Presented(held.signed.clone());
                    self.queue.push_back(wire::request(presented));
                }
            }
            // Under way already; commands have a memory of their own.
            EdgeAction::Offer(_) | EdgeAction::Execute(_) => {}
            EdgeAction::DropEvents(sequence) => {
                let outbox = self.link.parts.outbox.clone();
                let dropped = blocking(move || outbox.acknowledge(sequence)).await;
                self.must(dropped.map_err(|error| chain(&error)));
            }
            // Done by `meet` before the machine hears of the Welcome.
            EdgeAction::Renumber { after } => {
                tracing::warn!(
                    after,
                    "the numbers of the outbox are behind those of the cloud"
                );
            }
            EdgeAction::CloudTime(time) => self.cloud_time(time).await,
            EdgeAction::Close => {
                self.ended = Some(Ended::Lost("the cloud is silent".to_owned()));
            }
            EdgeAction::Removed => {
                self.ended
                    .get_or_insert_with(|| Ended::Removed(String::new()));
            }
        }
    }

    fn send(&mut self, message: Up) {
        let report = self.link.parts.node.report();
        let report = report.borrow();
        match message {
            Up::Status(_) => self
                .queue
                .extend(deliver_status(&report).map(wire::request)),
            Up::Stats => {
                // Nothing new is nothing to send: signs of life are the machine's own.
                let stats = self.link.sent_stats.deliver_stats(&report);
                self.queue.extend(stats.map(wire::request));
            }
            message => {
                let fingerprint = self.identity.fingerprint();
                self.queue
                    .extend(wire::up(message, &fingerprint, &self.why));
            }
        }
    }

    async fn send_event(&mut self, sequence: u64, stored: u64) {
        let outbox = self.link.parts.outbox.clone();
        match blocking(move || outbox.event(sequence, stored)).await {
            // A dropped one is told by the `dropped` of the next.
            Ok(event) => {
                let event = event.map(|event| wire::request(Request::Event(event)));
                self.queue.extend(event);
            }
            Err(error) => self.must(Err(chain(&error))),
        }
    }

    pub(super) fn tell_result(&mut self, result: CommandResult) {
        if self.machine.phase() == EdgePhase::Online {
            self.queue
                .push_back(wire::request(Request::CommandResult(result)));
        } else {
            self.link.keep_result(result);
        }
    }

    /// The numbers of the outbox go on after those the cloud has. Without room they cannot be changed: no event is sent
    /// until they are, and everything else is.
    pub(super) async fn meet(&mut self, stored: u64) {
        let outbox = self.link.parts.outbox.clone();
        match blocking(move || outbox.meet(stored)).await {
            Ok((_, queued)) => self.tell(EdgeInput::Queued(queued)).await,
            Err(error) if error.is_full() => {
                tracing::warn!(error = %chain(&error), "events wait until there is room");
                self.unmet = Some(stored);
            }
            Err(error) => self.must(Err(chain(&error))),
        }
    }

    pub(super) async fn count_events(&mut self) {
        let outbox = self.link.parts.outbox.clone();
        if let Some(stored) = self.unmet {
            // An event could be written: there is room again. A new stream begins with the right numbers.
            match blocking(move || outbox.meet(stored)).await {
                Ok(_) => self.ended = Some(Ended::Renewed),
                Err(error) if error.is_full() => {}
                Err(error) => self.must(Err(chain(&error))),
            }
            return;
        }
        match blocking(move || outbox.numbers()).await {
            Ok((_, queued)) => self.tell(EdgeInput::Queued(queued)).await,
            Err(error) => self.must(Err(chain(&error))),
        }
    }

    async fn cloud_time(&mut self, time: Timestamp) {
        self.link.parts.trust.raise(time).await;
        self.renew_if_due();
    }

    /// Results that were not sent belong to the next stream.
    pub(super) fn salvage(&mut self) {
        for message in self.queue.drain(..) {
            if let Some(Request::CommandResult(result)) = message.message {
                self.link.keep_result(result);
            }
        }
    }
}
