//! Which workload an object belongs to.
//!
//! Most objects say so by two labels. Pods of YAML applications carry the application's name only: their version is that
//! of the object that made them. Pods of charts carry the name of the release: it is that of the application.

use std::collections::{BTreeMap, BTreeSet};

use baetyl_model::name::{AppName, Namespace, ServiceName, Version};
use baetyl_model::workload::{WHOLE, WorkloadKey, WorkloadState};

use super::verdict::Verdict;
use crate::config::KubeConfig;
use crate::inventory::{self, Kind, Kinds};
use crate::seen::{Controller, Meta, Pod, Record, find, holds};
use crate::world::{Entry, Place, Watch, What, World};

/// Everything of one workload.
#[derive(Debug, Default)]
pub(crate) struct Group<'a> {
    pub(super) controllers: Vec<(&'a Place, &'a Entry<Controller>)>,
    pub(super) pods: Vec<&'a Pod>,
    /// It is a YAML application.
    pub(super) inventory: Option<&'a Record>,
    /// Of which there are these kinds in namespaces of ours; nothing for a version that is not the last.
    kinds: Kinds,
    /// It is a Helm application: the newest release.
    pub(super) release: Option<&'a Record>,
    /// The Job that installs it.
    pub(super) installer: Option<&'a Controller>,
    /// Name of the newest Job of a CronJob.
    newest_run: Option<&'a str>,
    /// Namespace of others it was put into.
    pub(super) target: Option<String>,
}

/// All workloads.
pub(crate) struct Belongings<'a> {
    config: &'a KubeConfig,
    /// (application, namespace of others) → namespace of ours.
    homes: BTreeMap<(&'a str, String), &'a str>,
    groups: BTreeMap<WorkloadKey, Group<'a>>,
}

impl<'a> Belongings<'a> {
    pub(crate) fn of(world: &'a World, config: &'a KubeConfig) -> Self {
        let mut this = Self {
            config,
            homes: BTreeMap::new(),
            groups: BTreeMap::new(),
        };
        this.find_homes(world);
        this.add_controllers(world);
        this.add_records(world);
        this.add_pods(world);
        for (key, group) in &mut this.groups {
            let mut homes = this.homes.iter();
            group.target = homes
                .find(|((app, _), _)| *app == key.app.as_str())
                .map(|((_, target), _)| target.clone());
        }
        this
    }

