//! The shadow in memory: what was accepted, what was reported, and who waits for changes.
//!
//! The ledger is written first, then memory, then watchers are told. Hops live in `desire.rs` and `report.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use baetyl_kit::metrics::{Counter, Metrics};
use baetyl_kit::resume::Revisions;
use baetyl_model::desire::Header;
use baetyl_model::name::NodeUid;
use baetyl_proto::node::Properties;
use baetyl_proto::shadow::{Desire, NodeInfo, NodeStats, NodeStatus, SignedDesire};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::ledger::{Ledger, LedgerError};

/// Who this node is, as sync told after an identity was installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Tenant.
    pub namespace: String,
    /// Name.
    pub node_name: String,
    /// Immutable id.
    pub node_uid: NodeUid,
}

/// The accepted desire: exactly the persisted bytes, and what was read from them.
#[derive(Debug)]
pub struct Held {
    /// As it came.
    pub signed: SignedDesire,
    /// What identifies it.
    pub header: Header,
    /// Decoded payload.
    pub desire: Desire,
}

/// The joined report.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Engine's status with properties and machines merged in; absent until engine reported once.
    pub status: Option<Arc<NodeStatus>>,
    /// Digest of the status.
    pub digest: String,
    /// Latest figures.
    pub stats: Option<Arc<NodeStats>>,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: Counter,
    pub(crate) refused: Counter,
}

impl Counts {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            accepted: metrics.counter(
                "desires_accepted_total",
                "New desires that were taken into the ledger.",
                &[],
            ),
            refused: metrics.counter(
                "desires_refused_total",
                "Desires that were older, contradictory, another node's or no desires.",
                &[],
            ),
        }
    }
}

/// Memory in front of the ledger.
#[derive(Debug)]
pub struct Shadow {
    pub(crate) ledger: Ledger,
    /// Serialises writers: the ledger's transaction and what memory says afterwards belong together.
    writer: Mutex<()>,
    pub(crate) desire: watch::Sender<Option<Arc<Held>>>,
    pub(crate) report: watch::Sender<Report>,
    pub(crate) properties: watch::Sender<Arc<BTreeMap<String, String>>>,
    pub(crate) machines: RwLock<Vec<NodeInfo>>,
    identity: RwLock<Option<Identity>>,
    app_key: RwLock<Option<Vec<u8>>>,
    pub(crate) counts: Counts,
    pub(crate) watched: Watched,
}

/// Revisions of what is streamed, for resume tokens.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) desire: Revisions<Option<Header>>,
    /// Digest of the status, and the figures.
    pub(crate) report: Revisions<(String, Option<Arc<NodeStats>>)>,
    pub(crate) properties: Revisions<Properties>,
}

impl Shadow {
    /// Loads what the ledger holds.
    ///
    /// # Errors
    /// When the ledger cannot be read. A record that is readable but makes no sense counts as absent.
    pub fn load(ledger: Ledger, machines: Vec<NodeInfo>) -> Result<Self, LedgerError> {
        let held =
            ledger
                .read_desire()?
                .and_then(|bytes| match SignedDesire::decode(bytes.as_slice()) {
                    Ok(signed) => crate::desire::read(signed).ok().map(Arc::new),
                    Err(_) => None,
                });
        let identity = ledger
            .read_record("identity")?
            .and_then(|bytes| serde_json::from_slice::<Identity>(&bytes).ok());
        let status = ledger
            .read_record("status")?
            .and_then(|bytes| NodeStatus::decode(bytes.as_slice()).ok());
        let report = status.map_or_else(Report::default, |status| Report {
            digest: crate::report::digest(&status),
            status: Some(Arc::new(status)),
            stats: None,
        });
        let properties = Arc::new(ledger.read_properties()?);
        Ok(Self {
            ledger,
            writer: Mutex::new(()),
            desire: watch::channel(held).0,
            report: watch::channel(report).0,
            properties: watch::channel(properties).0,
            machines: RwLock::new(machines),
            identity: RwLock::new(identity),
            app_key: RwLock::new(None),
            counts: Counts::default(),
            watched: Watched::default(),
        })
    }

    /// Counts from now on.
    pub(crate) fn counting(mut self, counts: Counts) -> Self {
        self.counts = counts;
        self
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who this node is, once it is known.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.identity
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Persists who this node is.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub fn persist_identity(&self, identity: Identity) -> Result<(), LedgerError> {
        let _writer = self.writer();
        if self.identity().as_ref() == Some(&identity) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&identity).unwrap_or_default();
        self.ledger.persist_record("identity", &bytes)?;
        *self
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(identity);
        Ok(())
    }

    /// The public key that application tokens are checked with; absent until engine told it.
    #[must_use]
    pub fn app_key(&self) -> Option<Vec<u8>> {
        self.app_key
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Remembers the key, in memory only: engine tells it at each connect.
    pub fn trust_app_key(&self, key: Vec<u8>) {
        *self.app_key.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }

    /// The machines of this node.
    #[must_use]
    pub fn machines(&self) -> Vec<NodeInfo> {
        self.machines
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
