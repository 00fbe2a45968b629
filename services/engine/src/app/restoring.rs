//! Others have their hands in a cluster, too: what they take of a running version is put back.

use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_model::update::State;
use baetyl_model::workload::{Observed, WorkloadKey};
use tokio::time::Instant;

use super::{App, Retry};
use crate::ports::{Ports, Runtime};

/// First pause; what is observed has to have caught up with what was done last.
const FIRST: Duration = Duration::from_millis(500);
/// Longest pause, against somebody who takes it away again and again.
const LONGEST: Duration = Duration::from_secs(300);
/// After so long nobody does any more.
const PEACE: Duration = Duration::from_secs(900);

/// When to put back.
#[derive(Debug)]
pub(super) struct Restoring {
    backoff: Backoff,
    last: Option<Instant>,
}

impl Restoring {
    pub(super) fn new() -> Self {
        Self {
            backoff: Backoff::new(FIRST, LONGEST),
            last: None,
        }
    }

    /// Something was taken away: when it is put back.
    fn at(&mut self) -> Instant {
        if self.last.is_some_and(|last| last.elapsed() > PEACE) {
            self.backoff.reset();
        }
        let at = Instant::now() + self.backoff.next_delay();
        self.last = Some(at);
        at
    }
}

impl<P: Ports> App<P> {
    fn restores(&self) -> bool {
        let settled = matches!(
            self.record.update.state(),
            State::Healthy | State::RolledBack
        );
        P::Runtime::IN_PLACE && settled && self.acting.is_none()
    }

    /// Notices what others took of the running version.
    pub(super) fn miss(&mut self, observed: &Observed, keys: &[WorkloadKey]) {
        if !self.restores() || self.retry.is_some() {
            return;
        }
        if let Some(why) = taken(observed, keys) {
            self.trouble = why;
            self.retry = Some((self.restoring.at(), Retry::Restore));
        }
    }

    /// Puts back what is still missing.
    pub(super) async fn restore(&mut self) {
        let (observed, keys) = (self.ctx.runtime.observed(), self.keys_of_running());
        let missed = match &observed.unknown {
            Some(why) => Some(why.clone()),
            None => taken(&observed, &keys),
        };
        if let Some(why) = missed.filter(|_| self.restores()) {
            tracing::warn!(app = %self.name(), why, "what somebody else did to an application is put right");
            return self.run_again().await;
        }
        self.calm(Retry::Restore);
    }
}

/// What others took, if they did.
fn taken(observed: &Observed, keys: &[WorkloadKey]) -> Option<String> {
    keys.iter().find_map(|key| {
        let Some(workload) = observed.workloads.get(key) else {
            return Some("somebody took it away".to_owned());
        };
        Some(workload.taken.clone()).filter(|taken| !taken.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_it_away_again_and_again_is_not_fought() {
        let mut restoring = Restoring::new();
        let began = Instant::now();
        let first = restoring.at() - began;
        assert!((FIRST..=2 * FIRST).contains(&first), "{first:?}");
        let mut longest = first;
        for _ in 0..40 {
            let pause = restoring.at() - Instant::now();
            longest = longest.max(pause);
            tokio::time::advance(pause + Duration::from_secs(6)).await;
        }
        assert!(longest <= LONGEST);
        let minutes = began.elapsed().as_secs() / 60;
        assert!(minutes > 20, "40 times in {minutes} minutes");
        tokio::time::advance(PEACE + LONGEST).await;
        assert!(restoring.at() - Instant::now() <= 2 * FIRST);
    }

    #[test]
    fn a_workload_that_is_gone_and_one_of_which_something_is_taken_are_missed() {
        let key = WorkloadKey {
            namespace: "baetyl-edge".try_into().unwrap(),
            app: "web".try_into().unwrap(),
            version: "1".try_into().unwrap(),
            service: baetyl_model::workload::WHOLE.try_into().unwrap(),
        };
        let keys = [key.clone()];
        let mut observed = Observed::default();
        assert!(taken(&observed, &keys).is_some());
        observed.workloads.insert(key.clone(), Default::default());
        assert_eq!(taken(&observed, &keys), None);
        let workload = observed.workloads.get_mut(&key).unwrap();
        workload.taken = "Service web: somebody took it away".to_owned();
        assert_eq!(
            taken(&observed, &keys).as_deref(),
            Some("Service web: somebody took it away")
        );
    }
}
