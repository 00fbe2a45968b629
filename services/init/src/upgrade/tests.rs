//! An upgrade of a cluster that is not there, which can stop answering at any point.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use baetyl_manifests::SYSTEM_NAMESPACE;
use serde_json::{Value, json};

use super::*;

const NEW: &str = "0.2.0";
const BROKEN: &str = "0.2.0-broken";

fn core(version: &str, class: &str) -> Core {
    Core {
        version: version.to_owned(),
        class: class.to_owned(),
        registry: "r:5000/b".to_owned(),
    }
}

fn wanted(to: Core) -> Wanted {
    Wanted {
        to,
        pull_secret: None,
        deadline: Duration::from_secs(60),
    }
}

/// The set of a version, as the fake keeps it.
fn set_of(core: &Core) -> Set {
    let pin = format!("sha256:{}", "0".repeat(64));
    let facts = json!({"data": {"activate-url": "https://c:9003", "ca-pin": pin}});
    Set::render(&wanted(core.clone()), Some(&facts)).unwrap()
}

/// An object as the fake keeps it; all of its fields are ours.
fn kept_as(object: &Object) -> Value {
    let mut live = object.body.clone();
    live["metadata"]["managedFields"] = json!([
        {"manager": "baetyl-core", "operation": "Apply", "fieldsV1": fields_of(&object.body)},
    ]);
    live
}

/// All fields of maps; a list is one piece.
fn fields_of(value: &Value) -> Value {
    let fields = value.as_object().into_iter().flatten();
    let named = fields.map(|(name, value)| (format!("f:{name}"), fields_of(value)));
    Value::Object(named.collect())
}

type Named = (String, String);

fn name_of(object: &Object) -> Named {
    (
        object.kind.clone(),
        format!("{}/{}", object.namespace, object.name),
    )
}

#[derive(Default)]
struct Fake {
    objects: RefCell<BTreeMap<Named, Value>>,
    kept: RefCell<Option<Kept>>,
    /// Writes until nobody answers any more.
    left: Cell<Option<usize>>,
    writes: Cell<usize>,
    /// What is refused, by name and words.
    refuses: RefCell<Option<(&'static str, KubeError)>>,
    offline: Cell<bool>,
}

impl Fake {
    /// A cluster with this installed, whose engine made a record.
    fn installed(from: &Core, to: &Core) -> Self {
        let fake = Self::default();
        let set = set_of(from);
        for object in set.applied.iter().chain(&set.verified) {
            fake.objects
                .borrow_mut()
                .insert(name_of(object), kept_as(object));
        }
        let record = Upgrade::new(from.clone(), to.clone());
        *fake.kept.borrow_mut() = Some(Kept {
            record,
            old: Vec::new(),
        });
        fake
    }

    /// Counts a write, and hangs for ever when it is one too many.
    async fn write(&self) {
        self.writes.set(self.writes.get() + 1);
        match self.left.get() {
            Some(0) => std::future::pending().await,
            Some(left) => self.left.set(Some(left - 1)),
            None => {}
        }
    }

    fn record(&self) -> Upgrade {
        self.kept.borrow().as_ref().unwrap().record.clone()
    }

    /// Objects of the two namespaces, but claims, which stay.
    fn state(&self) -> BTreeMap<Named, Value> {
        let objects = self.objects.borrow();
        let namespaced = objects
            .iter()
            .filter(|((kind, name), _)| !name.starts_with('/') && kind != "PersistentVolumeClaim");
        namespaced
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    fn is(&self, core: &Core) {
        let other = Self::installed(core, core);
        let (left, right) = (self.state(), other.state());
        assert_eq!(
            left.keys().collect::<Vec<_>>(),
            right.keys().collect::<Vec<_>>()
        );
        assert_eq!(left, right);
    }
}

impl Cluster for Fake {
    async fn kept(&self) -> Result<Option<Kept>, UpgradeError> {
        Ok(self.kept.borrow().clone())
    }

    async fn keep(&self, kept: &Kept) -> Result<(), UpgradeError> {
        self.write().await;
        *self.kept.borrow_mut() = Some(kept.clone());
        Ok(())
    }

