//! Who may connect, renewals, and the end of an identity.

use baetyl_proto::link::{
    FetchResourcesRequest, RenewCertificateRequest, RenewCertificateResponse,
};
use tonic::Code;

use super::*;
use crate::install::{InstallConfig, InstallTokens};
use crate::pki::testing::csr_der;
use crate::pki::{NodeCsr, PeerIdentity};

impl Cloud {
    async fn renew(&self, node: &Node, key: &KeyPair) -> Result<RenewCertificateResponse, Status> {
        // Names in the request are ignored.
        let csr = csr_der(key, "default.somebody", &[]).into();
        let answer = self
            .client(node)
            .renew_certificate(request(RenewCertificateRequest { csr }))
            .await?;
        Ok(answer.into_inner())
    }

    async fn renewed(&self, node: &Node, key: KeyPair) -> Node {
        let answer = self.renew(node, &key).await.unwrap();
        let certificate = CertificateDer::from(answer.certificate_chain[0].to_vec());
        Node {
            identity: node.identity.clone(),
            key: Arc::new(key),
            certificate,
        }
    }

    /// A node that was activated: its key is bound.
    async fn activated(&self, name: &str) -> Node {
        self.fixture.add_node(name).await;
        self.activate(name).await
    }

    async fn activate(&self, name: &str) -> Node {
        let (store, pki) = (self.fixture.store.clone(), self.fixture.pki.clone());
        let row = store
            .node(&self.fixture.namespace, name)
            .await
            .unwrap()
            .unwrap();
        let tokens = InstallTokens::new(pki.clone(), store.clone(), InstallConfig::default());
        let token = tokens.token(&row, None).await.unwrap().token;
        let links = self.deps.links.clone();
        let activator = crate::activation::Activator::new(store, pki, tokens, links, Vec::new());
        let key = node_key();
        let csr = NodeCsr::from_der(&csr_der(&key, "", &[])).unwrap();
        let done = activator.activate(&token, "", || Ok(csr)).await.unwrap();
        Node {
            identity: done.node,
            key: Arc::new(key),
            certificate: done.certificate.certificate,
        }
    }

