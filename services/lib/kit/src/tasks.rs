//! Every task has a name and an owner.
//!
//! [`Tasks`] spawns, watches and ends the tasks of a service. A *required* task that ends, fails or panics
//! while the service is not stopping ends the process; any other is logged. At shutdown the token is
//! cancelled, tasks get until the deadline to finish, and what is left is aborted and named in the log.
//!
//! A task either watches [`Tasks::shutdown`] itself (servers that drain) or is spawned with
//! [`Tasks::spawn_until_shutdown`], which drops its future at the next await once shutdown begins.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::error::{BoxError, chain};

/// The tasks of a service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: String,
    token: CancellationToken,
    tracker: TaskTracker,
    running: Mutex<BTreeMap<u64, (Arc<str>, AbortHandle)>>,
    next_id: AtomicU64,
    failure: Mutex<Option<Failure>>,
    parent: Option<Tasks>,
    children: Mutex<Vec<Tasks>>,
}

/// Why a service ended although nobody asked it to.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Failure {
    /// A required task returned without an error.
    #[error("required task {task} of {service} ended")]
    Ended {
        /// The service that owns the task.
        service: String,
        /// The task.
        task: String,
    },
    /// A required task returned an error.
    #[error("required task {task} of {service} failed: {cause}")]
    Failed {
        /// The service that owns the task.
        service: String,
        /// The task.
        task: String,
        /// The error with its causes.
        cause: String,
    },
    /// A required task panicked.
    #[error("required task {task} of {service} panicked: {message}")]
    Panicked {
        /// The service that owns the task.
        service: String,
        /// The task.
        task: String,
        /// What the panic said.
        message: String,
    },
    /// Tasks were still running at the drain deadline and were aborted.
    #[error("tasks still running at the end of the drain deadline: {0}")]
    NotDrained(String),
}

/// What a task may return: `()` or a `Result<(), E>`.
pub trait TaskOutput: Send + 'static {
    /// As a result.
    ///
    /// # Errors
    /// The error the task ended with.
    fn into_result(self) -> Result<(), BoxError>;
}

impl TaskOutput for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

/// Names the type of `loop {}`, which the language does not let us write here: it is the output of
/// `fn() -> !`.
#[doc(hidden)]
pub trait Output {
    /// What the function returns.
    type Of;
}

impl<T> Output for fn() -> T {
    type Of = T;
}

/// A task that never ends by itself, `async { loop { … } }`.
impl TaskOutput for <fn() -> ! as Output>::Of {
    fn into_result(self) -> Result<(), BoxError> {
        self
    }
}

impl<E: Into<BoxError> + Send + 'static> TaskOutput for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

impl Tasks {
    /// No tasks yet, for the service of that name.
    pub fn new(service: &str) -> Self {
        Self::with_parent(service, CancellationToken::new(), None)
    }

    /// Tasks of another service in the same process: it stops when this one stops and can also be stopped
    /// alone; its failure is this one's failure.
    pub fn child(&self, service: &str) -> Self {
        let token = self.0.token.child_token();
        let child = Self::with_parent(service, token, Some(self.clone()));
        lock(&self.0.children).push(child.clone());
        child
    }

    fn with_parent(service: &str, token: CancellationToken, parent: Option<Self>) -> Self {
        Self(Arc::new(Inner {
            service: service.to_owned(),
            token,
            tracker: TaskTracker::new(),
            running: Mutex::default(),
            next_id: AtomicU64::new(0),
            failure: Mutex::default(),
            parent,
            children: Mutex::default(),
        }))
    }

