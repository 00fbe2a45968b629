//! What makes a resource acceptable. All mistakes of a body are named at once, each with the field it is in.
//!
//! Existence of what is referenced is not checked here: only the cloud knows what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Application, AutoScale, JobConfig, label};
use crate::labels::{Selector, validate_labels};
use crate::name::{AppName, NameError, ServiceName, is_system_name};

mod data;
mod node;
mod probe;
pub mod schedule;
mod service;
mod volume;

pub use data::{validate_certificate, validate_configuration, validate_registry, validate_secret};
pub use node::validate_node;

#[cfg(test)]
mod tests;

/// Largest size of the data of a configuration as JSON, in bytes: 4 MiB, as Baetyl v2.
pub const MAX_CONFIGURATION_BYTES: usize = 4 * 1024 * 1024 - 1;

/// Largest size of the data of a secret as JSON, in bytes: 64 KiB, as Baetyl v2.
pub const MAX_SECRET_BYTES: usize = 64 * 1024 - 1;

/// One mistake in one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Path of the field, e.g. `services[0].ports[1].hostPort`.
    pub field: String,
    /// What is wrong with it, as a sentence part.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for FieldError {}

/// What the rules depend on besides the body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// True for resources of the system: their names may contain "baetyl".
    pub system: bool,
    /// The cloud's time, for deferred deployments; absent: not checked.
    pub now: Option<Timestamp>,
}

/// Collects mistakes below a path.
struct Findings<'a> {
    path: String,
    found: &'a mut Vec<FieldError>,
}

impl Findings<'_> {
    fn at(&mut self, part: impl fmt::Display) -> Findings<'_> {
        let dot = if self.path.is_empty() { "" } else { "." };
        Findings {
            path: format!("{}{dot}{part}", self.path),
            found: self.found,
        }
    }

    fn item(&mut self, list: &str, index: usize) -> Findings<'_> {
        self.at(format_args!("{list}[{index}]"))
    }

    /// Adds a mistake in a field below the path.
    fn add(&mut self, field: impl fmt::Display, message: impl Into<String>) {
        let field = self.at(field).path;
        self.found.push(FieldError {
            field,
            message: message.into(),
        });
    }

    /// Adds a mistake in the path itself.
    fn here(&mut self, message: impl Into<String>) {
        self.found.push(FieldError {
            field: self.path.clone(),
            message: message.into(),
        });
    }

    fn name<T>(&mut self, field: &str, name: Result<T, NameError>) -> Option<T> {
        name.map_err(|error| self.add(field, error.to_string()))
            .ok()
    }

    fn one_of(&mut self, field: &str, value: &str, words: &[&str]) {
        if !value.is_empty() && !words.contains(&value) {
            self.add(
                field,
                format!("\"{value}\" is not one of {}", words.join(", ")),
            );
        }
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        for error in validate_labels(labels) {
            self.add("labels", error.to_string());
        }
    }

    fn not_system(&mut self, rules: &Rules, name: &str) {
        if !rules.system && is_system_name(name) {
            self.add(
                "name",
                "names that contain \"baetyl\" are kept for the system",
            );
        }
    }

    fn selector(&mut self, field: &str, selector: &str) {
        if let Err(error) = selector.parse::<Selector>() {
            self.add(field, error.to_string());
        }
    }
}

/// All mistakes of an application; none: it is acceptable as far as it tells by itself.
pub fn validate_application(app: &Application, rules: &Rules) -> Vec<FieldError> {
    let mut found = Vec::new();
    let mut findings = Findings {
        path: String::new(),
        found: &mut found,
    };
    about(app, rules, &mut findings);
    schedule(app, rules, &mut findings);
    scaling(app, &mut findings);
    volume::volumes(app, &mut findings);
    match app.kind() {
        "container" | "function" => {
            service::services(app, &mut findings);
            service::host_ports(app, &mut findings);
        }
        "helm" | "yaml" => manifests(app, &mut findings),
        "android" => findings.add(
            "type",
            "android applications of Baetyl v2 are not supported by this version",
        ),
        other => findings.add(
            "type",
            format!("\"{other}\" is not one of container, function, helm, yaml"),
        ),
    }
    found
}

/// Name, words, labels, selectors.
fn about(app: &Application, rules: &Rules, findings: &mut Findings<'_>) {
    findings.name("name", AppName::new(app.name.as_str()));
    findings.not_system(rules, &app.name);
    findings.one_of("mode", &app.mode, &["kube", "native"]);
    findings.one_of(
        "workload",
        &app.workload,
        &["deployment", "statefulset", "daemonset", "job"],
    );
    let dns = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    findings.one_of("dnsPolicy", &app.dns_policy, &dns);
    findings.labels(&app.labels);
    if let Some(text) = app.labels.get(label::PROGRESS_DEADLINE)
        && app.progress_deadline().is_none()
    {
        findings.add(
            "labels",
            format!(
                "{}: \"{text}\" is no time from 1s to 24h; write 90s, 20m or 2h",
                label::PROGRESS_DEADLINE
            ),
        );
    }
    findings.selector("selector", &app.selector);
    findings.selector("nodeSelector", &app.node_selector);
}

