//! Hop 4, down: accept a desire by (epoch, generation), write it to the ledger, tell watchers.

use std::sync::Arc;

use baetyl_model::desire::{Accept, Header, Refusal, accept_desire as decide};
use baetyl_model::name::{Epoch, Generation};
use baetyl_proto::shadow::{Desire, SignedDesire};
use prost::Message as _;

use crate::ledger::LedgerError;
use crate::shadow::{Held, Shadow};

/// Why a desire was not accepted. The ledger is untouched then.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It is older, contradicts what is held, or is another node's.
    #[error("{refusal}: offered {offered}, held {held}")]
    Refused {
        /// Which rule refused it.
        refusal: Refusal,
        /// What was offered.
        offered: String,
        /// What is held.
        held: String,
    },
    /// The bytes are not a desire.
    #[error("the offered bytes are not a desire: {0}")]
    Malformed(String),
    /// The disk refused.
    #[error("the desire could not be persisted")]
    Ledger(#[from] LedgerError),
}

/// Accepts a desire whose signature sync has verified. Answers whether it was new, and its header.
///
/// # Errors
/// [`AcceptError`]; what is held stays.
pub fn accept_desire(shadow: &Shadow, signed: SignedDesire) -> Result<(bool, Header), AcceptError> {
    let accepted = decide_and_persist(shadow, signed);
    match &accepted {
        Ok((true, _)) => shadow.counts.accepted.inc(),
        Err(AcceptError::Refused { .. } | AcceptError::Malformed(_)) => shadow.counts.refused.inc(),
        // Nothing new, or counted with the writes that failed.
        Ok((false, _)) | Err(AcceptError::Ledger(_)) => {}
    }
    accepted
}

fn decide_and_persist(
    shadow: &Shadow,
    signed: SignedDesire,
) -> Result<(bool, Header), AcceptError> {
    let offered = read(signed)?;
    let _writer = shadow.writer();
    let held = shadow.desire.borrow().clone();
    let identity = shadow.identity().map(|identity| identity.node_uid);
    match decide(
        identity.as_ref(),
        held.as_ref().map(|held| &held.header),
        &offered.header,
    ) {
        Accept::Same => Ok((false, offered.header)),
        Accept::Refused(refusal) => Err(AcceptError::Refused {
            refusal,
            offered: offered.header.to_string(),
            held: held.map_or_else(|| "nothing".to_owned(), |held| held.header.to_string()),
        }),
        Accept::New => {
            shadow
                .ledger
                .persist_desire(&offered.signed.encode_to_vec())?;
            let header = offered.header.clone();
            tracing::info!(
                event = "desire.persisted",
                epoch = header.epoch.get(),
                generation = header.generation.get(),
                apps = offered.desire.apps.len(),
                "a new desire is in the ledger"
            );
            shadow.desire.send_replace(Some(Arc::new(offered)));
            Ok((true, header))
        }
    }
}

/// Reads header and content from the payload bytes.
///
/// # Errors
/// [`AcceptError::Malformed`] when they are not a desire.
pub(crate) fn read(signed: SignedDesire) -> Result<Held, AcceptError> {
    let malformed = |what: &dyn std::fmt::Display| AcceptError::Malformed(what.to_string());
    let desire = Desire::decode(signed.payload.clone()).map_err(|e| malformed(&e))?;
    let header = Header {
        node_uid: desire.node_uid.parse().map_err(|e| malformed(&e))?,
        epoch: Epoch(desire.epoch),
        generation: Generation(desire.generation),
        digest: desire.digest.parse().map_err(|e| malformed(&e))?,
    };
    Ok(Held {
        signed,
        header,
        desire,
    })
}

#[cfg(test)]
pub(crate) mod tests;
