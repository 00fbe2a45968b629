//! Verifiers: rustls' own, judged at a time the caller decides, and one for a pinned CA.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{CertificateInfo, TlsError, provider};
use crate::crypto::{sha256, unhex};

/// The time in which all certificates of a chain are valid, Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The latest begin.
    pub not_before: i64,
    /// The earliest end.
    pub not_after: i64,
}

/// Decides at which time a chain is judged.
pub trait CertTime: fmt::Debug + Send + Sync {
    /// The time (Unix seconds) to judge a chain of this validity at; `wall` is what the wall clock says.
    fn judge_at(&self, chain: Validity, wall: i64) -> i64;

    /// The chain was found good at that time. The handshake itself may still fail.
    fn accepted(&self, chain: Validity) {
        let _ = chain;
    }
}

impl Validity {
    /// Of a chain as a peer sends it.
    fn of(leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<Self, Error> {
        let mut validity = Self {
            not_before: i64::MIN,
            not_after: i64::MAX,
        };
        for certificate in std::iter::once(leaf).chain(rest) {
            let info =
                CertificateInfo::parse(certificate).map_err(|_| CertificateError::BadEncoding)?;
            validity.not_before = validity.not_before.max(info.not_before);
            validity.not_after = validity.not_after.min(info.not_after);
        }
        Ok(validity)
    }
}

/// A verdict at the right time: asks `time`, judges, and tells `time`.
fn judge<T>(
    time: Option<&Arc<dyn CertTime>>,
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    wall: UnixTime,
    verdict: impl FnOnce(UnixTime) -> Result<T, Error>,
) -> Result<T, Error> {
    let Some(time) = time else {
        return verdict(wall);
    };
    let chain = Validity::of(leaf, rest)?;
    let at = time.judge_at(chain, i64::try_from(wall.as_secs()).unwrap_or(i64::MAX));
    let at = std::time::Duration::from_secs(u64::try_from(at).unwrap_or(0));
    let good = verdict(UnixTime::since_unix_epoch(at))?;
    time.accepted(chain);
    Ok(good)
}

/// A server's chain against roots.
#[derive(Debug)]
pub(super) struct ServerChain {
    inner: Arc<WebPkiServerVerifier>,
    time: Option<Arc<dyn CertTime>>,
}

impl ServerChain {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        time: Option<Arc<dyn CertTime>>,
    ) -> Result<Self, TlsError> {
        let inner = WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?;
        Ok(Self { inner, time })
    }
}

impl ServerCertVerifier for ServerChain {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        judge(self.time.as_ref(), leaf, rest, now, |at| {
            self.inner.verify_server_cert(leaf, rest, name, ocsp, at)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// A client's chain against roots.
#[derive(Debug)]
pub(super) struct ClientChain {
    inner: Arc<dyn ClientCertVerifier>,
    time: Option<Arc<dyn CertTime>>,
}

impl ClientChain {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, time: Option<Arc<dyn CertTime>>) -> Self {
        Self { inner, time }
    }
}

impl ClientCertVerifier for ClientChain {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        judge(self.time.as_ref(), leaf, rest, now, |at| {
            self.inner.verify_client_cert(leaf, rest, at)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The SHA-256 of a CA certificate or of its public key info, carried out of band (an install command).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// From the 32 bytes.
    pub const fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// Whether the certificate, or its public key, is the pinned one.
    pub fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        sha256(certificate) == self.0
            || CertificateInfo::parse(certificate).is_ok_and(|info| info.spki_sha256 == self.0)
    }
}

impl FromStr for Pin {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<Self, TlsError> {
        let digits: String = text
            .trim()
            .trim_start_matches("sha256:")
            .chars()
            .filter(|c| *c != ':')
            .collect();
        unhex(&digits)
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| TlsError::BadPin(text.to_owned()))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", crate::crypto::hex(&self.0))
    }
}

/// A server whose chain contains the pinned CA. Everything else is checked as usual: the chain from the leaf
/// to that CA, the validity, and the name. A server must therefore send its CA certificate along.
#[derive(Debug)]
pub(super) struct PinnedServer {
    pin: Pin,
    time: Option<Arc<dyn CertTime>>,
}

impl PinnedServer {
    pub(super) fn new(pin: Pin, time: Option<Arc<dyn CertTime>>) -> Self {
        Self { pin, time }
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = rest
            .iter()
            .find(|certificate| self.pin.matches(certificate))
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        ServerChain::new(Arc::new(roots), self.time.clone())
            .map_err(|_| CertificateError::UnknownIssuer)?
            .verify_server_cert(leaf, rest, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
