//! From instances to applications to the node: statuses and conditions.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::desire::Header;
use crate::name::Generation;
use crate::report::{AppStatus, Condition, FailedVersion, InstanceStatus, Phase, RunStatus, Truth};
use crate::update::{Failure, Health, Update};

#[cfg(test)]
mod tests;

/// How often an instance may be started again while a release is on probation.
pub const CRASH_LIMIT: u32 = 3;

/// What of an application decides how its instances add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How many instances shall be ready (or, of a job, shall succeed).
    pub wanted: u32,
    /// True for a job: its instances shall end.
    pub job: bool,
}

/// Restarts of each instance at a moment, by name: what [`health`] counts from.
pub type Restarts = BTreeMap<String, u32>;

/// The restarts of instances now. Taken when a release is put on probation: a release that is gone back to brings the
/// restarts of its former life with it.
pub fn restarts<'a>(instances: impl IntoIterator<Item = &'a InstanceStatus>) -> Restarts {
    instances
        .into_iter()
        .map(|instance| (instance.name.clone(), instance.restarts))
        .collect()
}

/// Whether a release on probation does well: what the update machine is told. `before` are the restarts when its
/// probation began.
///
/// An instance is `Failed` when it will not be tried again; one that waits to be started again is `Pending`, with the
/// cause of its last end and the count of its restarts.
pub fn health(shape: Shape, instances: &[&InstanceStatus], before: &Restarts) -> Health {
    let failing = instances.iter().find_map(|instance| {
        let cause = if instance.cause.is_empty() {
            "no cause is known"
        } else {
            &instance.cause
        };
        let again = instance
            .restarts
            .saturating_sub(before.get(&instance.name).copied().unwrap_or(0));
        match instance.status {
            RunStatus::Failed => Some(format!("{} failed: {cause}", instance.name)),
            RunStatus::Running if instance.ready => None,
            RunStatus::Succeeded => None,
            _ if again >= CRASH_LIMIT => Some(format!(
                "{} was started again {again} times: {cause}",
                instance.name
            )),
            _ => None,
        }
    });
    if let Some(reason) = failing {
        return Health::Failing { reason };
    }
    match status(shape, instances) {
        RunStatus::Succeeded => Health::Succeeded,
        RunStatus::Running => Health::Ready,
        RunStatus::Unknown => Health::Unknown,
        RunStatus::Pending | RunStatus::Failed => {
            let waiting = instances
                .iter()
                .find(|instance| !instance.ready && !instance.cause.is_empty());
            Health::Starting {
                why: waiting.map_or_else(String::new, |instance| {
                    format!("{}: {}", instance.name, instance.cause)
                }),
            }
        }
    }
}

/// The status of an application from its instances: the worst decides, and too few are not enough.
pub fn status(shape: Shape, instances: &[&InstanceStatus]) -> RunStatus {
    let any = |wanted: RunStatus| instances.iter().any(|instance| instance.status == wanted);
    let done = instances
        .iter()
        .filter(|instance| instance.status == RunStatus::Succeeded)
        .count();
    let enough = |count: usize| u32::try_from(count).is_ok_and(|count| count >= shape.wanted);
    if any(RunStatus::Failed) {
        RunStatus::Failed
    } else if shape.job && shape.wanted > 0 && enough(done) {
        RunStatus::Succeeded
    } else if any(RunStatus::Unknown) {
        RunStatus::Unknown
    } else if shape.job {
        // A job works its completions off a few at a time: what runs now is as it should be.
        if any(RunStatus::Running) || shape.wanted == 0 {
            RunStatus::Running
        } else {
            RunStatus::Pending
        }
    } else {
        let ready = instances
            .iter()
            .filter(|instance| instance.status == RunStatus::Running && instance.ready)
            .count();
        let ready_or_done = ready + done;
        if enough(ready_or_done) && !any(RunStatus::Pending) {
            RunStatus::Running
        } else {
            RunStatus::Pending
        }
    }
}

/// Everything an application's status is made from.
#[derive(Debug, Clone, Copy)]
pub struct AppFacts<'a> {
    /// Its update.
    pub update: &'a Update,
    /// What decides how its instances add up; of the release that runs.
    pub shape: Shape,
    /// deployment, statefulset, daemonset, job.
    pub deploy_type: &'a str,
    /// True for applications of the system.
    pub system: bool,
    /// Its instances; `None` when they could not be observed.
    pub instances: Option<&'a [InstanceStatus]>,
    /// Its status before, for the times of transitions.
    pub previous: Option<&'a AppStatus>,
}

/// Hop 8: the status of one application.
pub fn rollup_app(facts: &AppFacts<'_>, now: Timestamp) -> AppStatus {
    let update = facts.update;
    let instances: Vec<&InstanceStatus> = facts.instances.unwrap_or_default().iter().collect();
    let status = match facts.instances {
        None => RunStatus::Unknown,
        Some(_) if update.running().is_none() && instances.is_empty() => not_started(update),
        Some(_) => status(facts.shape, &instances),
    };
    let phase = update.phase();
    let failure = update.failure().filter(|_| phase != Some(Phase::Healthy));
    let cause = cause(phase, failure, status, &instances);
    let conditions = conditions_of_app(update, status, &cause);
    AppStatus {
        name: update.app().clone(),
        version: update.running().map(|release| release.version.clone()),
        deploy_type: facts.deploy_type.to_owned(),
        status,
        observed_generation: update.generation(),
        phase,
        failed: failure
            .filter(|_| phase != Some(Phase::Staging))
            .map(|failure| FailedVersion {
                version: failure.release.version.clone(),
                reason: failure.reason.clone(),
            }),
        conditions: transition(
            facts.previous.map_or(&[], |previous| &previous.conditions),
            conditions,
            now,
        ),
        instances: instances
            .into_iter()
            .map(|instance| (instance.name.clone(), instance.clone()))
            .collect(),
        system: facts.system,
        cause,
    }
}

