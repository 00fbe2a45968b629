//! Services of one node over TCP: identities that come late, are replaced, or are wrong.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::Kit;
use baetyl_kit::grpc::{self, Authorize, CallerInfo, Client, ConnectError, Endpoint, Server};
use baetyl_kit::listen::Listen;
use baetyl_kit::serve::ServeError;
use baetyl_kit::tls::{CertificateInfo, Clients, Credentials, ServiceIdentity, TlsError};
use baetyl_testkit::{
    Capture, Leaf, PATIENCE, SecretMount, TestCa, TestDir, TestIdentity, eventually,
};
use tonic::Status;

use crate::echo::{self, Echo};

const PERIOD: Duration = Duration::from_millis(10);

fn id(role: &str) -> String {
    format!("spiffe://node.test/core/{role}")
}

fn leaf(role: &str) -> Leaf {
    let leaf = Leaf::new(role).uri(&id(role));
    leaf.name("localhost").name("127.0.0.1")
}

/// The caller is its connection and the id in its certificate.
fn by_connection() -> Authorize {
    Arc::new(|peer, _, _| {
        let certificate = peer.certificate();
        let info = certificate.map(|certificate| CertificateInfo::parse(certificate).unwrap());
        let id = info.as_ref().and_then(CertificateInfo::spiffe_id);
        Ok(CallerInfo::new(id.unwrap_or("nobody").to_owned()).subject(peer.addr.to_string()))
    })
}

/// A service with the identity in its directory.
struct Service {
    kit: Kit,
    mount: SecretMount,
}

impl Service {
    fn new(dir: &TestDir, role: &str) -> Self {
        let mount = SecretMount::new(dir.join(format!("tls-{role}")));
        Self::at(dir, role, mount)
    }

    fn with(dir: &TestDir, role: &str, ca: &TestCa) -> Self {
        let mut mount = SecretMount::new(dir.join(format!("tls-{role}")));
        mount.identity(&ca.issue(&leaf(role)), &[ca]);
        Self::at(dir, role, mount)
    }

    fn at(dir: &TestDir, role: &str, mount: SecretMount) -> Self {
        let kit = Kit::new(role, dir.join(role), Default::default());
        let kit = kit.with_identity(ServiceIdentity::mounted_checking(
            &kit,
            mount.path(),
            PERIOD,
        ));
        Self { kit, mount }
    }

    fn fingerprint(&self) -> Option<String> {
        self.kit.identity().unwrap().fingerprint()
    }

    /// Swaps in another identity and waits until it is in use.
    async fn replace(&mut self, identity: &TestIdentity, authorities: &[&TestCa]) {
        let before = self.fingerprint();
        self.mount.identity(identity, authorities);
        eventually!(self.fingerprint() != before);
    }

    /// Serves the others, and where.
    async fn serve(&self, clients: Clients) -> Endpoint {
        let bound = Server::new(&self.kit, "echo")
            .add_service(Echo::default())
            .authorize(by_connection())
            .in_node(clients)
            .serve(&Listen::loopback())
            .await
            .unwrap();
        format!("https://{bound}").parse().unwrap()
    }

    /// The way to a server of the role.
    fn client(&self, endpoint: &Endpoint, role: &str) -> Client {
        let peer = self.kit.peer(Some(endpoint), role).unwrap();
        peer.server_id(id(role)).role("caller").lazy().unwrap()
    }
}

/// Who the server says that we are, and over which connection.
async fn whoami(client: &Client) -> Result<(String, String), Status> {
    let request = grpc::unary("x".to_owned());
    let answer = echo::call(client, "/test.Echo/Say", request).await?;
    let mut parts = answer.split('|').map(str::to_owned);
    Ok((parts.next().unwrap(), parts.next().unwrap()))
}

async fn until_answered(client: &Client) -> (String, String) {
    let answered = baetyl_testkit::until(PATIENCE, "an answer", async || whoami(client).await);
    answered.await
}

