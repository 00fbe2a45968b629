//! First contact: a node proves that it was meant to be installed and gets an identity for the key it made.
//!
//! [`Activator::activate`] is the whole story: token, node, request, then one transaction that counts the use and binds
//! the key. A failure leaves no trace. [`grpc`] and [`rest`] put it on the wire, on one port.

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use baetyl_kit::Kit;
use baetyl_kit::grpc::{Authorize, CallerInfo, Server};
use baetyl_kit::listen::{BindError, Listen, Listener, UnixAccess};
use baetyl_kit::serve::ServeError;
use baetyl_model::NodeName;
use baetyl_proto::activation::activation_service_server::ActivationServiceServer;
use baetyl_proto::callers::{Role, may_call};
use rustls_pki_types::CertificateDer;
use tonic::Status;

mod grpc;
pub(crate) mod identities;
mod kube;
mod limit;
mod rest;

#[cfg(test)]
mod tests;

use crate::install::{InstallClaims, InstallTokens, TokenError};
use crate::link::Links;
use crate::openapi::Shape;
use crate::pki::{CsrError, IssuedCertificate, NodeCsr, NodeIdentity, Pki, PkiError};
use crate::store::{Doing as _, Store, StoreError};
use identities::IdentityRow;
pub use kube::KubeDoor;
use limit::Limit;

/// Why a node gets no identity. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// No proof at all.
    #[error(
        "an install token is needed; get an install command for the node and run it on the machine"
    )]
    NoProof,
    /// The token is not accepted.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Used as often as it may be.
    #[error("the install token of node {0} was used too often; get a new install command")]
    UsedUp(NodeName),
    /// The node was deleted after the token was made.
    #[error("node {0} does not exist any more; create it and get a new install command")]
    NodeGone(NodeName),
    /// No request, as Baetyl v2's programs do it.
    #[error(
        "a certificate signing request is needed (field csr): the private key is made on the node and never leaves \
         it; use baetyl-init of this release"
    )]
    NoCsr,
    /// The request cannot be used.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// Another key was bound to the node since the token was made.
    #[error(
        "node {0} was activated with another key; to install this machine anew, get a new install command"
    )]
    OtherKey(NodeName),
    /// A program that runs applications another way than the node is described.
    #[error(
        "node {node} is described with nodeMode {described}, and this machine runs in mode {runs}; describe another node for it"
    )]
    Mode {
        /// The node.
        node: NodeName,
        /// Its mode.
        described: String,
        /// That of the machine.
        runs: String,
    },
    /// Activation by batch and fingerprint.
    #[error("activation by batch is not part of this release; use an install token")]
    Batch,
    /// A certificate could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An identity.
#[derive(Clone, Debug)]
pub struct Activated {
    /// Who the node is.
    pub node: NodeIdentity,
    /// Its certificate.
    pub certificate: IssuedCertificate,
    /// DER of the authority that signs the certificate shown on the link.
    pub authority: CertificateDer<'static>,
    /// Raw keys that may sign this node's desires.
    pub desire_keys: Vec<[u8; 32]>,
    /// Where the link is, tried in order.
    pub link_addresses: Vec<String>,
}

/// What becomes of a token and a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// The key is bound to the node; tokens made before are good for this key only.
    Bind(IdentityRow),
    /// The node has this key already: a lost answer is given again.
    Again(IdentityRow),
}

/// What the REST form of activation takes and gives, for the API document.
pub(crate) fn shapes() -> (Shape, Shape) {
    rest::shapes()
}

/// Gives identities to nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Activator {
    store: Store,
    pki: Pki,
    tokens: InstallTokens,
    links: Links,
    link_addresses: Arc<[String]>,
}

impl Activator {
    /// `link_addresses`: `https://host:port` of the link, as nodes reach it.
    pub fn new(
        store: Store,
        pki: Pki,
        tokens: InstallTokens,
        links: Links,
        link_addresses: Vec<String>,
    ) -> Self {
        Self {
            store,
            pki,
            tokens,
            links,
            link_addresses: link_addresses.into(),
        }
    }

