//! One instance: found again or started, watched, started again. One task each; everything it must know after a restart
//! of the runtime is on disk before it matters, so it may be dropped at any await.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::end::{EndError, end_leftovers, end_shim, kill_shim};
use crate::policy::{Seen, Verdict, judge};
use crate::probe::{Finding, Probes};
use crate::process::Process;
use crate::record::{History, RunFile, RunId, StateDir};
use crate::shared::{Shared, age};
use crate::spec::{DEFAULT_GRACE, InstanceId, InstanceSpec, RestartPolicy};
use crate::status::{InstanceStatus, LastExit, Phase, Reason, RunEnd, Warning};

mod begin;

use begin::Found;
pub(crate) use begin::recorded_cgroups;

/// What an instance is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    /// End, for good.
    Stop { grace: Option<Duration> },
    /// End, and start again at once.
    Restart,
}

/// How the task of an instance ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ended well and its policy says that is that.
    Succeeded,
    /// It ended badly and its policy says that is that.
    Failed(Seen),
    /// It was told to stop; the error: something of it is left.
    Stopped(Result<(), EndError>),
}

/// How a task begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begin {
    /// Find out what there is, and go on from there.
    Adopt,
    /// Start again after this time, whatever there was.
    Again(Duration),
}

/// A run whose shim was found alive.
struct Running {
    run: RunFile,
    shim: Process,
    adopted: bool,
}

/// What ended a run.
enum Ended {
    /// It ended, or we ended it for this reason.
    Run(Option<(Reason, String)>),
    /// We were told to stop it and did.
    Stopped(Result<(), EndError>),
}

/// The task of one instance.
pub(crate) struct Instance {
    shared: Arc<Shared>,
    id: InstanceId,
    spec: InstanceSpec,
    policy: RestartPolicy,
    state: StateDir,
    history: History,
    status: InstanceStatus,
    orders: mpsc::Receiver<Order>,
}

