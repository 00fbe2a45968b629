//! The transitions.

use std::time::Duration;

use super::{
    Effect, Event, Failure, Health, Limits, MAX_FAILED, MAX_RESUMES, MAX_STAGE_PAUSE, State, Update,
};
use crate::desire::Release;
use crate::name::Generation;
use crate::report::Phase;

impl Update {
    /// The state after an event, and what to do. `now` never goes back but for [`Event::Resume`].
    #[must_use]
    pub fn next(mut self, event: Event, now: Duration) -> (Self, Vec<Effect>) {
        if event == Event::Resume {
            self.at = now;
            let effects = self.resume();
            return (self, effects);
        }
        self.pass(now);
        let effects = match event {
            Event::Want {
                release,
                generation,
            } => self.want(release, generation),
            Event::Staged { release, limits } => self.staged(&release, limits),
            Event::StageFailed {
                release,
                reason,
                permanent,
            } => self.stage_failed(&release, reason, permanent),
            Event::Applied { release } => self.applied(&release),
            Event::ApplyFailed { release, reason } => self.apply_failed(&release, reason),
            Event::Observed { release, health } => self.observed(&release, health),
            Event::Tick | Event::Resume => Vec::new(),
            Event::Online => self.again(false),
            Event::Retry => self.again(true),
        };
        let effects = [effects, self.due()].concat();
        (self, effects)
    }

    /// Lets time pass.
    fn pass(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        self.at = now.max(self.at);
        self.left = self.left.saturating_sub(passed);
        self.ready_for = self.ready_for.map(|ready| ready + passed);
    }

    /// What a program that was started again must tell the runtime and sync once more.
    fn resume(&mut self) -> Vec<Effect> {
        self.ready_for = None;
        self.waits_for.clear();
        if matches!(
            self.state,
            State::Applying { back: false } | State::Probing { back: false }
        ) {
            self.resumes = self.resumes.saturating_add(1);
            if self.resumes >= MAX_RESUMES {
                let reason = format!(
                    "the node or engine restarted {} times while the release was on probation",
                    self.resumes
                );
                return self.fail(false, reason);
            }
        }
        if self.is_held() {
            return Vec::new();
        }
        let run = self.running.clone().map(|release| Effect::Run { release });
        let stage = match (self.state, &self.target) {
            (State::Staging { .. }, Some(release)) => Some(Effect::Stage {
                release: release.clone(),
                after: Duration::ZERO,
            }),
            _ => None,
        };
        run.into_iter().chain(stage).collect()
    }

    fn want(&mut self, release: Release, generation: Generation) -> Vec<Effect> {
        self.generation = generation;
        if self.target.as_ref() == Some(&release) {
            return self.again(false);
        }
        let runs_well =
            self.good.as_ref() == Some(&release) && self.running.as_ref() == Some(&release);
        self.target = Some(release.clone());
        match self.state {
            // What is wanted now is what was being gone back to: the same way, forward.
            State::Applying { back: true } if runs_well => {
                self.failure = None;
                self.state = State::Applying { back: false };
                Vec::new()
            }
            State::Probing { back: true } if runs_well => {
                self.failure = None;
                self.state = State::Probing { back: false };
                Vec::new()
            }
            State::Failed => self.begin(release),
            _ if runs_well => self.healthy(),
            _ => self.begin(release),
        }
    }

    /// Tries the target again when it failed to be staged, or (`asked`) however it failed.
    fn again(&mut self, asked: bool) -> Vec<Effect> {
        let Some(target) = self.target.clone() else {
            return Vec::new();
        };
        if !matches!(self.state, State::RolledBack | State::Failed) {
            return Vec::new();
        }
        if asked {
            self.failed.retain(|failure| failure.release != target);
        }
        if self.failed(&target).is_some() {
            Vec::new()
        } else {
            self.begin(target)
        }
    }

    /// Begins to stage the target, or gives it up at once when it failed before.
    fn begin(&mut self, release: Release) -> Vec<Effect> {
        if let Some(Failure { reason, .. }) = self.failed(&release).cloned() {
            return self.give_up(release, reason);
        }
        self.failure = None;
        self.ready_for = None;
        self.waits_for.clear();
        self.state = State::Staging { attempts: 0 };
        self.left = self.limits.stage;
        vec![Effect::Stage {
            release,
            after: Duration::ZERO,
        }]
    }

    fn is_target(&self, release: &Release) -> bool {
        self.target.as_ref() == Some(release)
    }

    fn staged(&mut self, release: &Release, limits: Option<Limits>) -> Vec<Effect> {
        if !matches!(self.state, State::Staging { .. }) || !self.is_target(release) {
            return Vec::new();
        }
        self.limits = limits.unwrap_or(self.limits);
        self.run(release.clone(), false)
    }

    fn run(&mut self, release: Release, back: bool) -> Vec<Effect> {
        self.running = Some(release.clone());
        self.ready_for = None;
        self.waits_for.clear();
        self.resumes = 0;
        self.state = State::Applying { back };
        self.left = self.limits.apply;
        vec![Effect::Run { release }]
    }

