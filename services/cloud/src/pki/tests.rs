//! Authorities, certificates and who completes a handshake, with real TLS over a pipe in memory.

use baetyl_kit::tls::{self as kit_tls, CertTime, Identity, Pin, Roots, ServerTrust};
use rcgen::KeyPair;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName as TlsName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::testing::{csr, csr_der, fixture, node_key, open_pki};
use super::*;

/// The client has the clock of the test, too.
#[derive(Debug)]
struct Time(Clock);

impl CertTime for Time {
    fn judge_at(&self, _chain: kit_tls::Validity, _wall: i64) -> i64 {
        self.0.now().as_second()
    }
}

/// A TLS client as sync is one.
fn client(
    pki: &Pki,
    certificate: &CertificateDer<'static>,
    key: &KeyPair,
) -> Arc<rustls::ClientConfig> {
    let trust = ServerTrust::Roots(Roots::new(&[pki.server_authority().clone()]).unwrap());
    client_trusting(pki, &trust, certificate, key)
}

fn client_trusting(
    pki: &Pki,
    trust: &ServerTrust,
    certificate: &CertificateDer<'static>,
    key: &KeyPair,
) -> Arc<rustls::ClientConfig> {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let identity = Identity::new(vec![certificate.clone()], key);
    kit_tls::client_config(
        trust,
        Some(identity),
        Some(Arc::new(Time(pki.clock().clone()))),
    )
    .unwrap()
}

/// Runs one handshake; what the server says about it, and the certificate the client saw.
async fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    name: &'static str,
) -> Result<CertificateDer<'static>, String> {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let accept = TlsAcceptor::from(server).accept(far);
    let connect = TlsConnector::from(client).connect(TlsName::try_from(name).unwrap(), near);
    let (accepted, connected) = tokio::join!(accept, connect);
    accepted.map_err(|error| error.to_string())?;
    let connected = connected.map_err(|error| error.to_string())?;
    Ok(connected.get_ref().1.peer_certificates().unwrap()[0].clone())
}

#[tokio::test]
async fn a_node_certificate_says_who_the_node_is_and_nothing_the_request_asked_for() {
    let fixture = fixture().await;
    let node = fixture.add_node("edge-1").await;
    let key = node_key();
    let request = NodeCsr::from_der(&csr_der(
        &key,
        "default.other",
        &["spiffe://baetyl.local/ns/x/node/y"],
    ))
    .unwrap();
    let issued = fixture.pki.issue_node_certificate(&request, &node).unwrap();
    let peer = PeerIdentity::from_certificate(&issued.certificate, "baetyl.local").unwrap();
    assert_eq!((&peer.namespace, &peer.uid), (&node.namespace, &node.uid));
    assert_eq!(peer.public_key, request.public_key());
    assert_eq!(peer.not_after, issued.not_after);
    let (_, certificate) = X509Certificate::from_der(&issued.certificate).unwrap();
    let names: Vec<_> = certificate
        .subject()
        .iter_common_name()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert_eq!(names, ["default.edge-1"]);
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    let begin = fixture.clock.clock().now() - SignedDuration::from_mins(5);
    assert_eq!(
        certificate.validity().not_before.timestamp(),
        begin.as_second()
    );
}

#[tokio::test]
async fn keys_and_authorities_survive_a_restart() {
    let fixture = fixture().await;
    let desire_key = fixture
        .pki
        .desire_key(&fixture.namespace)
        .await
        .unwrap()
        .public_key();
    let again = open_pki(&fixture.store, &fixture.seal, &fixture.clock).await;
    assert_eq!(
        again.server_authority_pin(),
        fixture.pki.server_authority_pin()
    );
    assert_eq!(again.node_authority(), fixture.pki.node_authority());
    assert_eq!(again.install_key(), fixture.pki.install_key());
    assert_eq!(
        again
            .desire_key(&fixture.namespace)
            .await
            .unwrap()
            .public_key(),
        desire_key
    );
}