impl Instance {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: InstanceId,
        spec: InstanceSpec,
        policy: RestartPolicy,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let state = shared.paths.state(&id);
        let history = state.history();
        let status = InstanceStatus {
            phase: Phase::Pending,
            ready: false,
            reason: None,
            message: String::new(),
            process: None,
            adopted: false,
            restarts: history.restarts,
            last_exit: None,
            ports: spec.ports.clone(),
            warnings: Vec::new(),
        };
        Self {
            shared,
            id,
            spec,
            policy,
            state,
            history,
            status,
            orders,
        }
    }

    /// How often it failed so far, over all runtimes.
    pub(crate) fn failures(shared: &Shared, id: &InstanceId) -> u32 {
        shared.paths.state(id).history().failures
    }

    /// Until it ends for good.
    pub(crate) async fn run(mut self, begin: Begin) -> Outcome {
        self.publish();
        let mut found = match begin {
            Begin::Adopt => self.find().await,
            Begin::Again(after) => Found::Nothing { after },
        };
        loop {
            let running = match found {
                Found::Running(running) => Ok(*running),
                Found::Ended(run, exit) => Err((run, exit, Seen::Before)),
                Found::Nothing { after } => {
                    if let Some(outcome) = self.wait(after).await {
                        return outcome;
                    }
                    let started = self.start().await;
                    started.map_err(|(run, exit)| (run, exit, Seen::Watched(None)))
                }
            };
            let (run, exit, seen) = match running {
                Err(over) => over,
                Ok(running) => match self.watch(&running).await {
                    Ended::Stopped(result) => return self.stopped(result),
                    Ended::Run(why) => {
                        let exit = self.collect(&running.run, why).await;
                        let ran = age(running.run.shim);
                        (Some(running.run.run_id()), exit, Seen::Watched(Some(ran)))
                    }
                },
            };
            match self.conclude(run, exit, seen) {
                Verdict::Restart(after) => found = Found::Nothing { after },
                Verdict::Succeeded => return self.finished(Phase::Succeeded, Outcome::Succeeded),
                Verdict::Failed => return self.finished(Phase::Failed, Outcome::Failed(seen)),
            }
        }
    }

    fn publish(&self) {
        self.shared.publish(&self.id, &self.status);
    }

    fn set(&mut self, phase: Phase, reason: Option<Reason>, message: impl Into<String>) {
        if self.status.phase != phase {
            tracing::info!(instance = %self.id, phase = ?phase, reason = reason.map(Reason::as_str), "instance");
        }
        self.status.phase = phase;
        self.status.reason = reason;
        self.status.message = message.into();
        if !matches!(phase, Phase::Running | Phase::Stopping) {
            self.status.process = None;
            self.status.ready = false;
        }
        self.publish();
    }

    fn warn(&mut self, kind: &'static str, message: String) {
        tracing::warn!(instance = %self.id, kind, message);
        self.status.warnings.push(Warning { kind, message });
    }

    fn grace(&self) -> Duration {
        self.spec.grace.unwrap_or(DEFAULT_GRACE)
    }

    /// Watches a run until it ended.
    async fn watch(&mut self, running: &Running) -> Ended {
        let probes = Probes::read(&self.spec).unwrap_or_default();
        let (mut started, mut ready) = (probes.starts_at_once(), probes.ready_at_once());
        self.status.process = running.run.record();
        self.status.adopted = running.adopted;
        self.show(started, ready, String::new());
        let (found, mut findings) = mpsc::channel(4);
        // Aborted when dropped, with the run.
        let mut asking = JoinSet::new();
        if let Some(environment) = self.shared.environment_of(&self.id) {
            asking.spawn(probes.ask(environment, running.adopted, found.clone()));
        }
        loop {
            tokio::select! {
                ended = running.shim.ended() => {
                    if let Err(error) = ended {
                        tracing::error!(instance = %self.id, %error, "lost sight of the shim");
                    }
                    return Ended::Run(None);
                }
                order = self.orders.recv() => match order {
                    Some(Order::Restart) => return self.end_for(running, Reason::Requested, "it was restarted on request".to_owned(), None).await,
                    Some(Order::Stop { grace }) => return Ended::Stopped(self.stop(running, grace).await),
                    // Whoever gives orders is gone: nobody is left to watch for.
                    None => std::future::pending().await,
                },
                Some(finding) = findings.recv() => match finding {
                    Finding::Started => {
                        started = true;
                        self.show(started, ready, String::new());
                    }
                    Finding::Ready => {
                        ready = true;
                        self.show(started, ready, String::new());
                    }
                    Finding::NotReady { why } => {
                        ready = false;
                        self.show(started, ready, why);
                    }
                    Finding::NotStarted { why, grace } => {
                        return self.end_for(running, Reason::StartupFailed, format!("its startup probe failed: {why}"), grace).await;
                    }
                    Finding::Dead { why, grace } => {
                        return self.end_for(running, Reason::LivenessFailed, format!("its liveness probe failed: {why}"), grace).await;
                    }
                },
            }
        }
    }

    fn show(&mut self, started: bool, ready: bool, why: String) {
        self.status.ready = started && ready;
        let reason = match (started, ready) {
            (false, _) => Some(Reason::NotStarted),
            (true, false) => Some(Reason::NotReady),
            (true, true) => None,
        };
        self.set(Phase::Running, reason, why);
    }

    /// Ends a run because of a probe or a request; another follows.
    async fn end_for(
        &mut self,
        running: &Running,
        reason: Reason,
        why: String,
        grace: Option<Duration>,
    ) -> Ended {
        self.status.ready = false;
        self.set(Phase::Stopping, Some(reason), why.clone());
        let grace = grace.unwrap_or_else(|| self.grace());
        if let Err(error) = end_shim(&running.shim, grace).await {
            tracing::error!(instance = %self.id, %error, "cannot end it");
        }
        Ended::Run(Some((reason, why)))
    }

    /// Ends a run for good.
    async fn stop(&mut self, running: &Running, grace: Option<Duration>) -> Result<(), EndError> {
        self.status.ready = false;
        self.set(
            Phase::Stopping,
            Some(Reason::Requested),
            "it was stopped on request",
        );
        end_shim(&running.shim, grace.unwrap_or_else(|| self.grace())).await?;
        self.clean(&running.run).await
    }

    /// Makes sure that nothing of a run is left, when its shim did not.
    async fn clean(&self, run: &RunFile) -> Result<(), EndError> {
        if self.state.exit_of(&run.run_id())?.is_some() {
            return Ok(());
        }
        end_leftovers(&self.shared.paths.instance(&self.id), Some(run))
            .await
            .map(|_| ())
    }

    /// How a run ended whose shim is gone. Returns when nothing of it is left.
    async fn collect(&mut self, run: &RunFile, why: Option<(Reason, String)>) -> LastExit {
        let mut exit = match self.exit_of(Some(run)).await {
            Some(exit) => exit.last_exit(),
            None => {
                let message = "its shim ended without a record: how it ended is not known";
                self.set(Phase::Unknown, Some(Reason::ShimLost), message);
                self.clean_up(Some(run)).await;
                LastExit {
                    end: RunEnd::Unknown,
                    reason: Reason::ShimLost,
                    message: message.to_owned(),
                    at_ms: None,
                }
            }
        };
        if let Some((reason, message)) = why {
            exit.reason = reason;
            exit.message = message;
        } else if exit.end == RunEnd::Signal(9) && self.ran_out_of_memory() {
            exit.reason = Reason::OutOfMemory;
            exit.message = "the kernel ended it: it used more memory than its limit".to_owned();
        }
        exit
    }

    /// Ends what is left of a run, however long it takes: a second copy must never run beside it.
    async fn clean_up(&mut self, run: Option<&RunFile>) {
        let dir = self.shared.paths.instance(&self.id);
        let mut attempt = 0;
        while let Err(error) = end_leftovers(&dir, run).await {
            self.set(Phase::Unknown, Some(Reason::CannotEnd), error.to_string());
            tokio::time::sleep(crate::policy::delay(&self.shared.config.backoff, attempt)).await;
            attempt += 1;
        }
    }

    /// Counts an end, once, and says what follows. `run` is absent when it never began.
    fn conclude(&mut self, run: Option<RunId>, exit: LastExit, seen: Seen) -> Verdict {
        self.status.last_exit = Some(exit.clone());
        let backoff = &self.shared.config.backoff;
        if run.is_some() && run == self.history.counted {
            // Counted by a runtime before this one, which did not come to act on it.
            let mut counted = self.history.clone();
            return judge(self.policy, backoff, &mut counted, &exit, Seen::Before);
        }
        let verdict = judge(self.policy, backoff, &mut self.history, &exit, seen);
        self.history.counted = run;
        if let Err(error) = self.state.write_history(&self.history) {
            tracing::warn!(instance = %self.id, %error, "cannot write its counters");
        }
        tracing::info!(instance = %self.id, reason = exit.reason.as_str(), message = exit.message, "instance ended");
        verdict
    }

    /// Waits before a start. `Some`: told to stop meanwhile.
    async fn wait(&mut self, after: Duration) -> Option<Outcome> {
        self.status.restarts = self.history.restarts;
        if after.is_zero() {
            return None;
        }
        let (reason, message) = match &self.status.last_exit {
            Some(exit) => (Some(exit.reason), exit.message.clone()),
            None => (self.history.reason, String::new()),
        };
        self.set(Phase::Backoff, reason, message);
        tokio::select! {
            () = tokio::time::sleep(after) => None,
            order = self.orders.recv() => match order {
                Some(Order::Restart) => None,
                Some(Order::Stop { .. }) => Some(self.stopped(Ok(()))),
                None => std::future::pending().await,
            },
        }
    }

    fn stopped(&mut self, result: Result<(), EndError>) -> Outcome {
        match &result {
            Ok(()) => self.set(Phase::Stopped, Some(Reason::Requested), ""),
            Err(error) => self.set(Phase::Unknown, Some(Reason::CannotEnd), error.to_string()),
        }
        Outcome::Stopped(result)
    }

    fn finished(&mut self, phase: Phase, outcome: Outcome) -> Outcome {
        let (reason, message) = match &self.status.last_exit {
            Some(exit) if phase == Phase::Failed => (Some(exit.reason), exit.message.clone()),
            _ => (None, String::new()),
        };
        self.set(phase, reason, message);
        outcome
    }

    /// Ends a run that came to be although it should not have.
    async fn abandon(&self, shim: &Process) {
        if let Err(error) = kill_shim(shim).await {
            tracing::error!(instance = %self.id, %error, "cannot end it");
        }
    }
}
