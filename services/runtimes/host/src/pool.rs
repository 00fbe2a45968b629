//! The worker processes of a runtime: one invocation each at a time, replaced when they end or must be ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::call::{Call, Kind};
use crate::frame::{MAX_PAYLOAD, Setup};
use crate::functions::Function;
use crate::link::Executor;
use crate::worker::{Broken, Program, StartError, Worker};

/// Invocations that may wait here. The proxy sends no more than there are workers; those that overlap with an answer
/// on its way need a little room.
const WAITING_PER_WORKER: usize = 4;

/// How workers are kept.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Number of processes, at least 1.
    pub workers: usize,
    /// How long loading the functions may take.
    pub load_timeout: Duration,
    /// How long a cancelled invocation may take to end by itself.
    pub cancel_grace: Duration,
    /// Between attempts to replace a worker that ends again and again.
    pub backoff: Backoff,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            load_timeout: Duration::from_secs(60),
            cancel_grace: Duration::from_secs(2),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(30)),
        }
    }
}

/// The workers of one runtime.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    // Dropping the pool drops the tasks, which kills the workers.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    program: Program,
    setup: Vec<u8>,
    settings: PoolSettings,
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
}

/// What is known before the runtime registers.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// Workers that have loaded, or failed to, at least once.
    tried: usize,
    version: String,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    waiting: VecDeque<Call>,
}

