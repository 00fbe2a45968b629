//! One application: its registered runtimes, the calls they run, and those that wait.
//!
//! Everything here is synchronous and short: one lock an application, held for table work only. A call is given to the
//! least loaded runtime that has its function and a free place; else it waits, in order. A place is free again when the
//! runtime answers, not when the caller goes: a runtime is never given more than it offered.
//!
//! A call that was given to a runtime is never given to another one: the function may have run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::directory::Entry;
use crate::error::CallError;
use crate::meters::Meters;
use crate::reply::{Blocked, Finish, Reply, TooLong};

mod runtime;

use runtime::Runtime;
pub(crate) use runtime::{NewRuntime, ToRuntime};

/// How calls are bounded.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) timeout: Duration,
    pub(crate) max_timeout: Duration,
    pub(crate) queue: usize,
}

/// An application that has runtimes, or of which engine says that it has functions.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) meters: Meters,
    limits: Limits,
    state: Mutex<State>,
    starting: AtomicBool,
    /// What came of the last attempt to start it.
    started: Mutex<String>,
}

#[derive(Debug, Default)]
struct State {
    runtimes: Vec<Runtime>,
    queue: VecDeque<Waiting>,
    last_id: u64,
    stopping: bool,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    call: Call,
    reply: Reply,
    timeout: Duration,
}

/// What is asked of a function.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) function: String,
    pub(crate) payload: Bytes,
    pub(crate) metadata: BTreeMap<String, String>,
    /// When the call came.
    pub(crate) began: Instant,
    /// What the caller wants to wait at most.
    pub(crate) timeout: Option<Duration>,
}

/// A call that was taken in.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) id: u64,
    pub(crate) function: String,
    pub(crate) timeout: Duration,
    /// No runtime that has the function is registered: somebody has to start one.
    pub(crate) cold: bool,
}

/// For lists.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) kinds: Vec<String>,
    pub(crate) functions: Vec<String>,
    pub(crate) runtimes: usize,
    pub(crate) in_flight: usize,
    pub(crate) queued: usize,
}

impl App {
    pub(crate) fn new(name: &str, limits: Limits, meters: Meters) -> Self {
        Self {
            name: name.to_owned(),
            limits,
            meters,
            state: Mutex::default(),
            starting: AtomicBool::new(false),
            started: Mutex::default(),
        }
    }

    /// True for the one who shall start it now.
    pub(crate) fn begin_start(&self) -> bool {
        !self.starting.swap(true, Relaxed)
    }

    /// An attempt to start it has ended, with this result in words.
    pub(crate) fn end_start(&self, result: String) {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = result;
        self.starting.store(false, Relaxed);
    }

