//! The link over a real port with mutual TLS; the node is a plain gRPC client.

mod desires;
mod fetching;
mod identities;
mod reports;

use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::grpc::{Client, Connect, Endpoint, unary};
use baetyl_kit::tls::{self, CertTime, Identity, Roots, ServerTrust, Validity};
use baetyl_kit::{Kit, clock::Clock, listen::Listen};
use baetyl_model::desire::Header;
use baetyl_model::{Desire, Kind, Revision};
use baetyl_proto::link::connect_request::Message as Up;
use baetyl_proto::link::connect_response::Message as Down;
use baetyl_proto::link::link_service_client::LinkServiceClient;
use baetyl_proto::link::{ConnectRequest, ConnectResponse, DesireAck, Heartbeat, Hello, Welcome};
use baetyl_proto::meta::ProtocolRange;
use baetyl_proto::shadow::SignedDesire;
use baetyl_proto::sign;
use baetyl_testkit::PATIENCE;
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::*;
use crate::objects::ObjectsConfig;
use crate::pki::NodeIdentity;
use crate::pki::testing::{Fixture, by, csr, fixture, node_key, open_pki};
use crate::report::{NodeReport, ReportConfig};
use crate::store::{NewResource, Reference};

/// Judges the server at the time of the test's clock.
#[derive(Debug)]
struct Time(Clock);

impl CertTime for Time {
    fn judge_at(&self, _chain: Validity, _wall: i64) -> i64 {
        self.0.now().as_second()
    }
}

/// A cloud with its link on a port.
pub(super) struct Cloud {
    pub(super) fixture: Fixture,
    pub(super) deps: LinkDeps,
    pub(super) kit: Kit,
    addr: String,
}

pub(super) async fn cloud() -> Cloud {
    cloud_with(fixture().await, ReportConfig::default()).await
}

pub(super) async fn cloud_with(fixture: Fixture, config: ReportConfig) -> Cloud {
    let kit = Kit::new("cloud", fixture.dir.path(), fixture.clock.clock());
    let (reports, task) = Reports::new(fixture.store.clone(), config, fixture.clock.clock());
    kit.tasks()
        .spawn("reports", task.run(kit.shutdown().clone()));
    let deps = LinkDeps {
        store: fixture.store.clone(),
        pki: fixture.pki.clone(),
        feed: DesireFeed::new(fixture.store.clone(), kit.tasks().clone()),
        reports,
        links: Links::new(kit.metrics()),
        objects: Objects::open(
            &fixture.dir.path().join("objects"),
            &ObjectsConfig::default(),
        )
        .unwrap(),
    };
    let addr = serve(&kit, &Listen::loopback(), deps.clone())
        .await
        .unwrap()
        .to_string();
    Cloud {
        fixture,
        deps,
        kit,
        addr,
    }
}

/// An edge as the cloud sees it: a key and a certificate.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) identity: NodeIdentity,
    pub(super) key: Arc<KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
}

impl Cloud {
    /// A new node with a certificate, as activation gives it.
    pub(super) async fn node(&self, name: &str) -> Node {
        let identity = self.fixture.add_node(name).await;
        self.certify(identity)
    }

    pub(super) fn certify(&self, identity: NodeIdentity) -> Node {
        let key = Arc::new(node_key());
        let issued = self
            .fixture
            .pki
            .issue_node_certificate(&csr(&key), &identity)
            .unwrap();
        Node {
            identity,
            key,
            certificate: issued.certificate,
        }
    }

    pub(super) fn client(&self, node: &Node) -> LinkServiceClient<Client> {
        let trust =
            ServerTrust::Roots(Roots::new(&[self.fixture.pki.server_authority().clone()]).unwrap());
        let key = PrivatePkcs8KeyDer::from(node.key.serialize_der()).into();
        let identity = Identity::new(vec![node.certificate.clone()], key);
        let time = Arc::new(Time(self.fixture.clock.clock()));
        let tls = tls::client_config(&trust, Some(identity), Some(time)).unwrap();
        let endpoint: Endpoint = format!("https://{}", self.addr).parse().unwrap();
        LinkServiceClient::new(Connect::new(endpoint).tls(tls).lazy().unwrap())
    }

    /// Opens a stream and takes the Welcome.
    pub(super) async fn connect(&self, node: &Node, held: Option<Header>) -> Stream {
        let mut stream = self.open(node, hello(held)).await.unwrap();
        match stream.next().await {
            Down::Welcome(welcome) => stream.welcome = welcome,
            other => panic!("not Welcome but {other:?}"),
        }
        stream
    }

    /// Opens a stream with this as the first message.
    pub(super) async fn open(&self, node: &Node, first: Up) -> Result<Stream, Status> {
        let (up, requests) = mpsc::channel(8);
        up.send(ConnectRequest {
            message: Some(first),
        })
        .await
        .unwrap();
        let down = self
            .client(node)
            .connect(ReceiverStream::new(requests))
            .await?
            .into_inner();
        Ok(Stream {
            up,
            down,
            welcome: Welcome::default(),
        })
    }

