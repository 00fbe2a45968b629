//! What engine counts.

use std::collections::BTreeMap;
use std::time::Duration;

use baetyl_kit::metrics::{Counter, Gauge, Histogram, Metrics, SECONDS};
use baetyl_model::report::Phase;
use baetyl_model::update::State;

/// Counters of one engine.
#[derive(Debug)]
pub(crate) struct Meters {
    apps: Vec<(Phase, Gauge)>,
    stages: Vec<(Phase, Histogram)>,
    /// Starts of instances after an end.
    pub(crate) restarts: Counter,
    /// Updates that ended with the last good version.
    pub(crate) rollbacks: Counter,
    /// Updates that ended with nothing to go back to.
    pub(crate) failures: Counter,
}

const PHASES: [Phase; 6] = [
    Phase::Staging,
    Phase::Applying,
    Phase::Probing,
    Phase::Healthy,
    Phase::RolledBack,
    Phase::Failed,
];

impl Meters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauge = |phase: Phase| {
            let labels = [("phase", phase.as_str())];
            metrics.gauge("apps", "Applications by phase of their update.", &labels)
        };
        let stage = |phase: Phase| {
            let labels = [("phase", phase.as_str())];
            let help = "How long updates stayed in a phase that ends.";
            metrics.histogram("update_phase_seconds", help, &labels, SECONDS)
        };
        let counter = |name: &str, help: &str| metrics.counter(name, help, &[]);
        Self {
            apps: PHASES.map(|phase| (phase, gauge(phase))).into(),
            stages: PHASES[..3]
                .iter()
                .map(|&phase| (phase, stage(phase)))
                .collect(),
            restarts: counter("instance_restarts_total", "Restarts of instances."),
            rollbacks: counter(
                "rollbacks_total",
                "Updates that ended with the last good version.",
            ),
            failures: counter(
                "update_failures_total",
                "Updates that ended with nothing to go back to.",
            ),
        }
    }

    /// All applications, each in its phase.
    pub(crate) fn apps(&self, phases: impl Iterator<Item = Phase>) {
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        for phase in phases {
            *counts.entry(phase.as_str()).or_default() += 1.0;
        }
        for (phase, gauge) in &self.apps {
            gauge.set(counts.get(phase.as_str()).copied().unwrap_or_default());
        }
    }

    /// An update left a state after some time in it.
    pub(crate) fn left(&self, state: State, after: Duration) {
        let phase = match state {
            State::Staging { .. } => Phase::Staging,
            State::Applying { .. } => Phase::Applying,
            State::Probing { .. } => Phase::Probing,
            _ => return,
        };
        if let Some((_, stage)) = self.stages.iter().find(|(of, _)| *of == phase) {
            stage.observe_duration(after);
        }
    }
}