    async fn refusal(&self, node: &Node) -> Status {
        match self.open(node, hello(None)).await {
            Err(status) => status,
            Ok(_) => panic!("the node may connect"),
        }
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_reaches_no_service() {
    let (cloud, foreign) = (cloud().await, cloud().await);
    cloud.node("edge-1").await;
    let impostor = foreign.node("edge-1").await;
    // The transport fails: not a status of the cloud.
    let status = cloud.refusal(&impostor).await;
    assert!(
        matches!(status.code(), Code::Unavailable | Code::Unknown),
        "{status}"
    );
    assert!(cloud.deps.links.is_empty());
}

#[tokio::test]
async fn an_expired_certificate_within_the_grace_may_renew_itself_and_nothing_else() {
    let cloud = cloud().await;
    let node = cloud.activated("edge-1").await;
    cloud.fixture.advance_days(300);
    cloud.fixture.pki.renew_server_certificate().await.unwrap();
    let status = cloud.refusal(&node).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    assert!(status.message().contains("RenewCertificate"), "{status}");
    let fetch = cloud
        .client(&node)
        .fetch_resources(request(FetchResourcesRequest::default()))
        .await;
    assert_eq!(fetch.unwrap_err().code(), Code::Unauthenticated);
    let renewed = cloud.renewed(&node, node_key()).await;
    cloud.connect(&renewed, None).await.desire().await;
}

#[tokio::test]
async fn after_the_grace_the_handshake_fails() {
    let cloud = cloud().await;
    let node = cloud.activated("edge-1").await;
    cloud.fixture.advance_days(491);
    cloud.fixture.pki.renew_server_certificate().await.unwrap();
    let status = cloud.renew(&node, &node_key()).await.unwrap_err();
    assert!(
        matches!(status.code(), Code::Unavailable | Code::Unknown),
        "{status}"
    );
}

#[tokio::test]
async fn a_certificate_that_expires_during_a_stream_ends_it_at_the_next_heartbeat() {
    let cloud = cloud().await;
    let node = cloud.activated("edge-1").await;
    let mut stream = cloud.connect(&node, None).await;
    stream.desire().await;
    stream.is_quiet().await;
    cloud.fixture.advance_days(91);
    stream.send(Up::Heartbeat(Heartbeat {})).await;
    assert_eq!(stream.end().await.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_renewed_certificate_is_of_the_same_node_whatever_the_request_says() {
    let cloud = cloud().await;
    let node = cloud.activated("edge-1").await;
    let renewed = cloud.renewed(&node, node_key()).await;
    let peer = PeerIdentity::from_certificate(&renewed.certificate, "baetyl.local").unwrap();
    assert_eq!(
        (peer.namespace, peer.uid),
        (node.identity.namespace, node.identity.uid)
    );
}

#[tokio::test]
async fn the_old_key_is_good_until_the_new_one_is_used() {
    let cloud = cloud().await;
    let old = cloud.activated("edge-1").await;
    let lost = cloud.renewed(&old, node_key()).await;
    // The answer was lost: the node renews again with its old key.
    cloud.connect(&old, None).await;
    let new = cloud.renewed(&old, node_key()).await;
    assert_eq!(cloud.refusal(&lost).await.code(), Code::Unauthenticated);
    cloud.connect(&new, None).await;
    let status = cloud.refusal(&old).await;
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("another key"), "{status}");
}

#[tokio::test]
async fn a_renewal_that_was_admitted_before_the_machine_was_installed_anew_does_not_revive_its_key()
{
    let cloud = cloud().await;
    let old = cloud.activated("edge-1").await;
    let peer = PeerIdentity::from_certificate(&old.certificate, "baetyl.local").unwrap();
    let new = cloud.activate("edge-1").await;
    let csr = csr_der(&node_key(), "", &[]);
    let renewed = crate::link::renew::renew(&cloud.deps, &peer, &old.identity, &csr).await;
    assert_eq!(renewed.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(cloud.refusal(&old).await.code(), Code::Unauthenticated);
    cloud.connect(&new, None).await;
}

#[tokio::test]
async fn using_a_key_that_was_replaced_meanwhile_does_not_forget_the_key_before() {
    let cloud = cloud().await;
    let old = cloud.activated("edge-1").await;
    let first = cloud.renewed(&old, node_key()).await;
    let used = PeerIdentity::from_certificate(&first.certificate, "baetyl.local").unwrap();
    // Renewed once more with the old key, before the use of the first new key was noted.
    cloud.renewed(&old, node_key()).await;
    crate::activation::identities::drop_previous(&cloud.fixture.store, &used)
        .await
        .unwrap();
    cloud.connect(&old, None).await;
}

#[tokio::test]
async fn renewing_with_the_same_key_leaves_that_key_good() {
    let cloud = cloud().await;
    let node = cloud.activated("edge-1").await;
    let answer = cloud.renew(&node, &node.key).await.unwrap();
    let certificate = CertificateDer::from(answer.certificate_chain[0].to_vec());
    let renewed = Node {
        certificate,
        ..node.clone()
    };
    cloud.connect(&renewed, None).await;
    cloud.connect(&node, None).await;
}

#[tokio::test]
async fn installing_a_machine_anew_ends_the_stream_and_the_certificate_of_the_old_key() {
    let cloud = cloud().await;
    let old = cloud.activated("edge-1").await;
    let mut stream = cloud.connect(&old, None).await;
    let new = cloud.activate("edge-1").await;
    assert_eq!(stream.end().await.code(), Code::Unauthenticated);
    assert_eq!(cloud.refusal(&old).await.code(), Code::Unauthenticated);
    cloud.connect(&new, None).await.desire().await;
}

#[tokio::test]
async fn a_deleted_node_may_neither_fetch_nor_renew_also_when_its_name_lives_again() {
    let cloud = cloud().await;
    let node = cloud.activated("edge-1").await;
    cloud.fixture.delete_node("edge-1").await;
    cloud.fixture.add_node_as("edge-1", "uid-reborn").await;
    let fetch = cloud
        .client(&node)
        .fetch_resources(request(FetchResourcesRequest::default()))
        .await;
    assert_eq!(fetch.unwrap_err().code(), Code::PermissionDenied);
    let status = cloud.renew(&node, &node_key()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("deleted"), "{status}");
}

#[tokio::test]
async fn a_node_the_cloud_does_not_know_is_told_why_that_may_be() {
    let cloud = cloud().await;
    let stranger = NodeIdentity {
        namespace: cloud.fixture.namespace.clone(),
        name: "edge-9".parse().unwrap(),
        uid: "uid-unknown".parse().unwrap(),
    };
    let status = cloud.refusal(&cloud.certify(stranger)).await;
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("put back"), "{status}");
}

#[tokio::test]
async fn a_request_that_is_damaged_renews_nothing() {
    let cloud = cloud().await;
    let node = cloud.activated("edge-1").await;
    let message = RenewCertificateRequest {
        csr: b"rubbish".as_slice().into(),
    };
    let status = cloud
        .client(&node)
        .renew_certificate(request(message))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    cloud.connect(&node, None).await;
}
