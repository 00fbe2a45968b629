//! What was applied and shall be there, so that it is noticed when others take it away. It is in memory only: a program
//! that starts applies everything, which changes nothing and fills it.

use std::collections::BTreeMap;

use baetyl_model::workload::WorkloadKey;
use tokio::time::{Duration, Instant};

use crate::names;
use crate::object::Object;
use crate::seen::Fields;
use crate::world::{Place, Shared, Watch, What, World};

/// How long the watches have to tell of what was applied. Nothing is put back more often than that.
pub(crate) const SETTLED: Duration = Duration::from_secs(5);

/// Applications of which something was applied, by namespace of ours and name.
#[derive(Debug, Default)]
pub(crate) struct Ledger(BTreeMap<(String, String), Entry>);

/// What the version of an application that was applied last consists of.
#[derive(Debug, Default)]
struct Entry {
    version: String,
    /// When all of it was applied; None: not yet.
    since: Option<Instant>,
    objects: Held,
    /// Its own Secrets.
    secrets: Held,
}

/// Objects by path.
pub(crate) type Held = BTreeMap<String, Applied>;

/// One object as it was applied.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    kind: String,
    namespace: String,
    name: String,
    /// sha256 of what was applied.
    pub(crate) digest: String,
    /// What of it is ours.
    pub(crate) fields: Fields,
    /// Whether it was applied with the rights of `baetyl-apply`.
    authored: bool,
    /// Whether it shall be there as long as its application is.
    stays: bool,
    /// What watches its kind.
    what: Option<What>,
    /// What was found when it was asked for, because nothing watches it.
    found: Option<Taken>,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Deleted,
    Changed,
}

/// An object that has to be asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unwatched {
    pub(crate) namespace: String,
    pub(crate) app: String,
    pub(crate) path: String,
    pub(crate) authored: bool,
}

impl Applied {
    pub(crate) fn new(object: &Object, digest: String, fields: Fields, authored: bool) -> Self {
        Self {
            authored,
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            digest,
            fields,
            stays: stays(object),
            what: What::of_kind(&object.api_version, &object.kind),
            found: None,
        }
    }

    /// What is known of it by the watches; None: nothing watches it where it is.
    fn seen(&self, world: &World) -> Option<Option<Taken>> {
        let what = self.what?;
        let namespace = self.namespace.as_str();
        let sight = world.sights.get(&Watch {
            what,
            namespace: namespace.to_owned(),
        })?;
        if sight.denied.is_some() {
            return None;
        }
        if !sight.listed || sight.broken.is_some() {
            // Nobody can tell now.
            return Some(None);
        }
        let place = Place {
            what,
            namespace: namespace.into(),
            name: self.name.as_str().into(),
        };
        if let Some(thing) = world.things.get(&place) {
            let changed = thing.item.metadata.managed_fields.differ_from(self.fields);
            return Some(changed.then_some(Taken::Changed));
        }
        // What is changed of a workload is for its next version to say.
        let there = world.controllers.contains_key(&place) || world.pods.contains_key(&place);
        Some((!there).then_some(Taken::Deleted))
    }

    fn words(&self, taken: Taken) -> String {
        let what = match taken {
            Taken::Deleted => "somebody took it away",
            Taken::Changed => "somebody took fields of it that are the application's",
        };
        format!("{} {}: {what}", self.kind, self.name)
    }
}

/// A Job is done some time, and so is a Pod that is not started again; both may go then.
fn stays(object: &Object) -> bool {
    let policy = object.body.pointer("/spec/restartPolicy");
    match object.kind.as_str() {
        "Job" => false,
        "Pod" => policy.is_none_or(|policy| policy == "Always"),
        _ => true,
    }
}

fn id(key: &WorkloadKey) -> (String, String) {
    (key.namespace.to_string(), key.app.to_string())
}

