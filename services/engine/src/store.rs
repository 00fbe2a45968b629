//! What engine must not forget, in `engine.redb`: of each application its update, its releases with their bodies, and
//! its ports; and the header of the last accepted desire.
//!
//! Sole owner of the file. Every write is durable before its function returns, and happens before what it describes is
//! done. Secret bodies are sealed with a key file beside it. A file that cannot be read is put aside and kept, and a
//! new one begun: engine then knows of no desire and stops nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baetyl_kit::crypto::{CryptoError, SealKey};
use baetyl_ledger::medium::{Disk, Medium};
use baetyl_ledger::{LedgerError, LedgerFile, Opened};
use baetyl_model::Digest;
use baetyl_model::desire::{DesiredApp, DesiredCore, Header, ObjectRef, Release};
use baetyl_model::name::{AppName, Kind, Version};
use baetyl_model::update::Update;
use jiff::Timestamp;
use redb::{ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::registry::{Needs, Registry};
use crate::release::{Handed, NodeIdentity};

mod database;
#[cfg(test)]
mod tests;

use database::decode;

/// Format this program writes.
const FORMAT: u64 = 1;
/// Oldest reader of what this program writes.
const MIN_READER: u64 = 1;
/// Pages kept in memory. The file has some kilobytes for each application; what is read often is in memory anyway.
const CACHE_BYTES: usize = 128 * 1024;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const APPS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("apps");
const BODIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bodies");

const KEY_ACCEPTED: &str = "accepted";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] LedgerError),
    /// The key file is damaged and cannot be put aside.
    #[error("{path} is damaged and cannot be put aside")]
    Quarantine {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key of secret bodies.
    #[error("the key of stored secrets cannot be used")]
    Key(#[from] CryptoError),
    /// A record cannot be written as JSON.
    #[error("the record of {app} cannot be written")]
    Encode {
        /// Whose.
        app: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The blocking task was cancelled: the process ends.
    #[error("the write was interrupted by the end of the process")]
    Interrupted,
    /// Bodies went while others were staged.
    #[error("content of {app} was removed while it was staged")]
    BodiesGone {
        /// Whose.
        app: String,
    },
}

impl StoreError {
    /// True while another engine has the file; one that is ending in this process still may for a moment.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_in_use())
    }
}

/// One release as engine remembers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredRelease {
    /// What it consists of.
    pub desired: DesiredApp,
    /// Who the node was when it was wished.
    pub node: NodeIdentity,
    /// When it was taken in, by the node's clock; goes into its tokens.
    pub taken_at: Timestamp,
    /// Its init services ran to their end.
    #[serde(default)]
    pub initialised: bool,
}

/// One application as engine remembers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppRecord {
    /// Where its update stands.
    pub update: Update,
    /// The releases the update names.
    pub releases: Vec<StoredRelease>,
    /// Ports by instance id: they stay with an instance.
    #[serde(default)]
    pub ports: BTreeMap<String, Vec<u16>>,
    /// User id it runs as; its files belong to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// An accepted desire lacks it: it is being removed.
    #[serde(default)]
    pub removing: bool,
}

impl AppRecord {
    /// Of an application nothing was wished of yet.
    pub fn new(update: Update) -> Self {
        Self {
            update,
            releases: Vec::new(),
            ports: BTreeMap::new(),
            user: None,
            removing: false,
        }
    }

    /// What the runtime handed to it.
    pub fn handed(&self) -> Handed {
        Handed {
            ports: self.ports.clone(),
            user: self.user,
        }
    }

    /// What is remembered of a release.
    pub fn release(&self, release: &Release) -> Option<&StoredRelease> {
        self.releases
            .iter()
            .find(|stored| stored.desired.release() == *release)
    }

    /// Drops releases the update no longer names, and the ports of versions that are gone.
    pub fn prune(&mut self) {
        let mut kept: BTreeSet<Release> = self.update.kept().into_iter().cloned().collect();
        kept.extend(self.update.target().cloned());
        self.releases
            .retain(|stored| kept.contains(&stored.desired.release()));
    }

    /// Everything it needs on this node.
    pub fn needs(&self) -> Needs {
        let releases = self.releases.iter();
        let digests = releases.flat_map(|stored| stored.desired.digests());
        Needs {
            digests: digests.collect(),
            objects: self.objects().cloned().collect(),
        }
    }

    /// The objects of every version that runs, is to run, or may be gone back to.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        let releases = self.releases.iter();
        releases.flat_map(|stored| &stored.desired.objects)
    }
}

/// The last accepted desire, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// What identifies it.
    pub header: Header,
    /// Who the node is.
    pub node: NodeIdentity,
    /// The versions it wanted: an application whose target is this one acted on this generation.
    pub versions: BTreeMap<AppName, Version>,
    /// What it wanted the core services to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<DesiredCore>,
}

/// A body on its way into the store.
#[derive(Debug, Clone)]
pub struct Body {
    /// Decides whether it is sealed.
    pub kind: Kind,
    /// sha256 of `bytes`.
    pub digest: Digest,
    /// The body.
    pub bytes: Vec<u8>,
}

/// The open store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: LedgerFile,
    seal: SealKey,
    quarantined: Option<PathBuf>,
    /// The disk takes nothing more.
    #[cfg(test)]
    full: std::sync::atomic::AtomicBool,
}