/// Nothing was ever run: it is on its way, or it failed before it began.
fn not_started(update: &Update) -> RunStatus {
    if update.phase() == Some(Phase::Failed) {
        RunStatus::Failed
    } else {
        RunStatus::Pending
    }
}

/// Why an application is not what was asked for; empty when it is.
fn cause(
    phase: Option<Phase>,
    failure: Option<&Failure>,
    status: RunStatus,
    instances: &[&InstanceStatus],
) -> String {
    let of_update = match (phase, failure) {
        (Some(Phase::RolledBack), Some(Failure { release, reason })) => {
            format!(
                "version {} failed and was undone: {reason}",
                release.version
            )
        }
        // Not given up: it is tried again.
        (Some(Phase::Staging), Some(Failure { release, reason })) => {
            format!(
                "version {} is not complete on this node yet: {reason}",
                release.version
            )
        }
        (Some(_), Some(Failure { release, reason })) => {
            format!("version {} failed: {reason}", release.version)
        }
        _ => String::new(),
    };
    if !of_update.is_empty() {
        return of_update;
    }
    let of_instance = instances
        .iter()
        .find(|instance| !instance.cause.is_empty() && !instance.ready);
    match (status, of_instance) {
        (RunStatus::Running | RunStatus::Succeeded, _) => String::new(),
        (_, Some(instance)) => format!("{}: {}", instance.name, instance.cause),
        (RunStatus::Unknown, None) => "its instances cannot be observed".to_owned(),
        (_, None) => match phase {
            Some(Phase::Staging) => "its content is being fetched".to_owned(),
            _ => "not all instances are ready".to_owned(),
        },
    }
}

fn condition(
    kind: &str,
    status: Truth,
    reason: &str,
    message: &str,
    generation: Generation,
) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition: None,
    }
}

/// Ready, Progressing, Degraded.
fn conditions_of_app(update: &Update, status: RunStatus, cause: &str) -> Vec<Condition> {
    let generation = update.generation();
    let phase = update.phase();
    let ready = match status {
        RunStatus::Running | RunStatus::Succeeded => Truth::True,
        RunStatus::Unknown => Truth::Unknown,
        RunStatus::Pending | RunStatus::Failed => Truth::False,
    };
    let word = phase.map_or("Idle", Phase::as_str);
    let degraded =
        matches!(phase, Some(Phase::RolledBack | Phase::Failed)) || status == RunStatus::Failed;
    let ready_message = if ready == Truth::True { "" } else { cause };
    let degraded_message = if degraded { cause } else { "" };
    vec![
        condition("Ready", ready, status.as_str(), ready_message, generation),
        condition(
            "Progressing",
            Truth::from(!update.is_settled()),
            word,
            "",
            generation,
        ),
        condition(
            "Degraded",
            Truth::from(degraded),
            word,
            degraded_message,
            generation,
        ),
    ]
}

/// The conditions of the node from the statuses of its applications. `observed` is the desire the engine acts on.
pub fn rollup_node<'a>(
    observed: Option<&Header>,
    apps: impl IntoIterator<Item = &'a AppStatus>,
    previous: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let generation = observed.map_or_else(Generation::default, |header| header.generation);
    let mut progressing = Vec::new();
    let mut degraded = Vec::new();
    for app in apps {
        let holds = |kind: &str| {
            app.conditions
                .iter()
                .any(|c| c.kind == kind && c.status == Truth::True)
        };
        if holds("Progressing") {
            progressing.push(app.name.as_str());
        }
        if holds("Degraded") {
            degraded.push(app.name.as_str());
        }
    }
    let ready = match observed {
        Some(_) => condition("Ready", Truth::True, "Reconciling", "", generation),
        None => condition(
            "Ready",
            Truth::False,
            "NoDesire",
            "no desire was accepted yet",
            generation,
        ),
    };
    let list = |kind: &str, names: &[&str], none: &str, some: &str| {
        let reason = if names.is_empty() { none } else { some };
        condition(
            kind,
            Truth::from(!names.is_empty()),
            reason,
            &names.join(", "),
            generation,
        )
    };
    let conditions = vec![
        ready,
        list("Progressing", &progressing, "AllSettled", "AppsUpdating"),
        list("Degraded", &degraded, "AllWell", "AppsDegraded"),
    ];
    transition(previous, conditions, now)
}

/// Gives conditions the time of their last transition: the previous one while the status stays, else `now`.
pub fn transition(
    previous: &[Condition],
    conditions: Vec<Condition>,
    now: Timestamp,
) -> Vec<Condition> {
    let stamp = |mut condition: Condition| {
        let before = previous.iter().find(|before| before.kind == condition.kind);
        let since = before
            .filter(|before| before.status == condition.status)
            .and_then(|before| before.last_transition);
        condition.last_transition = Some(since.unwrap_or(now));
        condition
    };
    conditions.into_iter().map(stamp).collect()
}
