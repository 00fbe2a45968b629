use std::sync::{Arc, Mutex};
use std::time::Duration;

use baetyl_kit::Kit;
use baetyl_kit::grpc::{Authorize, CallerInfo, Client, Connect, Endpoint, Server};
use baetyl_kit::listen::Listen;
use baetyl_kit::serve::ServerTls;
use baetyl_kit::tls::{
    self, CertTime, CertificateInfo, ClientAuth, Identity, Pin, ServerTrust, Validity,
};
use baetyl_testkit::{Leaf, TestCa, TestDir, TestIdentity};
use tokio::sync::watch;
use tonic::Status;

use crate::echo::{self, Echo};

const NODE: &str = "spiffe://baetyl.test/ns/default/node/n-1";
const DRAIN: Duration = Duration::from_secs(20);

struct World {
    _dir: TestDir,
    kit: Kit,
    port: u16,
}

/// The subject of a caller is its SPIFFE id.
fn by_certificate() -> Authorize {
    Arc::new(|peer, _, _| {
        let Some(certificate) = peer.certificate() else {
            return Ok(CallerInfo::new("anonymous"));
        };
        let info = CertificateInfo::parse(certificate)
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        let id = info.spiffe_id().unwrap_or("nobody").to_owned();
        Ok(CallerInfo::new("node").subject(id))
    })
}

impl World {
    async fn new(tls: impl Into<ServerTls>) -> Self {
        let dir = TestDir::new();
        let kit = Kit::for_test(dir.path());
        let bound = Server::new(&kit, "link")
            .add_service(Echo::default())
            .authorize(by_certificate())
            .tls(tls)
            .serve(&Listen::loopback())
            .await
            .unwrap();
        let Listen::Tcp(addr) = bound else {
            panic!("{bound}");
        };
        Self {
            _dir: dir,
            kit,
            port: addr.port(),
        }
    }

    async fn of(server: &TestIdentity, clients: &ClientAuth) -> Self {
        Self::new(tls::server_config(server.identity(), clients, None).unwrap()).await
    }

    fn client(&self, host: &str, trust: &ServerTrust, identity: Option<Identity>) -> Client {
        self.client_at(host, trust, identity, None)
    }

    fn client_at(
        &self,
        host: &str,
        trust: &ServerTrust,
        identity: Option<Identity>,
        time: Option<Arc<dyn CertTime>>,
    ) -> Client {
        let endpoint: Endpoint = format!("https://{host}:{}", self.port).parse().unwrap();
        let config = tls::client_config(trust, identity, time).unwrap();
        Connect::new(endpoint).tls(config).lazy().unwrap()
    }

    async fn stop(self) {
        self.kit.stop(DRAIN).await.unwrap();
    }
}

async fn say(client: &Client) -> Result<String, Status> {
    echo::call(
        client,
        "/test.Echo/Say",
        baetyl_kit::grpc::unary("x".to_owned()),
    )
    .await
}

