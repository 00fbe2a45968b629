//! Where the identity is kept, and the rules by which it is replaced.
//!
//! The record is in `sync.redb` with a copy in `D/sync/identity.json`, so that a damaged database does not cost the
//! node its identity; the private key is in `D/sync/sealed/identity-<key>.key`, encrypted. At most two exist: the one
//! in use, and after a renewal its successor until that has been used with success once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baetyl_kit::crypto::{CryptoError, SealKey};
use baetyl_kit::fsio;
use baetyl_model::NodeUid;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Identity, InvalidIdentity, Parts};
use crate::db::{Db, DbError, META};

/// Key of the record in the database.
const RECORD: &str = "identity";
const MAX_RECORD: u64 = 1024 * 1024;
/// How many replaced certificates are remembered.
const RETIRED: usize = 16;

/// Why an identity is not installed or replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// It is faulty in itself.
    #[error(transparent)]
    Invalid(#[from] InvalidIdentity),
    /// This node is somebody else.
    #[error(
        "this node has an identity with uid {installed} and does not take one for uid {offered}; decommission the node first"
    )]
    OtherNode {
        /// Who this node is.
        installed: NodeUid,
        /// Who it should become.
        offered: NodeUid,
    },
    /// Nothing to renew.
    #[error("no identity is installed")]
    None,
    /// The database refused.
    #[error("cannot keep the identity")]
    Db(#[from] DbError),
    /// The key could not be encrypted.
    #[error("cannot seal the private key")]
    Seal(#[from] CryptoError),
    /// A file could not be written.
    #[error("cannot write {path}; check the free space and the rights of this directory")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The identity of this node and its successor. All functions that change it block: call them through
/// [`crate::blocking`].
pub(crate) struct IdentityStore {
    dir: PathBuf,
    db: Arc<Db>,
    seal: SealKey,
    state: Mutex<State>,
    current: watch::Sender<Option<Arc<Identity>>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    current: Option<Arc<Identity>>,
    pending: Option<Arc<Identity>>,
    retired: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Saved {
    current: Option<Record>,
    pending: Option<Record>,
    #[serde(default)]
    retired: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    namespace: String,
    node_name: String,
    node_uid: String,
    /// Names the key file.
    key: String,
    chain: Vec<String>,
    authorities: Vec<String>,
    desire_keys: Vec<String>,
    link_addresses: Vec<String>,
}

impl IdentityStore {
    /// Reads what is kept under `dir` (`D/sync`). An identity that cannot be used any more (its key is gone) counts as
    /// none; the second value says why.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) fn open(
        dir: &Path,
        db: Arc<Db>,
        seal: SealKey,
    ) -> Result<(Self, Option<String>), DbError> {
        let kept = db.read(|transaction| {
            let table = transaction.open_table(META)?;
            Ok(table.get(RECORD)?.map(|value| value.value().to_vec()))
        })?;
        let store = Self {
            dir: dir.to_owned(),
            db,
            seal,
            state: Mutex::default(),
            current: watch::Sender::new(None),
        };
        let from_copy = kept.is_none();
        let bytes = kept.or_else(|| fsio::read_limited(&store.copy_path(), MAX_RECORD).ok());
        let Some(bytes) = bytes else {
            return Ok((store, None));
        };
        match store.restore(&bytes) {
            Ok(state) => {
                if from_copy {
                    tracing::warn!("the identity was restored from its copy");
                    let _ = store.save(&state);
                }
                store.current.send_replace(state.current.clone());
                *store.lock() = state;
                Ok((store, None))
            }
            Err(reason) => {
                tracing::error!(
                    reason,
                    "the installed identity cannot be used; waiting for a new one"
                );
                Ok((store, Some(reason)))
            }
        }
    }

    /// The identity in use, and every change of it.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<Identity>>> {
        self.current.subscribe()
    }

    /// The identity in use.
    pub(crate) fn current(&self) -> Option<Arc<Identity>> {
        self.lock().current.clone()
    }

    /// The successor that has not been used with success yet.
    pub(crate) fn pending(&self) -> Option<Arc<Identity>> {
        self.lock().pending.clone()
    }

    /// Installs what init obtained; durable when this returns. False when it was already there.
    ///
    /// A certificate that a renewal has replaced is not taken back: init may hand over what it once got at every start.
    ///
    /// # Errors
    /// When it is faulty, another node's, or cannot be written.
    pub(crate) fn install(&self, parts: Parts) -> Result<bool, IdentityError> {
        let offered = Identity::try_from(parts)?;
        let mut state = self.lock();
        if let Some(current) = &state.current {
            if current.node_uid != offered.node_uid {
                return Err(IdentityError::OtherNode {
                    installed: current.node_uid.clone(),
                    offered: offered.node_uid,
                });
            }
            if current.is_same(&offered) || state.retired.contains(&offered.fingerprint()) {
                return Ok(false);
            }
        }
        self.begin(&mut state, offered)?;
        Ok(true)
    }

    /// Installs what a copy holds, unless there is an identity, which always wins; durable when this returns. False when
    /// there is.
    ///
    /// # Errors
    /// When it is faulty or cannot be written.
    pub(crate) fn adopt(&self, parts: Parts) -> Result<bool, IdentityError> {
        let offered = Identity::try_from(parts)?;
        let mut state = self.lock();
        if state.current.is_some() {
            return Ok(false);
        }
        self.begin(&mut state, offered)?;
        Ok(true)
    }

    /// A first identity, or one that has nothing to do with the renewals of the one before.
    fn begin(&self, state: &mut State, identity: Identity) -> Result<(), IdentityError> {
        let next = State {
            current: Some(Arc::new(identity)),
            pending: None,
            retired: Vec::new(),
        };
        self.replace(state, next)?;
        self.current.send_replace(state.current.clone());
        Ok(())
    }

    /// Keeps a renewed identity beside the one in use; durable when this returns.
    ///
    /// # Errors
    /// When it is another node's, or cannot be written.
    pub(crate) fn set_pending(&self, successor: Identity) -> Result<(), IdentityError> {
        let mut state = self.lock();
        let current = state.current.as_ref().ok_or(IdentityError::None)?;
        if current.node_uid != successor.node_uid {
            return Err(IdentityError::OtherNode {
                installed: current.node_uid.clone(),
                offered: successor.node_uid,
            });
        }
        let next = State {
            pending: Some(Arc::new(successor)),
            ..state.clone()
        };
        self.replace(&mut state, next)
    }

    /// The successor has worked: it is the identity now. Nothing to do when there is none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn promote(&self) -> Result<(), IdentityError> {
        let mut state = self.lock();
        if state.pending.is_none() {
            return Ok(());
        }
        let mut next = State {
            current: state.pending.clone(),
            pending: None,
            retired: state.retired.clone(),
        };
        if let Some(old) = &state.current {
            next.retired.push(old.fingerprint());
        }
        let surplus = next.retired.len().saturating_sub(RETIRED);
        next.retired.drain(..surplus);
        self.replace(&mut state, next)?;
        self.current.send_replace(state.current.clone());
        Ok(())
    }

    /// The successor does not work: forget it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn withdraw(&self) -> Result<(), IdentityError> {
        let mut state = self.lock();
        if state.pending.is_none() {
            return Ok(());
        }
        let next = State {
            pending: None,
            ..state.clone()
        };
        self.replace(&mut state, next)
    }

    /// Keys first, then the record, then memory, then the keys nobody names any more.
    fn replace(&self, state: &mut State, next: State) -> Result<(), IdentityError> {
        for identity in next.current.iter().chain(&next.pending) {
            self.write_key(identity)?;
        }
        self.save(&next)?;
        *state = next;
        self.remove_old_keys(state);
        Ok(())
    }

    fn save(&self, state: &State) -> Result<(), IdentityError> {
        let saved = Saved {
            current: state.current.as_deref().map(record),
            pending: state.pending.as_deref().map(record),
            retired: state.retired.clone(),
        };
        let path = self.copy_path();
        let bytes = serde_json::to_vec(&saved).map_err(|error| IdentityError::File {
            path: path.clone(),
            source: error.into(),
        })?;
        self.db.write(|transaction| {
            transaction
                .open_table(META)?
                .insert(RECORD, bytes.as_slice())?;
            Ok(())
        })?;
        fsio::atomic_write(&path, &bytes, 0o600)
            .map_err(|source| IdentityError::File { path, source })
    }

    fn restore(&self, bytes: &[u8]) -> Result<State, String> {
        let saved: Saved = serde_json::from_slice(bytes)
            .map_err(|error| format!("the record of the identity cannot be read: {error}"))?;
        let current = saved.current.map(|record| self.read(record)).transpose()?;
        // A successor can be asked for again.
        let pending = saved.pending.and_then(|record| self.read(record).ok());
        Ok(State {
            current: current.map(Arc::new),
            pending: pending.map(Arc::new),
            retired: saved.retired,
        })
    }

    fn read(&self, record: Record) -> Result<Identity, String> {
        let path = self.key_path(&record.key);
        let sealed = fsio::read_limited(&path, MAX_RECORD)
            .map_err(|error| format!("the key file {} cannot be read: {error}", path.display()))?;
        let key = self
            .seal
            .open(&key_context(&record.key), &sealed)
            .map_err(|error| format!("the key file {}: {error}", path.display()))?;
        let decode = |texts: Vec<String>| -> Result<Vec<Vec<u8>>, String> {
            let decoded: Result<_, _> = texts.iter().map(|text| STANDARD.decode(text)).collect();
            decoded.map_err(|error| format!("the record of the identity cannot be read: {error}"))
        };
        Identity::try_from(Parts {
            namespace: record.namespace,
            node_name: record.node_name,
            node_uid: record.node_uid,
            key,
            chain: decode(record.chain)?,
            authorities: decode(record.authorities)?,
            desire_keys: decode(record.desire_keys)?,
            link_addresses: record.link_addresses,
        })
        .map_err(|error| error.to_string())
    }

    fn write_key(&self, identity: &Identity) -> Result<(), IdentityError> {
        let name = identity.key_name();
        let path = self.key_path(&name);
        if self.holds_key(&path, &name, identity) {
            return Ok(());
        }
        let sealed = self
            .seal
            .seal(&key_context(&name), identity.key.secret_pkcs8_der())?;
        fsio::atomic_write(&path, &sealed, 0o600)
            .map_err(|source| IdentityError::File { path, source })
    }

    fn holds_key(&self, path: &Path, name: &str, identity: &Identity) -> bool {
        fsio::read_limited(path, MAX_RECORD)
            .ok()
            .and_then(|sealed| self.seal.open(&key_context(name), &sealed).ok())
            .is_some_and(|key| key == identity.key.secret_pkcs8_der())
    }

    /// Best effort: a key that nobody names opens nothing after its certificate is replaced.
    fn remove_old_keys(&self, state: &State) {
        let named: Vec<PathBuf> = state
            .current
            .iter()
            .chain(&state.pending)
            .map(|identity| self.key_path(&identity.key_name()))
            .collect();
        let Ok(entries) = std::fs::read_dir(self.dir.join("sealed")) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_key = path.extension().is_some_and(|extension| extension == "key");
            if is_key && !named.contains(&path) {
                let _ = std::fs::remove_file(&path);
            }
        }
    }

    fn copy_path(&self) -> PathBuf {
        self.dir.join("identity.json")
    }

    fn key_path(&self, name: &str) -> PathBuf {
        self.dir.join("sealed").join(format!("identity-{name}.key"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record(identity: &Identity) -> Record {
    let parts = identity.parts();
    let encode = |list: &[Vec<u8>]| list.iter().map(|der| STANDARD.encode(der)).collect();
    Record {
        key: identity.key_name(),
        chain: encode(&parts.chain),
        authorities: encode(&parts.authorities),
        desire_keys: encode(&parts.desire_keys),
        namespace: parts.namespace,
        node_name: parts.node_name,
        node_uid: parts.node_uid,
        link_addresses: parts.link_addresses,
    }
}

fn key_context(name: &str) -> Vec<u8> {
    format!("baetyl-sync identity {name}").into_bytes()
}
