//! Which objects an upgrade applies, which it only looks at, and what two sets differ in. Pure.

use std::collections::BTreeSet;

use baetyl_manifests::{Class, Document, Fill, FillError, SYSTEM_NAMESPACE, UnknownClass};
use baetyl_runtime_kube::Object;
use serde_json::{Value, json};

use super::Wanted;

#[cfg(test)]
mod tests;

/// The `ConfigMap` that says which cloud the node belongs to.
const CLOUD: &str = "baetyl-cloud";
/// The Job that activates a node: it did.
const ACTIVATION: &str = "baetyl-init";

/// Why there are no manifests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// This version does not have the class.
    #[error(transparent)]
    Class(#[from] UnknownClass),
    /// Something that cannot stand where it belongs.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// It is not known which cloud the node belongs to.
    #[error(
        "the ConfigMap {CLOUD} with activate-url and ca-pin is not there; run the install command of the node again"
    )]
    NoCloud,
}

/// The objects of a version.
#[derive(Debug)]
pub(super) struct Set {
    /// In the order in which they are applied.
    pub(super) applied: Vec<Object>,
    /// Of the whole cluster: these are only looked at.
    pub(super) verified: Vec<Object>,
}

/// The `ConfigMap` with which cloud the node belongs to, by name.
pub(super) fn cloud() -> Object {
    Object {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        namespace: SYSTEM_NAMESPACE.to_owned(),
        name: CLOUD.to_owned(),
        body: Value::Null,
    }
}

fn object(document: Document) -> Object {
    Object {
        api_version: document.api_version().to_owned(),
        kind: document.kind().to_owned(),
        namespace: document.namespace().unwrap_or_default().to_owned(),
        name: document.name().to_owned(),
        body: document.into_value(),
    }
}

fn is_activation(document: &Document) -> bool {
    document.kind() == "Job" && document.name() == ACTIVATION
}

impl Set {
    /// This version's manifests. `cloud`: the live [`cloud`].
    ///
    /// # Errors
    /// When they cannot be made.
    pub(super) fn render(wanted: &Wanted, cloud: Option<&Value>) -> Result<Self, SetError> {
        let class: Class = wanted.to.class.parse()?;
        let fact = |key: &str| {
            let fact = cloud.and_then(|cloud| cloud["data"][key].as_str());
            fact.map(str::to_owned).ok_or(SetError::NoCloud)
        };
        let fill = Fill {
            registry: wanted.to.registry.clone(),
            version: wanted.to.version.clone(),
            activate_url: fact("activate-url")?,
            ca_pin: fact("ca-pin")?,
            kubernetes_node: None,
            pull_secret: wanted.pull_secret.clone(),
        };
        let documents = baetyl_manifests::render(class, &fill)?;
        let (verified, applied): (Vec<_>, Vec<_>) = documents
            .into_iter()
            .filter(|document| !is_activation(document))
            .partition(Document::is_cluster_scoped);
        Ok(Self {
            applied: applied.into_iter().map(object).collect(),
            verified: verified.into_iter().map(object).collect(),
        })
    }
}

type Key = (String, String, String);

fn key(object: &Object) -> Key {
    let Object {
        kind,
        namespace,
        name,
        ..
    } = object;
    (kind.clone(), namespace.clone(), name.clone())
}

/// Every object a version before may have applied: all that carry our label, where they may be listed, and what any class
/// of this version has, because roles and the objects among users' applications are known by name only. In the order of
/// this version's manifests.
pub(super) fn known(wanted: &Wanted, listed: &[Object]) -> Vec<Object> {
    let fill = Fill {
        registry: wanted.to.registry.clone(),
        version: wanted.to.version.clone(),
        activate_url: "https://cloud".to_owned(),
        ca_pin: format!("sha256:{}", "0".repeat(64)),
        kubernetes_node: None,
        pull_secret: None,
    };
    let classes = Class::ALL.into_iter();
    let documents =
        classes.flat_map(|class| baetyl_manifests::render(class, &fill).unwrap_or_default());
    let ours = documents
        .filter(|document| !document.is_cluster_scoped() && !is_activation(document))
        .map(object);
    let mut seen = BTreeSet::new();
    let all = ours.chain(listed.iter().cloned());
    all.filter(|object| seen.insert(key(object))).collect()
}

/// What of `before` is not in `after`, and can go: files of a volume would go with its claim.
pub(super) fn left_over<'a>(before: &'a [Object], after: &[Object]) -> Vec<&'a Object> {
    let stays: BTreeSet<Key> = after.iter().map(key).collect();
    let goes =
        |object: &&Object| object.kind != "PersistentVolumeClaim" && !stays.contains(&key(object));
    before.iter().filter(goes).collect()
}

/// Whether an object of the whole cluster is as this version needs it.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) fn verify(wanted: &Object, live: Option<&Value>) -> Result<(), String> {
    let what = match live {
        None => "is not there".to_owned(),
        Some(live) => match difference(&wanted.body, live) {
            None => return Ok(()),
            Some(at) => format!("differs at {at}"),
        },
    };
    Err(format!(
        "{} {} {what}, and an upgrade changes nothing that belongs to the whole cluster; run the install command of the node again",
        wanted.kind, wanted.name
    ))
}

/// Where a live object lacks something that is wanted of it; it may have more fields. None: nowhere.
pub(super) fn difference(wanted: &Value, live: &Value) -> Option<String> {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().find_map(|(name, wanted)| {
            let at = match live.get(name) {
                None if is_empty(wanted) => return None,
                None => String::new(),
                Some(live) => difference(wanted, live)?,
            };
            Some(format!("/{name}{at}"))
        }),
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => {
            let pairs = wanted.iter().zip(live).enumerate();
            pairs
                .filter_map(|(at, (wanted, live))| {
                    Some(format!("/{at}{}", difference(wanted, live)?))
                })
                .next()
        }
        (wanted, live) => (wanted != live).then(String::new),
    }
}

/// What Kubernetes does not keep.
fn is_empty(value: &Value) -> bool {
    [json!(null), json!({}), json!([]), json!("")].contains(value)
}
