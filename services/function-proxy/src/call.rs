//! One call from its caller's side: admitted, taken in, waited for, and taken back when nobody waits any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::app::{App, Call, Entered};
use crate::apps::Apps;
use crate::directory::{Access, Caller, Directory, Entry, Known, admit};
use crate::engine::Starter;
use crate::error::{CallError, Outcome};
use crate::reply::{Answer, Asked, Part, Reply};

/// What all listeners share.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) known: Known,
    pub(crate) apps: Apps,
    pub(crate) memory: Arc<Memory>,
    pub(crate) starter: Starter,
    pub(crate) start_wait: Duration,
}

/// The application that is called.
#[derive(Debug)]
pub(crate) struct Target {
    app: Arc<App>,
    directory: Arc<Directory>,
}

impl Target {
    fn entry(&self) -> Option<&Entry> {
        self.directory.app(&self.app.name)
    }
}

impl Proxy {
    /// Finds the application and checks that `caller` may call it.
    pub(crate) fn admit(&self, service: &str, caller: &Caller) -> Result<Target, CallError> {
        let directory = self.known.get()?;
        let app = self
            .apps
            .get(service)
            .ok_or_else(|| CallError::UnknownService {
                service: service.to_owned(),
            })?;
        // An application engine does not list (any more) but whose runtime is registered keeps to the default.
        let access = directory
            .app(service)
            .map_or(&Access::Token, |entry| &entry.access);
        let admitted = admit(caller, service, access);
        if let Err(error) = admitted {
            app.meters.ended(error.outcome(), Duration::ZERO);
            return Err(error);
        }
        Ok(Target { app, directory })
    }

    /// Calls and waits for all of the result.
    pub(crate) async fn call(&self, target: &Target, call: Call) -> Result<Answer, CallError> {
        let (reply, mut receiver) = Reply::whole();
        let mut ticket = self.enter(target, call, reply)?;
        let mut ended = timeout_at(ticket.patience, &mut receiver).await;
        if ended.is_err() {
            ticket.impatient()?;
            ended = timeout_at(ticket.deadline, &mut receiver).await;
        }
        let result = match ended {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ticket.asked().gone()),
            Err(_) => Err(ticket.overdue()),
        };
        ticket.close(&result);
        result
    }

    /// Calls and gives the result piece by piece; the last item is the end. Dropping the stream cancels the call.
    pub(crate) fn call_in_pieces(
        &self,
        target: &Target,
        call: Call,
        held: Held,
    ) -> Result<impl Stream<Item = Part> + Send + use<>, CallError> {
        let (reply, receiver) = Reply::pieces();
        let ticket = self.enter(target, call, reply)?;
        let state = Some((ticket, receiver, held));
        Ok(futures_util::stream::unfold(state, async |state| {
            let (mut ticket, mut receiver, held) = state?;
            match ticket.next_part(&mut receiver).await {
                Part::Chunk(chunk) => Some((Part::Chunk(chunk), Some((ticket, receiver, held)))),
                Part::End(result) => {
                    ticket.close(&result);
                    Some((Part::End(result), None))
                }
            }
        }))
    }

    fn enter(&self, target: &Target, call: Call, reply: Reply) -> Result<Ticket, CallError> {
        let app = &target.app;
        let began = call.began;
        let entered = app
            .enter(call, reply, target.entry())
            .inspect_err(|error| app.meters.ended(error.outcome(), began.elapsed()))?;
        let deadline = began + entered.timeout;
        let patience = if entered.cold {
            deadline.min(began + self.start_wait)
        } else {
            deadline
        };
        if entered.cold {
            self.starter.start(app);
        }
        Ok(Ticket {
            app: Arc::clone(app),
            entered,
            began,
            patience,
            deadline,
            open: true,
        })
    }

    /// No more calls; those that run go on.
    pub(crate) fn stop(&self) {
        for app in self.apps.all() {
            app.stop();
        }
    }

    /// True when no call runs or waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.apps.all().iter().all(|app| app.is_idle())
    }
}

/// A call that was taken in. Dropping it before its end means that the caller is gone.
#[derive(Debug)]
struct Ticket {
    app: Arc<App>,
    entered: Entered,
    began: Instant,
    /// Until then it may wait for a runtime to register.
    patience: Instant,
    deadline: Instant,
    open: bool,
}

impl Ticket {
    fn asked(&self) -> Asked<'_> {
        Asked {
            service: &self.app.name,
            function: &self.entered.function,
            timeout: self.entered.timeout,
        }
    }

    /// Patience has ended. That is the end of a call that still waits for a runtime to register.
    fn impatient(&mut self) -> Result<(), CallError> {
        if self.patience >= self.deadline || !self.app.leave_queue(self.entered.id) {
            return Ok(());
        }
        let error = Err(CallError::NoRuntime {
            service: self.app.name.clone(),
            waited: self.patience - self.began,
            reason: self.app.last_start(),
        });
        self.close(&error);
        error
    }

    /// The deadline has passed. The runtime was told it and sees to its own side.
    fn overdue(&self) -> CallError {
        self.app.abandon(self.entered.id, true);
        self.asked().overdue()
    }

    async fn next_part(&mut self, receiver: &mut mpsc::Receiver<Part>) -> Part {
        loop {
            match timeout_at(self.patience, receiver.recv()).await {
                Ok(Some(part)) => return part,
                Ok(None) => return Part::End(Err(self.asked().gone())),
                Err(_) if self.patience < self.deadline => {
                    if let Err(error) = self.impatient() {
                        return Part::End(Err(error));
                    }
                    self.patience = self.deadline;
                }
                Err(_) => return Part::End(Err(self.overdue())),
            }
        }
    }

    fn close<T>(&mut self, result: &Result<T, CallError>) {
        if std::mem::take(&mut self.open) {
            let outcome = result
                .as_ref()
                .map_or_else(CallError::outcome, |_| Outcome::Ok);
            self.app.meters.ended(outcome, self.began.elapsed());
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            self.app.abandon(self.entered.id, false);
            self.app
                .meters
                .ended(Outcome::Abandoned, self.began.elapsed());
        }
    }
}

/// Room for payloads. Keeps many callers with large payloads from taking all memory of a small machine.
#[derive(Debug)]
pub(crate) struct Memory(AtomicUsize);

/// Room that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(bytes)))
    }

    /// Takes room for so many bytes.
    ///
    /// # Errors
    /// When there is not so much.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Held, CallError> {
        self.0
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes))
            .map_err(|_| CallError::OutOfMemory)?;
        Ok(Held {
            memory: Arc::clone(self),
            bytes,
        })
    }

    /// Takes room for a payload that is there already.
    pub(crate) fn hold(self: &Arc<Self>, payload: &Bytes) -> Result<Held, CallError> {
        if payload.len() > crate::reply::MAX_PAYLOAD {
            return Err(CallError::PayloadTooLong {
                limit: crate::reply::MAX_PAYLOAD,
            });
        }
        self.take(payload.len())
    }
}

impl Held {
    /// Gives back what is more than `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let more = self.bytes.saturating_sub(bytes);
        self.bytes -= more;
        self.memory.0.fetch_add(more, Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.0.fetch_add(self.bytes, Relaxed);
    }
}
