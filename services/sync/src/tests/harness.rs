//! A sync with everybody around it, in one process and one temporary directory.

use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::Kit;
use baetyl_kit::clock::Clock;
use baetyl_kit::grpc::{Client, Endpoint, connect_lazy};
use baetyl_ledger::medium::{Disk, Medium};
use baetyl_model::Desire;
use baetyl_proto::link::Welcome;
use baetyl_proto::shadow::SignedDesire;
use baetyl_proto::sync::sync_service_client::SyncServiceClient;
use baetyl_proto::sync::{
    GetLinkStateRequest, InstallIdentityRequest, LinkState, WatchLinkStateRequest,
    link_state::Phase,
};
use baetyl_proto::{digest, sign};
use baetyl_testkit::{Leaf, PATIENCE, TestDir, TestIdentity, until};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::mpsc;

use super::fake::cloud::{Cloud, CloudStream};
use super::fake::edge::{FakeNode, FakeWorkers};
use crate::Config;

pub(super) const UID: &str = "node-uid-1";

/// The cloud's key for desires: any fixed one.
pub(super) fn desire_key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap()
}

/// Everybody.
pub(super) struct World {
    pub(super) dir: TestDir,
    pub(super) clock: Clock,
    pub(super) config: Config,
    /// Where the database of sync is.
    pub(super) medium: Arc<dyn Medium>,
    pub(super) cloud: Cloud,
    pub(super) streams: mpsc::Receiver<CloudStream>,
    pub(super) address: String,
    pub(super) node: FakeNode,
    pub(super) workers: FakeWorkers,
    /// Cloud, engine, function proxy and test.
    pub(super) kit: Kit,
    node_kit: Option<Kit>,
    sync_kit: Option<Kit>,
}

impl World {
    /// Everybody runs; no identity is installed.
    pub(super) async fn new() -> Self {
        Self::with(Config::default(), Clock::system()).await
    }

    /// As [`new`](Self::new), with another configuration and clock. Attempts to connect come fast unless told otherwise.
    pub(super) async fn with(config: Config, clock: Clock) -> Self {
        let mut world = Self::without_sync(config, clock).await;
        world.start_sync().await;
        world
    }

    /// Everybody but sync.
    pub(super) async fn without_sync(mut config: Config, clock: Clock) -> Self {
        config.link.backoff_min = Duration::from_millis(5);
        config.link.backoff_max = Duration::from_millis(50);
        let dir = TestDir::new();
        let kit = Kit::new("world", dir.path(), Clock::system());
        let (cloud, streams) = Cloud::new();
        let address = cloud.serve(&kit).await;
        let node = FakeNode::new();
        let workers = FakeWorkers::default();
        workers.serve(&kit).await;
        let mut world = Self {
            dir,
            clock,
            config,
            medium: Arc::new(Disk),
            cloud,
            streams,
            address,
            node,
            workers,
            kit,
            node_kit: None,
            sync_kit: None,
        };
        world.start_node().await;
        world
    }

    /// Starts sync and waits until it answers.
    pub(super) async fn start_sync(&mut self) {
        let kit = Kit::new("sync", self.dir.path(), self.clock.clone());
        let medium = Arc::clone(&self.medium);
        kit.tasks().spawn(
            "sync",
            crate::run_on(medium, self.config.clone(), kit.clone()),
        );
        self.sync_kit = Some(kit);
        until(PATIENCE, "sync answers", || {
            let mut client = self.as_role("engine");
            async move { client.get_link_state(GetLinkStateRequest {}).await }
        })
        .await;
    }

    pub(super) async fn stop_sync(&mut self) {
        if let Some(kit) = self.sync_kit.take() {
            kit.stop(PATIENCE).await.unwrap();
        }
    }

    pub(super) async fn start_node(&mut self) {
        let kit = Kit::new("node", self.dir.path(), Clock::system());
        self.node.serve(&kit).await;
        self.node_kit = Some(kit);
    }