    fn stage_failed(&mut self, release: &Release, reason: String, permanent: bool) -> Vec<Effect> {
        let State::Staging { attempts } = self.state else {
            return Vec::new();
        };
        if !self.is_target(release) {
            return Vec::new();
        }
        if permanent {
            return self.give_up(release.clone(), reason);
        }
        let pause = Duration::from_secs(1 << attempts.min(6)).min(MAX_STAGE_PAUSE);
        self.failure = Some(Failure {
            release: release.clone(),
            reason,
        });
        self.state = State::Staging {
            attempts: attempts.saturating_add(1),
        };
        vec![Effect::Stage {
            release: release.clone(),
            after: pause,
        }]
    }

    fn applied(&mut self, release: &Release) -> Vec<Effect> {
        if let State::Applying { back } = self.state
            && self.running.as_ref() == Some(release)
        {
            self.state = State::Probing { back };
            self.left = self.limits.probe;
        }
        Vec::new()
    }

    fn apply_failed(&mut self, release: &Release, reason: String) -> Vec<Effect> {
        match self.state {
            State::Applying { back } | State::Probing { back }
                if self.running.as_ref() == Some(release) =>
            {
                self.fail(back, reason)
            }
            _ => Vec::new(),
        }
    }

    /// True while health decides something.
    fn watches(&self) -> bool {
        matches!(
            self.state,
            State::Applying { .. } | State::Probing { .. } | State::Failed
        )
    }

    fn observed(&mut self, release: &Release, health: Health) -> Vec<Effect> {
        if self.running.as_ref() != Some(release) || !self.watches() {
            return Vec::new();
        }
        match health {
            Health::Unknown => {}
            Health::Starting { why } => {
                self.ready_for = None;
                self.waits_for = why;
            }
            Health::Ready => {
                self.ready_for.get_or_insert(Duration::ZERO);
            }
            Health::Succeeded => self.ready_for = Some(self.limits.settle),
            Health::Failing { reason } => {
                self.ready_for = None;
                if let State::Applying { back } | State::Probing { back } = self.state {
                    return self.fail(back, reason);
                }
            }
        }
        Vec::new()
    }

    /// What time alone brings about.
    fn due(&mut self) -> Vec<Effect> {
        let settled = self
            .ready_for
            .is_some_and(|ready| ready >= self.limits.settle);
        let late = self.left.is_zero();
        match self.state {
            State::Staging { .. } if late => {
                let last = self
                    .failure
                    .take()
                    .map(|failure| format!("; last: {}", failure.reason))
                    .unwrap_or_default();
                let reason = format!(
                    "not complete on this node within {:?}{last}",
                    self.limits.stage
                );
                self.target
                    .clone()
                    .map_or_else(Vec::new, |target| self.give_up(target, reason))
            }
            State::Applying { back } if late => self.fail(
                back,
                format!("not taken by the runtime within {:?}", self.limits.apply),
            ),
            // Ready at the deadline is good enough.
            State::Probing { back } if settled || (late && self.ready_for.is_some()) => {
                if back {
                    self.end(State::RolledBack, Phase::RolledBack)
                } else {
                    self.healthy()
                }
            }
            State::Probing { back } if late => {
                let waits_for = match self.waits_for.as_str() {
                    "" => String::new(),
                    why => format!(": {why}"),
                };
                let reason = format!("not ready within {:?}{waits_for}", self.limits.probe);
                self.fail(back, reason)
            }
            State::Failed if settled && self.running == self.target => self.healthy(),
            State::Failed if settled && self.running == self.good => {
                self.end(State::RolledBack, Phase::RolledBack)
            }
            _ => Vec::new(),
        }
    }

    fn healthy(&mut self) -> Vec<Effect> {
        self.good.clone_from(&self.target);
        self.failure = None;
        self.resumes = 0;
        let target = self.target.clone();
        self.failed
            .retain(|failure| Some(&failure.release) != target.as_ref());
        self.end(State::Healthy, Phase::Healthy)
    }

    fn end(&mut self, state: State, phase: Phase) -> Vec<Effect> {
        self.state = state;
        self.left = Duration::ZERO;
        self.ready_for = None;
        self.waits_for.clear();
        vec![Effect::Ended { phase }]
    }

    /// What runs failed: forward goes back, and going back goes nowhere.
    fn fail(&mut self, back: bool, reason: String) -> Vec<Effect> {
        if back {
            if let Some(failure) = &mut self.failure {
                failure.reason = format!("{}; going back failed too: {reason}", failure.reason);
            }
            return self.end(State::Failed, Phase::Failed);
        }
        let Some(release) = self.target.clone() else {
            return Vec::new();
        };
        self.failed.retain(|failure| failure.release != release);
        self.failed.push(Failure {
            release: release.clone(),
            reason: reason.clone(),
        });
        if self.failed.len() > MAX_FAILED {
            self.failed.remove(0);
        }
        self.give_up(release, reason)
    }

    /// The target is not going to run: makes sure the last good release does.
    fn give_up(&mut self, release: Release, reason: String) -> Vec<Effect> {
        let failed = release.clone();
        self.failure = Some(Failure { release, reason });
        match self.good.clone() {
            // A release that was healthy once and fails now is nothing to go back to.
            Some(good) if good == failed => self.end(State::Failed, Phase::Failed),
            Some(good) if self.running.as_ref() == Some(&good) => {
                self.end(State::RolledBack, Phase::RolledBack)
            }
            Some(good) => self.run(good, true),
            None => self.end(State::Failed, Phase::Failed),
        }
    }
}