    /// Cancelled when the service shall stop.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.0.token
    }

    /// Spawns a task whose end, error or panic ends the process.
    pub fn spawn_required<F>(&self, name: &str, future: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        self.launch(name, true, future);
    }

    /// Spawns a task whose error or panic is logged.
    pub fn spawn<F>(&self, name: &str, future: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        self.launch(name, false, future);
    }

    /// As [`spawn`](Self::spawn), for a task that may be dropped at any of its awaits: it ends as soon as
    /// shutdown begins.
    pub fn spawn_until_shutdown<F>(&self, name: &str, future: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        let token = self.0.token.clone();
        self.launch(name, false, async move {
            token
                .run_until_cancelled(future)
                .await
                .map_or(Ok(()), TaskOutput::into_result)
        });
    }

    fn launch<F>(&self, name: &str, required: bool, future: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        let name: Arc<str> = name.into();
        let id = self.0.next_id.fetch_add(1, Relaxed);
        let span = tracing::error_span!("service", name = %self.0.service);
        let entry = Entry {
            tasks: self.clone(),
            id,
        };
        let tasks = self.clone();
        let task_name = Arc::clone(&name);
        let task = async move {
            // Dropped last, also when the task is aborted.
            let _entry = entry;
            let ended = AssertUnwindSafe(future).catch_unwind().await;
            tasks.note_end(&task_name, required, ended.map(TaskOutput::into_result));
        };
        // Held over the spawn, so that the task cannot take its entry out before it is in.
        let mut running = lock(&self.0.running);
        let handle = self.0.tracker.spawn(task.instrument(span));
        running.insert(id, (name, handle.abort_handle()));
    }

    fn note_end(
        &self,
        task: &str,
        required: bool,
        ended: Result<Result<(), BoxError>, Box<dyn std::any::Any + Send>>,
    ) {
        let service = self.0.service.clone();
        let task = task.to_owned();
        let failure = match ended {
            Ok(Ok(())) if !required || self.0.token.is_cancelled() => {
                tracing::debug!(task, "task ended");
                return;
            }
            Ok(Ok(())) => Failure::Ended { service, task },
            Ok(Err(error)) => Failure::Failed {
                service,
                task,
                cause: chain(error.as_ref()),
            },
            Err(panic) => Failure::Panicked {
                service,
                task,
                message: panic_message(panic.as_ref()),
            },
        };
        if required {
            self.fail(failure);
        } else {
            tracing::error!(
                "{}",
                failure.to_string().replacen("required task", "task", 1)
            );
        }
    }

    /// Ends the service, and the process it is part of, because of `failure`. The first one counts.
    pub fn fail(&self, failure: Failure) {
        if let Some(parent) = &self.0.parent {
            parent.fail(failure.clone());
        } else {
            tracing::error!("{failure}; stopping");
        }
        lock(&self.0.failure).get_or_insert(failure);
        self.0.token.cancel();
    }

    /// Why the service is ending, if not because it was asked to.
    pub fn failure(&self) -> Option<Failure> {
        lock(&self.0.failure).clone()
    }

    /// Names of the tasks that run now, those of children included.
    pub fn running(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = lock(&self.0.running)
            .values()
            .map(|(name, _)| format!("{}/{name}", self.0.service))
            .collect();
        let children = lock(&self.0.children).clone();
        for child in children {
            names.extend(child.running());
        }
        names
    }

    /// Cancels the token and waits up to `deadline` for all tasks, those of children included; then aborts
    /// the rest.
    ///
    /// # Errors
    /// The failure that ended the service, else [`Failure::NotDrained`] when tasks had to be aborted.
    pub async fn stop(&self, deadline: Duration) -> Result<(), Failure> {
        self.0.token.cancel();
        let drained = tokio::time::timeout(deadline, self.wait()).await.is_ok();
        let late = self.running();
        if !drained {
            tracing::warn!(tasks = ?late, "drain deadline passed; aborting");
            self.abort();
            self.wait().await;
        }
        match self.failure() {
            Some(failure) => Err(failure),
            None if drained => Ok(()),
            None => Err(Failure::NotDrained(
                late.into_iter().collect::<Vec<_>>().join(", "),
            )),
        }
    }

    /// Aborts all tasks, those of children included, at their next await.
    pub fn abort(&self) {
        for (_, handle) in lock(&self.0.running).values() {
            handle.abort();
        }
        let children = lock(&self.0.children).clone();
        for child in children {
            child.abort();
        }
    }

    async fn wait(&self) {
        let children = lock(&self.0.children).clone();
        for child in children {
            Box::pin(child.wait()).await;
        }
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }
}

struct Entry {
    tasks: Tasks,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.tasks.0.running).remove(&self.id);
    }
}

/// What a panic said, if it said it in words.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
