//! One workload: its instances, each a task, and what follows when one of them ends for good.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::end::living_shim;
use crate::instance::{Begin, Instance, Order, Outcome};
use crate::policy::{self, Job, JobState, Seen};
use crate::shared::Shared;
use crate::spec::{DEFAULT_GRACE, Instances as _, RestartPolicy, WorkloadKind, WorkloadSpec};
use crate::status::WorkloadState;

/// Beyond the grace: how long instances may take to be gone when they are told to stop. Starting takes up to 30 s and
/// must be over first; killing up to 15 s.
const STOP_TIME: Duration = Duration::from_secs(60);

/// What a workload is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// End all instances; answers with what could not be ended.
    Stop {
        grace: Option<Duration>,
        done: oneshot::Sender<Vec<String>>,
    },
    /// End and start all instances.
    Restart,
}

/// The task of one workload.
pub(crate) struct Workload {
    shared: Arc<Shared>,
    spec: Arc<WorkloadSpec>,
    /// Present for jobs.
    job: Option<Job>,
    tasks: JoinSet<(usize, Outcome)>,
    active: HashMap<usize, (mpsc::Sender<Order>, AbortHandle)>,
    ended: HashMap<usize, bool>,
}

impl Workload {
    pub(crate) fn new(shared: Arc<Shared>, spec: Arc<WorkloadSpec>) -> Self {
        let job = match spec.kind {
            WorkloadKind::Service { .. } => None,
            WorkloadKind::Job {
                parallelism,
                backoff_limit,
            } => Some(Job::new(spec.instances.len(), parallelism, backoff_limit)),
        };
        Self {
            shared,
            spec,
            job,
            tasks: JoinSet::new(),
            active: HashMap::new(),
            ended: HashMap::new(),
        }
    }

