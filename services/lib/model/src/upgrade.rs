//! The upgrade of the core services of a node in kube mode: what shall run, the record of the upgrade under way, and what
//! engine does next. The Job `baetyl-init upgrade` does the work; see `docs/adr/0017-core-upgrade.md`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::desire::DesiredCore;

#[cfg(test)]
mod tests;

/// The Secret with the record and with what was applied before, in the namespace of the core services.
pub const SECRET: &str = "baetyl-core-manifests";
/// Its key with the [`Upgrade`], as JSON.
pub const RECORD: &str = "upgrade";
/// Its key with the objects that were applied before, as a JSON list.
pub const MANIFESTS: &str = "manifests";
/// The Job, in the namespace of the core services.
pub const JOB: &str = "baetyl-upgrade";
/// Exit code of the Job's program when the upgrade ended and the new version does not run: another start changes nothing.
pub const EXIT_FAILED: u8 = 3;

/// What the core services are, without what differs from node to node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Core {
    /// Version of the images, their tag.
    pub version: String,
    /// Node class.
    pub class: String,
    /// Registry, with path, of the images.
    pub registry: String,
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            class,
            registry,
        } = self;
        write!(f, "{version} ({class}, {registry})")
    }
}

impl Core {
    /// What shall run: what is wished, and where nothing is wished what runs.
    #[must_use]
    pub fn wished(&self, wish: Option<&DesiredCore>) -> Self {
        let or = |wished: Option<&String>, runs: &String| {
            let wished = wished.filter(|wished| !wished.is_empty());
            wished.unwrap_or(runs).clone()
        };
        Self {
            version: or(wish.map(|wish| &wish.version), &self.version),
            class: or(wish.map(|wish| &wish.class), &self.class),
            registry: or(wish.map(|wish| &wish.registry), &self.registry),
        }
    }
}

/// Where an upgrade stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Engine made the Job; nothing was changed.
    Begun,
    /// What was applied before is kept, the new is being applied and watched.
    Applying,
    /// What was applied before is being put back.
    RollingBack,
    /// The new version runs.
    Upgraded,
    /// The version before runs, or was never touched.
    Failed,
}

impl Phase {
    /// Whether nothing more is done.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Upgraded | Self::Failed)
    }
}

/// The record of an upgrade. Engine writes the first and, when the Job never got to work, the last of it; all between is the
/// Job's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upgrade {
    /// What ran when it began.
    pub from: Core,
    /// What shall run.
    pub to: Core,
    /// Where it stands.
    pub phase: Phase,
    /// Why it is rolled back or failed, as a sentence.
    #[serde(default)]
    pub message: String,
    /// The cloud was reached when it began: it must be reached afterwards.
    #[serde(default)]
    pub online: bool,
    /// How often applying was begun.
    #[serde(default)]
    pub starts: u32,
}

impl Upgrade {
    /// One that was not begun yet.
    #[must_use]
    pub const fn new(from: Core, to: Core) -> Self {
        Self {
            from,
            to,
            phase: Phase::Begun,
            message: String::new(),
            online: false,
            starts: 0,
        }
    }

    /// A word and a sentence for the report.
    #[must_use]
    pub fn tell(&self) -> (&'static str, String) {
        let (from, to) = (&self.from, &self.to);
        match self.phase {
            Phase::Begun => ("Upgrading", format!("from {from} to {to}: not begun yet")),
            Phase::Applying => ("Upgrading", format!("from {from} to {to}")),
            Phase::RollingBack => (
                "RollingBack",
                format!("from {to} back to {from}: {}", self.message),
            ),
            Phase::Upgraded => ("Upgraded", format!("from {from} to {to}")),
            Phase::Failed => ("Failed", format!("{to}: {}", self.message)),
        }
    }
}

/// How the Job does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// There is none.
    Absent,
    /// It has not ended.
    Active,
    /// It has not ended, and has had more than enough time to get to work; why it does not, as a sentence.
    Overdue(String),
    /// It ended; how, as a sentence.
    Ended(String),
}

/// What engine does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something else is wished.
    Rest,
    /// Looks again in a while.
    Look,
    /// Begins: writes a record and makes the Job.
    Begin(Core),
    /// Makes the Job of the record again.
    Resume,
    /// Deletes the Job and forgets the record, if nothing was changed meanwhile.
    Forget,
    /// Deletes the Job and records this as the reason, if nothing was changed meanwhile.
    GiveUp(String),
}

/// What engine does next, given what is wished, what runs, the record and the Job. A version that failed is tried again when
/// something else was wished in between, and not before.
#[must_use]
pub fn next(wish: Option<&DesiredCore>, runs: &Core, record: Option<&Upgrade>, job: &Job) -> Next {
    let to = runs.wished(wish);
    match record {
        Some(record) if !record.phase.is_final() => unfinished(record, runs, &to, job),
        // Its Job is about to end.
        Some(_) if *job == Job::Active => Next::Look,
        Some(record) if record.phase == Phase::Failed && to == *runs => Next::Forget,
        Some(record) if record.phase == Phase::Failed && to == record.to => Next::Rest,
        _ if to == *runs => Next::Rest,
        _ => Next::Begin(to),
    }
}

fn unfinished(record: &Upgrade, runs: &Core, to: &Core, job: &Job) -> Next {
    let untouched = record.phase == Phase::Begun;
    match job {
        // Something else is wished, or somebody else brought it.
        _ if untouched && (record.to != *to || *runs == *to) => Next::Forget,
        Job::Overdue(why) | Job::Ended(why) if untouched => Next::GiveUp(why.clone()),
        Job::Active | Job::Overdue(_) => Next::Look,
        Job::Absent | Job::Ended(_) => Next::Resume,
    }
}
