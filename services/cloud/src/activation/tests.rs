//! Activation over a real port with TLS, as baetyl-init does it and as Baetyl v2's programs did.

use std::time::Duration;

use baetyl_kit::grpc::{Client, Connect, Endpoint, unary};
use baetyl_kit::tls::{self, CertTime, Pin, ServerTrust, Validity};
use baetyl_proto::activation::activate_request::Proof;
use baetyl_proto::activation::activation_service_client::ActivationServiceClient;
use baetyl_proto::activation::{ActivateRequest, ActivateResponse, BatchProof};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rcgen::KeyPair;
use serde_json::{Value, json};
use tonic::Code;

use super::*;
use crate::install::InstallConfig;
use crate::install::kube::{CoreConfig, KubeInstall};
use crate::pki::PeerIdentity;
use crate::pki::testing::{Fixture, csr_der, fixture, node_key};
use crate::report::{ReportConfig, Reports};

mod kube;
mod rest;

/// Judges the server at the time of the test's clock.
#[derive(Debug)]
struct Time(baetyl_kit::clock::Clock);

impl CertTime for Time {
    fn judge_at(&self, _chain: Validity, _wall: i64) -> i64 {
        self.0.now().as_second()
    }
}

struct Setup {
    fixture: Fixture,
    tokens: InstallTokens,
    links: Links,
    install: KubeInstall,
    reports: Reports,
    addr: String,
    _kit: Kit,
}

async fn setup() -> Setup {
    setup_with(fixture().await).await
}

async fn setup_with(fixture: Fixture) -> Setup {
    let kit = Kit::for_test(fixture.dir.path());
    let links = Links::new(kit.metrics());
    let config = InstallConfig {
        token_uses: 3,
        ..InstallConfig::default()
    };
    let tokens = InstallTokens::new(fixture.pki.clone(), fixture.store.clone(), config);
    let addresses = vec!["https://cloud.example:9005".to_owned()];
    let activator = Activator::new(
        fixture.store.clone(),
        fixture.pki.clone(),
        tokens.clone(),
        links.clone(),
        addresses,
    );
    let (listener, bound) = bind(&Listen::loopback()).await.unwrap();
    let addr = bound.to_string();
    let install = KubeInstall::new(
        fixture.pki.clone(),
        CoreConfig::default(),
        format!("https://{addr}"),
    );
    let clock = fixture.clock.clock();
    let reports = Reports::new(fixture.store.clone(), ReportConfig::default(), clock).0;
    let door = KubeDoor {
        store: fixture.store.clone(),
        tokens: tokens.clone(),
        install: install.clone(),
        reports: reports.clone(),
    };
    serve(&kit, listener, activator, door).unwrap();
    Setup {
        fixture,
        tokens,
        links,
        install,
        reports,
        addr,
        _kit: kit,
    }
}

impl Setup {
    async fn token(&self, node: &str) -> String {
        let row = self.fixture.node(node).await;
        self.tokens.token(&row, None).await.unwrap().token
    }

    fn tls(&self, alpn: &[&str]) -> Arc<rustls::ClientConfig> {
        let pin: Pin = self.fixture.pki.server_authority_pin().parse().unwrap();
        let time = Arc::new(Time(self.fixture.clock.clock()));
        tls::client_config_with(&ServerTrust::Pin(pin), None, Some(time), alpn).unwrap()
    }

    fn client(&self) -> ActivationServiceClient<Client> {
        let endpoint: Endpoint = format!("https://{}", self.addr).parse().unwrap();
        ActivationServiceClient::new(
            Connect::new(endpoint)
                .tls(self.tls(&["h2"]))
                .lazy()
                .unwrap(),
        )
    }

    async fn activate(
        &self,
        token: &str,
        key: &KeyPair,
        name: &str,
    ) -> Result<ActivateResponse, Status> {
        self.activate_der(token, csr_der(key, name, &[])).await
    }

    async fn activate_der(&self, token: &str, csr: Vec<u8>) -> Result<ActivateResponse, Status> {
        let request = ActivateRequest {
            proof: Some(Proof::InstallToken(token.to_owned())),
            csr: csr.into(),
            ..Default::default()
        };
        self.client()
            .activate(unary(request))
            .await
            .map(tonic::Response::into_inner)
    }

    async fn post(&self, body: &str) -> (u16, Value) {
        let (parts, body) = self.post_accepting(body, "*/*").await;
        (parts.status.as_u16(), body)
    }

    async fn post_accepting(&self, body: &str, accept: &str) -> (http::response::Parts, Value) {
        let request = http::Request::post("/v1/active")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("accept", accept)
            .body(Full::new(bytes::Bytes::from(body.to_owned())))
            .unwrap();
        let (parts, bytes) = self.send(request).await;
        (parts, serde_json::from_slice(&bytes).unwrap())
    }