#[tokio::test]
async fn services_with_certificates_of_one_authority_know_each_other() {
    let (dir, ca) = (TestDir::new(), TestCa::new("ca"));
    let node = Service::with(&dir, "node", &ca);
    let engine = Service::with(&dir, "engine", &ca);
    assert!(node.kit.readiness().is_ready() && engine.kit.readiness().is_ready());
    let endpoint = node.serve(Clients::Required).await;
    let (who, _) = whoami(&engine.client(&endpoint, "node")).await.unwrap();
    assert_eq!(who, id("engine"));
    // The host is the right one, the service is not.
    let refused = whoami(&engine.client(&endpoint, "sync")).await;
    let reason = format!("{:?}", refused.unwrap_err());
    assert!(
        reason.contains(&format!("is {} and not {}", id("node"), id("sync"))),
        "{reason}"
    );
}

#[tokio::test]
async fn without_identity_files_a_service_waits_and_comes_up_when_they_are_there() {
    let (dir, ca) = (TestDir::new(), TestCa::new("ca"));
    let (mut node, mut engine) = (Service::new(&dir, "node"), Service::new(&dir, "engine"));
    let endpoint = node.serve(Clients::Required).await;
    let client = engine.client(&endpoint, "node");
    let latch = |service: &Service| service.kit.readiness().snapshot().latches["tls"].clone();
    let waiting = format!(
        "waiting for identity files in {}",
        node.mount.path().display()
    );
    assert_eq!((latch(&node).ready, latch(&node).reason), (false, waiting));
    let refused = format!("{:?}", whoami(&client).await.unwrap_err());
    assert!(
        refused.contains("waiting for identity files in"),
        "{refused}"
    );

    engine.replace(&ca.issue(&leaf("engine")), &[&ca]).await;
    // Nobody vouches for the server yet: it hangs up.
    assert!(whoami(&client).await.is_err());
    assert!(engine.kit.readiness().is_ready() && !node.kit.readiness().is_ready());
    node.replace(&ca.issue(&leaf("node")), &[&ca]).await;
    assert_eq!(until_answered(&client).await.0, id("engine"));
    eventually!(node.kit.readiness().is_ready());
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_to_new_connections_and_open_ones_go_on() {
    let (dir, ca) = (TestDir::new(), TestCa::new("ca"));
    let mut node = Service::with(&dir, "node", &ca);
    let mut engine = Service::with(&dir, "engine", &ca);
    let endpoint = node.serve(Clients::Required).await;
    let before = engine.client(&endpoint, "node");
    let (_, connection) = whoami(&before).await.unwrap();

    // Both get another certificate, and the caller another role, so that it is seen which one is shown.
    node.replace(&ca.issue(&leaf("node")), &[&ca]).await;
    engine.replace(&ca.issue(&leaf("sync")), &[&ca]).await;
    assert_eq!(
        whoami(&before).await.unwrap(),
        (id("engine"), connection.clone())
    );
    let (who, new) = whoami(&engine.client(&endpoint, "node")).await.unwrap();
    assert_eq!(who, id("sync"));
    assert_ne!(new, connection);
}

#[tokio::test]
async fn an_authority_is_replaced_while_both_are_trusted() {
    let (dir, old, new) = (TestDir::new(), TestCa::new("old"), TestCa::new("new"));
    let mut node = Service::with(&dir, "node", &old);
    let mut engine = Service::with(&dir, "engine", &old);
    let endpoint = node.serve(Clients::Required).await;
    let open = engine.client(&endpoint, "node");
    let connection = whoami(&open).await.unwrap();
    let answers = async |engine: &Service| whoami(&engine.client(&endpoint, "node")).await;

    // One after the other, as files reach the Pods: after each step everybody still knows everybody.
    node.replace(&old.issue(&leaf("node")), &[&old, &new]).await;
    answers(&engine).await.unwrap();
    engine
        .replace(&new.issue(&leaf("engine")), &[&old, &new])
        .await;
    answers(&engine).await.unwrap();
    node.replace(&new.issue(&leaf("node")), &[&new]).await;
    answers(&engine).await.unwrap();
    engine.replace(&new.issue(&leaf("engine")), &[&new]).await;
    answers(&engine).await.unwrap();

    // What the old authority vouched for is nobody now; the connection of before goes on.
    let late = Service::with(&dir, "late", &old);
    assert!(answers(&late).await.is_err());
    assert_eq!(whoami(&open).await.unwrap(), connection);
}

#[tokio::test]
async fn a_set_that_does_not_fit_is_told_once_and_the_one_before_stays_in_use() {
    let (dir, ca, other) = (TestDir::new(), TestCa::new("ca"), TestCa::new("other"));
    let logs = Capture::start();
    let told = |what: &str| {
        let warned = |event: &baetyl_testkit::CapturedEvent| {
            event.field("message").contains("those before stay in use")
                && event.field("error").contains(what)
        };
        logs.events().iter().filter(|event| warned(event)).count()
    };
    let mut node = Service::with(&dir, "node", &ca);
    let engine = Service::with(&dir, "engine", &ca);
    let endpoint = node.serve(Clients::Required).await;
    let first = node.fingerprint();
    let next = ca.issue(&leaf("node"));
    let stranger = other.issue(&leaf("node"));
    let server_only = ca.issue(&leaf("node").for_servers());
    let (crt, key, ca_crt) = (&next.chain_pem, &next.key_pem, &ca.pem());
    let half = &crt[..crt.len() / 3];
    let cases: [(&str, &str, &str, &str); 6] = [
        (half, key, ca_crt, "no certificate in PEM"),
        (crt, "", ca_crt, "no private key in PEM"),
        (crt, &stranger.key_pem, ca_crt, "cannot be used for TLS"),
        (crt, key, "rubbish", "no certificate in PEM"),
        (
            &stranger.chain_pem,
            &stranger.key_pem,
            ca_crt,
            "none of the authorities",
        ),
        (
            &server_only.chain_pem,
            &server_only.key_pem,
            ca_crt,
            "none of the authorities",
        ),
    ];
    for (crt, key, authorities, reason) in cases {
        let before = told(reason);
        node.mount
            .put(&[("tls.crt", crt), ("tls.key", key), ("ca.crt", authorities)]);
        eventually!(told(reason) > before, reason);
        assert_eq!(node.fingerprint(), first, "{reason}");
        whoami(&engine.client(&endpoint, "node")).await.unwrap();
    }
    // The last was told after all others, however often they were looked at.
    assert_eq!(told(""), cases.len());
    assert!(node.kit.readiness().is_ready());

    node.replace(&next, &[&ca]).await;
    whoami(&engine.client(&endpoint, "node")).await.unwrap();
}

#[tokio::test]
async fn files_that_were_never_usable_are_told_with_the_reason() {
    let (dir, ca) = (TestDir::new(), TestCa::new("ca"));
    let mut node = Service::new(&dir, "node");
    let given = ca.issue(&leaf("node"));
    // On a plain machine files come one after the other.
    let write = |name: &str, text: &str| std::fs::write(node.mount.path().join(name), text);
    write("tls.crt", &given.chain_pem).unwrap();
    write("ca.crt", &ca.pem()).unwrap();
    write("tls.key", "half a k").unwrap();
    let reason = || {
        node.kit.readiness().snapshot().latches["tls"]
            .reason
            .clone()
    };
    eventually!(reason().contains("the key holds no private key in PEM"));
    write("tls.key", &given.key_pem).unwrap();
    eventually!(node.kit.readiness().is_ready());
    node.mount = SecretMount::new(dir.join("elsewhere"));
}

#[tokio::test]
async fn certificates_are_not_judged_by_the_clock() {
    let (dir, ca) = (TestDir::new(), TestCa::new("ca"));
    for (valid, role) in [
        (["2001-01-01T00:00:00Z", "2002-01-01T00:00:00Z"], "past"),
        (["2098-01-01T00:00:00Z", "2099-01-01T00:00:00Z"], "future"),
    ] {
        let mut mount = SecretMount::new(dir.join(format!("tls-{role}")));
        let leaf = leaf(role).valid(valid[0], valid[1]);
        mount.identity(&ca.issue(&leaf), &[&ca]);
        let service = Service::at(&dir, role, mount);
        let endpoint = service.serve(Clients::Required).await;
        let (who, _) = whoami(&service.client(&endpoint, role)).await.unwrap();
        assert_eq!(who, id(role));
    }
}

#[tokio::test]
async fn an_optional_certificate_may_be_missing_and_must_not_be_wrong() {
    let (dir, ca, other) = (TestDir::new(), TestCa::new("ca"), TestCa::new("other"));
    let node = Service::with(&dir, "node", &ca);
    let endpoint = node.serve(Clients::Optional).await;
    let client = |identity: Option<TestIdentity>| {
        let identity = identity.map(|identity| identity.identity());
        let tls = baetyl_kit::tls::client_config(&ca.trust(), identity, None).unwrap();
        let connect = grpc::Connect::new(endpoint.clone()).tls(tls);
        connect.lazy().unwrap()
    };
    assert_eq!(whoami(&client(None)).await.unwrap().0, "nobody");
    let known = client(Some(ca.issue(&leaf("app"))));
    assert_eq!(whoami(&known).await.unwrap().0, id("app"));
    let stranger = client(Some(other.issue(&leaf("app"))));
    assert!(whoami(&stranger).await.is_err());
}

#[tokio::test]
async fn plaintext_beyond_loopback_is_refused_in_words_and_sockets_stay_as_they_are() {
    let (dir, ca) = (TestDir::new(), TestCa::new("ca"));
    let plain = Kit::new("node", dir.path(), Default::default());
    let server = |kit: &Kit| {
        Server::new(kit, "node-apps")
            .add_service(Echo::default())
            .authorize(by_connection())
            .in_node(Clients::Optional)
    };
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:50021"] {
        let error = server(&plain).serve(&listen.parse().unwrap()).await;
        let error = error.unwrap_err();
        assert!(
            matches!(&error, ServeError::Plaintext { server, .. } if server == "node-apps"),
            "{error:?}"
        );
        for word in [listen, "tls.dir", "127.0.0.1"] {
            assert!(error.to_string().contains(word), "{word} in {error}");
        }
    }
    let loopback = server(&plain).serve(&Listen::loopback()).await.unwrap();
    let client = grpc::connect_lazy(&Endpoint::from(&loopback), "x").unwrap();
    assert_eq!(whoami(&client).await.unwrap().0, "nobody");

    let node = Service::with(&dir, "node", &ca);
    let socket = Listen::Unix(node.kit.core_socket("node"));
    server(&node.kit).serve(&socket).await.unwrap();
    let client = node.kit.peer(None, "node").unwrap().lazy().unwrap();
    let (who, connection) = whoami(&client).await.unwrap();
    assert!(
        who == "nobody" && connection.starts_with("uid="),
        "{connection}"
    );
    let https: Endpoint = "https://localhost:1".parse().unwrap();
    let error = plain.peer(Some(&https), "engine").unwrap_err();
    assert_eq!(error, ConnectError::NoIdentity(https));
    assert!(error.to_string().contains("tls.dir"), "{error}");
}

