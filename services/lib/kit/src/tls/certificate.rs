//! What a certificate says, and what it is known by.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::TlsError;
use crate::crypto::{hex, sha256};

/// The fields of a certificate that services decide by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The common name of the subject.
    pub common_name: Option<String>,
    /// URI names (SPIFFE ids are among them), in the certificate's order.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// Begin of validity, Unix seconds.
    pub not_before: i64,
    /// End of validity, Unix seconds.
    pub not_after: i64,
    /// Serial number in hex.
    pub serial: String,
    /// Whether it is a CA certificate.
    pub is_ca: bool,
    /// SHA-256 of the DER public key info.
    pub spki_sha256: [u8; 32],
    /// The raw bits of the public key (32 bytes for Ed25519).
    pub public_key: Vec<u8>,
}

impl CertificateInfo {
    /// Reads a certificate. Nothing is verified.
    ///
    /// # Errors
    /// [`TlsError::Malformed`].
    pub fn parse(certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let malformed = |text: String| TlsError::Malformed(text);
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| malformed(error.to_string()))?;
        let common_name = parsed
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .map(str::to_owned);
        let mut uris = Vec::new();
        let mut dns_names = Vec::new();
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| malformed(error.to_string()))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                _ => {}
            }
        }
        Ok(Self {
            common_name,
            uris,
            dns_names,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            serial: hex(parsed.raw_serial()),
            is_ca: parsed.is_ca(),
            spki_sha256: sha256(parsed.public_key().raw),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
        })
    }

    /// The SPIFFE id; None when there is none or more than one, which the standard forbids.
    pub fn spiffe_id(&self) -> Option<&str> {
        let mut ids = self.uris.iter().filter(|uri| uri.starts_with("spiffe://"));
        match (ids.next(), ids.next()) {
            (Some(id), None) => Some(id),
            _ => None,
        }
    }
}

/// SHA-256 of a whole certificate, as 64 hex digits.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(&sha256(certificate))
}

/// SHA-256 of a certificate's public key info, as 64 hex digits.
///
/// # Errors
/// [`TlsError::Malformed`].
pub fn spki_sha256(certificate: &CertificateDer<'_>) -> Result<String, TlsError> {
    CertificateInfo::parse(certificate).map(|info| hex(&info.spki_sha256))
}
