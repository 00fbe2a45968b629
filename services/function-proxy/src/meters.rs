//! What is counted, for each application. Labels are application names engine or a token vouched for, never what a
//! caller wrote.

use std::time::Duration;

use baetyl_kit::metrics::{Counter, Gauge, Histogram, Metrics};

use crate::error::Outcome;

/// Bounds in seconds, from an echo to a long job.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// The meters of one application.
#[derive(Clone, Debug)]
pub(crate) struct Meters {
    calls: [Counter; Outcome::ALL.len()],
    seconds: Histogram,
    pub(crate) in_flight: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) runtimes: Gauge,
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics, app: &str) -> Self {
        let label = [("app", app)];
        Self {
            calls: Outcome::ALL.map(|outcome| {
                let labels = [("app", app), ("outcome", outcome.as_str())];
                metrics.counter(
                    "calls_total",
                    "Calls of functions that ended, by how.",
                    &labels,
                )
            }),
            seconds: metrics.histogram(
                "call_seconds",
                "Time from a call to its end.",
                &label,
                SECONDS,
            ),
            in_flight: metrics.gauge("calls_in_flight", "Calls that runtimes run now.", &label),
            queued: metrics.gauge("calls_queued", "Calls that wait for a runtime.", &label),
            runtimes: metrics.gauge("runtimes", "Registered runtimes.", &label),
        }
    }

    /// A call has ended.
    pub(crate) fn ended(&self, outcome: Outcome, took: Duration) {
        self.calls[outcome as usize].inc();
        self.seconds.observe_duration(took);
    }
}