    /// Writes an application that runs where `selector` says; its configuration or secret come along.
    pub(super) async fn put_app(
        &self,
        name: &str,
        selector: &str,
        body: &str,
        references: &[(Kind, &str)],
    ) -> Revision {
        let mut tx = self
            .fixture
            .store
            .begin(&self.fixture.namespace, by(&self.fixture.clock))
            .await
            .unwrap();
        let mut pinned = Vec::new();
        for &(kind, name) in references {
            let row = match tx.resource(kind, name).await.unwrap() {
                Some(row) => row,
                None => tx
                    .put_resource(resource(kind, name, "", &format!("body of {name}")))
                    .await
                    .unwrap(),
            };
            pinned.push(Reference {
                kind,
                name: name.to_owned(),
                version: row.version,
            });
        }
        let mut app = resource(Kind::Application, name, selector, body);
        app.references = pinned;
        tx.put_resource(app).await.unwrap();
        tx.commit().await.unwrap().unwrap()
    }

    /// What a node is to be sent first.
    pub(super) async fn app_for(&self, node: &str, body: &str) -> Revision {
        self.put_app(&format!("app-{node}"), &format!("name={node}"), body, &[])
            .await
    }

    pub(super) async fn report(&self, node: &Node) -> NodeReport {
        self.deps
            .reports
            .report(&node.identity.namespace, &node.identity.uid)
            .await
            .unwrap()
    }

    pub(super) async fn reasons(&self, node: &Node) -> Vec<String> {
        let events = self
            .deps
            .reports
            .events(&node.identity.namespace, &node.identity.uid, None, 100)
            .await
            .unwrap();
        events.into_iter().rev().map(|event| event.reason).collect()
    }

    pub(super) async fn read(&self, signed: &SignedDesire) -> Desire {
        let key = self
            .fixture
            .pki
            .desire_key(&self.fixture.namespace)
            .await
            .unwrap();
        sign::verify_desire(&[key.public_key()], None, signed).unwrap()
    }
}

pub(super) fn resource(kind: Kind, name: &str, selector: &str, body: &str) -> NewResource {
    NewResource {
        kind,
        name: name.to_owned(),
        labels: Default::default(),
        system: false,
        subtype: String::new(),
        selector: selector.to_owned(),
        body: body.as_bytes().to_vec(),
        references: Vec::new(),
        objects: Vec::new(),
    }
}

pub(super) fn hello(held: Option<Header>) -> Up {
    Up::Hello(Hello {
        protocol: Some(ProtocolRange { min: 1, max: 1 }),
        held: held.map(Into::into),
        ..Default::default()
    })
}

/// An open stream, from the node's side.
pub(super) struct Stream {
    up: mpsc::Sender<ConnectRequest>,
    down: Streaming<ConnectResponse>,
    pub(super) welcome: Welcome,
}

impl Stream {
    pub(super) async fn send(&self, message: Up) {
        self.up
            .send(ConnectRequest {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    pub(super) async fn try_next(&mut self) -> Result<Option<Down>, Status> {
        let next = tokio::time::timeout(PATIENCE, self.down.message())
            .await
            .expect("the cloud says nothing");
        next.map(|message| message.map(|message| message.message.unwrap()))
    }

    pub(super) async fn next(&mut self) -> Down {
        self.try_next().await.unwrap().expect("the stream ended")
    }

    /// The next message, which is a desire.
    pub(super) async fn desire(&mut self) -> SignedDesire {
        match self.next().await {
            Down::Desire(signed) => signed,
            other => panic!("not a desire but {other:?}"),
        }
    }

    /// Acknowledges as node does once it is on disk.
    pub(super) async fn ack(&self, desire: &Desire) {
        let header = Some(desire.header().into());
        self.send(Up::DesireAck(DesireAck {
            header,
            ..Default::default()
        }))
        .await;
    }

    pub(super) async fn refuse(&self, desire: &Desire, refused: &str) {
        let header = Some(desire.header().into());
        self.send(Up::DesireAck(DesireAck {
            header,
            refused: refused.to_owned(),
            message: "no".to_owned(),
        }))
        .await;
    }

    /// Everything sent before was taken, and nothing else came down.
    pub(super) async fn is_quiet(&mut self) {
        self.send(Up::Heartbeat(Heartbeat {})).await;
        match self.next().await {
            Down::HeartbeatAck(_) => {}
            other => panic!("something came down: {other:?}"),
        }
    }

    /// How the stream ends.
    pub(super) async fn end(&mut self) -> Status {
        loop {
            match self.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }
}

/// A clone of the database as it is now, as a backup tool makes it.
pub(super) async fn copy_of(cloud: &Cloud) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cloud.db");
    cloud.fixture.store.backup(&path).await.unwrap();
    let (seal, clock) = (cloud.fixture.seal.clone(), cloud.fixture.clock.clone());
    let store = Store::open(&path, seal.clone()).await.unwrap();
    let pki = open_pki(&store, &seal, &clock).await;
    Fixture {
        clock,
        store,
        seal,
        pki,
        namespace: cloud.fixture.namespace.clone(),
        dir,
    }
}

pub(super) fn request<T>(message: T) -> tonic::Request<T> {
    unary(message)
}
