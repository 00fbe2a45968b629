//! The memory of the node outside of sync's volume (kube mode): copies of its identity and last desire that engine keeps
//! as Secrets and that are mounted here. They count only where sync and node remember nothing themselves.
//!
//! [`Restorer`] installs the identity before anything else happens; [`offer_desire`] hands the desire to node while
//! the cloud is away. What the files look like is said in [`baetyl_proto::mirror`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::error::chain;
use baetyl_kit::{crypto, fsio};
use baetyl_proto::mirror::{self, MirrorError};
use baetyl_proto::shadow::SignedDesire;
use baetyl_proto::sync::LinkState;
use baetyl_proto::sync::link_state::Phase;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::blocking;
use crate::desire::{Refusal, deliver_desire, verify_desire};
use crate::identity::Identity;
use crate::identity::store::{IdentityError, IdentityStore};
use crate::node::{Held, Node};
use crate::trust::TrustClock;

/// Secrets are at most 1 MiB; anything longer is something else.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// A file of Secrets may be mounted, or replaced, while we run.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Why a copy is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// A file cannot be read.
    #[error("the copy {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("the copy in {dir} cannot be used")]
    Useless {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: MirrorError,
    },
    /// The identity is faulty or cannot be written.
    #[error("the identity that {dir} holds cannot be installed")]
    Install {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: IdentityError,
    },
}

/// The directory with the copies. Its functions block.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    dir: PathBuf,
}

impl Mirror {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Installs the identity that is here; None when there is none, or one is installed already.
    fn restore(&self, store: &IdentityStore) -> Result<Option<Arc<Identity>>, RestoreError> {
        if store.current().is_some() {
            return Ok(None);
        }
        let Some(content) = self.read(mirror::IDENTITY)? else {
            return Ok(None);
        };
        let identity = mirror::read_identity(&content).map_err(|source| self.useless(source))?;
        let adopted = store
            .adopt(identity.into())
            .map_err(|source| RestoreError::Install {
                dir: self.dir.clone(),
                source,
            })?;
        Ok(adopted.then(|| store.current()).flatten())
    }

    /// The desire that is here, with the digest of its file.
    fn desire(&self) -> Result<Option<([u8; 32], SignedDesire)>, RestoreError> {
        let Some(content) = self.read(mirror::DESIRE)? else {
            return Ok(None);
        };
        let signed = mirror::read_desire(&content).map_err(|source| self.useless(source))?;
        Ok(Some((crypto::sha256(&content), signed)))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, RestoreError> {
        let path = self.dir.join(name);
        match fsio::read_limited(&path, MAX_FILE) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RestoreError::Read { path, source }),
        }
    }

    fn useless(&self, source: MirrorError) -> RestoreError {
        RestoreError::Useless {
            dir: self.dir.clone(),
            source,
        }
    }
}

/// Installs the identity of the mirror where none is installed.
#[derive(Clone)]
pub(crate) struct Restorer {
    pub(crate) mirror: Mirror,
    pub(crate) identity: Arc<IdentityStore>,
    pub(crate) trust: Arc<TrustClock>,
}

impl Restorer {
    /// One attempt. An identity that is installed always wins; that there is nothing to restore is no fault.
    ///
    /// # Errors
    /// Why the copy is of no use, as a sentence.
    pub(crate) async fn restore(&self) -> Result<(), String> {
        let (mirror, store) = (self.mirror.clone(), Arc::clone(&self.identity));
        let restored = blocking(move || mirror.restore(&store)).await;
        let Some(identity) = restored.map_err(|error| chain(&error))? else {
            return Ok(());
        };
        if let Ok(begin) = Timestamp::from_second(identity.not_before()) {
            self.trust.raise(begin).await;
        }
        tracing::info!(
            from = %self.mirror.dir.display(),
            node = %identity.node_name,
            uid = %identity.node_uid,
            "the identity of this node is restored from its copy; nobody needs to activate it again"
        );
        Ok(())
    }
}

/// What is looked at before the desire of the mirror is offered.
pub(crate) struct Offering {
    pub(crate) mirror: Mirror,
    pub(crate) identity: watch::Receiver<Option<Arc<Identity>>>,
    pub(crate) node: Node,
    pub(crate) link: watch::Receiver<LinkState>,
}

/// Hands the desire of the mirror to node whenever node holds none and the cloud is away, for ever. Its signature is
/// checked with the keys of the installed identity, as that of a desire from the cloud; what node makes of its age is
/// node's.
pub(crate) async fn offer_desire(mut offering: Offering) {
    let mut held = offering.node.held();
    let mut told = None;
    let mut refused = None;
    loop {
        let identity = offering.identity.borrow_and_update().clone();
        let wanted = matches!(*held.borrow_and_update(), Held::Nothing);
        let away = is_away(&offering.link.borrow_and_update());
        if let (Some(identity), true, true) = (identity, wanted, away) {
            match offering.offer(&identity, refused).await {
                Ok(None) => {}
                Ok(Some(Offered::Taken)) => {
                    told = None;
                    // Node says what it holds now; what it said before is no reason to offer again.
                    let _ = held.changed().await;
                    continue;
                }
                Ok(Some(Offered::Refused(file))) => refused = Some(file),
                Err(error) => {
                    let message = chain(&error);
                    if told.as_ref() != Some(&message) {
                        tracing::warn!(error = message, "no desire can be restored");
                    }
                    told = Some(message);
                }
            }
        }
        tokio::select! {
            Ok(()) = offering.identity.changed() => {}
            Ok(()) = held.changed() => {}
            Ok(()) = offering.link.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// True once an attempt to reach the cloud has failed, or when it does not want this node any more. A cloud that is
/// there gives the newest desire itself.
fn is_away(state: &LinkState) -> bool {
    match state.phase() {
        Phase::Connecting => !state.message.is_empty(),
        Phase::Removed => true,
        Phase::Online | Phase::WaitingForIdentity | Phase::Unspecified => false,
    }
}

/// What became of an offer; a file that was refused is known by its digest.
enum Offered {
    Taken,
    Refused([u8; 32]),
}

impl Offering {
    /// One offer, unless there is nothing, or only what was refused before.
    async fn offer(
        &self,
        identity: &Identity,
        refused: Option<[u8; 32]>,
    ) -> Result<Option<Offered>, RestoreError> {
        let mirror = self.mirror.clone();
        let Some((file, signed)) = blocking(move || mirror.desire()).await? else {
            return Ok(None);
        };
        if refused == Some(file) {
            return Ok(None);
        }
        let delivered = match verify_desire(identity, &signed) {
            Ok((header, _)) => deliver_desire(self.node.clone(), header, signed).await,
            Err(refusal) => Err(refusal),
        };
        match delivered {
            Ok(header) => {
                tracing::info!(
                    event = "desire.received",
                    epoch = header.epoch.get(),
                    generation = header.generation.get(),
                    "node held no desire and the cloud is away: the last one was restored from its copy"
                );
                Ok(Some(Offered::Taken))
            }
            Err(Refusal { message, .. }) => {
                tracing::warn!(reason = message, "the copy of the last desire is refused");
                Ok(Some(Offered::Refused(file)))
            }
        }
    }
}