    /// What came of the last attempt to start it.
    pub(crate) fn last_start(&self) -> String {
        let started = self
            .started
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if started.is_empty() {
            "engine was asked to start it".to_owned()
        } else {
            started
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a call: gives it to a runtime, or lets it wait for one. `call.function` may be empty for the default.
    ///
    /// # Errors
    /// When there is no such function, too many calls wait, or the proxy stops.
    pub(crate) fn enter(
        &self,
        mut call: Call,
        reply: Reply,
        entry: Option<&Entry>,
    ) -> Result<Entered, CallError> {
        let mut state = self.lock();
        if state.stopping {
            return Err(CallError::Stopping);
        }
        if call.function.is_empty() {
            call.function = state
                .default_function(entry)
                .ok_or_else(|| self.no_functions())?
                .to_owned();
        }
        let function = call.function.clone();
        let cold = !state.runtimes.iter().any(|runtime| runtime.has(&function));
        if cold && !entry.is_some_and(|entry| entry.functions.contains(&function)) {
            return Err(CallError::UnknownFunction {
                service: self.name.clone(),
                function,
            });
        }
        let timeout = self.timeout(&state, &function, call.timeout);
        state.last_id += 1;
        let id = state.last_id;
        call.metadata
            .insert("serviceName".to_owned(), self.name.clone());
        call.metadata
            .insert("functionName".to_owned(), function.clone());
        if let Some(runtime) = state.free_runtime(&function) {
            runtime.give(id, call, reply, timeout);
            self.meters.in_flight.add(1.0);
        } else {
            let waiting = state.queue.len();
            if waiting >= self.limits.queue {
                return Err(CallError::QueueFull {
                    service: self.name.clone(),
                    waiting,
                });
            }
            state.queue.push_back(Waiting {
                id,
                call,
                reply,
                timeout,
            });
            self.meters.queued.add(1.0);
        }
        Ok(Entered {
            id,
            function,
            timeout,
            cold,
        })
    }

    fn no_functions(&self) -> CallError {
        CallError::NoFunctions {
            service: self.name.clone(),
        }
    }

    /// The function's own limit, else the proxy's; the caller may ask for less, and without a limit of the function's
    /// also for more than the default.
    fn timeout(&self, state: &State, function: &str, asked: Option<Duration>) -> Duration {
        let own = state
            .runtimes
            .iter()
            .find_map(|runtime| runtime.spec(function))
            .map_or(0, |spec| spec.timeout_ms);
        let (default, most) = match own {
            0 => (self.limits.timeout, self.limits.max_timeout),
            own => (
                Duration::from_millis(own.into()),
                Duration::from_millis(own.into()),
            ),
        };
        asked.unwrap_or(default).min(most)
    }

    /// The caller is gone, or will not wait longer (`overdue`: then the runtime knows by itself, it was told the
    /// deadline). Does nothing for a call that has ended.
    pub(crate) fn abandon(&self, id: u64, overdue: bool) {
        let mut state = self.lock();
        if let Some(at) = state.queue.iter().position(|waiting| waiting.id == id) {
            state.queue.remove(at);
            self.meters.queued.add(-1.0);
            return;
        }
        for runtime in &mut state.runtimes {
            if let Some(open) = runtime.open.get_mut(&id) {
                open.reply = None;
                if !overdue {
                    runtime.cancel(id);
                }
                return;
            }
        }
    }

    /// Takes a call out of the queue; false when it is not there (any more).
    pub(crate) fn leave_queue(&self, id: u64) -> bool {
        let mut state = self.lock();
        let Some(at) = state.queue.iter().position(|waiting| waiting.id == id) else {
            return false;
        };
        state.queue.remove(at);
        self.meters.queued.add(-1.0);
        true
    }

    /// Adds a runtime and gives it what waits. An older connection of the same instance is ended.
    pub(crate) fn add(&self, new: NewRuntime) -> u64 {
        let mut state = self.lock();
        for old in state
            .runtimes
            .iter()
            .filter(|old| old.instance == new.instance)
        {
            old.end.cancel();
        }
        state.last_id += 1;
        let id = state.last_id;
        state.runtimes.push(Runtime::new(id, new));
        self.meters.runtimes.add(1.0);
        self.refill(&mut state, id);
        id
    }

    /// A runtime says how many calls it takes from now on.
    pub(crate) fn resize(&self, runtime: u64, places: usize) {
        let mut state = self.lock();
        if let Some(runtime) = state.runtime(runtime) {
            runtime.places = places;
        }
        self.refill(&mut state, runtime);
    }

    /// The connection of a runtime ended: what it ran has no result.
    pub(crate) fn remove(&self, runtime: u64) {
        let mut state = self.lock();
        let Some(at) = state.runtimes.iter().position(|known| known.id == runtime) else {
            return;
        };
        let gone = state.runtimes.swap_remove(at);
        drop(state);
        self.meters.runtimes.add(-1.0);
        for open in gone.open.into_values() {
            self.meters.in_flight.add(-1.0);
            let error = open.asked(&self.name).gone();
            if let Some(reply) = open.reply {
                reply.fail(error);
            }
        }
    }

    /// A runtime has ended a call: its place goes to what waits.
    pub(crate) fn finish(&self, runtime: u64, id: u64, finish: Finish) {
        let mut state = self.lock();
        let Some(mut open) = state
            .runtime(runtime)
            .and_then(|runtime| runtime.open.remove(&id))
        else {
            tracing::debug!(
                app = self.name,
                invocation = id,
                "a runtime answered what it was not asked"
            );
            return;
        };
        self.refill(&mut state, runtime);
        drop(state);
        self.meters.in_flight.add(-1.0);
        if let Some(reply) = open.reply.take() {
            reply.end(&open.asked(&self.name), finish);
        }
    }

    /// A part of a result. Handed back when somebody has to wait for its caller to take it.
    pub(crate) fn chunk(&self, runtime: u64, id: u64, chunk: Bytes) -> Option<Blocked> {
        let mut state = self.lock();
        let runtime = state.runtime(runtime)?;
        let open = runtime.open.get_mut(&id)?;
        match open.reply.as_mut()?.take_chunk(chunk) {
            Ok(blocked) => blocked,
            Err(TooLong) => {
                let error = open.asked(&self.name).too_long();
                runtime.give_up(id, error);
                None
            }
        }
    }

    /// The caller does not take the chunks of its call.
    pub(crate) fn give_up_slow(&self, runtime: u64, id: u64) {
        let mut state = self.lock();
        let Some(runtime) = state.runtime(runtime) else {
            return;
        };
        let error = runtime
            .open
            .get(&id)
            .map(|open| open.asked(&self.name).slow());
        if let Some(error) = error {
            runtime.give_up(id, error);
        }
    }

    /// No runtime can be expected: what waits for one that is not there fails.
    pub(crate) fn fail_cold(&self, why: impl Fn() -> CallError) {
        let mut state = self.lock();
        let State {
            runtimes, queue, ..
        } = &mut *state;
        let waiting = std::mem::take(queue);
        let (warm, cold) = waiting.into_iter().partition(|waiting| {
            runtimes
                .iter()
                .any(|runtime| runtime.has(&waiting.call.function))
        });
        *queue = warm;
        drop(state);
        self.fail(cold, why);
    }

    /// The proxy stops: no more calls, and what waits fails. What runs goes on.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        let waiting = std::mem::take(&mut state.queue);
        drop(state);
        self.fail(waiting, || CallError::Stopping);
    }

    fn fail(&self, waiting: VecDeque<Waiting>, why: impl Fn() -> CallError) {
        for waiting in waiting {
            self.meters.queued.add(-1.0);
            waiting.reply.fail(why());
        }
    }

    /// True when nothing runs and nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.queue.is_empty() && state.runtimes.iter().all(|runtime| runtime.open.is_empty())
    }