    /// Exchanges an install token and a request for an identity. The request is read, and its signature checked, only
    /// for those who have a token: anybody may call. `mode`: how the machine runs applications; empty: it does not say.
    ///
    /// # Errors
    /// When one of them is not accepted; then nothing was changed.
    pub async fn activate(
        &self,
        token: &str,
        mode: &str,
        read: impl FnOnce() -> Result<NodeCsr, CsrError> + Send,
    ) -> Result<Activated, ActivateError> {
        if token.is_empty() {
            return Err(ActivateError::NoProof);
        }
        let claims = self.tokens.verify(token)?;
        let csr = &read()?;
        let gone = || ActivateError::NodeGone(claims.node.clone());
        let row = self
            .store
            .node_by_uid(&claims.namespace, &claims.uid)
            .await?
            .ok_or_else(gone)?;
        let described = &row.spec.node_mode;
        if !mode.is_empty() && !described.is_empty() && mode != described {
            return Err(ActivateError::Mode {
                node: row.name,
                described: described.clone(),
                runs: mode.chars().take(32).collect(),
            });
        }
        let node = NodeIdentity {
            namespace: row.namespace,
            name: row.name,
            uid: row.uid,
        };
        csr.check_names(&node, self.pki.trust_domain())?;
        // Before the transaction: making the key of a namespace writes, too.
        let desire_key = self.pki.desire_key(&node.namespace).await?;
        let certificate = self.pki.issue_node_certificate(csr, &node)?;
        let rebound = self.bind(&claims, csr, &node, &certificate).await?;
        if rebound {
            self.links.end(
                &node.namespace,
                &node.uid,
                "the node was activated with another key",
            );
        }
        tracing::info!(namespace = %node.namespace, node = %node.name, uid = %node.uid,
            not_after = %certificate.not_after, "node activated");
        Ok(Activated {
            node,
            certificate,
            authority: self.pki.server_authority().clone(),
            desire_keys: vec![desire_key.public_key()],
            link_addresses: self.link_addresses.to_vec(),
        })
    }

    /// Counts the use of the token and binds the key, or does neither. True when the node had another key before.
    async fn bind(
        &self,
        claims: &InstallClaims,
        csr: &NodeCsr,
        node: &NodeIdentity,
        certificate: &IssuedCertificate,
    ) -> Result<bool, ActivateError> {
        let now = self.pki.clock().now();
        let mut tx = self
            .store
            .writer()
            .begin_with("BEGIN IMMEDIATE")
            .await
            .doing("open a transaction")?;
        let known = identities::load(&mut tx, &node.namespace, &node.uid).await?;
        let uses = identities::token_uses(&mut tx, claims).await?;
        let decision = decide(claims, uses, known.as_ref(), csr.public_key(), certificate)?;
        identities::count_use(&mut tx, claims, now).await?;
        let (Decision::Bind(row) | Decision::Again(row)) = &decision;
        identities::bind(&mut tx, node, row, certificate, now).await?;
        tx.commit().await.doing("write the identity")?;
        Ok(known.is_some_and(|known| !row.accepts(&known.public_key)))
    }
}

/// Pure: the rule of install tokens.
fn decide(
    claims: &InstallClaims,
    uses: u64,
    known: Option<&IdentityRow>,
    public_key: [u8; 32],
    certificate: &IssuedCertificate,
) -> Result<Decision, ActivateError> {
    if uses >= u64::from(claims.max_uses) {
        return Err(ActivateError::UsedUp(claims.node.clone()));
    }
    let not_after = certificate.not_after;
    match known {
        Some(known) if claims.enrolments < known.enrolments => {
            if known.public_key == public_key {
                Ok(Decision::Again(IdentityRow {
                    not_after,
                    ..known.clone()
                }))
            } else {
                Err(ActivateError::OtherKey(claims.node.clone()))
            }
        }
        _ => Ok(Decision::Bind(IdentityRow {
            enrolments: claims.enrolments + 1,
            public_key,
            previous_key: None,
            not_after,
        })),
    }
}

/// Takes the place where activation will be served. Returns the real one, too.
///
/// # Errors
/// When it is taken.
pub async fn bind(listen: &Listen) -> Result<(Listener, Listen), ActivationServeError> {
    let listener = Listener::bind(listen, UnixAccess::Private).await?;
    let bound = listener.local_addr();
    Ok((listener, bound.map_err(ActivationServeError::Address)?))
}

/// Serves activation, gRPC and REST, and what install commands fetch, on one port with server TLS. Returns where.
///
/// # Errors
/// When its address cannot be recorded.
pub fn serve(
    kit: &Kit,
    listener: Listener,
    activator: Activator,
    install: KubeDoor,
) -> Result<Listen, ActivationServeError> {
    let tls = activator.pki.activation_tls();
    let http = rest::router(activator.clone()).merge(kube::router(install));
    let limit = Limit::new(activator.pki.clock().clone());
    let http = http.layer(from_fn_with_state(Arc::new(limit), limit::admit));
    let server = Server::new(kit, "activation")
        .tls(tls)
        .authorize(authorize())
        .reflection(baetyl_proto::DESCRIPTORS)
        .add_service(ActivationServiceServer::new(grpc::Service(activator)))
        .http(http);
    Ok(server.serve_on(listener)?)
}

/// Anyone may try; the token decides.
fn authorize() -> Authorize {
    Arc::new(|_, path, _| {
        if may_call(Role::Anyone, path) {
            Ok(CallerInfo::new(Role::Anyone.as_str()))
        } else {
            Err(Status::permission_denied(format!(
                "{path} is not served here"
            )))
        }
    })
}

/// Why activation is not served.
#[derive(Debug, thiserror::Error)]
pub enum ActivationServeError {
    /// It could not bind.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Nobody says where it listens.
    #[error("the address of activation cannot be read")]
    Address(#[source] std::io::Error),
    /// It could not serve.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// TLS could not be set up.
    #[error(transparent)]
    Pki(#[from] PkiError),
}
