//! What the rest of engine wants to know of an application once its body is no longer in memory.

use std::time::Duration;

use baetyl_model::Application;
use baetyl_model::resource::Service;
pub use baetyl_model::resource::Strategy;
use baetyl_model::strict;
use baetyl_model::update::Limits;
use serde::{Deserialize, Serialize};

use crate::config;

/// Label that opens the functions of an application to everybody: `anonymous`. What a service or function says itself
/// (`access`) counts more.
pub const FUNCTION_ACCESS: &str = "baetyl-function-access";

/// What the rest of engine wants to know of an application.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shape {
    /// deployment, statefulset, daemonset, job.
    pub workload: String,
    /// How it is updated.
    pub strategy: Strategy,
    /// Instances of each service: replicas, or completions of a job.
    pub instances: u32,
    /// Its services, in order.
    pub services: Vec<ServiceShape>,
    /// How long it may take to become ready, where it says so itself.
    #[serde(default)]
    pub progress_deadline: Option<Duration>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceShape {
    /// Name.
    pub name: String,
    /// Functions in order; empty: it has none.
    pub functions: Vec<FunctionShape>,
    /// Anybody may call its functions.
    pub anonymous: bool,
    /// It has a probe that says when it is ready.
    pub probed: bool,
    /// Seconds its startup and readiness probes allow it until it is ready.
    pub startup_seconds: u64,
}

/// One function.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FunctionShape {
    /// Name.
    pub name: String,
    /// `module.function`.
    pub handler: String,
}

impl Shape {
    /// Of an application.
    pub fn of(app: &Application) -> Self {
        let by_label = app
            .labels
            .get(FUNCTION_ACCESS)
            .is_some_and(|access| access == "anonymous");
        let services = app.services.iter().map(|service| ServiceShape {
            name: service.name.clone(),
            functions: service
                .functions
                .iter()
                .map(|function| FunctionShape {
                    name: function.name.clone(),
                    handler: function.handler.clone(),
                })
                .collect(),
            anonymous: service.is_anonymous_or(by_label),
            probed: service.readiness_probe.is_some() || service.startup_probe.is_some(),
            startup_seconds: startup_seconds(service),
        });
        Self {
            workload: app.workload().to_owned(),
            strategy: app.strategy(),
            instances: instances(app),
            services: services.collect(),
            progress_deadline: app.progress_deadline(),
        }
    }

    /// Of an application's body; None when it cannot be read.
    pub fn of_body(body: &[u8]) -> Option<Self> {
        let parsed = strict::parse::<Application>(body).ok()?;
        Some(Self::of(&parsed.value))
    }

    /// True when it ends by itself.
    pub fn is_job(&self) -> bool {
        self.workload == "job"
    }

    /// How many instances shall be ready, or of a job succeed.
    pub fn wanted(&self) -> u32 {
        let services = u32::try_from(self.services.len()).unwrap_or(u32::MAX);
        self.instances.saturating_mul(services)
    }

    /// Deadlines of its updates: without a probe that says "ready" an instance has to last a while, and a startup probe
    /// may allow more time than the configuration.
    pub fn limits(&self, config: &config::Update) -> Limits {
        let startup = self
            .services
            .iter()
            .map(|service| service.startup_seconds)
            .max()
            .unwrap_or(0);
        // Who has no services is made of what nobody here knows.
        let settle =
            self.services.is_empty() || self.services.iter().any(|service| !service.probed);
        let limits = config.limits();
        Limits {
            probe: self
                .progress_deadline
                .unwrap_or(limits.probe)
                .max(Duration::from_secs(startup)),
            settle: if settle {
                limits.settle
            } else {
                Duration::ZERO
            },
            ..limits
        }
    }
}

fn instances(app: &Application) -> u32 {
    match app.workload() {
        // Baetyl v2 writes 0 for what an author left out.
        "job" => u32::try_from(app.job().completions).unwrap_or(0).max(1),
        // One machine, one instance.
        "daemonset" => 1,
        _ => app.replicas(),
    }
}