#[tokio::test]
async fn an_authority_gives_itself_an_identity_from_memory() {
    let (dir, ca, other) = (TestDir::new(), TestCa::new("ca"), TestCa::new("other"));
    let credentials = |given: &TestIdentity, ca: &TestCa| {
        let pem = |text: &str| text.as_bytes().to_vec();
        Credentials::from_pem(
            &pem(&given.chain_pem),
            &pem(&given.key_pem),
            &pem(&ca.pem()),
        )
    };
    let kit = Kit::new("engine", dir.join("engine"), Default::default());
    let (sender, identity) = ServiceIdentity::channel("waiting for the authority of this node");
    let engine = Service {
        kit: kit.with_identity(identity),
        mount: SecretMount::new(dir.join("unused")),
    };
    assert!(engine.kit.readiness().is_ready());
    let endpoint = engine.serve(Clients::Required).await;
    let node = Service::with(&dir, "node", &ca);
    let (in_client, out_client) = (
        node.client(&endpoint, "engine"),
        engine.client(&endpoint, "engine"),
    );
    let refused = format!("{:?}", whoami(&out_client).await.unwrap_err());
    assert!(refused.contains("waiting for the authority"), "{refused}");

    let own = credentials(&ca.issue(&leaf("engine")), &ca).unwrap();
    sender.replace(own).unwrap();
    assert_eq!(until_answered(&in_client).await.0, id("node"));
    assert_eq!(until_answered(&out_client).await.0, id("engine"));
    let foreign = credentials(&other.issue(&leaf("engine")), &ca);
    assert!(matches!(foreign, Err(TlsError::Foreign(_))), "{foreign:?}");

    // Nobody who can replace it is left, and it stays.
    drop(sender);
    let (who, _) = whoami(&engine.client(&endpoint, "engine")).await.unwrap();
    assert_eq!(who, id("engine"));
    let child = engine.kit.child("role");
    assert_eq!(
        child.identity().unwrap().fingerprint(),
        engine.fingerprint()
    );
    assert!(Kit::for_test(Path::new("x")).identity().is_none());
}