    async fn live(&self, object: &Object) -> Result<Option<Value>, KubeError> {
        let mut live = self.objects.borrow().get(&name_of(object)).cloned();
        if let Some(live) = live.as_mut().filter(|_| object.kind == "Deployment") {
            let image = live["spec"]["template"]["spec"]["containers"][0]["image"].to_string();
            let available = u8::from(!image.contains(BROKEN) || !image.contains("engine"));
            live["status"] = json!({
                "replicas": 1, "updatedReplicas": 1, "availableReplicas": available,
            });
        }
        Ok(live)
    }

    async fn all(&self) -> Result<Vec<Object>, KubeError> {
        let objects = self.objects.borrow();
        let all = objects.values().cloned().filter_map(Object::read);
        Ok(all
            .filter(|object| object.namespace == SYSTEM_NAMESPACE)
            .collect())
    }

    async fn apply(&self, object: &Object, dry_run: bool) -> Result<(), KubeError> {
        if let Some((name, error)) = &*self.refuses.borrow()
            && *name == object.name
        {
            return Err(error.clone());
        }
        assert!(
            !object.namespace.is_empty(),
            "{object} belongs to the whole cluster"
        );
        if !dry_run {
            self.write().await;
            self.objects
                .borrow_mut()
                .insert(name_of(object), kept_as(object));
        }
        Ok(())
    }

    async fn replace(&self, object: &Object) -> Result<(), KubeError> {
        self.delete(object).await?;
        self.apply(object, false).await
    }

    async fn delete(&self, object: &Object) -> Result<(), KubeError> {
        self.write().await;
        self.objects.borrow_mut().remove(&name_of(object));
        Ok(())
    }

    async fn trouble(&self, _: &str) -> Option<String> {
        Some("CrashLoopBackOff: back-off".to_owned())
    }

