//! Certificate signing requests: what a node sends to prove that it holds a key.
//!
//! Only the public key is taken from a request; names are compared, never copied.

use baetyl_kit::crypto;
use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::identity::NodeIdentity;

/// Longest request that is looked at: an ECDSA request has about 300 bytes.
const MAX_LEN: usize = 16 * 1024;

/// A request whose signature was checked: its sender holds the private key.
#[derive(Clone, Debug)]
pub struct NodeCsr {
    pub(super) key: SubjectPublicKeyInfo,
    public_key: [u8; 32],
    common_names: Vec<String>,
    uris: Vec<String>,
}

/// A request that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    /// Not PEM.
    #[error(
        "the certificate signing request is not PEM; begin it with -----BEGIN CERTIFICATE REQUEST-----"
    )]
    NotPem,
    /// Not PKCS#10.
    #[error("the certificate signing request is not valid PKCS#10 DER")]
    Malformed,
    /// The signature does not match the key.
    #[error("the signature of the certificate signing request does not match its public key")]
    BadSignature,
    /// An algorithm that is not accepted.
    #[error(
        "the key of the certificate signing request is of a kind that is not accepted; use ECDSA P-256, ECDSA P-384 or Ed25519"
    )]
    UnsupportedKey,
    /// The request names another node.
    #[error(
        "the certificate signing request names {named}, but the certificate would be for {expected}; leave the names out or use the right ones"
    )]
    OtherNode {
        /// What the request names.
        named: String,
        /// Whom the certificate would be for.
        expected: String,
    },
}

impl NodeCsr {
    /// Reads a PEM request and checks its signature.
    ///
    /// # Errors
    /// When it is malformed, its signature does not match or its key is not accepted.
    pub fn from_pem(text: &str) -> Result<Self, CsrError> {
        if text.len() > 2 * MAX_LEN {
            return Err(CsrError::NotPem);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes())
            .map_err(|_| CsrError::NotPem)?;
        Self::from_der(&der)
    }

    /// Reads a DER request and checks its signature.
    ///
    /// # Errors
    /// When it is malformed, its signature does not match or its key is not accepted.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_LEN {
            return Err(CsrError::Malformed);
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let info = &request.certification_request_info;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
            .map_err(|_| CsrError::UnsupportedKey)?;
        if !is_accepted(&key) {
            return Err(CsrError::UnsupportedKey);
        }
        request
            .verify_signature()
            .map_err(|_| CsrError::BadSignature)?;
        let common_names = info
            .subject
            .iter_common_name()
            .map(|name| name.as_str().unwrap_or("?").to_owned())
            .collect();
        let uris = request
            .requested_extensions()
            .into_iter()
            .flatten()
            .flat_map(uris_of)
            .collect();
        Ok(Self {
            key,
            public_key: crypto::sha256(info.subject_pki.raw),
            common_names,
            uris,
        })
    }

    /// sha256 of the public key (SubjectPublicKeyInfo).
    pub const fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// Checks that the request is for this node or names nobody.
    ///
    /// # Errors
    /// [`CsrError::OtherNode`].
    pub fn check_names(&self, node: &NodeIdentity, trust_domain: &str) -> Result<(), CsrError> {
        let (name, spiffe) = (node.full_name(), node.spiffe(trust_domain));
        let foreign = self
            .common_names
            .iter()
            .find(|common_name| !common_name.is_empty() && **common_name != name);
        let foreign = foreign.or_else(|| self.uris.iter().find(|uri| **uri != spiffe));
        match foreign {
            Some(named) => Err(CsrError::OtherNode {
                named: named.clone(),
                expected: name,
            }),
            None => Ok(()),
        }
    }
}

fn is_accepted(key: &SubjectPublicKeyInfo) -> bool {
    use rcgen::PublicKeyData as _;
    [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ]
    .contains(&key.algorithm())
}

fn uris_of(extension: &ParsedExtension<'_>) -> Vec<String> {
    let ParsedExtension::SubjectAlternativeName(names) = extension else {
        return Vec::new();
    };
    let uris = names.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    uris.collect()
}