    pub(super) fn groups(&self) -> &BTreeMap<WorkloadKey, Group<'a>> {
        &self.groups
    }

    /// Every workload there is something of.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &WorkloadKey> {
        self.groups.keys()
    }

    /// All Pods of a workload, also those nobody is told of.
    pub(crate) fn pods(&self, key: &WorkloadKey) -> &[&'a Pod] {
        self.groups.get(key).map_or(&[], |group| &group.pods)
    }

    /// Where the release of a Helm application is, if the newest one is of this version.
    pub(crate) fn release(&self, key: &WorkloadKey) -> Option<&'a str> {
        let release = self.groups.get(key)?.release?;
        Some(&release.metadata.namespace)
    }

    /// The workload objects of a workload, without the runs of CronJobs and the installers of charts.
    pub(crate) fn controllers(
        &self,
        key: &WorkloadKey,
    ) -> impl Iterator<Item = (What, &'a Meta)> + '_ {
        let controllers = self.groups.get(key).into_iter();
        controllers
            .flat_map(|group| &group.controllers)
            .filter(|(_, entry)| !is_run(&entry.item) && !entry.item.metadata.is_ending())
            .map(|(place, entry)| (place.what, &entry.item.metadata))
    }

    /// Namespaces of others that applications of ours were put into.
    pub(crate) fn foreign(&self) -> BTreeSet<String> {
        self.homes
            .keys()
            .map(|(_, target)| target.clone())
            .collect()
    }

    fn is_ours(&self, namespace: &str) -> bool {
        self.config.namespaces().contains(&namespace)
    }

    fn find_homes(&mut self, world: &'a World) {
        for record in world.records(What::Inventories) {
            let (Some(app), home) = (&record.metadata.labels.app, &record.metadata.namespace)
            else {
                continue;
            };
            for namespace in inventory::namespaces(&record.data) {
                if self.is_ours(home) && !self.is_ours(&namespace) {
                    self.homes.insert((app, namespace), home);
                }
            }
        }
        for entry in world.controllers.values() {
            let (meta, target) = (&entry.item.metadata, entry.item.helm_target());
            if let (Some(app), Some(target)) = (&meta.labels.app, target)
                && self.is_ours(&meta.namespace)
                && !self.is_ours(target)
            {
                self.homes.insert((app, target.to_owned()), &meta.namespace);
            }
        }
    }

    /// The key of an application's version; None: it is in a namespace nobody put it into, or a label is none of ours.
    fn key(&self, namespace: &str, app: &str, version: &str) -> Option<WorkloadKey> {
        let home = if self.is_ours(namespace) {
            namespace
        } else {
            let mut homes = self.homes.iter();
            homes
                .find(|((known, target), _)| *known == app && target == namespace)
                .map(|(_, home)| *home)?
        };
        key(home, app, version)
    }

    fn group(&mut self, namespace: &str, app: &str, version: &str) -> Option<&mut Group<'a>> {
        let key = self.key(namespace, app, version)?;
        Some(self.groups.entry(key).or_default())
    }

    fn add_controllers(&mut self, world: &'a World) {
        for (place, entry) in &world.controllers {
            let meta = &entry.item.metadata;
            let Some((app, version)) = app_and_version(meta) else {
                continue;
            };
            let Some(group) = self.group(&meta.namespace, app, version) else {
                continue;
            };
            if entry.item.helm_target().is_some() {
                group.installer = Some(&entry.item);
            } else {
                group.controllers.push((place, entry));
            }
        }
        for group in self.groups.values_mut() {
            let runs = group
                .controllers
                .iter()
                .filter(|(_, entry)| is_run(&entry.item));
            group.newest_run = runs
                .max_by_key(|(_, entry)| entry.item.metadata.creation_timestamp)
                .map(|(_, entry)| entry.item.metadata.name.as_str());
        }
    }

    fn add_records(&mut self, world: &'a World) {
        for record in world.records(What::Inventories) {
            let meta = &record.metadata;
            let Some(app) = &meta.labels.app else {
                continue;
            };
            for (version, entry) in &record.data {
                let mut kinds = Kinds::new();
                if meta.labels.version.as_deref() == Some(version) {
                    kinds = inventory::read(entry);
                    // What is with others may not be seen by us.
                    kinds.retain(|kind| self.is_ours(&kind.namespace));
                }
                if let Some(group) = self.group(&meta.namespace, app, version) {
                    group.inventory = Some(record);
                    group.kinds = kinds;
                }
            }
        }
        for record in newest_releases(world) {
            let meta = &record.metadata;
            let Some((app, version)) = app_and_version(meta) else {
                continue;
            };
            if let Some(group) = self.group(&meta.namespace, app, version) {
                group.release = Some(record);
            }
        }
    }

    fn add_pods(&mut self, world: &'a World) {
        for entry in world.pods.values() {
            let pod = &entry.item;
            let meta = &pod.metadata;
            let key = match (&meta.labels.app, &meta.labels.version) {
                (Some(app), Some(version)) => self.key(&meta.namespace, app, version),
                (Some(app), None) => self.version_of(world, meta, app),
                (None, _) => self.release_of(meta),
            };
            if let Some(key) = key {
                self.groups.entry(key).or_default().pods.push(pod);
            }
        }
    }

    /// The key of a Pod of a YAML application: of what made it, or else of what was applied last.
    fn version_of(&self, world: &World, meta: &Meta, app: &str) -> Option<WorkloadKey> {
        let maker = meta.controller().map(|owner| match &*owner.kind {
            // <Deployment>-<hash of the template>
            "ReplicaSet" => owner
                .name
                .rsplit_once('-')
                .map_or(&*owner.name, |(name, _)| name),
            _ => &*owner.name,
        });
        let of_app = |place: &Place, controller: &Controller| {
            *place.namespace == *meta.namespace
                && controller.metadata.labels.app.as_deref() == Some(app)
        };
        let controllers = world.controllers.iter();
        let made = controllers
            .filter(|(place, entry)| of_app(place, &entry.item))
            .find(|(place, _)| Some(&*place.name) == maker)
            .and_then(|(_, entry)| entry.item.metadata.labels.version.as_deref());
        let applied = || {
            let mut records = world.records(What::Inventories);
            let record =
                records.find(|record| record.metadata.labels.app.as_deref() == Some(app))?;
            record.metadata.labels.version.as_deref()
        };
        let version = made.or_else(applied)?;
        self.key(&meta.namespace, app, version)
    }

    /// The key of a Pod of a chart: of the version that is being installed, or else that was.
    fn release_of(&self, meta: &Meta) -> Option<WorkloadKey> {
        let instance = meta.labels.instance.as_deref()?;
        let mut of_app = self.groups.iter().filter(|(key, group)| {
            let target = group
                .installer
                .and_then(Controller::helm_target)
                .or_else(|| {
                    group
                        .release
                        .map(|record| record.metadata.namespace.as_str())
                });
            key.app.as_str() == instance && target == Some(meta.namespace.as_str())
        });
        let installing = of_app.clone().find(|(_, group)| group.installer.is_some());
        installing
            .or_else(|| of_app.next())
            .map(|(key, _)| key.clone())
    }
}

