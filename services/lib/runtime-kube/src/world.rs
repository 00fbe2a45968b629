//! Everything that is watched, as it was seen last, and how well it can be seen.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ledger::Ledger;
use crate::seen::{Controller, Machine, Meta, Pod, Record, Thing, Warning};

mod what;

pub(crate) use what::{Watch, What};

/// Most warnings that are remembered; Kubernetes keeps each for an hour.
const MAX_WARNINGS: usize = 1000;

/// Warnings that tell why Pods are not made or do not get ready. All others repeat what a status says.
const TELLING: [&str; 7] = [
    "FailedAttachVolume",
    "FailedComputeMetricsReplicas",
    "FailedCreate",
    "FailedCreatePodSandBox",
    "FailedGetResourceMetric",
    "FailedMount",
    "Unhealthy",
];

/// Where an object is: kind, namespace, name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) what: What,
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
}

/// An object and when it became what it is.
#[derive(Debug, Clone)]
pub(crate) struct Entry<T> {
    pub(crate) item: T,
    /// Of a controller: when it was told something else; of a warning: when it was said last.
    pub(crate) since: Instant,
}

pub(crate) type Table<T> = BTreeMap<Place, Entry<T>>;

/// Kinds of things that are kept.
pub(crate) trait Kept: DeserializeOwned + Send + 'static {
    fn table(world: &mut World) -> &mut Table<Self>;
    /// Namespace and name.
    fn id(&self) -> (&str, &str);
    fn resource_version(&self) -> &str;
    /// Whether it is of any use.
    fn is_kept(&self) -> bool {
        true
    }
    /// Whether what comes after `before` begins anew.
    fn begins_anew(&self, _before: &Self) -> bool {
        true
    }
}

macro_rules! kept {
    ($kind:ty, $table:ident $(, $extra:item)*) => {
        impl Kept for $kind {
            fn table(world: &mut World) -> &mut Table<Self> {
                &mut world.$table
            }
            fn id(&self) -> (&str, &str) {
                (&self.metadata.namespace, &self.metadata.name)
            }
            fn resource_version(&self) -> &str {
                &self.metadata.resource_version
            }
            $($extra)*
        }
    };
}

kept!(
    Pod,
    pods,
    fn is_kept(&self) -> bool {
        let labels = &self.metadata.labels;
        labels.app.is_some() || labels.instance.is_some()
    }
);
kept!(
    Controller,
    controllers,
    fn is_kept(&self) -> bool {
        self.metadata.labels.app.is_some()
    },
    fn begins_anew(&self, before: &Self) -> bool {
        let said = |meta: &Meta| {
            (
                meta.uid.clone(),
                meta.generation,
                meta.labels.version.clone(),
            )
        };
        said(&self.metadata) != said(&before.metadata)
    }
);
kept!(
    Warning,
    warnings,
    fn is_kept(&self) -> bool {
        // A Deployment says itself what keeps its ReplicaSet from making Pods, once and not for each Pod.
        &*self.involved_object.kind != "ReplicaSet" && TELLING.contains(&&*self.reason)
    }
);
kept!(Record, records);
kept!(Thing, things);

impl Kept for Machine {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.machines
    }
    fn id(&self) -> (&str, &str) {
        ("", &self.metadata.name)
    }
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// How well one watch sees.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sight {
    /// There was a complete list.
    pub(crate) listed: bool,
    /// Since when it is broken, and why.
    pub(crate) broken: Option<(Instant, String)>,
    /// We may not look, in Kubernetes' words.
    pub(crate) denied: Option<String>,
}

/// Everything that is watched.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) pods: Table<Pod>,
    pub(crate) controllers: Table<Controller>,
    pub(crate) warnings: Table<Warning>,
    /// Inventories and releases.
    pub(crate) records: Table<Record>,
    pub(crate) things: Table<Thing>,
    pub(crate) machines: Table<Machine>,
    /// What was applied and shall be there.
    pub(crate) ledger: Ledger,
    pub(crate) sights: BTreeMap<Watch, Sight>,
}