impl Store {
    /// Opens `engine.redb` in `dir`, beginning anew when it is absent or damaged. Blocks.
    ///
    /// # Errors
    /// When the disk refuses, or a newer program wrote the file.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(Disk), dir)
    }

    /// As [`open`](Self::open), on something else than the disk of this machine.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn open_on(medium: Arc<dyn Medium>, dir: &Path) -> Result<Self, StoreError> {
        let seal = database::open_seal_key(&dir.join("seal.key"))?;
        let Opened { file, put_aside } =
            LedgerFile::open_on(medium, &dir.join("engine.redb"), database::RULES)?;
        Ok(Self(Arc::new(Inner {
            file,
            seal,
            quarantined: put_aside,
            #[cfg(test)]
            full: std::sync::atomic::AtomicBool::new(false),
        })))
    }

    /// Whether writes fail, as on a full disk.
    #[cfg(test)]
    pub(crate) fn fill(&self, full: bool) {
        self.0.full.store(full, std::sync::atomic::Ordering::SeqCst);
    }

    /// Where a damaged predecessor lies.
    pub fn quarantined(&self) -> Option<&Path> {
        self.0.quarantined.as_deref()
    }

    /// All applications. Blocks.
    ///
    /// # Errors
    /// When the database fails.
    pub fn apps(&self) -> Result<Vec<AppRecord>, StoreError> {
        let apps = self.0.file.read(|tx| {
            let table = tx.open_table(APPS)?;
            let mut apps = Vec::new();
            for row in table.iter()? {
                let (_, value) = row?;
                apps.push(decode(value.value())?);
            }
            Ok(apps)
        })?;
        Ok(apps)
    }

    /// The last accepted desire. Blocks.
    ///
    /// # Errors
    /// When the database fails.
    pub fn accepted(&self) -> Result<Option<Accepted>, StoreError> {
        let accepted = self.0.file.read(|tx| {
            let table = tx.open_table(META)?;
            let value = table.get(KEY_ACCEPTED)?;
            value.map(|value| decode(value.value())).transpose()
        })?;
        Ok(accepted)
    }

    /// A body; None when it is absent, damaged or cannot be opened: it can be staged again. Blocks.
    ///
    /// # Errors
    /// When the database fails.
    pub fn body(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let key = digest.hex();
        let stored = self.0.file.read(|tx| {
            let table = tx.open_table(BODIES)?;
            Ok(table.get(key.as_str())?.map(|value| value.value().to_vec()))
        })?;
        Ok(stored.and_then(|stored| self.0.open_body(digest, &stored)))
    }

    /// Writes a record.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn persist_app(&self, record: &AppRecord) -> Result<(), StoreError> {
        self.persist_staged(record, Vec::new(), &BTreeSet::new())
            .await
    }

    /// Writes a record together with bodies, provided that all of `needed` are there afterwards.
    ///
    /// # Errors
    /// When the database fails, or a needed body is absent; nothing is written then.
    pub async fn persist_staged(
        &self,
        record: &AppRecord,
        bodies: Vec<Body>,
        needed: &BTreeSet<Digest>,
    ) -> Result<(), StoreError> {
        let app = record.update.app().to_string();
        let json = serde_json::to_vec(record).map_err(|source| StoreError::Encode {
            app: app.clone(),
            source,
        })?;
        let needed: Vec<String> = needed.iter().map(Digest::hex).collect();
        self.blocking(move |inner| {
            let bodies = inner.sealed(bodies)?;
            let complete = inner.file.write_if(|tx| {
                let mut table = tx.open_table(BODIES)?;
                for (key, bytes) in &bodies {
                    table.insert(key.as_str(), bytes.as_slice())?;
                }
                for key in &needed {
                    if table.get(key.as_str())?.is_none() {
                        return Ok(None);
                    }
                }
                tx.open_table(APPS)?.insert(app.as_str(), json.as_slice())?;
                Ok(Some(()))
            })?;
            complete.ok_or(StoreError::BodiesGone { app })
        })
        .await
    }

    /// Forgets an application.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_app(&self, app: &AppName) -> Result<(), StoreError> {
        let app = app.clone();
        self.blocking(move |inner| {
            inner.file.write(|tx| {
                tx.open_table(APPS)?.remove(app.as_str())?;
                Ok(())
            })?;
            Ok(())
        })
        .await
    }

    /// Writes the header of an accepted desire.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn persist_accepted(&self, accepted: &Accepted) -> Result<(), StoreError> {
        let json = serde_json::to_vec(accepted).map_err(|source| StoreError::Encode {
            app: "the desire".to_owned(),
            source,
        })?;
        self.blocking(move |inner| {
            inner.file.write(|tx| {
                tx.open_table(META)?.insert(KEY_ACCEPTED, json.as_slice())?;
                Ok(())
            })?;
            Ok(())
        })
        .await
    }

    /// Removes bodies that are not needed. It is asked inside the transaction, so that a body that is registered before
    /// it is written is never lost.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retain_bodies(&self, needed: &Registry) -> Result<(), StoreError> {
        let needed = needed.clone();
        self.blocking(move |inner| {
            let keep = |hex: &str| {
                format!("sha256:{hex}")
                    .parse()
                    .is_ok_and(|digest| needed.needs(&digest))
            };
            // A look first: a write transaction costs a flush even when nothing changes.
            let keys = inner.file.read(|tx| {
                let table = tx.open_table(BODIES)?;
                let mut keys = Vec::new();
                for row in table.iter()? {
                    keys.push(row?.0.value().to_owned());
                }
                Ok(keys)
            })?;
            if keys.iter().all(|key| keep(key)) {
                return Ok(());
            }
            inner.file.write(|tx| {
                tx.open_table(BODIES)?.retain(|key, _| keep(key))?;
                Ok(())
            })?;
            Ok(())
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        #[cfg(test)]
        if inner.full.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(StoreError::Interrupted);
        }
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|_| StoreError::Interrupted)?
    }
}
