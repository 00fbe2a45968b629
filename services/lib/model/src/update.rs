//! One application's way from one release to the next: `Staging → Applying → Probing → Healthy | RolledBack | Failed`.
//!
//! A state machine without I/O: [`Update::next`] takes an event and the time and gives the new state and what to do.
//! The engine persists the state *before* it does the effects, feeds back what came of them, and ticks at
//! [`Update::wake_in`].
//!
//! What always holds (each has a law in the tests):
//! - every state but the ends has a deadline, so an update always ends;
//! - only a release that was staged is run;
//! - a release is gone back to only if it was healthy before;
//! - a newer wish pre-empts whatever is under way, also going back;
//! - wishing what runs already does nothing;
//! - a release on probation survives fewer than [`MAX_RESUMES`] starts of the program.
//!
//! Time is any monotonic clock of the program. Across a restart it begins anew: give [`Event::Resume`] first. Time that
//! passed while nobody looked does not count against a deadline; the starts themselves are counted, because a release
//! that kills the machine or the program would otherwise be on probation for ever.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::desire::Release;
use crate::name::{AppName, Generation};
use crate::report::Phase;

mod step;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

/// How many failed releases of one application are remembered.
pub const MAX_FAILED: usize = 16;

/// How often the program may be started again while one release is on probation, before the release is taken for the
/// cause: with this one it fails.
pub const MAX_RESUMES: u32 = 3;

/// Longest pause between two attempts to stage.
pub const MAX_STAGE_PAUSE: Duration = Duration::from_secs(60);

/// How long each state may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Until everything is complete on disk.
    pub stage: Duration,
    /// Until the runtime has taken the release.
    pub apply: Duration,
    /// Until it is ready and stayed so for `settle`.
    pub probe: Duration,
    /// How long a release must be ready without a break to count as healthy.
    pub settle: Duration,
}

impl Default for Limits {
    /// Half an hour to stage (a large model over a slow link; staging goes on where it stopped), two minutes to apply,
    /// five to become ready, five seconds of being ready.
    fn default() -> Self {
        Self {
            stage: Duration::from_secs(30 * 60),
            apply: Duration::from_secs(2 * 60),
            probe: Duration::from_secs(5 * 60),
            settle: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// Longest time from a wish to its end: forward, and back again.
    pub fn total(&self) -> Duration {
        self.stage + 2 * (self.apply + self.probe)
    }
}

/// Where an update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nothing was ever wished.
    Idle,
    /// The target is being fetched; what ran before runs on.
    Staging {
        /// Attempts that failed.
        attempts: u32,
    },
    /// The runtime is being told; `back` when it is the last good release.
    Applying {
        /// Going back.
        back: bool,
    },
    /// It runs and is watched; `back` when it is the last good release.
    Probing {
        /// Going back.
        back: bool,
    },
    /// The target runs well.
    Healthy,
    /// The target failed; the last good release runs.
    RolledBack,
    /// The target failed, and so did going back, or there is nothing to go back to.
    Failed,
}

/// A release that failed, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What failed.
    pub release: Release,
    /// Why, as a sentence.
    pub reason: String,
}

/// What the health of the running instances says. See [`crate::rollup::health`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nobody can tell.
    Unknown,
    /// Not ready, and nothing speaks against its becoming so.
    Starting {
        /// What it waits for, as far as anybody says; may be empty.
        why: String,
    },
    /// All wanted instances are ready.
    Ready,
    /// A job that ended well.
    Succeeded,
    /// It will not become ready.
    Failing {
        /// Why, as a sentence.
        reason: String,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The accepted desire wants this release.
    Want {
        /// What is wanted.
        release: Release,
        /// Generation of the desire.
        generation: Generation,
    },
    /// Everything of the release is complete on disk.
    Staged {
        /// Which.
        release: Release,
        /// Limits that follow from the application's own probes, now that its body is known.
        limits: Option<Limits>,
    },
    /// Staging failed for now.
    StageFailed {
        /// Which.
        release: Release,
        /// Why.
        reason: String,
        /// True when trying again is of no use until something else changes (refused, digest does not match).
        permanent: bool,
    },
    /// The runtime has taken the release.
    Applied {
        /// Which.
        release: Release,
    },
    /// The runtime refuses the release.
    ApplyFailed {
        /// Which.
        release: Release,
        /// Why.
        reason: String,
    },
    /// The instances of a release were looked at.
    Observed {
        /// Which.
        release: Release,
        /// How they do.
        health: Health,
    },
    /// Time passed.
    Tick,
    /// The cloud can be reached again: what failed to be staged is tried again.
    Online,
    /// An operator asks to try the wanted release again, although it failed.
    Retry,
    /// The program was started again: time begins anew, and everything that should run is told again.
    Resume,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Fetch and verify everything of the release; answer with `Staged` or `StageFailed`.
    Stage {
        /// Which.
        release: Release,
        /// Not before this time has passed.
        after: Duration,
    },
    /// Make sure that exactly this release runs, instead of any other of the application; does nothing when it does.
    /// Answer with `Applied` or `ApplyFailed`.
    Run {
        /// Which.
        release: Release,
    },
    /// The update reached an end: tell it, and drop what [`Update::kept`] no longer names.
    Ended {
        /// Which end.
        phase: Phase,
    },
}