/// The newest release of each application.
fn newest_releases(world: &World) -> impl Iterator<Item = &Record> {
    let mut newest: BTreeMap<(&str, Option<&str>), (u64, &Record)> = BTreeMap::new();
    for record in world.records(What::Releases) {
        let meta = &record.metadata;
        // sh.helm.release.v1.<name>.v<number>
        let number = meta
            .name
            .rsplit_once(".v")
            .and_then(|(_, number)| number.parse().ok());
        let id = (meta.namespace.as_str(), meta.labels.app.as_deref());
        let number = number.unwrap_or(0);
        if newest.get(&id).is_none_or(|(known, _)| *known <= number) {
            newest.insert(id, (number, record));
        }
    }
    newest.into_values().map(|(_, record)| record)
}

fn app_and_version(meta: &Meta) -> Option<(&str, &str)> {
    Some((meta.labels.app.as_deref()?, meta.labels.version.as_deref()?))
}

/// The key of an application as a whole; None: a label is none of ours.
pub(crate) fn key(namespace: &str, app: &str, version: &str) -> Option<WorkloadKey> {
    Some(WorkloadKey {
        namespace: Namespace::new(namespace).ok()?,
        app: AppName::new(app).ok()?,
        version: Version::new(version).ok()?,
        service: ServiceName::new(WHOLE).ok()?,
    })
}

/// A Job that a CronJob made.
pub(super) fn is_run(controller: &Controller) -> bool {
    let owner = controller.metadata.controller();
    owner.is_some_and(|owner| &*owner.kind == "CronJob")
}

fn is_over(pod: &Pod) -> bool {
    matches!(&*pod.status.phase, "Failed" | "Succeeded")
}

