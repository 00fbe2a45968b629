//! What a node shall run: hops 1 and 2 of the way down.
//!
//! [`derive_desire`] is a pure function of the rows at a revision: it reads no clock and no database. [`DesireFeed`] loads
//! those rows once per namespace and revision and wakes every link; each link derives its own node's desire in memory
//! and sends it when it differs from what the node has.

use std::sync::Arc;

use baetyl_model::desire::UnpackError;
use baetyl_model::{
    AppName, AppRef, Desire, DesiredApp, DesiredCore, Digest, Epoch, Generation, NameError,
    ObjectRef, ResourceName, ResourceRef, Revision,
};
use baetyl_proto::shadow::SignedDesire;
use baetyl_proto::{digest, sign};

mod feed;

#[cfg(test)]
mod tests;

pub use feed::{DesireFeed, FeedError};

use crate::pki::DesireKey;
use crate::store::{AppRow, NodeRow, Snapshot};

/// A row that no desire can be made of. The node keeps what it has: leaving an application out would remove it.
#[derive(Debug, thiserror::Error)]
pub enum DeriveError {
    /// A name that breaks the rules of the model.
    #[error(
        "application {app} cannot be delivered: a stored name is invalid; write the application again"
    )]
    Name {
        /// The application.
        app: String,
        /// What is wrong with the name.
        source: NameError,
    },
    /// An archive format nobody knows.
    #[error(
        "application {app} cannot be delivered: an object of it has an unknown archive format; write it again"
    )]
    Unpack {
        /// The application.
        app: String,
        /// What is wrong with the format.
        source: UnpackError,
    },
}

/// Hop 1: a change was accepted at a revision. Called by whoever committed it.
pub fn accepted(namespace: &str, revision: Revision, actor: &str, request_id: &str) {
    tracing::info!(event = "desire.accepted", namespace, %revision, actor, request_id, "change accepted");
}

/// The applications a node shall run, by name. None when the node is not to be told anything (`syncMode: local`).
pub fn select_apps(node: &NodeRow, snapshot: &Snapshot) -> Option<Vec<Arc<AppRow>>> {
    (!is_local(node)).then(|| selected_apps(node, snapshot))
}

/// The applications whose selector is for a node, by name, whether it is told of them or not.
pub fn selected_apps(node: &NodeRow, snapshot: &Snapshot) -> Vec<Arc<AppRow>> {
    let selected = snapshot.apps.iter().filter(|app| app.selects(node));
    selected.cloned().collect()
}

/// True when a node goes on with what it has (`syncMode: local`).
pub fn is_local(node: &NodeRow) -> bool {
    node.spec.sync_mode == "local"
}

/// The desire of a node that runs `apps`, complete with its digest.
///
/// # Errors
/// When a row breaks the rules of the model.
pub fn derive_desire(
    node: &NodeRow,
    apps: &[Arc<AppRow>],
    epoch: Epoch,
    generation: Generation,
) -> Result<Desire, DeriveError> {
    let desire = Desire {
        namespace: node.namespace.clone(),
        node_name: node.name.clone(),
        node_uid: node.uid.clone(),
        epoch,
        generation,
        digest: Digest::from_sha256([0; 32]),
        apps: apps
            .iter()
            .map(|app| desired_app(app))
            .collect::<Result<_, _>>()?,
        node_properties: node
            .properties
            .iter()
            .map(|(key, wish)| (key.clone(), wish.value.clone()))
            .collect(),
        core: desired_core(node),
    };
    Ok(digest::complete_desire(desire))
}

/// What an operator wishes of the core of a node in mode kube. Only rows speak here: an address of this cloud in it would
/// make another desire of the same generation when the configuration changes.
pub(crate) fn desired_core(node: &NodeRow) -> Option<DesiredCore> {
    let core = DesiredCore {
        version: node.spec.core_version.clone(),
        class: node.spec.core.class.clone(),
        registry: node.spec.core.registry.clone(),
    };
    let is_kube = node.spec.node_mode == "kube";
    (is_kube && core != DesiredCore::default()).then_some(core)
}

fn desired_app(row: &AppRow) -> Result<DesiredApp, DeriveError> {
    let name = |source| DeriveError::Name {
        app: row.name.clone(),
        source,
    };
    let resources = row.resources.iter().map(|resource| {
        Ok(ResourceRef {
            kind: resource.kind,
            name: ResourceName::new(&resource.name).map_err(name)?,
            version: resource.version.into(),
            digest: resource.digest,
            size: resource.size,
        })
    });
    let objects = row.objects.iter().map(|(configuration, version, object)| {
        Ok(ObjectRef {
            digest: object.digest,
            size: object.size,
            url: Some(object.url.clone()).filter(|url| !url.is_empty()),
            configuration: ResourceName::new(configuration).map_err(name)?,
            configuration_version: (*version).into(),
            file_name: object.file_name.parse().map_err(name)?,
            unpack: object
                .unpack
                .parse()
                .map_err(|source| DeriveError::Unpack {
                    app: row.name.clone(),
                    source,
                })?,
        })
    });
    Ok(DesiredApp {
        app: AppRef {
            name: AppName::new(&row.name).map_err(name)?,
            version: row.version.into(),
            digest: row.digest,
            size: row.size,
        },
        resources: resources.collect::<Result<_, _>>()?,
        objects: objects.collect::<Result<_, _>>()?,
        system: row.system,
    })
}

/// Hop 2: signs a desire that is about to go down a node's stream.
pub fn deliver_desire(key: &DesireKey, desire: Desire) -> SignedDesire {
    tracing::info!(
        event = "desire.delivered",
        namespace = %desire.namespace,
        node = %desire.node_name,
        epoch = %desire.epoch,
        generation = %desire.generation,
        digest = %desire.digest,
        apps = desire.apps.len(),
        "desire delivered"
    );
    sign::sign_desire(key.pair(), desire)
}