    /// Until it is stopped or the runtime ends. A workload that has ended stays here, to be observed and removed.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let cancel = self.shared.cancel.clone();
        self.begin();
        loop {
            self.publish();
            tokio::select! {
                // Dropping the tasks leaves all processes as they are.
                () = cancel.cancelled() => return,
                command = commands.recv() => match command {
                    Some(Command::Restart) => self.restart().await,
                    Some(Command::Stop { grace, done }) => {
                        let left = self.stop(grace).await;
                        // Nobody waits any more: then nobody is told.
                        let _ = done.send(left);
                        return;
                    }
                    None => return,
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok((index, outcome)) => self.ended(index, &outcome),
                    Err(error) => self.broken(&error),
                },
            }
        }
    }

    fn begin(&mut self) {
        let Some(job) = &mut self.job else {
            for index in 0..self.spec.instances.len() {
                self.spawn(index, Begin::Adopt);
            }
            return;
        };
        // What an earlier runtime left running comes first: it takes its part of the parallelism.
        let alive = |index: &usize| {
            let state = self
                .shared
                .paths
                .state(&self.spec.key.instance(number(*index)));
            // What cannot be looked at just now counts as running: its instance waits until it can be.
            !matches!(living_shim(&state), Ok(None))
        };
        let mut first: Vec<usize> = (0..self.spec.instances.len()).filter(alive).collect();
        for index in &first {
            job.begin_at(*index);
        }
        first.extend(job.begin());
        for index in first {
            self.spawn(index, Begin::Adopt);
        }
    }

    fn spawn(&mut self, index: usize, begin: Begin) {
        let Some(spec) = self.spec.instances.get(index) else {
            return;
        };
        let policy = match self.spec.kind {
            WorkloadKind::Service { restart } => restart,
            // Whether it is tried again is decided here, over all instances.
            WorkloadKind::Job { .. } => RestartPolicy::Never,
        };
        let (sender, orders) = mpsc::channel(4);
        let id = self.spec.key.instance(number(index));
        let instance = Instance::new(Arc::clone(&self.shared), id, spec.clone(), policy, orders);
        let task = self
            .tasks
            .spawn(async move { (index, instance.run(begin).await) });
        self.ended.remove(&index);
        self.active.insert(index, (sender, task));
    }

    fn ended(&mut self, index: usize, outcome: &Outcome) {
        self.active.remove(&index);
        let success = matches!(outcome, Outcome::Succeeded);
        self.ended.insert(index, success);
        let Some(job) = &mut self.job else { return };
        let failures_of =
            |index: usize| Instance::failures(&self.shared, &self.spec.key.instance(number(index)));
        let all: u32 = (0..self.spec.instances.len())
            .map(failures_of)
            .fold(0, u32::saturating_add);
        match job.ended(index, success, all) {
            JobState::Succeeded => {}
            // Instances that still run cannot make it succeed any more.
            JobState::Failed => self.order_all(Order::Stop { grace: None }),
            JobState::Active => {
                let own = failures_of(index);
                for next in job.begin() {
                    let again = next == index && !success;
                    let delay = match outcome {
                        Outcome::Failed(Seen::Before) => Duration::ZERO,
                        _ => policy::delay(&self.shared.config.backoff, own.saturating_sub(1)),
                    };
                    self.spawn(
                        next,
                        if again {
                            Begin::Again(delay)
                        } else {
                            Begin::Adopt
                        },
                    );
                }
            }
        }
    }

    /// A task that panicked: a fault of ours. Its instance is found again, as after a restart of the runtime.
    fn broken(&mut self, error: &tokio::task::JoinError) {
        let broken = self
            .active
            .iter()
            .find(|(_, (_, task))| task.id() == error.id())
            .map(|(index, _)| *index);
        tracing::error!(workload = %self.spec.key, %error, "the task of an instance broke off");
        if let Some(index) = broken {
            self.active.remove(&index);
            self.spawn(index, Begin::Adopt);
        }
    }

    fn order_all(&self, order: Order) {
        for (orders, _) in self.active.values() {
            // Full: orders are waiting already, and the first of them ends it.
            let _ = orders.try_send(order);
        }
    }

    async fn restart(&mut self) {
        self.order_all(Order::Restart);
        let ended: Vec<usize> = if self.job.is_none() {
            self.ended.keys().copied().collect()
        } else {
            Vec::new()
        };
        for index in ended {
            self.spawn(index, Begin::Again(Duration::ZERO));
        }
    }

    /// Ends all instances; answers with what could not be ended.
    async fn stop(&mut self, grace: Option<Duration>) -> Vec<String> {
        self.shared
            .publish_workload(&self.spec.key, WorkloadState::Stopping);
        self.order_all(Order::Stop { grace });
        let longest = self
            .spec
            .instances
            .iter()
            .map(|spec| grace.or(spec.grace).unwrap_or(DEFAULT_GRACE))
            .max();
        let mut left = Vec::new();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                match ended {
                    Ok((index, outcome)) => {
                        self.active.remove(&index);
                        if let Outcome::Stopped(Err(error)) = outcome {
                            left.push(format!(
                                "{}: {error}",
                                self.spec.key.instance(number(index))
                            ));
                        }
                    }
                    Err(error) => {
                        left.push(format!("a task of {} broke off: {error}", self.spec.key))
                    }
                }
            }
        };
        if timeout(longest.unwrap_or_default() + STOP_TIME, all)
            .await
            .is_err()
        {
            left.extend(self.active.keys().map(|index| {
                format!(
                    "{}: it takes too long",
                    self.spec.key.instance(number(*index))
                )
            }));
        }
        left
    }

    fn publish(&self) {
        let state = match &self.job {
            Some(job) => match job.state() {
                JobState::Failed if self.active.is_empty() => WorkloadState::Failed,
                JobState::Succeeded => WorkloadState::Succeeded,
                _ => WorkloadState::Active,
            },
            None if !self.active.is_empty() || self.spec.instances.is_empty() => {
                WorkloadState::Active
            }
            None if self.ended.values().all(|success| *success) => WorkloadState::Succeeded,
            None => WorkloadState::Failed,
        };
        self.shared.publish_workload(&self.spec.key, state);
    }
}

/// Instances are counted from 1.
fn number(index: usize) -> u32 {
    u32::try_from(index).map_or(u32::MAX, |index| index.saturating_add(1))
}