/// A deferred deployment needs a time that is still to come.
fn schedule(app: &Application, rules: &Rules, findings: &mut Findings<'_>) {
    if !(0..=2).contains(&app.cron_status) {
        findings.add("cronStatus", "must be 0 (not set), 1 (waiting) or 2 (done)");
    }
    if app.cron_status != 1 {
        return;
    }
    match (app.cron_time, rules.now) {
        (None, _) => findings.add("cronTime", "is needed with cronStatus 1"),
        (Some(time), Some(now)) if time <= now => {
            findings.add(
                "cronTime",
                format!("must be in the future; it is {now} now"),
            );
        }
        _ => {}
    }
}

/// Replicas, job settings, horizontal scaling.
fn scaling(app: &Application, findings: &mut Findings<'_>) {
    if app.replica.is_some_and(|count| count < 0) {
        findings.add("replica", "must not be negative");
    }
    if let Some(job) = &app.job_config {
        job_config(job, &mut findings.at("jobConfig"));
    }
    if app.schedule().is_some() && app.mode() == "native" {
        findings.add("jobConfig.schedule", "scheduled jobs need mode kube");
    }
    if let Some(scale) = app
        .auto_scale
        .as_ref()
        .filter(|scale| **scale != AutoScale::default())
    {
        auto_scale(scale, &mut findings.at("autoScaleCfg"));
        if matches!(app.workload(), "daemonset" | "job") {
            findings.add(
                "autoScaleCfg",
                format!("a {} cannot be scaled", app.workload()),
            );
        }
    }
}

fn job_config(job: &JobConfig, findings: &mut Findings<'_>) {
    for (field, count) in [
        ("completions", job.completions),
        ("parallelism", job.parallelism),
        ("backoffLimit", job.backoff_limit),
    ] {
        if count < 0 {
            findings.add(field, "must not be negative");
        }
    }
    findings.one_of(
        "restartPolicy",
        &job.restart_policy,
        &["Never", "OnFailure"],
    );
    if !job.schedule.is_empty()
        && let Err(message) = schedule::check(&job.schedule)
    {
        findings.add("schedule", message);
    }
}

fn auto_scale(scale: &AutoScale, findings: &mut Findings<'_>) {
    if scale.min_replicas < 1 {
        findings.add("minReplicas", "must be at least 1");
    }
    if scale.max_replicas < scale.min_replicas {
        findings.add(
            "maxReplicas",
            format!("must not be less than minReplicas ({})", scale.min_replicas),
        );
    }
    if scale.metrics.is_empty() {
        findings.add("metrics", "at least one is needed");
    }
    for (index, metric) in scale.metrics.iter().enumerate() {
        let mut findings = findings.item("metrics", index);
        findings.one_of("type", &metric.kind, &["Resource"]);
        let Some(resource) = &metric.resource else {
            findings.add("resource", "is needed");
            continue;
        };
        let mut findings = findings.at("resource");
        if !matches!(resource.name.as_str(), "cpu" | "memory") {
            findings.add("name", "must be cpu or memory");
        }
        match resource.target_type.as_str() {
            "Utilization" if resource.average_utilization < 1 => {
                findings.add("averageUtilization", "must be at least 1");
            }
            "Utilization" => {}
            "Value" => service::quantity("value", &resource.value, &mut findings),
            "AverageValue" => {
                service::quantity("averageValue", &resource.average_value, &mut findings)
            }
            _ => findings.add("targetType", "must be Utilization, Value or AverageValue"),
        }
    }
}

/// YAML and Helm applications bring Kubernetes objects of their own.
fn manifests(app: &Application, findings: &mut Findings<'_>) {
    if app.mode() == "native" {
        findings.add(
            "mode",
            format!("{} applications need mode kube", app.kind()),
        );
    }
    let Some(namespace) = app.labels.get(label::CUSTOM_NAMESPACE) else {
        return;
    };
    if let Err(error) = ServiceName::new(namespace.as_str()) {
        findings.add(
            format_args!("labels.{}", label::CUSTOM_NAMESPACE),
            error.to_string(),
        );
    } else if matches!(namespace.as_str(), "baetyl-edge" | "baetyl-edge-system") {
        let message = "baetyl-edge and baetyl-edge-system belong to the node itself; choose another namespace";
        findings.add(format_args!("labels.{}", label::CUSTOM_NAMESPACE), message);
    }
}

/// Adds a mistake for every name that occurs again.
fn unique<'a>(names: impl Iterator<Item = (String, &'a str)>, findings: &mut Findings<'_>) {
    let mut seen = BTreeSet::new();
    for (field, name) in names {
        if !name.is_empty() && !seen.insert(name) {
            findings.add(field, format!("\"{name}\" is used twice"));
        }
    }
}