    /// True when no runtime is registered and nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.queue.is_empty() && state.runtimes.is_empty()
    }

    pub(crate) fn load(&self) -> Load {
        let state = self.lock();
        let mut load = Load {
            queued: state.queue.len(),
            runtimes: state.runtimes.len(),
            ..Load::default()
        };
        for runtime in &state.runtimes {
            load.in_flight += runtime.open.len();
            if !load.kinds.contains(&runtime.kind) {
                load.kinds.push(runtime.kind.clone());
            }
            for function in &runtime.functions {
                if !load.functions.contains(&function.name) {
                    load.functions.push(function.name.clone());
                }
            }
        }
        load
    }

    /// Gives waiting calls to a runtime as long as it has places.
    fn refill(&self, state: &mut State, runtime: u64) {
        let State {
            runtimes, queue, ..
        } = state;
        let Some(runtime) = runtimes.iter_mut().find(|known| known.id == runtime) else {
            return;
        };
        while runtime.is_free() && !queue.is_empty() {
            let Some(at) = queue
                .iter()
                .position(|waiting| runtime.has(&waiting.call.function))
            else {
                return;
            };
            let Some(Waiting {
                id,
                call,
                reply,
                timeout,
            }) = queue.remove(at)
            else {
                return;
            };
            runtime.give(id, call, reply, timeout);
            self.meters.queued.add(-1.0);
            self.meters.in_flight.add(1.0);
        }
    }
}

impl State {
    fn runtime(&mut self, id: u64) -> Option<&mut Runtime> {
        self.runtimes.iter_mut().find(|runtime| runtime.id == id)
    }

    fn free_runtime(&mut self, function: &str) -> Option<&mut Runtime> {
        self.runtimes
            .iter_mut()
            .filter(|runtime| runtime.is_free() && runtime.has(function))
            // Among equals it is the turn of the one that has waited longest.
            .min_by_key(|runtime| (runtime.open.len(), runtime.last))
    }

    /// As engine says; without engine's word as the first runtime says.
    fn default_function<'a>(&'a self, entry: Option<&'a Entry>) -> Option<&'a str> {
        let listed = entry
            .and_then(|entry| entry.functions.first())
            .map(String::as_str);
        let registered = || {
            self.runtimes
                .first()?
                .functions
                .first()
                .map(|function| function.name.as_str())
        };
        listed.or_else(registered)
    }
}

#[cfg(test)]
mod tests;