impl Group<'_> {
    fn job_of(&self, pod: &Pod) -> Option<&Controller> {
        let owner = pod.metadata.controller()?;
        let mut jobs = self
            .controllers
            .iter()
            .filter(|(place, _)| place.what == What::Jobs);
        if &*owner.kind != "Job" {
            return None;
        }
        jobs.find(|(place, _)| place.name == owner.name)
            .map(|(_, entry)| &entry.item)
            .or(self
                .installer
                .filter(|installer| *installer.metadata.name == *owner.name))
    }

    /// Whether a Pod is one of a Job that still tries.
    pub(super) fn tries_again(&self, pod: &Pod) -> bool {
        self.job_of(pod)
            .is_some_and(|job| holds(&job.status.conditions, "Failed").is_none())
    }

    /// Whether a Pod is that of the Job that installs.
    pub(super) fn is_installer(&self, pod: &Pod) -> bool {
        let owner = pod.metadata.controller();
        self.installer.is_some_and(|installer| {
            owner.is_some_and(|owner| {
                &*owner.kind == "Job" && *owner.name == *installer.metadata.name
            })
        })
    }

    /// Whether anybody wants to know of a Pod: not of what was tried before it went well, nor of runs before the last.
    pub(super) fn tells_of(&self, pod: &Pod) -> bool {
        let Some(owner) = pod.metadata.controller() else {
            return true;
        };
        if &*owner.kind != "Job" || !is_over(pod) {
            return true;
        }
        let Some(job) = self.job_of(pod) else {
            // A run of an author's own CronJob: only its newest end.
            let ends = self
                .pods
                .iter()
                .filter(|other| is_over(other) && self.job_of(other).is_none());
            let newest = ends.max_by_key(|other| other.metadata.creation_timestamp);
            return newest.is_none_or(|newest| newest.metadata.name == pod.metadata.name);
        };
        if is_run(job) && self.newest_run != Some(job.metadata.name.as_str()) {
            return false;
        }
        let done = holds(&job.status.conditions, "Complete").is_some();
        if self.is_installer(pod) {
            return !done;
        }
        !done || &*pod.status.phase == "Succeeded"
    }

    /// How many Pods there shall be; None: nobody says.
    pub(super) fn wanted(&self, alive: u32) -> Option<u32> {
        if self.release.is_some() || self.installer.is_some() {
            // Helm waits for what it makes, and only it knows what that is.
            let at_work = self.installer.is_some_and(|job| !is_finished(job));
            return Some(if at_work {
                alive.saturating_add(1)
            } else {
                alive
            });
        }
        if self.inventory.is_some() && !self.is_rolled_out() {
            // Pods of the version before are among those that are seen: they carry no version.
            return Some(alive.saturating_add(1));
        }
        if self.controllers.is_empty() {
            // Objects without a workload want no Pods; the rest of an older version wants none either, but is not told.
            return self.inventory.map(|_| 0);
        }
        let all = self
            .controllers
            .iter()
            .filter(|(_, entry)| !is_run(&entry.item));
        Some(
            all.map(|(place, entry)| wanted(place.what, &entry.item))
                .fold(0, u32::saturating_add),
        )
    }

    /// Whether every workload of a YAML application is seen, and has no Pods but those of its newest template.
    fn is_rolled_out(&self) -> bool {
        let seen = |kind: &Kind| {
            let mut controllers = self.controllers.iter();
            controllers.any(|(place, _)| place.what.resource().kind == kind.kind)
        };
        let awaited = self.kinds.iter().filter(|kind| {
            What::OF_NAMESPACE
                .iter()
                .any(|what| what.is_controller() && what.resource().kind == kind.kind)
        });
        awaited.clone().all(seen)
            && self
                .controllers
                .iter()
                .all(|(place, entry)| is_rolled_out(place.what, &entry.item))
    }

    /// Whether what there is of it is on its way out.
    pub(super) fn is_ending(&self, told: &[&Pod]) -> bool {
        let ending = self
            .controllers
            .iter()
            .map(|(_, entry)| entry.item.metadata.is_ending())
            .chain(
                told.iter()
                    .filter(|_| self.controllers.is_empty())
                    .map(|pod| pod.metadata.is_ending()),
            )
            .chain(self.installer.map(|job| job.metadata.is_ending()))
            .chain(self.release.map(|_| false))
            .chain(
                self.inventory
                    .filter(|_| self.controllers.is_empty())
                    .map(|_| false),
            )
            .collect::<Vec<_>>();
        !ending.is_empty() && ending.into_iter().all(|ending| ending)
    }

    /// Why its Pods cannot be seen, if they cannot.
    pub(super) fn denied(&self, world: &World) -> Option<String> {
        let namespace = self.target.clone()?;
        let watch = Watch {
            what: What::Pods,
            namespace: namespace.clone(),
        };
        let sight = world.sights.get(&watch)?;
        let why = sight
            .denied
            .as_ref()
            .or(sight.broken.as_ref().map(|(_, why)| why))?;
        Some(format!(
            "its Pods in namespace {namespace} cannot be seen: {why}"
        ))
    }

    /// What the release of a Helm application says.
    pub(super) fn helm_verdict(&self, told: &[&Pod]) -> Option<Verdict> {
        let release = self
            .release
            .map(|record| record.metadata.labels.status.as_deref().unwrap_or(""));
        if let Some(job) = self.installer {
            if let Some(failed) = holds(&job.status.conditions, "Failed") {
                let words = told
                    .iter()
                    .filter(|pod| self.is_installer(pod))
                    .find_map(|pod| last_words(pod))
                    .unwrap_or_else(|| super::pod::words(&failed.reason, &failed.message));
                return Some(Verdict::failed(format!("Helm failed: {words}")));
            }
            if holds(&job.status.conditions, "Complete").is_none() {
                return Some(Verdict::active("Helm is at work".to_owned()));
            }
        }
        match release? {
            "deployed" => Some(Verdict::default()),
            "failed" => Some(Verdict::failed(
                "Helm says that the release failed".to_owned(),
            )),
            "uninstalling" => Some(Verdict {
                state: WorkloadState::Stopping,
                message: String::new(),
            }),
            other => Some(Verdict::active(format!(
                "Helm says that the release is {other}"
            ))),
        }
    }
}

