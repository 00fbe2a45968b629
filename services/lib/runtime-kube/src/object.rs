//! One object as it shall be.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// One Kubernetes object as it shall be: the body of a server-side apply.
///
/// No `Debug`: the body may be that of a Secret.
#[derive(Clone, PartialEq)]
pub struct Object {
    /// e.g. `apps/v1`
    pub api_version: String,
    /// e.g. `Deployment`
    pub kind: String,
    /// Namespace it lies in; empty: it belongs to the cluster as a whole.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// The whole object, with apiVersion, kind and metadata.
    pub body: Value,
}

impl Object {
    /// The object a body is that of; None when it does not say what it is.
    #[must_use]
    pub fn read(body: Value) -> Option<Self> {
        let word = |pointer: &str| body.pointer(pointer)?.as_str().map(str::to_owned);
        Some(Self {
            api_version: word("/apiVersion")?,
            kind: word("/kind")?,
            namespace: word("/metadata/namespace").unwrap_or_default(),
            name: word("/metadata/name")?,
            body,
        })
    }

    /// An object of a namespace with its labels; `rest` is what it has besides metadata.
    pub(crate) fn new(
        (api_version, kind): (&str, &str),
        namespace: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
        rest: impl Into<Map<String, Value>>,
    ) -> Self {
        let mut body = rest.into();
        body.insert("apiVersion".to_owned(), json!(api_version));
        body.insert("kind".to_owned(), json!(kind));
        let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
        body.insert("metadata".to_owned(), metadata);
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            body: Value::Object(body),
        }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.kind, self.namespace, self.name)
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {self}", self.api_version)
    }
}
