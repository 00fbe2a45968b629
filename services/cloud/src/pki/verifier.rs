//! Whether a client certificate lets its owner complete the TLS handshake.
//!
//! The chain to the node authority is always verified. An expired certificate passes for a grace period, so that a node
//! that was offline for a year can ask for a new one; what it may call is decided by
//! [`crate::link`], with [`PeerIdentity::is_expired`].

use std::fmt;
use std::sync::Arc;

use baetyl_kit::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::PkiError;
use super::identity::PeerIdentity;

/// Verifies node certificates by the cloud's own clock.
pub(super) struct NodeVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
    grace: SignedDuration,
    clock: Clock,
}

impl NodeVerifier {
    pub(super) fn new(
        authority: &CertificateDer<'static>,
        provider: Arc<CryptoProvider>,
        trust_domain: &str,
        grace: SignedDuration,
        clock: Clock,
    ) -> Result<Self, PkiError> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).map_err(PkiError::Tls)?;
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| PkiError::Tls(Error::General(error.to_string())))?;
        Ok(Self {
            chain,
            trust_domain: trust_domain.to_owned(),
            grace,
            clock,
        })
    }
}

impl fmt::Debug for NodeVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeVerifier({})", self.trust_domain)
    }
}

const fn is_expiry(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
        )
    )
}

fn unix_time(time: Timestamp) -> UnixTime {
    let seconds = u64::try_from(time.as_second()).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

impl ClientCertVerifier for NodeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let now = self.clock.now();
        let identity =
            PeerIdentity::from_certificate(end_entity, &self.trust_domain).map_err(|_| {
                Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
            })?;
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, unix_time(now));
        match verified {
            // As of its last second everything else about it must still be right.
            Err(error)
                if is_expiry(&error)
                    && now <= identity.not_after.saturating_add(self.grace).unwrap_or(now) =>
            {
                self.chain.verify_client_cert(
                    end_entity,
                    intermediates,
                    unix_time(identity.not_after),
                )
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