#[tokio::test]
async fn private_keys_lie_sealed_in_the_database() {
    let fixture = fixture().await;
    let key = fixture.pki.install_key().to_vec();
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as("SELECT name, sealed_key FROM cloud_keys")
        .fetch_all(fixture.store.reader())
        .await
        .unwrap();
    assert_eq!(rows.len(), 4);
    assert!(
        rows.iter()
            .all(|(_, sealed)| !sealed.windows(key.len()).any(|window| window == key))
    );
}

#[tokio::test]
async fn another_sealing_key_is_a_clear_error_and_changes_nothing() {
    let fixture = fixture().await;
    let other = tempfile::tempdir().unwrap();
    let seal = Seal::open_dir(other.path()).unwrap();
    let opened = Pki::open(
        &fixture.store,
        &seal,
        PkiConfig::default(),
        &[],
        fixture.clock.clock(),
    )
    .await;
    let text = baetyl_kit::error::chain(&opened.unwrap_err());
    assert!(text.contains("seal.key"), "{text}");
    let again = open_pki(&fixture.store, &fixture.seal, &fixture.clock).await;
    assert_eq!(
        again.server_authority_pin(),
        fixture.pki.server_authority_pin()
    );
}

#[tokio::test]
async fn a_node_completes_the_handshake_and_sees_a_certificate_for_the_public_host() {
    let fixture = fixture().await;
    let (node, key) = (fixture.add_node("edge-1").await, node_key());
    let issued = fixture
        .pki
        .issue_node_certificate(&csr(&key), &node)
        .unwrap();
    for name in ["cloud.example", "localhost", "127.0.0.1", "::1"] {
        let client = client(&fixture.pki, &issued.certificate, &key);
        handshake(fixture.pki.link_tls().borrow().clone(), client, name)
            .await
            .unwrap();
    }
    let client = client(&fixture.pki, &issued.certificate, &key);
    handshake(
        fixture.pki.link_tls().borrow().clone(),
        client,
        "evil.example",
    )
    .await
    .unwrap_err();
}