    async fn reaches_cloud(&self) -> bool {
        !self.offline.get()
    }
}

fn error(kind: baetyl_runtime_kube::ErrorKind, message: &str) -> KubeError {
    KubeError {
        kind,
        message: message.to_owned(),
    }
}

async fn failed(fake: &Fake, to: &Core) -> String {
    match upgrade(fake, &wanted(to.clone())).await.unwrap() {
        Ended::Failed(why) => why,
        Ended::Upgraded => panic!("it was upgraded"),
    }
}

#[tokio::test(start_paused = true)]
async fn another_version_takes_the_place_of_the_one_before() {
    let (old, new) = (core("0.1.0", "node-standard"), core(NEW, "node-standard"));
    let fake = Fake::installed(&old, &new);
    let ended = upgrade(&fake, &wanted(new.clone())).await.unwrap();
    assert_eq!(
        (ended, fake.record().phase),
        (Ended::Upgraded, Phase::Upgraded)
    );
    fake.is(&new);
    let writes = fake.writes.get();
    let again = upgrade(&fake, &wanted(new)).await.unwrap();
    assert_eq!((again, fake.writes.get()), (Ended::Upgraded, writes));
}

#[tokio::test(start_paused = true)]
async fn what_another_class_lacks_goes_when_the_new_one_works() {
    let (old, new) = (core("0.1.0", "node-standard"), core(NEW, "node-1gb"));
    let fake = Fake::installed(&old, &new);
    let proxy = (
        "Deployment".to_owned(),
        "baetyl-edge-system/baetyl-function".to_owned(),
    );
    assert!(fake.objects.borrow().contains_key(&proxy));
    assert_eq!(upgrade(&fake, &wanted(new)).await.unwrap(), Ended::Upgraded);
    assert!(!fake.objects.borrow().contains_key(&proxy));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_does_not_work_is_taken_back_and_the_report_says_why() {
    let (old, new) = (core("0.1.0", "node-1gb"), core(BROKEN, "node-standard"));
    let fake = Fake::installed(&old, &new);
    let verified = set_of(&new).verified;
    for object in &verified {
        fake.objects
            .borrow_mut()
            .insert(name_of(object), kept_as(object));
    }
    let why = failed(&fake, &new).await;
    let words = "baetyl-engine is not available: CrashLoopBackOff: back-off; 0.1.0 was put back";
    assert_eq!(why, words);
    fake.is(&old);
    assert_eq!(failed(&fake, &new).await, words, "and stays so");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_loses_the_cloud_by_its_new_version_gets_the_old_one_back() {
    let (old, new) = (core("0.1.0", "k3s"), core(NEW, "k3s"));
    let fake = Fake::installed(&old, &new);
    fake.left.set(Some(3));
    let wanted = wanted(new.clone());
    let first = tokio::time::timeout(Duration::from_secs(600), upgrade(&fake, &wanted));
    first.await.unwrap_err();
    fake.left.set(None);
    fake.offline.set(true);
    let why = failed(&fake, &new).await;
    assert_eq!(why, "the cloud is not reached any more; 0.1.0 was put back");
    fake.is(&old);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_offline_before_needs_no_cloud() {
    let (old, new) = (core("0.1.0", "k3s"), core(NEW, "k3s"));
    let fake = Fake::installed(&old, &new);
    fake.offline.set(true);
    assert_eq!(upgrade(&fake, &wanted(new)).await.unwrap(), Ended::Upgraded);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_beforehand_changes_nothing() {
    use baetyl_runtime_kube::ErrorKind::{Conflict, Refused};
    let (old, new) = (core("0.1.0", "k3s"), core(NEW, "k3s"));
    for (kind, words) in [
        (Conflict, "conflict with \"kubectl\": .spec.replicas"),
        (Refused, "admission webhook says no"),
    ] {
        let fake = Fake::installed(&old, &new);
        *fake.refuses.borrow_mut() = Some(("baetyl-sync", error(kind, words)));
        assert_eq!(
            failed(&fake, &new).await,
            format!("{words}; nothing was changed")
        );
        fake.is(&old);
    }
    let fake = Fake::installed(&old, &new);
    let class = ("PriorityClass".to_owned(), "/baetyl-core".to_owned());
    fake.objects.borrow_mut().remove(&class).unwrap();
    let why = failed(&fake, &new).await;
    assert!(
        why.starts_with("PriorityClass baetyl-core is not there"),
        "{why}"
    );
    fake.is(&old);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_nobody_installed_so_is_left_alone() {
    let (old, new) = (core("0.1.0", "k3s"), core(NEW, "k3s"));
    let fake = Fake::installed(&old, &new);
    for object in fake.objects.borrow_mut().values_mut() {
        object["metadata"]["managedFields"][0]["manager"] = "kubectl".into();
    }
    assert!(
        failed(&fake, &new)
            .await
            .contains("nothing could be put back")
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_was_called_off_does_nothing() {
    let (old, new) = (core("0.1.0", "k3s"), core(NEW, "k3s"));
    let fake = Fake::installed(&old, &new);
    let other = wanted(core("0.3.0", "k3s"));
    let error = upgrade(&fake, &other).await.unwrap_err();
    assert!(matches!(error, UpgradeError::CalledOff(_)));
    fake.is(&old);
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_write_the_next_start_ends_with_one_version_whole() {
    let old = core("0.1.0", "node-standard");
    for (version, wins) in [(NEW, true), (BROKEN, false)] {
        let new = core(version, "node-1gb");
        let (wanted, mut at) = (wanted(new.clone()), 0);
        loop {
            let fake = Fake::installed(&old, &new);
            fake.left.set(Some(at));
            let first = tokio::time::timeout(Duration::from_secs(600), upgrade(&fake, &wanted));
            let uninterrupted = first.await.is_ok();
            fake.left.set(None);
            let ended = upgrade(&fake, &wanted).await.unwrap();
            assert_eq!(
                ended == Ended::Upgraded,
                wins,
                "killed at write {at}: {ended:?}"
            );
            fake.is(if wins { &new } else { &old });
            if uninterrupted {
                break;
            }
            at += 1;
        }
        assert!(at > 20, "{at} writes");
    }
}

#[tokio::test(start_paused = true)]
async fn killed_again_and_again_while_it_applies_it_goes_back() {
    let (old, new) = (core("0.1.0", "k3s"), core(NEW, "k3s"));
    let fake = Fake::installed(&old, &new);
    let wanted = wanted(new.clone());
    for _ in 0..MAX_STARTS {
        fake.left.set(Some(5));
        let killed = tokio::time::timeout(Duration::from_secs(600), upgrade(&fake, &wanted));
        killed.await.unwrap_err();
    }
    fake.left.set(None);
    let why = failed(&fake, &new).await;
    assert_eq!(why, "it was interrupted 3 times; 0.1.0 was put back");
    fake.is(&old);
}