#[tokio::test]
async fn a_client_is_known_by_the_spiffe_id_in_its_certificate() {
    let ca = TestCa::new("ca");
    let world = World::of(&ca.server(), &ca.clients_required()).await;
    let node = ca.client(NODE).identity();
    for host in ["localhost", "127.0.0.1"] {
        let answer = say(&world.client(host, &ca.trust(), Some(node.clone())))
            .await
            .unwrap();
        assert!(answer.starts_with(&format!("node|{NODE}|")), "{answer}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_required_certificate_must_be_there_and_of_the_right_authority() {
    let (ca, other) = (TestCa::new("ca"), TestCa::new("other"));
    let world = World::of(&ca.server(), &ca.clients_required()).await;
    assert!(
        say(&world.client("localhost", &ca.trust(), None))
            .await
            .is_err()
    );
    let stranger = other.client(NODE).identity();
    assert!(
        say(&world.client("localhost", &ca.trust(), Some(stranger)))
            .await
            .is_err()
    );
    world.stop().await;
}

#[tokio::test]
async fn an_optional_certificate_may_be_missing_but_not_wrong() {
    let (ca, other) = (TestCa::new("ca"), TestCa::new("other"));
    let world = World::of(&ca.server(), &ClientAuth::Optional(ca.roots())).await;
    let answer = say(&world.client("localhost", &ca.trust(), None))
        .await
        .unwrap();
    assert!(answer.starts_with("anonymous|"), "{answer}");
    let stranger = other.client(NODE).identity();
    assert!(
        say(&world.client("localhost", &ca.trust(), Some(stranger)))
            .await
            .is_err()
    );
    world.stop().await;
}

#[tokio::test]
async fn a_server_of_another_authority_or_name_is_refused() {
    let (ca, other) = (TestCa::new("ca"), TestCa::new("other"));
    let named = ca.issue(&Leaf::new("cloud").name("cloud.example"));
    let world = World::of(&named, &ClientAuth::None).await;
    assert!(
        say(&world.client("localhost", &ca.trust(), None))
            .await
            .is_err()
    );
    let endpoint: Endpoint = format!("https://127.0.0.1:{}", world.port).parse().unwrap();
    let connect = |trust: &ServerTrust| {
        let config = tls::client_config(trust, None, None).unwrap();
        let connect = Connect::new(endpoint.clone()).server_name("cloud.example");
        connect.tls(config).lazy().unwrap()
    };
    say(&connect(&ca.trust())).await.unwrap();
    assert!(say(&connect(&other.trust())).await.is_err());
    world.stop().await;
}

#[tokio::test]
async fn a_pinned_authority_is_trusted_by_certificate_or_key_and_nothing_else_is() {
    let (ca, other) = (TestCa::new("ca"), TestCa::new("other"));
    let world = World::of(&ca.server(), &ClientAuth::None).await;
    let pinned = |pin: &str| ServerTrust::Pin(pin.parse::<Pin>().unwrap());
    let certificate = tls::fingerprint(&ca.certificate());
    let key = format!("sha256:{}", tls::spki_sha256(&ca.certificate()).unwrap());
    for pin in [&certificate, &key] {
        say(&world.client("localhost", &pinned(pin), None))
            .await
            .unwrap();
    }
    let wrong = tls::fingerprint(&other.certificate());
    assert!(
        say(&world.client("localhost", &pinned(&wrong), None))
            .await
            .is_err()
    );
    // The leaf itself is no authority.
    let leaf = tls::fingerprint(&ca.server().certificate);
    assert!(
        say(&world.client("localhost", &pinned(&leaf), None))
            .await
            .is_err()
    );
    world.stop().await;
}

#[tokio::test]
async fn a_pinned_authority_does_not_vouch_for_what_it_did_not_issue() {
    let (ca, other) = (TestCa::new("ca"), TestCa::new("other"));
    // A server of another authority that shows the pinned certificate along.
    let mut server = other.server();
    server.chain_pem.push_str(&ca.pem());
    let world = World::of(&server, &ClientAuth::None).await;
    let pin = ServerTrust::Pin(tls::fingerprint(&ca.certificate()).parse().unwrap());
    assert!(say(&world.client("localhost", &pin, None)).await.is_err());
    world.stop().await;
}

#[derive(Debug)]
struct At {
    time: i64,
    accepted: Mutex<Vec<Validity>>,
}

impl CertTime for At {
    fn judge_at(&self, _: Validity, _: i64) -> i64 {
        self.time
    }

    fn accepted(&self, chain: Validity) {
        self.accepted.lock().unwrap().push(chain);
    }
}

#[tokio::test]
async fn the_caller_decides_at_which_time_a_chain_is_judged() {
    let ca = TestCa::new("ca");
    let leaf = Leaf::new("old").name("localhost");
    let expired = ca.issue(&leaf.valid("2001-01-01T00:00:00Z", "2002-01-01T00:00:00Z"));
    let world = World::of(&expired, &ClientAuth::None).await;
    assert!(
        say(&world.client("localhost", &ca.trust(), None))
            .await
            .is_err()
    );
    let time = |text: &str| {
        let time = text.parse::<jiff::Timestamp>().unwrap().as_second();
        let accepted = Mutex::default();
        Arc::new(At { time, accepted })
    };
    let (inside, after) = (time("2001-06-01T00:00:00Z"), time("2003-01-01T00:00:00Z"));
    say(&world.client_at("localhost", &ca.trust(), None, Some(inside.clone())))
        .await
        .unwrap();
    assert_eq!(inside.accepted.lock().unwrap()[0].not_before, 978_307_200);
    assert!(
        say(&world.client_at("localhost", &ca.trust(), None, Some(after.clone())))
            .await
            .is_err()
    );
    assert!(after.accepted.lock().unwrap().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_server_also_judges_its_clients_at_the_time_it_is_told() {
    let ca = TestCa::new("ca");
    let leaf = Leaf::new("old").uri(NODE);
    let expired = ca.issue(&leaf.valid("2001-01-01T00:00:00Z", "2002-01-01T00:00:00Z"));
    let time = Arc::new(At {
        time: "2001-06-01T00:00:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .as_second(),
        accepted: Mutex::default(),
    });
    let config =
        tls::server_config(ca.server().identity(), &ca.clients_required(), Some(time)).unwrap();
    let world = World::new(config).await;
    say(&world.client("localhost", &ca.trust(), Some(expired.identity())))
        .await
        .unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections() {
    let (old, new) = (TestCa::new("old"), TestCa::new("new"));
    let config =
        |ca: &TestCa| tls::server_config(ca.server().identity(), &ClientAuth::None, None).unwrap();
    let (sender, receiver) = watch::channel(config(&old));
    let world = World::new(receiver).await;
    say(&world.client("localhost", &old.trust(), None))
        .await
        .unwrap();
    sender.send_replace(config(&new));
    say(&world.client("localhost", &new.trust(), None))
        .await
        .unwrap();
    assert!(
        say(&world.client("localhost", &old.trust(), None))
            .await
            .is_err()
    );
    world.stop().await;
}

#[test]
fn a_certificate_tells_its_names_and_times() {
    let ca = TestCa::new("ca");
    let issued = ca.issue(&Leaf::new("default.n-1").uri(NODE).name("n-1.local"));
    let info = CertificateInfo::parse(&issued.certificate).unwrap();
    assert_eq!(info.common_name.as_deref(), Some("default.n-1"));
    assert_eq!(info.spiffe_id(), Some(NODE));
    assert_eq!(info.dns_names, ["n-1.local"]);
    assert!(!info.is_ca && CertificateInfo::parse(&ca.certificate()).unwrap().is_ca);
    assert_eq!(info.not_before, 946_684_800);
    let two = ca.issue(&Leaf::new("x").uri(NODE).uri("spiffe://other/x"));
    let two = CertificateInfo::parse(&two.certificate).unwrap();
    assert_eq!(two.spiffe_id(), None, "two ids are none");
}

#[test]
fn a_pin_is_read_with_and_without_decoration() {
    let plain = "ab".repeat(32);
    let colons = vec!["AB"; 32].join(":");
    let pin: Pin = plain.parse().unwrap();
    assert_eq!(format!("sha256:{plain}").parse::<Pin>().unwrap(), pin);
    assert_eq!(colons.parse::<Pin>().unwrap(), pin);
    assert!("abcd".parse::<Pin>().is_err());
}
