//! Activates an edge node: makes its key, asks the cloud for an identity, hands that to sync, waits until the core services are ready.
//!
//! Start at [`run`]. Idempotent: where sync holds an identity nothing is asked again. This program starts no process and keeps nothing but
//! the key, and that only until sync has it. In kube mode it also takes a node from one version to the next ([`upgrade`]).

mod activate;
mod config;
mod key;
pub mod purge;
mod ready;
pub mod release;
pub mod upgrade;

use std::time::Duration;

use baetyl_kit::Kit;
use baetyl_kit::backoff::Backoff;
use baetyl_kit::grpc::{self, Client, ConnectError};
use baetyl_proto::callers::Role;
use baetyl_proto::sync::sync_service_client::SyncServiceClient;
use baetyl_proto::sync::{GetIdentityRequest, InstallIdentityRequest};
use tonic::{Code, Status};

pub use config::{Activate, Config, Peers, Service};

/// Why a node is not activated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing says where to ask, or with what proof.
    #[error(
        "this node has no identity yet and {0} is not configured; use the install command that the cloud gives for the node"
    )]
    NotConfigured(&'static str),
    /// The key cannot be kept.
    #[error("the key of the node cannot be kept in {path}")]
    Key {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The request for a certificate cannot be made.
    #[error("the certificate request cannot be made")]
    Request(#[source] rcgen::Error),
    /// The address or pin of the cloud is not usable.
    #[error("the cloud at {url} cannot be asked")]
    Address {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The way to a service of the node is not usable.
    #[error("{service} cannot be reached as configured")]
    Peer {
        /// Which.
        service: Service,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// The cloud said no; asking again is no use.
    #[error("the cloud refused to activate this node: {}", .0.message())]
    Refused(Status),
    /// sync did not take the identity.
    #[error("sync did not take the identity: {}", .0.message())]
    Handover(Status),
    /// Something did not happen in time.
    #[error("{what} within {deadline:?}; last: {last}")]
    Late {
        /// What was waited for.
        what: &'static str,
        /// How long.
        deadline: Duration,
        /// The last thing that stood in the way.
        last: String,
    },
}

/// Activates if needed, then waits until the core services are ready.
///
/// # Errors
/// [`Error`]; running it again goes on where it stopped.
pub async fn run(config: Config, kit: Kit) -> Result<(), Error> {
    let sync = SyncServiceClient::new(connect(&config, &kit, Service::Sync)?);
    let held = until(config.deadline, "sync does not answer", async || {
        sync.clone()
            .get_identity(grpc::unary(GetIdentityRequest {}))
            .await
            .map(tonic::Response::into_inner)
    })
    .await?;
    if held.installed {
        tracing::info!(
            namespace = held.namespace,
            node = held.node_name,
            "this node has its identity already"
        );
    } else {
        let identity = obtain(&config, &kit).await?;
        let (namespace, node) = (identity.namespace.clone(), identity.node_name.clone());
        hand_over(&config, &sync, identity).await?;
        tracing::info!(namespace, node, "sync holds the identity of this node");
    }
    // Only now: until sync has persisted the identity, the same key must be asked for again.
    key::forget(&kit)?;
    ready::until_ready(&config, &kit).await
}

/// The way to a service, as configured.
fn connect(config: &Config, kit: &Kit, service: Service) -> Result<Client, Error> {
    let to = service.role();
    baetyl_callers::connect(kit, config.peer(service), to, Role::Init)
        .map_err(|source| Error::Peer { service, source })
}

/// Again and again: a sync that starts anew or whose disk is full is no reason to ask the cloud once more.
async fn hand_over(
    config: &Config,
    sync: &SyncServiceClient<Client>,
    identity: InstallIdentityRequest,
) -> Result<(), Error> {
    let what = "sync does not take the identity";
    let handed = until(config.deadline, what, async || {
        let request = grpc::unary(identity.clone());
        sync.clone().install_identity(request).await.map(drop)
    });
    handed.await.map_err(|error| match error {
        Error::Refused(status) => Error::Handover(status),
        other => other,
    })
}

/// Key, request, answer.
async fn obtain(config: &Config, kit: &Kit) -> Result<InstallIdentityRequest, Error> {
    let url = config
        .activate
        .url
        .as_deref()
        .ok_or(Error::NotConfigured("activate.url (--activate-url)"))?;
    let pin = config
        .activate
        .ca_pin
        .as_deref()
        .ok_or(Error::NotConfigured("activate.ca_pin (--activate-ca-pin)"))?;
    let token = config
        .token
        .as_deref()
        .ok_or(Error::NotConfigured("token (BAETYL_INIT__TOKEN)"))?;
    let key = key::load_or_create(kit)?;
    let csr = activate::request(&key)?;
    let mut client = activate::connect(url, pin)?;
    tracing::info!(url, "asking the cloud for the identity of this node");
    let answer = until(config.deadline, "the cloud does not answer", async || {
        activate::ask(&mut client, token, &csr, config.mode).await
    })
    .await?;
    Ok(InstallIdentityRequest {
        namespace: answer.namespace,
        node_name: answer.node_name,
        node_uid: answer.node_uid,
        private_key: key.serialize_der().into(),
        certificate_chain: answer.certificate_chain,
        trusted_authorities: answer.trusted_authorities,
        desire_keys: answer.desire_keys,
        link_addresses: answer.link_addresses,
    })
}

/// Tries until it works, a refusal that asking again does not change, or the deadline.
async fn until<T>(
    deadline: Duration,
    what: &'static str,
    mut attempt: impl AsyncFnMut() -> Result<T, Status>,
) -> Result<T, Error> {
    let mut backoff = Backoff::local();
    let mut last = String::new();
    let tries = async {
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(status) if is_final(&status) => return Err(Error::Refused(status)),
                Err(status) => {
                    tracing::warn!(code = ?status.code(), "{what}: {}", status.message());
                    status.message().clone_into(&mut last);
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    };
    match tokio::time::timeout(deadline, tries).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Late {
            what,
            deadline,
            last,
        }),
    }
}

fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unauthenticated
            | Code::AlreadyExists
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::NotFound
            | Code::FailedPrecondition
    )
}

#[cfg(test)]
mod tests;