#[derive(Debug)]
enum Slot {
    /// Starting for the first time, or after it ended.
    Loading,
    Idle(mpsc::Sender<Call>),
    Busy,
    /// The last attempt to start failed; the next one comes after a while.
    Failed(String),
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
#[error("the list of functions cannot be written as JSON")]
pub struct PoolError(#[from] serde_json::Error);

impl Pool {
    /// Starts the workers; `code` is the directory that the functions' `codedir`s are relative to.
    ///
    /// # Errors
    /// When the functions cannot be told to a worker.
    pub fn start(
        program: Program,
        code: &str,
        functions: &[Function],
        mut settings: PoolSettings,
    ) -> Result<Self, PoolError> {
        settings.workers = settings.workers.max(1);
        let setup = Setup {
            code: code.to_owned(),
            functions: functions.to_vec(),
            max_payload: MAX_PAYLOAD,
        };
        let slots = (0..settings.workers).map(|_| Slot::Loading).collect();
        let shared = Arc::new(Shared {
            program,
            setup: setup.encode()?,
            settings,
            state: Mutex::new(State {
                slots,
                waiting: VecDeque::new(),
            }),
            progress: watch::Sender::default(),
        });
        let mut tasks = JoinSet::new();
        for index in 0..shared.settings.workers {
            tasks.spawn(Arc::clone(&shared).keep(index));
        }
        Ok(Self {
            shared,
            _tasks: tasks,
        })
    }

    /// Invocations it runs at the same time.
    pub fn workers(&self) -> usize {
        self.shared.settings.workers
    }

    /// Returns the interpreter's version once every worker has loaded the functions or failed to.
    pub async fn loaded(&self) -> String {
        let mut progress = self.shared.progress.subscribe();
        let all = self.workers();
        // The sender lives in self: it cannot be gone.
        progress
            .wait_for(|progress| progress.tried >= all)
            .await
            .map_or_else(|_| String::new(), |p| p.version.clone())
    }
}

impl Executor for Pool {
    async fn start(&self, call: Call) {
        if let Some((call, why)) = self.shared.submit(call) {
            call.answer.failure(Kind::Worker, why).await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the call to an idle worker, or lets it wait for one. Handed back, with why, when it cannot be run.
    fn submit(&self, call: Call) -> Option<(Call, String)> {
        let mut state = self.lock();
        let idle = state
            .slots
            .iter_mut()
            .find(|slot| matches!(slot, Slot::Idle(_)));
        if let Some(slot) = idle {
            let Slot::Idle(sender) = std::mem::replace(slot, Slot::Busy) else {
                return None;
            };
            // A worker that ended since it became idle has dropped its receiver: the call waits for another.
            if let Err(refused) = sender.try_send(call) {
                state.waiting.push_back(refused.into_inner());
            }
            return None;
        }
        if let Some(why) = state.hopeless() {
            return Some((call, why));
        }
        if state.waiting.len() >= self.settings.workers * WAITING_PER_WORKER {
            return Some((
                call,
                "the runtime was given more invocations than it takes".to_owned(),
            ));
        }
        state.waiting.push_back(call);
        None
    }

    /// The next invocation for worker `index`, which has nothing to do.
    fn next(&self, index: usize) -> Result<Call, mpsc::Receiver<Call>> {
        let mut state = self.lock();
        if let Some(call) = state.waiting.pop_front() {
            state.slots[index] = Slot::Busy;
            return Ok(call);
        }
        let (sender, receiver) = mpsc::channel(1);
        state.slots[index] = Slot::Idle(sender);
        Err(receiver)
    }

    fn set(&self, index: usize, slot: Slot) {
        self.lock().slots[index] = slot;
    }

    fn tried(&self, first: bool, version: &str) {
        self.progress.send_modify(|progress| {
            progress.tried += usize::from(first);
            if !version.is_empty() {
                version.clone_into(&mut progress.version);
            }
        });
    }

    /// Keeps one worker alive for ever.
    async fn keep(self: Arc<Self>, index: usize) {
        let mut backoff = self.settings.backoff.clone();
        let mut first = true;
        loop {
            match Worker::start(&self.program, &self.setup, self.settings.load_timeout).await {
                Ok((worker, ready)) => {
                    for (function, error) in ready
                        .functions
                        .iter()
                        .filter_map(|f| Some((&f.name, f.error.as_ref()?)))
                    {
                        tracing::error!(
                            function,
                            error,
                            "a function cannot be loaded; calls of it will fail"
                        );
                    }
                    tracing::info!(worker = index, version = ready.version, "worker is ready");
                    self.tried(std::mem::take(&mut first), &ready.version);
                    let broken = self.work(index, worker, &mut backoff).await;
                    self.set(index, Slot::Loading);
                    tracing::warn!(worker = index, reason = broken.text(), "worker is replaced");
                    if matches!(broken, Broken::Killed(_)) {
                        continue;
                    }
                }
                Err(error) => {
                    self.tried(std::mem::take(&mut first), "");
                    self.give_up(index, &error).await;
                }
            }
            backoff.wait().await;
        }
    }

    /// Runs invocations until the worker has to be replaced.
    async fn work(&self, index: usize, mut worker: Worker, backoff: &mut Backoff) -> Broken {
        let broken = loop {
            let call = match self.next(index) {
                Ok(call) => call,
                Err(mut receiver) => tokio::select! {
                    biased;
                    call = receiver.recv() => match call {
                        Some(call) => call,
                        // Its sender is in the slot, which only this task replaces.
                        None => continue,
                    },
                    broken = worker.broken() => {
                        // An invocation may have been given to it at the last moment.
                        self.set(index, Slot::Loading);
                        if let Ok(call) = receiver.try_recv() {
                            self.lock().waiting.push_front(call);
                        }
                        break broken;
                    }
                },
            };
            if let Some(call) = still_wanted(call).await {
                match worker.invoke(call, self.settings.cancel_grace).await {
                    Ok(()) => backoff.reset(),
                    Err(broken) => break broken,
                }
            }
        };
        worker.kill().await;
        broken
    }

    /// A worker that does not start: what waits fails now if no other worker can take it.
    async fn give_up(&self, index: usize, error: &StartError) {
        tracing::error!(worker = index, %error, "worker did not start; trying again");
        let refused = {
            let mut state = self.lock();
            state.slots[index] = Slot::Failed(error.to_string());
            match state.hopeless() {
                Some(why) => (std::mem::take(&mut state.waiting), why),
                None => (VecDeque::new(), String::new()),
            }
        };
        for call in refused.0 {
            call.answer.failure(Kind::Worker, refused.1.as_str()).await;
        }
    }
}

impl State {
    /// When no worker starts: why.
    fn hopeless(&self) -> Option<String> {
        let mut why = None;
        for slot in &self.slots {
            match slot {
                Slot::Failed(error) => why = Some(error.clone()),
                Slot::Loading | Slot::Idle(_) | Slot::Busy => return None,
            }
        }
        why
    }
}

/// The call, unless it was cancelled or its deadline passed while it waited; then it is answered here.
async fn still_wanted(call: Call) -> Option<Call> {
    if call.cancelled.is_cancelled() {
        call.answer
            .failure(Kind::Cancelled, "cancelled while it waited for a worker")
            .await;
        return None;
    }
    if call
        .deadline
        .is_some_and(|deadline| deadline <= Instant::now())
    {
        call.answer
            .failure(
                Kind::Deadline,
                "its deadline passed while it waited for a worker",
            )
            .await;
        return None;
    }
    Some(call)
}
