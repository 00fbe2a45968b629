//! From desire and observation to ordered steps. A pure function: what it is not told it does not know, and what nobody
//! knows is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::desire::{Desire, DesiredApp, ObjectRef, Release, ResourceRef};
use crate::digest::Digest;
use crate::name::AppName;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

/// What is seen and remembered on the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// What is seen of each application.
    pub apps: BTreeMap<AppName, Seen>,
    /// True when everything that runs is listed in `apps`: what is not listed is absent. False (a list failed): what is
    /// not listed is unknown.
    pub complete: bool,
    /// What is remembered of each application.
    pub memory: BTreeMap<AppName, Memory>,
    /// Digests whose content is complete on disk.
    pub stored: BTreeSet<Digest>,
}

/// What is seen of one application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nobody can tell. Never a reason to act.
    Unknown,
    /// For certain, nothing of it is there.
    Absent,
    /// This release is there, whether it does well or not.
    Present(Release),
}

/// What the update of one application remembers; see [`crate::update::Update`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// The release an update is under way to. It needs no further step.
    pub heading: Option<Release>,
    /// What is gone back to.
    pub good: Option<Release>,
    /// Releases that failed and are not tried again.
    pub failed: Vec<Release>,
}

impl From<&crate::update::Update> for Memory {
    fn from(update: &crate::update::Update) -> Self {
        Self {
            heading: update.heading().cloned(),
            good: update.good().cloned(),
            failed: update
                .failures()
                .iter()
                .map(|failure| failure.release.clone())
                .collect(),
        }
    }
}

impl Observed {
    /// What is seen of an application.
    pub fn seen(&self, app: &AppName) -> &Seen {
        match self.apps.get(app) {
            Some(seen) => seen,
            None if self.complete => &Seen::Absent,
            None => &Seen::Unknown,
        }
    }

    fn remembered(&self, app: &AppName) -> &Memory {
        static NOTHING: Memory = Memory {
            heading: None,
            good: None,
            failed: Vec::new(),
        };
        self.memory.get(app).unwrap_or(&NOTHING)
    }

    fn is_stored(&self, release: &Release) -> bool {
        release
            .digests
            .iter()
            .all(|digest| self.stored.contains(digest))
    }
}

/// One thing to do. Steps of different applications do not depend on each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Fetch and verify what is missing. Comes before everything else, so that one fetch can serve all applications.
    Stage {
        /// For whom.
        app: AppName,
        /// For what.
        release: Release,
        /// Bodies that are missing.
        resources: Vec<ResourceRef>,
        /// Objects that are missing.
        objects: Vec<ObjectRef>,
    },
    /// Stop and remove: the desire no longer has it.
    Stop {
        /// Whom.
        app: AppName,
        /// What runs; `None` when only records are left.
        from: Option<Release>,
    },
    /// Start: nothing of it is there.
    Start {
        /// Whom.
        app: AppName,
        /// What.
        to: Release,
    },
    /// Replace what runs.
    Update {
        /// Whom.
        app: AppName,
        /// What runs.
        from: Release,
        /// What shall run.
        to: Release,
    },
    /// Content nobody needs may go; everything named here must stay.
    Prune {
        /// What must stay.
        keep: BTreeSet<Digest>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage {
                app,
                release,
                resources,
                objects,
            } => {
                write!(
                    f,
                    "stage {app}@{release} (bodies: {}, objects: {})",
                    resources.len(),
                    objects.len()
                )
            }
            Self::Stop {
                app,
                from: Some(from),
            } => write!(f, "stop {app}@{from}"),
            Self::Stop { app, from: None } => write!(f, "forget {app}"),
            Self::Start { app, to } => write!(f, "start {app}@{to}"),
            Self::Update { app, from, to } => write!(f, "update {app}@{from} -> {to}"),
            Self::Prune { keep } => write!(f, "prune all but {} digests", keep.len()),
        }
    }
}

