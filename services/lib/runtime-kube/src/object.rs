//! One object as it shall be.

use serde_json::Value;

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