#[tokio::test]
async fn a_client_that_knows_only_the_pin_of_the_install_command_verifies_the_server() {
    let (fixture, foreign) = (fixture().await, fixture().await);
    let (node, key) = (fixture.add_node("edge-1").await, node_key());
    let issued = fixture
        .pki
        .issue_node_certificate(&csr(&key), &node)
        .unwrap();
    for (pki, verified) in [(&fixture.pki, true), (&foreign.pki, false)] {
        let pin: Pin = pki.server_authority_pin().parse().unwrap();
        let client = client_trusting(
            &fixture.pki,
            &ServerTrust::Pin(pin),
            &issued.certificate,
            &key,
        );
        let done = handshake(fixture.pki.link_tls().borrow().clone(), client, "localhost").await;
        assert_eq!(done.is_ok(), verified, "{done:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_fails_the_handshake() {
    let (fixture, foreign) = (fixture().await, fixture().await);
    let (node, key) = (foreign.add_node("edge-1").await, node_key());
    let issued = foreign
        .pki
        .issue_node_certificate(&csr(&key), &node)
        .unwrap();
    let client = client(&fixture.pki, &issued.certificate, &key);
    let error = handshake(fixture.pki.link_tls().borrow().clone(), client, "localhost")
        .await
        .unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn a_self_signed_certificate_with_the_names_of_a_node_fails_the_handshake() {
    let fixture = fixture().await;
    let (node, key) = (fixture.add_node("edge-1").await, node_key());
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, node.full_name());
    params.subject_alt_names = vec![rcgen::SanType::URI(
        node.spiffe("baetyl.local").try_into().unwrap(),
    )];
    let certificate = params.self_signed(&key).unwrap();
    let client = client(&fixture.pki, certificate.der(), &key);
    handshake(fixture.pki.link_tls().borrow().clone(), client, "localhost")
        .await
        .unwrap_err();
}

#[tokio::test]
async fn an_expired_certificate_completes_the_handshake_within_the_grace_and_fails_after_it() {
    let fixture = fixture().await;
    let (node, key) = (fixture.add_node("edge-1").await, node_key());
    let issued = fixture
        .pki
        .issue_node_certificate(&csr(&key), &node)
        .unwrap();
    // 90 days of life and 400 of grace.
    for (days, completes) in [(0, true), (91, true), (398, true), (2, false)] {
        fixture.advance_days(days);
        fixture.pki.renew_server_certificate().await.unwrap();
        let client = client(&fixture.pki, &issued.certificate, &key);
        let done = handshake(fixture.pki.link_tls().borrow().clone(), client, "localhost").await;
        assert_eq!(done.is_ok(), completes, "after {days} more days: {done:?}");
    }
}

#[tokio::test]
async fn the_server_certificate_is_renewed_at_two_thirds_of_its_life_and_shown_at_once() {
    let fixture = fixture().await;
    let (node, key) = (fixture.add_node("edge-1").await, node_key());
    let issued = fixture
        .pki
        .issue_node_certificate(&csr(&key), &node)
        .unwrap();
    let tls = fixture.pki.link_tls();
    let shown = async || {
        let client = client(&fixture.pki, &issued.certificate, &key);
        handshake(tls.borrow().clone(), client, "localhost")
            .await
            .unwrap()
    };
    let first = shown().await;
    fixture.advance_days(59);
    assert!(!fixture.pki.renew_server_certificate().await.unwrap());
    assert_eq!(shown().await, first);
    fixture.advance_days(2);
    assert!(fixture.pki.renew_server_certificate().await.unwrap());
    assert_ne!(shown().await, first);
    assert!(!fixture.pki.renew_server_certificate().await.unwrap());
}

#[tokio::test]
async fn a_new_public_host_gets_a_new_server_certificate_from_the_same_authority() {
    let fixture = fixture().await;
    let hosts = ["192.0.2.7".to_owned(), "Other.Example".to_owned()];
    let again = Pki::open(
        &fixture.store,
        &fixture.seal,
        PkiConfig::default(),
        &hosts,
        fixture.clock.clock(),
    );
    let again = again.await.unwrap();
    assert_eq!(
        again.server_authority_pin(),
        fixture.pki.server_authority_pin()
    );
    let (node, key) = (fixture.add_node("edge-1").await, node_key());
    let issued = again.issue_node_certificate(&csr(&key), &node).unwrap();
    for name in ["192.0.2.7", "other.example"] {
        let client = client(&again, &issued.certificate, &key);
        handshake(again.link_tls().borrow().clone(), client, name)
            .await
            .unwrap();
    }
}

#[test]
fn a_request_whose_signature_does_not_match_is_refused() {
    let mut der = csr_der(&node_key(), "default.edge-1", &[]);
    let last = der.len() - 1;
    der[last] ^= 1;
    assert!(matches!(
        NodeCsr::from_der(&der),
        Err(CsrError::BadSignature | CsrError::Malformed)
    ));
    assert!(matches!(
        NodeCsr::from_der(b"rubbish"),
        Err(CsrError::Malformed)
    ));
    assert!(matches!(
        NodeCsr::from_pem("rubbish"),
        Err(CsrError::NotPem)
    ));
}

#[test]
fn keys_of_the_accepted_kinds_are_accepted() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert!(
            NodeCsr::from_der(&csr_der(&key, "", &[])).is_ok(),
            "{algorithm:?}"
        );
    }
}

#[tokio::test]
async fn a_request_that_names_another_node_is_refused() {
    let fixture = fixture().await;
    let node = fixture.add_node("edge-1").await;
    let spiffe = node.spiffe("baetyl.local");
    for (common_name, uris, accepted) in [
        ("", vec![], true),
        ("default.edge-1", vec![spiffe.as_str()], true),
        ("default.edge-2", vec![], false),
        (
            "",
            vec!["spiffe://baetyl.local/ns/default/node/other"],
            false,
        ),
    ] {
        let request = NodeCsr::from_der(&csr_der(&node_key(), common_name, &uris)).unwrap();
        assert_eq!(
            request.check_names(&node, "baetyl.local").is_ok(),
            accepted,
            "{common_name} {uris:?}"
        );
    }
}
