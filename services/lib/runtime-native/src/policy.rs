//! What follows an end: pure decisions, with times as arguments.

use std::time::Duration;

use crate::config::Backoff;
use crate::record::History;
use crate::spec::RestartPolicy;
use crate::status::{LastExit, Reason, RunEnd};

#[cfg(test)]
mod tests;

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Start again after this time.
    Restart(Duration),
    /// It ended well and that is that.
    Succeeded,
    /// It ended badly and that is that.
    Failed,
}

/// Who saw an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// We did. How long it had run, when it ran and that is known.
    Watched(Option<Duration>),
    /// Nobody: it was over when we came. It is started at once, for how often we come is limited by whoever starts us;
    /// waiting times are for what fails before our eyes.
    Before,
}

/// Counts an end and says what follows.
pub(crate) fn judge(
    policy: RestartPolicy,
    backoff: &Backoff,
    history: &mut History,
    exit: &LastExit,
    seen: Seen,
) -> Verdict {
    // On request, or with the machine: nothing the application did.
    let blameless = matches!(exit.reason, Reason::Requested | Reason::Rebooted);
    let success = exit.end.is_success();
    history.reason = Some(exit.reason);
    if !success && !blameless {
        history.failures = history.failures.saturating_add(1);
    }
    if blameless {
        history.streak = 0;
        history.restarts = history.restarts.saturating_add(1);
        return Verdict::Restart(Duration::ZERO);
    }
    match policy {
        RestartPolicy::Never | RestartPolicy::OnFailure if success => return Verdict::Succeeded,
        RestartPolicy::Never => return Verdict::Failed,
        RestartPolicy::OnFailure | RestartPolicy::Always => {}
    }
    history.restarts = history.restarts.saturating_add(1);
    let Seen::Watched(ran) = seen else {
        return Verdict::Restart(Duration::ZERO);
    };
    if exit.end != RunEnd::NotStarted && ran.is_some_and(|ran| ran >= backoff.reset_after) {
        history.streak = 0;
    }
    let delay = delay(backoff, history.streak);
    history.streak = history.streak.saturating_add(1);
    Verdict::Restart(delay)
}

/// Waiting time after `streak` ends in a row before this one.
pub(crate) fn delay(backoff: &Backoff, streak: u32) -> Duration {
    let factor = 2u32.saturating_pow(streak);
    backoff.initial.saturating_mul(factor).min(backoff.max)
}

/// One instance of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Waiting,
    Active,
    Succeeded,
}

/// How far a job is: which of its instances may run, and when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    slots: Vec<Slot>,
    parallelism: usize,
    backoff_limit: u32,
    failed: bool,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobState {
    /// Instances run or wait.
    Active,
    /// All instances succeeded.
    Succeeded,
    /// It failed too often.
    Failed,
}

impl Job {
    /// A job nothing is known of yet.
    pub(crate) fn new(completions: usize, parallelism: u32, backoff_limit: u32) -> Self {
        let parallelism = usize::try_from(parallelism.max(1)).unwrap_or(usize::MAX);
        Self {
            slots: vec![Slot::Waiting; completions],
            parallelism,
            backoff_limit,
            failed: false,
        }
    }

    /// The instances (from 0) to start now; they count as active from here on.
    pub(crate) fn begin(&mut self) -> Vec<usize> {
        if self.failed {
            return Vec::new();
        }
        let active = self
            .slots
            .iter()
            .filter(|slot| **slot == Slot::Active)
            .count();
        let free = self.parallelism.saturating_sub(active);
        let waiting = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| **slot == Slot::Waiting);
        let begun: Vec<usize> = waiting.map(|(index, _)| index).take(free).collect();
        for index in &begun {
            self.slots[*index] = Slot::Active;
        }
        begun
    }

    /// An instance (from 0) runs already; it counts as active from here on.
    pub(crate) fn begin_at(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Slot::Active;
        }
    }

    /// An instance ended; `failures` is how often instances of this job failed so far, all together.
    pub(crate) fn ended(&mut self, index: usize, success: bool, failures: u32) -> JobState {
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = if success {
                Slot::Succeeded
            } else {
                Slot::Waiting
            };
        }
        self.failed |= failures > self.backoff_limit;
        self.state()
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> JobState {
        if self.slots.iter().all(|slot| *slot == Slot::Succeeded) {
            JobState::Succeeded
        } else if self.failed {
            JobState::Failed
        } else {
            JobState::Active
        }
    }
}
