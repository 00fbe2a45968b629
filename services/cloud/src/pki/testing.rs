//! What tests of identity need: a clock that can be moved, a cloud in a temporary directory, keys and requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use baetyl_kit::clock::{Clock, TimeSource};
use baetyl_model::Namespace;
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::{NodeCsr, NodeIdentity, Pki, PkiConfig};
use crate::seal::Seal;
use crate::store::{By, NodeRow, NodeSpec, Store, Verb};

/// A wall clock that stands until it is moved; uptime moves along.
#[derive(Clone, Debug)]
pub(crate) struct TestClock(Arc<AtomicI64>);

/// When tests begin: 2026-01-02 03:04:05.
const BEGIN: i64 = 1_767_323_045;

impl TestClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(BEGIN)))
    }

    pub(crate) fn clock(&self) -> Clock {
        Clock::from_source(Arc::new(self.clone()))
    }

    pub(crate) fn advance(&self, by: SignedDuration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    pub(crate) fn advance_days(&self, days: i64) {
        self.advance(SignedDuration::from_hours(24 * days));
    }
}

impl TimeSource for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.0.load(Ordering::SeqCst) - BEGIN + 1000).unwrap())
    }
}

/// Store, seal and authorities in a temporary directory.
pub(crate) struct Fixture {
    pub(crate) clock: TestClock,
    pub(crate) store: Store,
    pub(crate) seal: Seal,
    pub(crate) pki: Pki,
    pub(crate) namespace: Namespace,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
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

pub(crate) async fn open_pki(store: &Store, seal: &Seal, clock: &TestClock) -> Pki {
    let hosts = ["cloud.example".to_owned()];
    Pki::open(store, seal, PkiConfig::default(), &hosts, clock.clock())
        .await
        .unwrap()
}

pub(crate) fn by(clock: &TestClock) -> By {
    By {
        actor: "test".into(),
        request_id: "r1".into(),
        time: clock.now(),
    }
}

impl Fixture {
    /// Creates a node with a label `name=<name>`.
    pub(crate) async fn add_node(&self, name: &str) -> NodeIdentity {
        let mut row = NodeRow {
            namespace: self.namespace.clone(),
            name: name.parse().unwrap(),
            uid: format!("uid-{name}").parse().unwrap(),
            version: 0.into(),
            create_time: self.clock.now(),
            update_time: self.clock.now(),
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
