//! One object, and many of them as a text.

use serde::Deserialize as _;
use serde_json::Value;

/// Kinds that belong to no namespace. A test compares with what stands in the manifests.
const CLUSTER_SCOPED: &[&str] = &[
    "ClusterRole",
    "ClusterRoleBinding",
    "Namespace",
    "PersistentVolume",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
];

/// An object as it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Document(Value);

impl Document {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.word("/kind")
    }

    /// Its API version, `group/version` or `v1`.
    #[must_use]
    pub fn api_version(&self) -> &str {
        self.word("/apiVersion")
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.word("/metadata/name")
    }

    /// Its namespace; none for what belongs to the whole cluster.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0
            .pointer("/metadata/namespace")
            .and_then(Value::as_str)
    }

    /// Whether it belongs to the whole cluster. An upgrade may look at these and not change them.
    #[must_use]
    pub fn is_cluster_scoped(&self) -> bool {
        CLUSTER_SCOPED.contains(&self.kind())
    }

    /// Whether it cannot be changed: a Job of before is deleted before this one is applied.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        self.kind() == "Job"
    }

    /// The whole object.
    #[must_use]
    pub const fn as_value(&self) -> &Value {
        &self.0
    }

    /// The whole object.
    #[must_use]
    pub fn into_value(self) -> Value {
        self.0
    }

    /// What Pods are made from, if there is something of the kind.
    pub(crate) fn pod_spec(&mut self) -> Option<&mut Value> {
        self.0.pointer_mut("/spec/template/spec")
    }

    pub(crate) fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }

    /// Every object of the manifests has the four; a test looks.
    fn word(&self, pointer: &str) -> &str {
        let word = self.0.pointer(pointer).and_then(Value::as_str);
        word.unwrap_or_default()
    }
}

/// The objects as one YAML text, for `kubectl apply -f -`.
#[must_use]
pub fn text(documents: &[Document]) -> String {
    let mut text = String::new();
    for document in documents {
        text.push_str("---\n");
        // A tree of maps, lists and plain values always has a text.
        text.push_str(&serde_norway::to_string(&document.0).unwrap_or_default());
    }
    text
}

/// The objects of a rendered file.
#[expect(
    clippy::expect_used,
    reason = "the files are compiled in, and a test parses each of them"
)]
pub(crate) fn parse(manifests: &str) -> Vec<Document> {
    serde_norway::Deserializer::from_str(manifests)
        .map(|document| {
            Document(Value::deserialize(document).expect("rendered manifests are YAML"))
        })
        .collect()
}