/// A startup probe may fail `failure` times, one `period` apart, before the instance counts as failed.
fn startup_seconds(service: &Service) -> u64 {
    let startup = service.startup_probe.as_ref().map_or(0, |probe| {
        let timing = probe.timing();
        u64::from(timing.initial_delay) + u64::from(timing.period) * u64::from(timing.failure)
    });
    let readiness = service.readiness_probe.as_ref().map_or(0, |probe| {
        let timing = probe.timing();
        u64::from(timing.initial_delay) + u64::from(timing.period) * u64::from(timing.success)
    });
    startup + readiness
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(json: &str) -> Application {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn probes_decide_how_long_a_version_may_take_and_what_counts_as_ready() {
        let limits = |json: &str| Shape::of(&app(json)).limits(&config::Update::default());
        let plain = limits(r#"{"services":[{"name":"a1"}]}"#);
        assert_eq!((plain.probe.as_secs(), plain.settle.as_secs()), (60, 2));
        let ready =
            limits(r#"{"services":[{"name":"a1","readinessProbe":{"tcpSocket":{"port":1}}}]}"#);
        assert_eq!((ready.probe.as_secs(), ready.settle.as_secs()), (60, 0));
        let slow = limits(
            r#"{"services":[{"name":"a1","startupProbe":{"tcpSocket":{"port":1},"periodSeconds":10,"failureThreshold":30}}]}"#,
        );
        assert_eq!(slow.probe.as_secs(), 300);
        assert_eq!(limits(r#"{"type":"yaml"}"#).settle.as_secs(), 2);
        for (told, startup, expected) in [("15s", 3, 15), ("20m", 3, 1200), ("15s", 300, 300)] {
            let labelled = limits(&format!(
                r#"{{"labels":{{"baetyl-progress-deadline":"{told}"}},"services":[{{"name":"a1","startupProbe":
                {{"tcpSocket":{{"port":1}},"periodSeconds":1,"failureThreshold":{startup}}}}}]}}"#
            ));
            assert_eq!(labelled.probe.as_secs(), expected, "{told}");
        }
    }

    #[test]
    fn instances_are_counted_over_all_services() {
        let wanted = |json: &str| Shape::of(&app(json)).wanted();
        assert_eq!(
            wanted(r#"{"services":[{"name":"a1"},{"name":"a2"}],"replica":3}"#),
            6
        );
        assert_eq!(wanted(r#"{"services":[{"name":"a1"}],"replica":0}"#), 0);
        assert_eq!(
            wanted(r#"{"services":[{"name":"a1"}],"replica":3,"workload":"daemonset"}"#),
            1
        );
        assert_eq!(
            wanted(
                r#"{"services":[{"name":"a1"}],"workload":"job","jobConfig":{"completions":4}}"#
            ),
            4
        );
    }

    #[test]
    fn functions_are_open_to_everybody_only_when_the_label_or_the_service_says_so() {
        let functions = r#""services":[{"name":"f1","functions":[{"name":"hello","handler":"index.handler"}]}]"#;
        let open = |json: String| Shape::of(&app(&json)).services[0].anonymous;
        assert!(!open(format!("{{{functions}}}")));
        assert!(open(format!(
            r#"{{"labels":{{"baetyl-function-access":"anonymous"}},{functions}}}"#
        )));
        assert!(!open(format!(
            r#"{{"labels":{{"baetyl-function-access":"token"}},{functions}}}"#
        )));
        let closed = functions.replace(
            r#""functions""#,
            r#""functionConfig":{"name":"c1","access":"token"},"functions""#,
        );
        assert_ne!(closed, functions);
        assert!(!open(format!(
            r#"{{"labels":{{"baetyl-function-access":"anonymous"}},{closed}}}"#
        )));
    }
}
