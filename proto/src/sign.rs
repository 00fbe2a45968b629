//! Signing and verifying desires. What is verified is exactly the payload that travelled, never a re-encoding.

use baetyl_model::{Desire, NodeUid};
use prost::Message as _;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::convert::ConvertError;
use crate::{digest, shadow};

#[cfg(test)]
mod tests;

/// What is put before the payload, so that a signature of a desire is a signature of nothing else.
pub const DESIRE_DOMAIN: &[u8] = b"baetyl.desire.v1\n";

/// The one algorithm of today.
pub const ALGORITHM: &str = "ed25519";

/// Raw ed25519 public key.
pub type PublicKey = [u8; 32];

/// A desire that is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It carries no signature.
    #[error("the desire is not signed")]
    Unsigned,
    /// No signature is by a trusted key.
    #[error("the desire is signed by {key_ids} and none of these keys is trusted by this node")]
    UnknownKey {
        /// Ids of the keys it names, joined by ", ".
        key_ids: String,
    },
    /// A signature names a trusted key and does not fit: payload or signature were altered.
    #[error("the signature by key {key_id} does not fit the desire: one of them was altered")]
    Altered {
        /// Id of the key.
        key_id: String,
    },
    /// The signed bytes are no desire.
    #[error("the signed desire cannot be read: {0}")]
    Malformed(String),
    /// It is another node's.
    #[error("the desire is for node uid {found}, this node is {expected}")]
    WrongNode {
        /// This node.
        expected: NodeUid,
        /// Whose it is.
        found: NodeUid,
    },
}

impl VerifyError {
    /// The word of `DesireAck.refused`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unsigned | Self::UnknownKey { .. } | Self::Altered { .. } => "signature",
            Self::Malformed(_) => "malformed",
            Self::WrongNode { .. } => "wrong-node",
        }
    }
}

impl From<ConvertError> for VerifyError {
    fn from(error: ConvertError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Names a key: the first 16 hex digits of the sha256 of its raw bytes.
pub fn key_id(key: &[u8]) -> String {
    let mut hex = digest::of(key).hex();
    hex.truncate(16);
    hex
}

fn message(payload: &[u8]) -> Vec<u8> {
    [DESIRE_DOMAIN, payload].concat()
}

/// Signs a desire as it is; [`digest::complete_desire`] sorts it and writes its digest first.
pub fn sign_desire(key: &Ed25519KeyPair, desire: Desire) -> shadow::SignedDesire {
    let mut signed = shadow::SignedDesire {
        payload: shadow::Desire::from(desire).encode_to_vec().into(),
        signatures: Vec::new(),
    };
    add_signature(key, &mut signed);
    signed
}

/// Adds one more signature over the same payload.
pub fn add_signature(key: &Ed25519KeyPair, signed: &mut shadow::SignedDesire) {
    signed.signatures.push(shadow::Signature {
        key_id: key_id(key.public_key().as_ref()),
        algorithm: ALGORITHM.to_owned(),
        value: key.sign(&message(&signed.payload)).as_ref().to_vec().into(),
    });
}

/// Verifies a signed desire and reads it: at least one signature by a trusted key must fit, and it must be for
/// `node_uid` when that is given.
pub fn verify_desire<K: AsRef<[u8]>>(
    trusted: &[K],
    node_uid: Option<&NodeUid>,
    signed: &shadow::SignedDesire,
) -> Result<Desire, VerifyError> {
    verify_signatures(trusted, signed)?;
    let desire = read_desire(signed)?;
    match node_uid {
        Some(expected) if *expected != desire.node_uid => Err(VerifyError::WrongNode {
            expected: expected.clone(),
            found: desire.node_uid,
        }),
        _ => Ok(desire),
    }
}

/// Reads a signed desire whose signature was verified before (by sync, or when it was written to the ledger).
///
/// The digest it claims is not computed again: it is covered by the signature, and a re-encoding here would lose the
/// fields that a newer cloud knows and this program does not.
pub fn read_desire(signed: &shadow::SignedDesire) -> Result<Desire, VerifyError> {
    let wire = shadow::Desire::decode(signed.payload.clone())
        .map_err(|error| VerifyError::Malformed(error.to_string()))?;
    Ok(Desire::try_from(wire)?)
}

fn verify_signatures<K: AsRef<[u8]>>(
    trusted: &[K],
    signed: &shadow::SignedDesire,
) -> Result<(), VerifyError> {
    let message = message(&signed.payload);
    let mut altered = None;
    for signature in signed
        .signatures
        .iter()
        .filter(|signature| signature.algorithm == ALGORITHM)
    {
        for key in trusted
            .iter()
            .filter(|key| key_id(key.as_ref()) == signature.key_id)
        {
            match UnparsedPublicKey::new(&ED25519, key.as_ref()).verify(&message, &signature.value)
            {
                Ok(()) => return Ok(()),
                Err(_) => altered = Some(signature.key_id.clone()),
            }
        }
    }
    let ids: Vec<_> = signed
        .signatures
        .iter()
        .map(|signature| signature.key_id.as_str())
        .collect();
    Err(match altered {
        Some(key_id) => VerifyError::Altered { key_id },
        None if ids.is_empty() => VerifyError::Unsigned,
        None => VerifyError::UnknownKey {
            key_ids: ids.join(", "),
        },
    })
}