    /// Node goes away, its streams with it.
    pub(super) async fn stop_node(&mut self) {
        if let Some(kit) = self.node_kit.take() {
            let _ = kit.stop(Duration::ZERO).await;
        }
    }

    pub(super) fn sync_kit(&self) -> &Kit {
        self.sync_kit.as_ref().unwrap()
    }

    /// A client of sync in this role.
    pub(super) fn as_role(&self, role: &str) -> SyncServiceClient<Client> {
        let endpoint = Endpoint::unix(self.kit.core_socket("sync"));
        SyncServiceClient::new(connect_lazy(&endpoint, role).unwrap())
    }

    /// What a node certificate of this node says.
    pub(super) fn leaf() -> Leaf {
        Leaf::new("ns.n1").uri(&format!("spiffe://baetyl.local/ns/ns/node/{UID}"))
    }

    /// An identity as init hands it over.
    pub(super) fn identity_as(&self, leaf: &Leaf) -> InstallIdentityRequest {
        request(&self.cloud.ca().issue(leaf), &self.cloud, &self.address)
    }

    /// Installs the usual identity and gives it.
    pub(super) async fn install(&self) -> InstallIdentityRequest {
        let identity = self.identity_as(&Self::leaf());
        self.install_as(&identity).await;
        identity
    }

    pub(super) async fn install_as(&self, identity: &InstallIdentityRequest) {
        let answer = self
            .as_role("init")
            .install_identity(identity.clone())
            .await;
        answer.unwrap();
    }

    /// The next stream of the node.
    pub(super) async fn stream(&mut self) -> CloudStream {
        let next = tokio::time::timeout(PATIENCE, self.streams.recv()).await;
        next.expect("a stream in time").unwrap()
    }

    /// A node with an identity and a stream on which nothing waits.
    pub(super) async fn online(&mut self) -> CloudStream {
        self.install().await;
        let stream = self.stream().await;
        stream.welcome(Welcome::default()).await;
        self.until_phase(Phase::Online).await;
        stream
    }

    pub(super) async fn until_phase(&self, phase: Phase) -> LinkState {
        let wait = async {
            let mut watch = self
                .as_role("engine")
                .watch_link_state(WatchLinkStateRequest::default())
                .await
                .unwrap()
                .into_inner();
            loop {
                let state = watch.message().await.unwrap().unwrap().state.unwrap();
                if state.phase() == phase {
                    return state;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("not {phase:?} in time"))
    }

    pub(super) async fn phase(&self) -> Phase {
        let answer = self
            .as_role("engine")
            .get_link_state(GetLinkStateRequest {})
            .await;
        answer.unwrap().into_inner().state.unwrap().phase()
    }
}

/// An identity of this certificate at this cloud.
pub(super) fn request(
    identity: &TestIdentity,
    cloud: &Cloud,
    address: &str,
) -> InstallIdentityRequest {
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
    InstallIdentityRequest {
        namespace: "ns".to_owned(),
        node_name: "n1".to_owned(),
        node_uid: UID.to_owned(),
        private_key: key.secret_der().to_vec().into(),
        certificate_chain: vec![identity.certificate.to_vec().into()],
        trusted_authorities: vec![cloud.ca().certificate().to_vec().into()],
        desire_keys: vec![desire_key().public_key().as_ref().to_vec().into()],
        link_addresses: vec![address.to_owned()],
    }
}

/// A desire of this node without applications; `property` tells contents apart.
pub(super) fn desire(generation: u64, property: &str) -> Desire {
    digest::complete_desire(Desire {
        namespace: "ns".try_into().unwrap(),
        node_name: "n1".try_into().unwrap(),
        node_uid: UID.try_into().unwrap(),
        epoch: 0.into(),
        generation: generation.into(),
        digest: digest::of(b""),
        apps: Vec::new(),
        node_properties: [("p".to_owned(), property.to_owned())].into(),
        core: None,
    })
}

/// The same, signed by the cloud.
pub(crate) fn signed(generation: u64, property: &str) -> SignedDesire {
    sign::sign_desire(&desire_key(), desire(generation, property))
}
