//! The memory of a node outside of its volumes (kube mode): what is written into the Secrets `baetyl-core-identity` and
//! `baetyl-core-desire`, and read from where they are mounted.
//!
//! Each function makes or reads the content of one file; who writes a Secret uses the name of the file as its key. Both
//! may lie in one directory. Nothing here is trusted because it was found: the identity is checked as one that init hands
//! over, the desire as one that comes from the cloud.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::shadow::SignedDesire;
use crate::sync::InstallIdentityRequest;

/// File and key of the identity: JSON, with the private key.
pub const IDENTITY: &str = "identity.json";

/// File and key of the last accepted desire: the encoded `SignedDesire`.
pub const DESIRE: &str = "desire";

/// What this release writes, and the oldest release that can read it.
const FORMAT: u32 = 1;
const MIN_READER: u32 = 1;

/// A file that cannot be used. Says nothing of its content, which is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// It is damaged, or something else.
    #[error("{file} is damaged: {fault}")]
    Malformed {
        /// Its name.
        file: &'static str,
        /// What is wrong.
        fault: String,
    },
    /// A later release wrote it.
    #[error(
        "{file} was written by a later release (it needs a reader of format {wanted}); upgrade baetyl"
    )]
    TooNew {
        /// Its name.
        file: &'static str,
        /// The format.
        wanted: u32,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    format: u32,
    min_reader: u32,
    namespace: String,
    node_name: String,
    node_uid: String,
    /// PKCS#8 DER; this and the lists of bytes are base64.
    private_key: String,
    certificate_chain: Vec<String>,
    trusted_authorities: Vec<String>,
    desire_keys: Vec<String>,
    link_addresses: Vec<String>,
}

/// The content of [`IDENTITY`]. Equal identities are equal bytes.
pub fn write_identity(identity: &InstallIdentityRequest) -> Vec<u8> {
    let encode = |list: &[bytes::Bytes]| list.iter().map(|item| STANDARD.encode(item)).collect();
    let written = Identity {
        format: FORMAT,
        min_reader: MIN_READER,
        namespace: identity.namespace.clone(),
        node_name: identity.node_name.clone(),
        node_uid: identity.node_uid.clone(),
        private_key: STANDARD.encode(&identity.private_key),
        certificate_chain: encode(&identity.certificate_chain),
        trusted_authorities: encode(&identity.trusted_authorities),
        desire_keys: encode(&identity.desire_keys),
        link_addresses: identity.link_addresses.clone(),
    };
    // A struct of texts and numbers always serialises.
    serde_json::to_vec(&written).unwrap_or_default()
}

/// Reads [`IDENTITY`]. Whether its parts go together is for sync to check.
///
/// # Errors
/// When it is damaged or of a later release.
pub fn read_identity(content: &[u8]) -> Result<InstallIdentityRequest, MirrorError> {
    let damaged = |fault: String| MirrorError::Malformed {
        file: IDENTITY,
        fault,
    };
    // The error of serde would show the value it did not expect.
    let malformed = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        damaged(format!(
            "no JSON of an identity, at line {line} column {column}"
        ))
    };
    let format: Format = serde_json::from_slice(content).map_err(malformed)?;
    if format.min_reader > FORMAT {
        return Err(MirrorError::TooNew {
            file: IDENTITY,
            wanted: format.min_reader,
        });
    }
    let written: Identity = serde_json::from_slice(content).map_err(malformed)?;
    let decode = |field: &str, text: &str| {
        let bytes = STANDARD.decode(text);
        bytes
            .map(bytes::Bytes::from)
            .map_err(|_| damaged(format!("{field} is no base64")))
    };
    let list = |field: &str, texts: &[String]| {
        texts
            .iter()
            .map(|text| decode(field, text))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(InstallIdentityRequest {
        private_key: decode("privateKey", &written.private_key)?,
        certificate_chain: list("certificateChain", &written.certificate_chain)?,
        trusted_authorities: list("trustedAuthorities", &written.trusted_authorities)?,
        desire_keys: list("desireKeys", &written.desire_keys)?,
        namespace: written.namespace,
        node_name: written.node_name,
        node_uid: written.node_uid,
        link_addresses: written.link_addresses,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Format {
    min_reader: u32,
}

/// The content of [`DESIRE`]: what `WatchDesire` of node gave.
pub fn write_desire(signed: &SignedDesire) -> Vec<u8> {
    signed.encode_to_vec()
}

/// Reads [`DESIRE`]; its signature is not checked.
///
/// # Errors
/// When it is damaged.
pub fn read_desire(content: &[u8]) -> Result<SignedDesire, MirrorError> {
    SignedDesire::decode(content).map_err(|error| MirrorError::Malformed {
        file: DESIRE,
        fault: error.to_string(),
    })
}

/// Without the private key.
impl fmt::Debug for InstallIdentityRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstallIdentityRequest")
            .field("namespace", &self.namespace)
            .field("node_name", &self.node_name)
            .field("node_uid", &self.node_uid)
            .field("link_addresses", &self.link_addresses)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> InstallIdentityRequest {
        InstallIdentityRequest {
            namespace: "ns".to_owned(),
            node_name: "n1".to_owned(),
            node_uid: "u1".to_owned(),
            private_key: b"the secret key"[..].into(),
            certificate_chain: vec![b"leaf"[..].into(), b"between"[..].into()],
            trusted_authorities: vec![b"root"[..].into()],
            desire_keys: vec![vec![7; 32].into()],
            link_addresses: vec!["https://cloud:443".to_owned()],
        }
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let content = write_identity(&identity());
        assert_eq!(read_identity(&content).unwrap(), identity());
        assert_eq!(write_identity(&identity()), content);
    }

    #[test]
    fn a_damaged_identity_is_refused_and_the_refusal_shows_nothing_of_it() {
        let content = String::from_utf8(write_identity(&identity())).unwrap();
        let key = STANDARD.encode(b"the secret key");
        for damaged in [
            String::new(),
            content[..content.len() / 2].to_owned(),
            content.replace(&key, "secret, but no base64"),
            content.replace(&format!("\"{key}\""), "{\"secret\":1}"),
            content.replace("[", "\"secret\",["),
        ] {
            let refused = read_identity(damaged.as_bytes()).unwrap_err();
            assert!(
                matches!(refused, MirrorError::Malformed { .. }),
                "{damaged}"
            );
            assert!(!refused.to_string().contains("secret"), "{refused}");
        }
    }

    #[test]
    fn an_identity_of_a_later_release_is_refused_in_words() {
        let content = String::from_utf8(write_identity(&identity())).unwrap();
        let fields_added = content.replace("\"format\":1", "\"format\":2,\"more\":[]");
        assert_eq!(read_identity(fields_added.as_bytes()).unwrap(), identity());
        let other = r#"{"format":3,"minReader":2}"#;
        assert_eq!(
            read_identity(other.as_bytes()),
            Err(MirrorError::TooNew {
                file: IDENTITY,
                wanted: 2
            })
        );
    }

    #[test]
    fn a_desire_is_read_as_it_was_written_and_rubbish_is_refused() {
        let signed = SignedDesire {
            payload: b"payload"[..].into(),
            ..SignedDesire::default()
        };
        assert_eq!(read_desire(&write_desire(&signed)).unwrap(), signed);
        assert!(read_desire(&[0xff; 9]).is_err());
    }

    #[test]
    fn debug_output_of_an_identity_does_not_show_its_key() {
        let shown = format!("{:?}", identity());
        assert!(shown.contains("n1") && !shown.contains("secret"), "{shown}");
    }
}
