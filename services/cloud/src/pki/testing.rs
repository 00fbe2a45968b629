//! What tests of identity need: a clock that can be moved, a cloud in a temporary directory, keys and requests.

use std::time::Duration;

use baetyl_model::Namespace;
use baetyl_testkit::ManualClock;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::{NodeCsr, NodeIdentity, Pki, PkiConfig};
use crate::seal::Seal;
use crate::store::{By, NodeRow, NodeSpec, Store, Verb};

/// Store, seal and authorities in a temporary directory.
pub(crate) struct Fixture {
    pub(crate) clock: ManualClock,
    pub(crate) store: Store,
    pub(crate) seal: Seal,
    pub(crate) pki: Pki,
    pub(crate) namespace: Namespace,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) async fn fixture() -> Fixture {
    fixture_at(ManualClock::at("2026-01-02T03:04:05Z")).await
}

/// With another clock: for programs that judge certificates by that of the machine.
pub(crate) async fn fixture_at(clock: ManualClock) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let seal = Seal::open_dir(dir.path()).unwrap();
    let store = Store::open(&dir.path().join("cloud.db"), seal.clone())
        .await
        .unwrap();
    let namespace = Namespace::new("default").unwrap();
    store
        .create_namespace(&namespace, &by(&clock))
        .await
        .unwrap();
    let pki = open_pki(&store, &seal, &clock).await;
    Fixture {
        clock,
        store,
        seal,
        pki,
        namespace,
        dir,
    }
}

pub(crate) async fn open_pki(store: &Store, seal: &Seal, clock: &ManualClock) -> Pki {
    let hosts = ["cloud.example".to_owned()];
    Pki::open(store, seal, PkiConfig::default(), &hosts, clock.clock())
        .await
        .unwrap()
}

pub(crate) fn by(clock: &ManualClock) -> By {
    By {
        actor: "test".into(),
        request_id: "r1".into(),
        time: clock.clock().now(),
    }
}

impl Fixture {
    pub(crate) fn advance_days(&self, days: u64) {
        self.clock.advance(Duration::from_secs(days * 86_400));
    }

    /// Creates a node with a label `name=<name>`.
    pub(crate) async fn add_node(&self, name: &str) -> NodeIdentity {
        self.add_node_as(name, &format!("uid-{name}")).await
    }

    pub(crate) async fn add_node_as(&self, name: &str, uid: &str) -> NodeIdentity {
        let mut row = NodeRow {
            namespace: self.namespace.clone(),
            name: name.parse().unwrap(),
            uid: uid.parse().unwrap(),
            version: 0.into(),
            create_time: self.clock.clock().now(),
            update_time: self.clock.clock().now(),
            labels: [("name".to_owned(), name.to_owned())].into(),
            properties: Default::default(),
            spec: NodeSpec::default(),
        };
        let mut tx = self
            .store
            .begin(&self.namespace, by(&self.clock))
            .await
            .unwrap();
        tx.put_node(&mut row, Verb::Create).await.unwrap();
        tx.commit().await.unwrap();
        NodeIdentity {
            namespace: row.namespace,
            name: row.name,
            uid: row.uid,
        }
    }

    /// Describes a node with another mode.
    pub(crate) async fn set_mode(&self, name: &str, mode: &str) {
        let mut tx = self
            .store
            .begin(&self.namespace, by(&self.clock))
            .await
            .unwrap();
        let mut row = tx.node(name).await.unwrap().unwrap();
        mode.clone_into(&mut row.spec.node_mode);
        tx.put_node(&mut row, Verb::Update).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A node as it is stored.
    pub(crate) async fn node(&self, name: &str) -> NodeRow {
        let row = self.store.node(&self.namespace, name).await.unwrap();
        row.unwrap()
    }

    pub(crate) async fn delete_node(&self, name: &str) {
        let mut tx = self
            .store
            .begin(&self.namespace, by(&self.clock))
            .await
            .unwrap();
        tx.delete_node(name).await.unwrap().unwrap();
        tx.commit().await.unwrap();
    }
}

/// A key as a node makes it.
pub(crate) fn node_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// A request with this common name (empty: none) and these URIs.
pub(crate) fn csr_der(key: &KeyPair, common_name: &str, uris: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if !common_name.is_empty() {
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
    }
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    params.serialize_request(key).unwrap().der().to_vec()
}

/// A request that names nobody.
pub(crate) fn csr(key: &KeyPair) -> NodeCsr {
    NodeCsr::from_der(&csr_der(key, "", &[])).unwrap()
}