impl Entry {
    fn all(&self) -> impl Iterator<Item = (&String, &Applied)> {
        let all = self.objects.iter().chain(&self.secrets);
        all.filter(|(_, applied)| applied.stays)
    }
}

impl World {
    /// What others took of a workload, in words, and when to look again although nothing changes.
    pub(crate) fn taken(
        &self,
        key: &WorkloadKey,
        now: Instant,
    ) -> (Option<String>, Option<Instant>) {
        let entry = self.ledger.0.get(&id(key));
        let entry = entry.filter(|entry| entry.version == key.version.as_str());
        let Some((entry, since)) = entry.and_then(|entry| Some((entry, entry.since?))) else {
            return (None, None);
        };
        if now < since + SETTLED {
            return (None, Some(since + SETTLED));
        }
        let taken = entry.all().find_map(|(_, applied)| {
            let taken = applied.seen(self).unwrap_or(applied.found)?;
            Some(applied.words(taken))
        });
        (taken, None)
    }

    /// Objects nothing watches.
    pub(crate) fn unwatched(&self) -> Vec<Unwatched> {
        let mut all = Vec::new();
        for ((namespace, app), entry) in &self.ledger.0 {
            let settled = entry.since.into_iter().flat_map(|_| entry.all());
            all.extend(
                settled
                    .filter(|(_, applied)| applied.seen(self).is_none())
                    .map(|(path, applied)| Unwatched {
                        namespace: namespace.clone(),
                        app: app.clone(),
                        path: path.clone(),
                        authored: applied.authored,
                    }),
            );
        }
        all
    }
}

impl Shared {
    /// A version is going to be applied: until it is, nothing of the application is missed. What was applied before.
    pub(crate) fn applying(&self, key: &WorkloadKey) -> Held {
        self.change(|world| {
            let entry = world.ledger.0.entry(id(key)).or_default();
            key.version.as_str().clone_into(&mut entry.version);
            entry.since = None;
            entry.objects.clone()
        })
    }

    /// All of a version is applied.
    pub(crate) fn applied(&self, key: &WorkloadKey, objects: Held) {
        self.change(|world| {
            let entry = world.ledger.0.entry(id(key)).or_default();
            entry.since = Some(Instant::now());
            entry.objects = objects;
        });
    }

    /// A Secret was written; it is missed when its labels say that it is an application's.
    pub(crate) fn wrote_secret(
        &self,
        (namespace, name): (&str, &str),
        path: &str,
        labels: &BTreeMap<String, String>,
        fields: Fields,
    ) {
        let Some(app) = labels.get(names::APP_NAME) else {
            return;
        };
        let mut world = self.look();
        let id = (namespace.to_owned(), app.clone());
        let entry = world.ledger.0.entry(id).or_default();
        let secret = Applied {
            kind: "Secret".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            digest: String::new(),
            fields,
            authored: false,
            stays: true,
            what: Some(What::Secrets),
            found: None,
        };
        entry.secrets.insert(path.to_owned(), secret);
    }

    /// A version shall be there no more.
    pub(crate) fn forget(&self, key: &WorkloadKey) {
        let mut world = self.look();
        let entries = &mut world.ledger.0;
        if entries
            .get(&id(key))
            .is_some_and(|entry| entry.version == key.version.as_str())
        {
            entries.remove(&id(key));
        }
    }

    /// What an object that nothing watches was found to be.
    pub(crate) fn found(&self, object: &Unwatched, live: Option<Fields>) {
        self.change(|world| {
            let id = (object.namespace.clone(), object.app.clone());
            let Some(entry) = world.ledger.0.get_mut(&id) else {
                return;
            };
            let applied = entry.objects.get_mut(&object.path);
            let Some(applied) = applied.or_else(|| entry.secrets.get_mut(&object.path)) else {
                return;
            };
            applied.found = match live {
                None => Some(Taken::Deleted),
                Some(fields) => fields.differ_from(applied.fields).then_some(Taken::Changed),
            };
        });
    }
}