/// The message a container of a Pod ended with.
pub(crate) fn last_words(pod: &Pod) -> Option<String> {
    let mut all = pod.status.container_statuses.iter();
    all.find_map(|container| {
        let message = container.state.terminated.as_ref()?.message.trim();
        (!message.is_empty()).then(|| message.to_owned())
    })
}

fn is_finished(job: &Controller) -> bool {
    let conditions = &job.status.conditions;
    ["Complete", "Failed"]
        .iter()
        .any(|kind| find(conditions, kind).is_some_and(|found| &*found.status == "True"))
}

/// As `kubectl rollout status` has it.
fn is_rolled_out(what: What, controller: &Controller) -> bool {
    let (spec, status) = (&controller.spec, &controller.status);
    let wanted = spec.replicas.unwrap_or(1);
    match what {
        What::Deployments => {
            status.observed_generation >= controller.metadata.generation
                && status.updated_replicas == wanted
                && status.replicas == wanted
        }
        What::StatefulSets => {
            status.observed_generation >= controller.metadata.generation
                && status.updated_replicas >= wanted
        }
        What::DaemonSets => {
            status.observed_generation >= controller.metadata.generation
                && status.updated_number_scheduled == status.desired_number_scheduled
        }
        _ => true,
    }
}

/// How many Pods one controller wants.
fn wanted(what: What, controller: &Controller) -> u32 {
    let (spec, status) = (&controller.spec, &controller.status);
    match what {
        // Between two runs there is none.
        What::CronJobs => 0,
        // Until Kubernetes has counted the machines there is one at least.
        What::DaemonSets if status.observed_generation < controller.metadata.generation => {
            status.desired_number_scheduled.max(1)
        }
        What::DaemonSets => status.desired_number_scheduled,
        What::Jobs => spec.completions.or(spec.parallelism).unwrap_or(1),
        _ => spec.replicas.unwrap_or(1),
    }
}