    async fn send(
        &self,
        request: http::Request<Full<bytes::Bytes>>,
    ) -> (http::response::Parts, bytes::Bytes) {
        let stream = tokio::net::TcpStream::connect(&self.addr).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(self.tls(&["http/1.1"]));
        let stream = connector
            .connect("localhost".try_into().unwrap(), stream)
            .await
            .unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        connection.abort();
        (parts, bytes)
    }

    async fn enrolments(&self) -> Vec<i64> {
        let query = sqlx::query_scalar("SELECT enrolments FROM node_identities");
        query.fetch_all(self.fixture.store.reader()).await.unwrap()
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}

#[tokio::test]
async fn a_node_gets_an_identity_for_the_key_it_made() {
    let setup = setup().await;
    let node = setup.fixture.add_node("edge-1").await;
    let key = node_key();
    let answer = setup
        .activate(&setup.token("edge-1").await, &key, "default.edge-1")
        .await
        .unwrap();
    assert_eq!(
        (answer.namespace.as_str(), answer.node_name.as_str()),
        ("default", "edge-1")
    );
    assert_eq!(answer.node_uid, node.uid.as_str());
    assert_eq!(answer.link_addresses, ["https://cloud.example:9005"]);
    let leaf = CertificateDer::from(answer.certificate_chain[0].to_vec());
    let peer = PeerIdentity::from_certificate(&leaf, "baetyl.local").unwrap();
    assert_eq!(peer.uid, node.uid);
    let desire_key = setup
        .fixture
        .pki
        .desire_key(&setup.fixture.namespace)
        .await
        .unwrap();
    assert_eq!(answer.desire_keys[0].as_ref(), desire_key.public_key());
    assert_eq!(
        answer.trusted_authorities[0].as_ref(),
        setup.fixture.pki.server_authority().as_ref()
    );
}

#[tokio::test]
async fn the_same_token_and_key_get_a_certificate_again() {
    let setup = setup().await;
    setup.fixture.add_node("edge-1").await;
    let (token, key) = (setup.token("edge-1").await, node_key());
    let first = setup.activate(&token, &key, "").await.unwrap();
    let second = setup.activate(&token, &key, "").await.unwrap();
    assert_eq!(first.node_uid, second.node_uid);
    assert_eq!(setup.enrolments().await, [1]);
}

#[tokio::test]
async fn the_same_token_with_another_key_is_refused_and_the_first_key_stays() {
    let setup = setup().await;
    setup.fixture.add_node("edge-1").await;
    let (token, key) = (setup.token("edge-1").await, node_key());
    setup.activate(&token, &key, "").await.unwrap();
    let status = setup.activate(&token, &node_key(), "").await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    let body = json!({"installToken": token, "csr": pem(&csr_der(&node_key(), "", &[]))});
    let (status, answer) = setup.post(&body.to_string()).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (409, Some("ErrResourceConflict"))
    );
    assert_eq!(setup.enrolments().await, [1]);
    setup.activate(&token, &key, "").await.unwrap();
    assert_eq!(setup.enrolments().await, [1]);
}

#[tokio::test]
async fn of_two_keys_at_once_one_wins() {
    let setup = setup().await;
    setup.fixture.add_node("edge-1").await;
    let token = setup.token("edge-1").await;
    let (a, b) = (node_key(), node_key());
    let (a, b) = tokio::join!(
        setup.activate(&token, &a, ""),
        setup.activate(&token, &b, "")
    );
    assert_eq!(u8::from(a.is_ok()) + u8::from(b.is_ok()), 1, "{a:?} {b:?}");
}

#[tokio::test]
async fn a_token_that_was_made_before_another_one_was_used_is_good_for_nothing() {
    let setup = setup().await;
    setup.fixture.add_node("edge-1").await;
    let (used, leaked) = (setup.token("edge-1").await, setup.token("edge-1").await);
    setup.activate(&used, &node_key(), "").await.unwrap();
    let status = setup.activate(&leaked, &node_key(), "").await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn a_new_install_command_lets_a_machine_be_installed_anew_and_ends_the_old_key() {
    let setup = setup().await;
    let node = setup.fixture.add_node("edge-1").await;
    let old = node_key();
    setup
        .activate(&setup.token("edge-1").await, &old, "")
        .await
        .unwrap();
    let (_place, mut signals) = setup.links.register_for_test(&node.namespace, &node.uid);
    setup
        .activate(&setup.token("edge-1").await, &node_key(), "")
        .await
        .unwrap();
    let ended = signals.try_recv().unwrap();
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert_eq!(setup.enrolments().await, [2]);
}

#[tokio::test]
async fn a_wrong_token_is_unauthenticated_and_leaves_no_trace() {
    let setup = setup().await;
    setup.fixture.add_node("edge-1").await;
    let mut token = setup.token("edge-1").await;
    token.replace_range(
        10..11,
        if token.as_bytes()[10] == b'A' {
            "B"
        } else {
            "A"
        },
    );
    for token in [token.as_str(), "rubbish", ""] {
        let status = setup.activate(token, &node_key(), "").await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        let body = json!({"installToken": token, "csr": pem(&csr_der(&node_key(), "", &[]))});
        let (status, answer) = setup.post(&body.to_string()).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (401, Some("ErrRequestAccessDenied"))
        );
        assert!(!answer["requestId"].as_str().unwrap().is_empty());
    }
    assert!(setup.enrolments().await.is_empty());
}

