//! One release with everything it consists of, as runtimes are given it.

use std::collections::BTreeMap;

use baetyl_model::Digest;
use baetyl_model::desire::DesiredApp;
use baetyl_model::name::Namespace;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::bodies::Bodies;
use crate::certificates::Authority;
use crate::objects::Objects;
use crate::shape::Shape;
use crate::token::TokenIssuer;

/// Namespace of user applications.
pub const USER_NAMESPACE: &str = "baetyl-edge";
/// Namespace of system applications.
pub const SYSTEM_NAMESPACE: &str = "baetyl-edge-system";

/// Namespace of an application.
pub fn namespace_of(system: bool) -> Namespace {
    let name = if system {
        SYSTEM_NAMESPACE
    } else {
        USER_NAMESPACE
    };
    #[expect(
        clippy::expect_used,
        reason = "both constants are valid names, and a test says so"
    )]
    Namespace::new(name).expect("constant")
}

/// Who this node is, as the desire that brought the release said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// Tenant.
    pub namespace: String,
    /// Name of the node.
    pub name: String,
}

/// Everything a release consists of, and who it is made for.
pub struct Contents<'a> {
    /// What shall run.
    pub release: &'a DesiredApp,
    /// Its bodies.
    pub bodies: &'a Bodies,
    /// Where objects are.
    pub objects: &'a Objects,
    /// Who the node is.
    pub node: &'a NodeIdentity,
    /// Makes token files.
    pub tokens: &'a TokenIssuer,
    /// Makes certificates.
    pub authority: &'a Authority,
    /// Objects of every version of the application that may run, in this one's place or beside it.
    pub reachable: &'a [Digest],
    /// When the release was taken in: goes into tokens, so that resolving again gives the same files.
    pub taken_at: Timestamp,
}

/// What a runtime handed to an application out of what the machine has, and what stays with it: engine keeps it on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Handed {
    /// Ports by instance.
    pub ports: BTreeMap<String, Vec<u16>>,
    /// User id it runs as; its files belong to it.
    pub user: Option<u32>,
}

/// What a runtime shall run for one release.
#[derive(Debug, Clone)]
pub struct Resolved<W> {
    /// Run to their end one after the other before the services start.
    pub init: Vec<W>,
    /// What serves (or, for a job, ends).
    pub services: Vec<W>,
    /// What others want to know of it.
    pub shape: Shape,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_namespaces_are_names() {
        assert_eq!(namespace_of(false).as_str(), USER_NAMESPACE);
        assert_eq!(namespace_of(true).as_str(), SYSTEM_NAMESPACE);
    }
}
