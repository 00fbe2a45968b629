//! What Kubernetes says of one Deployment, StatefulSet, DaemonSet, Job or CronJob.

use std::time::Duration;

use baetyl_model::workload::WorkloadState;

use super::Looker;
use super::belong::{Group, is_run};
use super::pod::words;
use crate::seen::{Controller, Meta, Warning, find, holds};
use crate::world::{Entry, Place, What, World};

/// An autoscaler that does not work says so every quarter of a minute, and nothing once it does.
const REPEATED: Duration = Duration::from_secs(120);

/// State and reason.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Verdict {
    pub(super) state: WorkloadState,
    pub(super) message: String,
}

impl Verdict {
    pub(super) fn active(message: String) -> Self {
        Self {
            state: WorkloadState::Active,
            message,
        }
    }

    pub(super) fn failed(message: String) -> Self {
        Self {
            state: WorkloadState::Failed,
            message,
        }
    }

    fn weight(&self) -> u8 {
        match self.state {
            WorkloadState::Failed => 3,
            WorkloadState::Active => u8::from(!self.message.is_empty()) + 1,
            WorkloadState::Stopping | WorkloadState::Succeeded => 0,
        }
    }

    /// The one that matters more.
    pub(super) fn or(self, other: Self) -> Self {
        if other.weight() > self.weight() || (self == Self::default()) {
            other
        } else {
            self
        }
    }
}

impl World {
    /// What Kubernetes warned of last about an object.
    pub(super) fn warning<'w>(&'w self, kind: &'w str, meta: &'w Meta) -> Option<&'w Warning> {
        let about = self.warnings_about(kind, meta);
        about
            .max_by_key(|entry| entry.since)
            .map(|entry| &entry.item)
    }

    fn warnings_about<'w>(
        &'w self,
        kind: &'w str,
        meta: &'w Meta,
    ) -> impl Iterator<Item = &'w Entry<Warning>> {
        self.warnings.values().filter(move |entry| {
            let about = &entry.item.involved_object;
            &*about.kind == kind
                && *about.name == *meta.name
                && *entry.item.metadata.namespace == *meta.namespace
                && (about.uid.is_empty() || meta.uid.is_empty() || *about.uid == *meta.uid)
        })
    }
}

impl<'a> Looker<'a> {
    /// What Kubernetes says of a controller of which `alive` Pods are there.
    pub(super) fn verdict(
        &mut self,
        place: &Place,
        entry: &Entry<Controller>,
        group: &Group<'a>,
        alive: u32,
    ) -> Verdict {
        let controller = &entry.item;
        if is_run(controller) {
            // A run that failed says nothing of the next one.
            return Verdict::default();
        }
        match place.what {
            What::Jobs => {
                let conditions = &controller.status.conditions;
                if let Some(failed) = holds(conditions, "Failed") {
                    return Verdict::failed(words(&failed.reason, &failed.message));
                }
                if holds(conditions, "Complete").is_some() {
                    return Verdict {
                        state: WorkloadState::Succeeded,
                        message: String::new(),
                    };
                }
                if controller.spec.suspend {
                    return Verdict::active("the Job is suspended".to_owned());
                }
            }
            What::CronJobs => return self.of_cron_job(place, entry, group),
            What::Deployments => {
                if let Some(verdict) = self.of_deployment(place, controller) {
                    return verdict;
                }
            }
            _ => {}
        }
        let wanted = group.wanted(alive).unwrap_or(0);
        if place.what != What::Deployments
            && alive < wanted
            && let Some(refused) = self.refused_creation(place, entry)
        {
            return self.refusal(place, controller, refused);
        }
        self.of_scaler(controller)
    }

    fn of_deployment(&mut self, place: &Place, controller: &Controller) -> Option<Verdict> {
        let status = &controller.status;
        if status.observed_generation < controller.metadata.generation {
            // What it says is about what it was before.
            return None;
        }
        let late = find(&status.conditions, "Progressing").filter(|progressing| {
            &*progressing.status == "False" && &*progressing.reason == "ProgressDeadlineExceeded"
        });
        if let Some(refused) = holds(&status.conditions, "ReplicaFailure") {
            let words = words(&refused.reason, &refused.message);
            return Some(self.refusal(place, controller, words));
        }
        late.map(|late| Verdict::failed(words(&late.reason, &late.message)))
    }

    /// One run at a time; between them it is as it should be, whatever became of the last.
    fn of_cron_job(
        &mut self,
        place: &Place,
        entry: &Entry<Controller>,
        group: &Group<'a>,
    ) -> Verdict {
        if let Some(refused) = self.refused_creation(place, entry) {
            return Verdict::active(refused);
        }
        let runs = group
            .controllers
            .iter()
            .filter(|(_, entry)| is_run(&entry.item));
        let newest = runs.max_by_key(|(_, entry)| entry.item.metadata.creation_timestamp);
        let failed = newest.and_then(|(_, entry)| {
            let failed = holds(&entry.item.status.conditions, "Failed")?;
            let name = &entry.item.metadata.name;
            Some(format!(
                "the last run {name} failed: {}",
                words(&failed.reason, &failed.message)
            ))
        });
        Verdict::active(failed.unwrap_or_default())
    }

    /// What kept a controller from making its Pods since it was told what it shall be: the first of all
    /// there are, because each names another Pod and the report should not change with each.
    fn refused_creation(&self, place: &Place, entry: &Entry<Controller>) -> Option<String> {
        let kind = place.what.resource().kind;
        let meta = &entry.item.metadata;
        let about = self.world.warnings_about(&kind, meta);
        about
            .filter(|warning| {
                &*warning.item.reason == "FailedCreate" && warning.since >= entry.since
            })
            .min_by_key(|warning| warning.since)
            .map(|warning| words(&warning.item.reason, &warning.item.message))
    }

    /// A refusal is told at once, and is the end when it lasts.
    fn refusal(&mut self, place: &Place, controller: &Controller, words: String) -> Verdict {
        let generation = controller.metadata.generation;
        self.refused.insert(place.clone());
        let known = self.memory.refused.get(place);
        let since = match known {
            Some((known, since)) if *known == generation => *since,
            _ => self.now,
        };
        self.memory
            .refused
            .insert(place.clone(), (generation, since));
        let end = since + self.config.times.refusal;
        if end <= self.now {
            return Verdict::failed(words);
        }
        self.look_at(end);
        Verdict::active(words)
    }

    /// What keeps an autoscaler of the same name from working.
    fn of_scaler(&mut self, controller: &Controller) -> Verdict {
        let meta = Meta {
            uid: String::new(),
            ..controller.metadata.clone()
        };
        let world = self.world;
        let about = world.warnings_about("HorizontalPodAutoscaler", &meta);
        let Some(warning) = about.max_by_key(|entry| entry.since) else {
            return Verdict::default();
        };
        let end = warning.since + REPEATED;
        if end <= self.now {
            return Verdict::default();
        }
        self.look_at(end);
        Verdict::active(format!(
            "the autoscaler does not work: {}",
            words(&warning.item.reason, &warning.item.message)
        ))
    }
}
