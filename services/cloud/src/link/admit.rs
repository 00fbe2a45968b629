//! Who is at the other end of a call, and whether this cloud still knows it.

use std::sync::Arc;

use baetyl_kit::error::chain;
use baetyl_kit::grpc::{Authorize, CallerInfo};
use baetyl_model::NodeName;
use baetyl_proto::callers::{Role, may_call};
use tonic::{Request, Status};

use crate::activation::identities;
use crate::pki::{NodeIdentity, PeerIdentity, Pki};
use crate::store::{Doing as _, Store, StoreError};

/// The one call an expired certificate may make.
const RENEW: &str = "/baetyl.link.v1.LinkService/RenewCertificate";

/// Reads the certificate of the peer, whose chain the handshake verified. An expired one may only be renewed.
pub(super) fn authorize(pki: Pki) -> Authorize {
    Arc::new(move |peer, path, _| {
        let leaf = peer
            .certificates
            .first()
            .ok_or_else(|| Status::unauthenticated("a node certificate is needed"))?;
        let identity = PeerIdentity::from_certificate(leaf, pki.trust_domain())
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        if !may_call(Role::Device, path) {
            return Err(Status::permission_denied(format!(
                "a node may not call {path}"
            )));
        }
        if identity.is_expired(pki.clock().now()) && path != RENEW {
            return Err(expired(&identity));
        }
        Ok(CallerInfo::new(Role::Device.as_str())
            .subject(identity.uid.to_string())
            .with_detail(identity))
    })
}

pub(super) fn expired(identity: &PeerIdentity) -> Status {
    Status::unauthenticated(format!(
        "the node's certificate expired at {}; call RenewCertificate, nothing else is allowed with it",
        identity.not_after
    ))
}

/// The peer of a request that came through [`authorize`].
pub(super) fn peer_of<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
    let caller = CallerInfo::of(request)?;
    caller
        .detail::<PeerIdentity>()
        .cloned()
        .ok_or_else(|| Status::internal("the peer was not identified"))
}

/// What the cloud knows about a peer.
#[derive(Debug)]
pub(super) enum Admission {
    /// One of its nodes, with the key bound to it.
    Node(NodeIdentity),
    /// It was deleted.
    Deleted,
}

/// Looks the peer up. A key that is not the node's any more is refused.
pub(super) async fn admit(store: &Store, peer: &PeerIdentity) -> Result<Admission, Status> {
    let Some(node) = store
        .node_by_uid(&peer.namespace, &peer.uid)
        .await
        .map_err(unavailable)?
    else {
        return match store
            .deleted_node(&peer.namespace, &peer.uid)
            .await
            .map_err(unavailable)?
        {
            Some(_) => Ok(Admission::Deleted),
            None => Err(Status::not_found(format!(
                "this cloud knows no node with uid {}; was its database put back to a copy from before the node was \
                 created?",
                peer.uid
            ))),
        };
    };
    let mut connection = store
        .reader()
        .acquire()
        .await
        .doing("read the identity")
        .map_err(unavailable)?;
    let identity = identities::load(&mut connection, &peer.namespace, &peer.uid)
        .await
        .map_err(unavailable)?;
    drop(connection);
    // No identity: the database was put back to before the activation. The certificate is ours and the node exists.
    if identity
        .as_ref()
        .is_some_and(|identity| !identity.accepts(&peer.public_key))
    {
        return Err(another_key(&node.name));
    }
    if identity.is_some_and(|identity| {
        identity.public_key == peer.public_key && identity.previous_key.is_some()
    }) {
        identities::drop_previous(store, peer)
            .await
            .map_err(unavailable)?;
    }
    Ok(Admission::Node(NodeIdentity {
        namespace: node.namespace,
        name: node.name,
        uid: node.uid,
    }))
}

/// As [`admit`], for calls that a deleted node may not make.
pub(super) async fn admit_node(store: &Store, peer: &PeerIdentity) -> Result<NodeIdentity, Status> {
    match admit(store, peer).await? {
        Admission::Node(node) => Ok(node),
        Admission::Deleted => Err(Status::permission_denied(DELETED)),
    }
}

/// Said to a node that was deleted.
pub(super) const DELETED: &str = "the node was deleted at the cloud";

/// The certificate is of this cloud, but its key is not the node's any more.
pub(super) fn another_key(node: &NodeName) -> Status {
    Status::unauthenticated(format!(
        "node {node} was activated with another key since; this certificate is not valid any more"
    ))
}

pub(super) fn unavailable(error: StoreError) -> Status {
    tracing::error!(error = %chain(&error), "the link cannot use the database");
    Status::unavailable("the cloud cannot read its database at the moment; try again")
}

#[cfg(test)]
mod tests {
    use baetyl_kit::listen::{Peer, PeerAddr};
    use baetyl_proto::callers::TABLE;
    use tonic::Code;

    use super::*;
    use crate::pki::testing::{csr, fixture, node_key};

    #[tokio::test]
    async fn on_the_link_a_certificate_opens_exactly_the_rows_of_nodes_whatever_role_is_claimed() {
        let fixture = fixture().await;
        let node = fixture.add_node("n1").await;
        let issued = fixture
            .pki
            .issue_node_certificate(&csr(&node_key()), &node)
            .unwrap();
        let authorize = authorize(fixture.pki.clone());
        let stranger = Peer::new(PeerAddr::Tcp(([127, 0, 0, 1], 1).into()));
        let known = Peer {
            certificates: [issued.certificate].into(),
            ..stranger.clone()
        };
        let claimed = |role: Role| {
            let mut headers = http::HeaderMap::new();
            headers.insert(baetyl_kit::grpc::ROLE, role.as_str().parse().unwrap());
            headers
        };
        for (path, roles) in TABLE {
            for role in Role::ALL {
                let answer = authorize(&known, path, &claimed(role));
                let opened = roles.contains(&Role::Device);
                assert_eq!(answer.is_ok(), opened, "{role} {path}");
                let refused = authorize(&stranger, path, &claimed(role)).unwrap_err();
                assert_eq!(refused.code(), Code::Unauthenticated, "{role} {path}");
            }
        }
        fixture.advance_days(3650);
        for (path, _) in TABLE {
            let answer = authorize(&known, path, &claimed(Role::Device));
            assert_eq!(answer.is_ok(), *path == RENEW, "{path}");
        }
    }
}
