//! A certificate and its key: do they belong together, and what does the certificate say? Words as Go writes them, which
//! is what Baetyl v2 shows.

use baetyl_kit::crypto::sha256;
use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

use super::super::error::Mistake;

/// What is read from a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) signature_algorithm: String,
    pub(super) effective_time: String,
    pub(super) expired_time: String,
    pub(super) serial_number: String,
    pub(super) issuer: String,
    pub(super) finger_print: String,
}

/// Reads a pair of PEM texts.
pub(super) fn read(certificate: &str, key: &str) -> Result<Pair, Mistake> {
    let certificate_mistake = |message: &str| Mistake::new("data.certificate", message);
    let key_mistake = |message: &str| Mistake::new("data.key", message);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| certificate_mistake("is not PEM"))?;
    let leaf = chain
        .first()
        .ok_or_else(|| certificate_mistake("holds no certificate in PEM"))?
        .clone();
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| key_mistake("holds no private key in PEM"))?;
    let signer = rustls::crypto::ring::sign::any_supported_type(&der)
        .map_err(|_| key_mistake("is no RSA, ECDSA (P-256, P-384) or Ed25519 key"))?;
    let pair = read_certificate(&leaf)
        .ok_or_else(|| certificate_mistake("is not an X.509 certificate"))?;
    CertifiedKey::new(chain, signer)
        .keys_match()
        .map_err(|_| key_mistake("is not the key of this certificate"))?;
    Ok(pair)
}

fn read_certificate(der: &CertificateDer<'_>) -> Option<Pair> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    let issuer = certificate.issuer().iter_common_name().next();
    let print: Vec<_> = sha256(der)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    Some(Pair {
        signature_algorithm: go_name(&algorithm).map_or(algorithm.clone(), str::to_owned),
        effective_time: go_time(certificate.validity().not_before),
        expired_time: go_time(certificate.validity().not_after),
        serial_number: certificate.tbs_certificate.serial.to_string(),
        issuer: issuer
            .and_then(|name| name.as_str().ok())
            .unwrap_or_default()
            .to_owned(),
        finger_print: print.join(":"),
    })
}

/// Go's `x509.SignatureAlgorithm.String()`.
fn go_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "1.2.840.113549.1.1.5" => "SHA1-RSA",
        "1.2.840.113549.1.1.11" => "SHA256-RSA",
        "1.2.840.113549.1.1.12" => "SHA384-RSA",
        "1.2.840.113549.1.1.13" => "SHA512-RSA",
        "1.2.840.113549.1.1.10" => "SHA256-RSAPSS",
        "1.2.840.10045.4.3.2" => "ECDSA-SHA256",
        "1.2.840.10045.4.3.3" => "ECDSA-SHA384",
        "1.2.840.10045.4.3.4" => "ECDSA-SHA512",
        "1.3.101.112" => "Ed25519",
        _ => return None,
    })
}

/// Go's `time.Time.String()` of a UTC time without fraction.
fn go_time(time: ASN1Time) -> String {
    let Ok(time) = Timestamp::from_second(time.timestamp()) else {
        return String::new();
    };
    time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}
