//! What this process still waits for before it can do its work.
//!
//! Readiness is a set of named latches. A service registers one per thing it cannot work without
//! (`"identity"`, `"ledger"`), keeps the handle, and flips it. The process is ready when no latch is
//! closed. A dropped handle counts as ready: code that only wants to say "start-up is done" drops it.
//!
//! Readiness never feeds liveness: a process that waits is alive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

/// The latches of a process, or (in a child [`Kit`](crate::Kit)) those of one role in it.
#[derive(Clone, Debug)]
pub struct Readiness {
    shared: Arc<Shared>,
    prefix: String,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    latches: BTreeMap<(String, u64), Latch>,
}

/// One thing that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Latch {
    /// Whether it is there.
    pub ready: bool,
    /// Why not, in words for an operator; empty when ready.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Since when it is in this state, by the wall clock.
    pub since: Timestamp,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// True when every latch is ready.
    pub ready: bool,
    /// All latches that still have a handle, by name.
    pub latches: BTreeMap<String, Latch>,
}

/// Owns one latch. Starts as not ready; dropping it counts as ready.
#[derive(Debug)]
pub struct ReadinessHandle {
    shared: Arc<Shared>,
    key: (String, u64),
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// No latches: ready.
    pub fn new() -> Self {
        let shared = Shared {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
            prefix: String::new(),
        }
    }

    /// The same process seen by one role: its latches carry `name/`, and only they count for it.
    pub fn child(&self, name: &str) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            prefix: format!("{}{name}/", self.prefix),
        }
    }

    /// Adds a latch that is not ready, with the reason `waiting for <name>`.
    pub fn register(&self, name: &str) -> ReadinessHandle {
        let mut state = self.shared.lock();
        state.next_id += 1;
        let key = (format!("{}{name}", self.prefix), state.next_id);
        let latch = Latch {
            ready: false,
            reason: format!("waiting for {name}"),
            since: crate::clock::now(),
        };
        state.latches.insert(key.clone(), latch);
        drop(state);
        self.shared.notify();
        ReadinessHandle {
            shared: Arc::clone(&self.shared),
            key,
        }
    }

    /// True when none of the latches in sight is closed.
    pub fn is_ready(&self) -> bool {
        let state = self.shared.lock();
        self.visible(&state).all(|(_, latch)| latch.ready)
    }

    /// The state of every latch in sight. Two latches of one name: the closed one is shown.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.shared.lock();
        let mut latches = BTreeMap::<String, Latch>::new();
        for (name, latch) in self.visible(&state) {
            let shown = latches.entry(name.to_owned()).or_insert(latch.clone());
            if shown.ready && !latch.ready {
                *shown = latch.clone();
            }
        }
        let ready = latches.values().all(|latch| latch.ready);
        Snapshot { ready, latches }
    }

    /// A counter that moves with every change of any latch.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Returns once [`is_ready`](Self::is_ready) is true.
    pub async fn until_ready(&self) {
        let mut changes = self.changes();
        while !self.is_ready() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn visible<'a>(&'a self, state: &'a State) -> impl Iterator<Item = (&'a str, &'a Latch)> {
        state.latches.iter().filter_map(|((name, _), latch)| {
            name.strip_prefix(self.prefix.as_str())
                .map(|name| (name, latch))
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn set(&self, key: &(String, u64), ready: bool, reason: &str) {
        let mut state = self.lock();
        let Some(latch) = state.latches.get_mut(key) else {
            return;
        };
        if latch.ready == ready && latch.reason == reason {
            return;
        }
        if latch.ready != ready {
            latch.since = crate::clock::now();
        }
        latch.ready = ready;
        reason.clone_into(&mut latch.reason);
        drop(state);
        tracing::info!(latch = %key.0, ready, reason, "readiness changed");
        self.notify();
    }
}

impl ReadinessHandle {
    /// What was waited for is there.
    pub fn ready(&self) {
        self.shared.set(&self.key, true, "");
    }

    /// It is gone or not there yet; `reason` is shown to operators.
    pub fn not_ready(&self, reason: impl AsRef<str>) {
        self.shared.set(&self.key, false, reason.as_ref());
    }
}

impl Drop for ReadinessHandle {
    fn drop(&mut self) {
        self.shared.lock().latches.remove(&self.key);
        self.shared.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_latch_means_ready_and_a_new_latch_means_not() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let handle = readiness.register("identity");
        assert!(!readiness.is_ready());
        assert_eq!(
            readiness.snapshot().latches["identity"].reason,
            "waiting for identity"
        );
        handle.ready();
        assert!(readiness.is_ready());
        handle.not_ready("certificate was revoked");
        assert_eq!(
            readiness.snapshot().latches["identity"].reason,
            "certificate was revoked"
        );
        drop(handle);
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_role_sees_only_its_own_latches_and_the_process_sees_all() {
        let process = Readiness::new();
        let (node, sync) = (process.child("node"), process.child("sync"));
        let ledger = node.register("ledger");
        assert!(!node.is_ready() && sync.is_ready() && !process.is_ready());
        assert!(process.snapshot().latches.contains_key("node/ledger"));
        assert!(node.snapshot().latches.contains_key("ledger"));
        ledger.ready();
        assert!(process.is_ready());
    }

    #[test]
    fn of_two_latches_with_one_name_the_closed_one_is_shown() {
        let readiness = Readiness::new();
        let (first, _second) = (readiness.register("link"), readiness.register("link"));
        first.ready();
        assert!(!readiness.is_ready());
        assert!(!readiness.snapshot().latches["link"].ready);
    }

    #[tokio::test]
    async fn waiting_for_readiness_ends_when_the_last_latch_opens() {
        let readiness = Readiness::new();
        let handle = readiness.register("identity");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.until_ready().await }
        });
        handle.ready();
        tokio::time::timeout(std::time::Duration::from_secs(5), waiting)
            .await
            .unwrap()
            .unwrap();
    }
}