impl World {
    fn put<T: Kept>(&mut self, what: What, item: T) {
        let (namespace, name) = item.id();
        let place = Place {
            what,
            namespace: namespace.into(),
            name: name.into(),
        };
        let table = T::table(self);
        if !item.is_kept() {
            table.remove(&place);
            return;
        }
        let since = match table.get(&place) {
            Some(before) if !item.begins_anew(&before.item) => before.since,
            _ => Instant::now(),
        };
        table.insert(place, Entry { item, since });
        if self.warnings.len() > MAX_WARNINGS {
            let oldest = self.warnings.iter().min_by_key(|(_, entry)| entry.since);
            if let Some(place) = oldest.map(|(place, _)| place.clone()) {
                self.warnings.remove(&place);
            }
        }
    }

    /// Forgets what a watch has seen.
    pub(crate) fn forget(&mut self, watch: &Watch) {
        let gone = |place: &Place| place.what == watch.what && *place.namespace == *watch.namespace;
        self.pods.retain(|place, _| !gone(place));
        self.controllers.retain(|place, _| !gone(place));
        self.warnings.retain(|place, _| !gone(place));
        self.records.retain(|place, _| !gone(place));
        self.things.retain(|place, _| !gone(place));
        self.machines.retain(|place, _| !gone(place));
        self.sights.remove(watch);
    }

    /// Inventories, or releases.
    pub(crate) fn records(&self, what: What) -> impl Iterator<Item = &Record> {
        self.records
            .iter()
            .filter(move |(place, _)| place.what == what)
            .map(|(_, entry)| &entry.item)
    }
}

/// The world, shared by those who watch and those who look.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    world: Mutex<World>,
    changes: watch::Sender<u64>,
}

impl Shared {
    /// To look; never across an await.
    pub(crate) fn look(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let changed = change(&mut self.look());
        self.changes.send_modify(|count| *count += 1);
        changed
    }

    /// A watch begins.
    pub(crate) fn begin(&self, watch: &Watch) {
        self.change(|world| {
            world.sights.entry(watch.clone()).or_default();
        });
    }

    /// A watch ends.
    pub(crate) fn end(&self, watch: &Watch) {
        self.change(|world| world.forget(watch));
    }

    /// Everything there is, instead of what was.
    pub(crate) fn listed<T: Kept>(&self, watch: &Watch, items: Vec<T>) {
        self.change(|world| {
            let kept: std::collections::BTreeSet<Box<str>> =
                items.iter().map(|item| item.id().1.into()).collect();
            T::table(world).retain(|place, _| {
                place.what != watch.what
                    || *place.namespace != *watch.namespace
                    || kept.contains(&place.name)
            });
            for item in items {
                world.put(watch.what, item);
            }
            let sight = world.sights.entry(watch.clone()).or_default();
            *sight = Sight {
                listed: true,
                ..Sight::default()
            };
        });
    }

    /// One came or changed.
    pub(crate) fn seen<T: Kept>(&self, watch: &Watch, item: T) {
        self.change(|world| world.put(watch.what, item));
    }

    /// One went.
    pub(crate) fn gone<T: Kept>(&self, watch: &Watch, item: &T) {
        let (namespace, name) = item.id();
        let place = Place {
            what: watch.what,
            namespace: namespace.into(),
            name: name.into(),
        };
        self.change(|world| {
            T::table(world).remove(&place);
        });
    }

    /// The watch sees (again).
    pub(crate) fn sees(&self, watch: &Watch) {
        let blind = {
            let world = self.look();
            let sight = world.sights.get(watch);
            sight.is_none_or(|sight| sight.broken.is_some() || sight.denied.is_some())
        };
        if blind {
            self.change(|world| {
                let sight = world.sights.entry(watch.clone()).or_default();
                sight.broken = None;
                sight.denied = None;
            });
        }
    }

    /// The watch does not see.
    pub(crate) fn broken(&self, watch: &Watch, why: String) {
        self.change(|world| {
            let sight = world.sights.entry(watch.clone()).or_default();
            let since = sight.broken.take().map(|(since, _)| since);
            sight.broken = Some((since.unwrap_or_else(Instant::now), why));
        });
    }

    /// We may not look.
    pub(crate) fn denied(&self, watch: &Watch, why: String) {
        self.change(|world| {
            let sight = world.sights.entry(watch.clone()).or_default();
            sight.broken = None;
            sight.denied = Some(why);
        });
    }
}