/// Hop 6: what to do so that what is observed becomes what is desired. In order: stage, stop, start and update (system
/// applications first), prune.
///
/// Without a desire the plan is empty, whatever is observed. Of an application that is unknown nothing is planned.
pub fn plan(desire: Option<&Desire>, observed: &Observed) -> Vec<Step> {
    let Some(desire) = desire else {
        return Vec::new();
    };
    let mut wanted: Vec<&DesiredApp> = desire.apps.iter().collect();
    wanted.sort_by(|a, b| (!a.system, &a.app.name).cmp(&(!b.system, &b.app.name)));
    let mut stages = Vec::new();
    let mut runs = Vec::new();
    for app in &wanted {
        let Some(run) = plan_run(app, observed) else {
            continue;
        };
        if let Step::Start { to, .. } | Step::Update { to, .. } = &run
            && !observed.is_stored(to)
        {
            stages.extend(plan_stage(app, to, observed));
        }
        runs.push(run);
    }
    let stops = plan_stops(desire, observed);
    let prune = plan_prune(desire, observed);
    stages
        .into_iter()
        .chain(stops)
        .chain(runs)
        .chain(prune)
        .collect()
}

/// What to start or replace for one wanted application.
fn plan_run(wanted: &DesiredApp, observed: &Observed) -> Option<Step> {
    let app = &wanted.app.name;
    let release = wanted.release();
    let memory = observed.remembered(app);
    // A release that failed is not tried again; what was good before it shall run instead.
    let to = if memory.failed.contains(&release) {
        memory.good.clone()?
    } else {
        release
    };
    if memory.heading.as_ref() == Some(&to) {
        return None;
    }
    match observed.seen(app) {
        Seen::Unknown => None,
        Seen::Absent => Some(Step::Start {
            app: app.clone(),
            to,
        }),
        Seen::Present(from) if *from == to => None,
        Seen::Present(from) => Some(Step::Update {
            app: app.clone(),
            from: from.clone(),
            to,
        }),
    }
}

/// What is missing of a release. What is gone back to has been staged: of it nothing is known here but its digests.
fn plan_stage(wanted: &DesiredApp, release: &Release, observed: &Observed) -> Option<Step> {
    if *release != wanted.release() {
        return None;
    }
    let missing = |digest: &Digest| !observed.stored.contains(digest);
    Some(Step::Stage {
        app: wanted.app.name.clone(),
        release: release.clone(),
        resources: wanted
            .references()
            .into_iter()
            .filter(|reference| missing(&reference.digest))
            .collect(),
        objects: wanted
            .objects
            .iter()
            .filter(|object| missing(&object.digest))
            .cloned()
            .collect(),
    })
}

/// What is there, or remembered, and no longer wanted.
fn plan_stops(desire: &Desire, observed: &Observed) -> Vec<Step> {
    let known: BTreeSet<&AppName> = observed.apps.keys().chain(observed.memory.keys()).collect();
    let unwanted = known
        .into_iter()
        .filter(|app| desire.app(app.as_str()).is_none());
    let stop = |app: &AppName| match observed.seen(app) {
        Seen::Unknown => None,
        Seen::Present(release) => Some(Step::Stop {
            app: app.clone(),
            from: Some(release.clone()),
        }),
        Seen::Absent if observed.memory.contains_key(app) => Some(Step::Stop {
            app: app.clone(),
            from: None,
        }),
        Seen::Absent => None,
    };
    unwanted.filter_map(stop).collect()
}

/// What is stored and needed by nobody. While anything is unknown, nothing is pruned.
fn plan_prune(desire: &Desire, observed: &Observed) -> Option<Step> {
    let known: BTreeSet<&AppName> = observed.apps.keys().chain(observed.memory.keys()).collect();
    if !observed.complete || known.iter().any(|app| *observed.seen(app) == Seen::Unknown) {
        return None;
    }
    let mut keep: BTreeSet<Digest> = desire.apps.iter().flat_map(DesiredApp::digests).collect();
    for app in known {
        let memory = observed.remembered(app);
        let running = match observed.seen(app) {
            Seen::Present(release) => Some(release),
            Seen::Unknown | Seen::Absent => None,
        };
        let releases = [running, memory.heading.as_ref(), memory.good.as_ref()];
        keep.extend(
            releases
                .into_iter()
                .flatten()
                .flat_map(|release| &release.digests),
        );
    }
    (!observed.stored.is_subset(&keep)).then_some(Step::Prune { keep })
}
