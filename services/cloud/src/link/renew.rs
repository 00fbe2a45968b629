//! A new certificate for a node that has one, also when it expired within the grace.

use baetyl_kit::error::chain;
use baetyl_kit::grpc::details;
use baetyl_proto::link::RenewCertificateResponse;
use tonic::Status;

use super::LinkDeps;
use super::admit::{another_key, unavailable};
use crate::activation::identities::{self, IdentityRow};
use crate::pki::{IssuedCertificate, NodeCsr, NodeIdentity, PeerIdentity};
use crate::store::{Doing as _, StoreError};

/// Issues a certificate for the key of `csr`, the node's own or a new one. With a new key the old one stays good until
/// the new one is used: the answer may be lost.
pub(super) async fn renew(
    deps: &LinkDeps,
    peer: &PeerIdentity,
    node: &NodeIdentity,
    csr: &[u8],
) -> Result<RenewCertificateResponse, Status> {
    let csr = NodeCsr::from_der(csr).map_err(|error| details::invalid("csr", error.to_string()))?;
    let issued = deps
        .pki
        .issue_node_certificate(&csr, node)
        .map_err(|error| {
            tracing::error!(error = %chain(&error), "cannot renew a node certificate");
            Status::unavailable("the cloud cannot issue certificates at the moment; try again")
        })?;
    bind(deps, peer, node, &csr, &issued)
        .await
        .map_err(unavailable)??;
    tracing::info!(namespace = %node.namespace, node = %node.name, not_after = %issued.not_after,
        "node certificate renewed");
    Ok(RenewCertificateResponse {
        certificate_chain: vec![issued.certificate.to_vec().into()],
        trusted_authorities: vec![deps.pki.server_authority().to_vec().into()],
    })
}

/// Refused when the peer's key stopped being the node's since it was admitted: a renewal that is under way while the
/// machine is installed anew must not bring the old key back.
async fn bind(
    deps: &LinkDeps,
    peer: &PeerIdentity,
    node: &NodeIdentity,
    csr: &NodeCsr,
    issued: &IssuedCertificate,
) -> Result<Result<(), Status>, StoreError> {
    let mut tx = deps
        .store
        .writer()
        .begin_with("BEGIN IMMEDIATE")
        .await
        .doing("renew a certificate")?;
    let known = identities::load(&mut tx, &node.namespace, &node.uid).await?;
    if known
        .as_ref()
        .is_some_and(|known| !known.accepts(&peer.public_key))
    {
        return Ok(Err(another_key(&node.name)));
    }
    let row = IdentityRow {
        enrolments: known.map_or(0, |known| known.enrolments),
        public_key: csr.public_key(),
        previous_key: (csr.public_key() != peer.public_key).then_some(peer.public_key),
        not_after: issued.not_after,
    };
    identities::bind(&mut tx, node, &row, issued, deps.pki.clock().now()).await?;
    tx.commit().await.doing("renew a certificate")?;
    Ok(Ok(()))
}