#[tokio::test]
async fn an_expired_token_is_unauthenticated() {
    let setup = setup().await;
    setup.fixture.add_node("edge-1").await;
    let token = setup.token("edge-1").await;
    setup.fixture.clock.advance(Duration::from_secs(3600));
    let status = setup.activate(&token, &node_key(), "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("expired"), "{status}");
    assert!(setup.enrolments().await.is_empty());
}

#[tokio::test]
async fn a_token_that_was_used_too_often_is_unauthenticated() {
    let setup = setup().await;
    setup.fixture.add_node("edge-1").await;
    let (token, key) = (setup.token("edge-1").await, node_key());
    for _ in 0..3 {
        setup.activate(&token, &key, "").await.unwrap();
    }
    let status = setup.activate(&token, &key, "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("too often"), "{status}");
}

#[tokio::test]
async fn a_request_that_names_another_node_is_refused_and_does_not_use_up_the_token() {
    let setup = setup().await;
    setup.fixture.add_node("edge-1").await;
    setup.fixture.add_node("edge-2").await;
    let (token, key) = (setup.token("edge-1").await, node_key());
    for _ in 0..5 {
        let status = setup
            .activate(&token, &key, "default.edge-2")
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("default.edge-2"), "{status}");
    }
    assert!(setup.enrolments().await.is_empty());
    setup.activate(&token, &key, "").await.unwrap();
}

#[tokio::test]
async fn a_damaged_request_is_refused() {
    let setup = setup().await;
    setup.fixture.add_node("edge-1").await;
    let token = setup.token("edge-1").await;
    let mut damaged = csr_der(&node_key(), "", &[]);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    for csr in [damaged, b"rubbish".to_vec(), Vec::new()] {
        let status = setup.activate_der(&token, csr).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    assert!(setup.enrolments().await.is_empty());
}

#[tokio::test]
async fn the_token_of_a_deleted_node_is_unauthenticated_also_when_its_name_lives_again() {
    let setup = setup().await;
    setup.fixture.add_node("edge-1").await;
    let token = setup.token("edge-1").await;
    setup.fixture.delete_node("edge-1").await;
    setup.fixture.add_node_as("edge-1", "uid-reborn").await;
    let status = setup.activate(&token, &node_key(), "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(
        status.message().contains("does not exist any more"),
        "{status}"
    );
}

#[tokio::test]
async fn a_machine_that_runs_another_way_than_its_node_is_refused_and_does_not_use_up_the_token() {
    let setup = setup().await;
    setup.fixture.add_node("edge-1").await;
    setup.fixture.set_mode("edge-1", "kube").await;
    let (token, key) = (setup.token("edge-1").await, node_key());
    let request = |mode: &str| ActivateRequest {
        proof: Some(Proof::InstallToken(token.clone())),
        csr: csr_der(&key, "", &[]).into(),
        mode: mode.to_owned(),
        ..Default::default()
    };
    let refused = setup.client().activate(unary(request("native"))).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("nodeMode kube"), "{refused}");
    let body =
        json!({"installToken": token, "mode": "native", "csr": pem(&csr_der(&key, "", &[]))});
    let (status, answer) = setup.post(&body.to_string()).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (400, Some("ErrRequestParamInvalid"))
    );
    assert!(setup.enrolments().await.is_empty());
    setup
        .client()
        .activate(unary(request("kube")))
        .await
        .unwrap();
    assert_eq!(setup.enrolments().await, [1]);
}

#[tokio::test]
async fn activation_by_batch_is_refused_as_not_there_yet() {
    let setup = setup().await;
    let (status, _) = setup
        .post(&json!({"batchName": "b", "namespace": "default"}).to_string())
        .await;
    assert_eq!(status, 501);
    let request = ActivateRequest {
        proof: Some(Proof::Batch(BatchProof::default())),
        ..Default::default()
    };
    let status = setup.client().activate(unary(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[test]
fn on_the_activation_listener_a_claimed_role_counts_for_nothing() {
    use baetyl_kit::listen::{Peer, PeerAddr};
    use baetyl_proto::callers::TABLE;
    let authorize = authorize();
    let peer = Peer::new(PeerAddr::Tcp(([127, 0, 0, 1], 1).into()));
    for (path, roles) in TABLE {
        for role in Role::ALL {
            let mut headers = http::HeaderMap::new();
            headers.insert(baetyl_kit::grpc::ROLE, role.as_str().parse().unwrap());
            let answer = authorize(&peer, path, &headers);
            assert_eq!(
                answer.is_ok(),
                roles.contains(&Role::Anyone),
                "{role} {path}"
            );
        }
    }
}