/// The update of one application: what the engine persists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Whose.
    app: AppName,
    limits: Limits,
    state: State,
    /// What the desire wants.
    target: Option<Release>,
    generation: Generation,
    /// The last release that was healthy.
    good: Option<Release>,
    /// What the runtime was told to run last.
    running: Option<Release>,
    /// Why the target is not what runs.
    failure: Option<Failure>,
    /// Releases that are not tried again, oldest first.
    failed: Vec<Failure>,
    /// How often the program was started again while the target was on probation.
    #[serde(default)]
    resumes: u32,
    /// Time left in this state, as of `at`.
    left: Duration,
    /// For how long the running release has been ready without a break, as of `at`.
    ready_for: Option<Duration>,
    /// What the release on probation waits for, as it was told last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    waits_for: String,
    /// When this was written, by the program's clock.
    at: Duration,
}

impl Update {
    /// Of an application nobody wished anything of yet.
    pub fn new(app: AppName, limits: Limits) -> Self {
        Self {
            app,
            limits,
            state: State::Idle,
            target: None,
            generation: Generation::default(),
            good: None,
            running: None,
            failure: None,
            failed: Vec::new(),
            resumes: 0,
            left: Duration::ZERO,
            ready_for: None,
            waits_for: String::new(),
            at: Duration::ZERO,
        }
    }

    /// Whose update it is.
    pub fn app(&self) -> &AppName {
        &self.app
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The word for the report; `None` when nothing was ever wished. On the way back it is the phase of that way.
    pub fn phase(&self) -> Option<Phase> {
        match self.state {
            State::Idle => None,
            State::Staging { .. } => Some(Phase::Staging),
            State::Applying { .. } => Some(Phase::Applying),
            State::Probing { .. } => Some(Phase::Probing),
            State::Healthy => Some(Phase::Healthy),
            State::RolledBack => Some(Phase::RolledBack),
            State::Failed => Some(Phase::Failed),
        }
    }

    /// What the desire wants.
    pub fn target(&self) -> Option<&Release> {
        self.target.as_ref()
    }

    /// Generation of the desire that wants it.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What the runtime was told to run last.
    pub fn running(&self) -> Option<&Release> {
        self.running.as_ref()
    }

    /// The last release that was healthy: what is gone back to.
    pub fn good(&self) -> Option<&Release> {
        self.good.as_ref()
    }

    /// The release that is tried and not settled yet.
    pub fn candidate(&self) -> Option<&Release> {
        match self.state {
            State::Staging { .. }
            | State::Applying { back: false }
            | State::Probing { back: false } => self.target.as_ref(),
            _ => None,
        }
    }

    /// Which release failed last and why, as long as something else is wanted than runs.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The release this update is on its way to, forward or back; `None` when it is settled.
    pub fn heading(&self) -> Option<&Release> {
        match self.state {
            State::Staging { .. } => self.target.as_ref(),
            State::Applying { .. } | State::Probing { .. } => self.running.as_ref(),
            _ => None,
        }
    }

    /// Why a release is not tried again; `None` when it is not among the failed ones.
    pub fn failed(&self, release: &Release) -> Option<&Failure> {
        self.failed
            .iter()
            .find(|failure| failure.release == *release)
    }

    /// All releases that are not tried again, oldest first.
    pub fn failures(&self) -> &[Failure] {
        &self.failed
    }

    /// How often the program was started again while the target was on probation.
    pub fn resumes(&self) -> u32 {
        self.resumes
    }

    /// True when what runs is not told to the runtime again after a start: each start with it on probation was followed
    /// by another one, and there is nothing to go back to. Whoever is started again and again can take no newer wish.
    pub fn is_held(&self) -> bool {
        self.state == State::Failed && self.resumes >= MAX_RESUMES && self.running != self.good
    }

    /// True when the update reached an end (or nothing was ever wished).
    pub fn is_settled(&self) -> bool {
        !matches!(
            self.state,
            State::Staging { .. } | State::Applying { .. } | State::Probing { .. }
        )
    }

    /// The releases whose content must stay on disk: candidate, running, last good.
    pub fn kept(&self) -> Vec<&Release> {
        let mut kept: Vec<_> = [self.candidate(), self.running(), self.good()]
            .into_iter()
            .flatten()
            .collect();
        kept.sort_unstable();
        kept.dedup();
        kept
    }

    /// True when more differs than the time: what is worth a write.
    pub fn differs(&self, other: &Self) -> bool {
        let timeless = |update: &Self| Self {
            left: Duration::ZERO,
            ready_for: None,
            waits_for: String::new(),
            at: Duration::ZERO,
            ..update.clone()
        };
        timeless(self) != timeless(other)
    }

    /// After how much time, counted from the last event, a [`Event::Tick`] will change something.
    pub fn wake_in(&self) -> Option<Duration> {
        let settled_in = self
            .ready_for
            .map(|ready| self.limits.settle.saturating_sub(ready));
        match self.state {
            State::Staging { .. } | State::Applying { .. } => Some(self.left),
            State::Probing { .. } => {
                Some(settled_in.map_or(self.left, |settled| settled.min(self.left)))
            }
            State::Failed if self.running == self.target || self.running == self.good => settled_in,
            State::Failed => None,
            State::Idle | State::Healthy | State::RolledBack => None,
        }
    }
}
