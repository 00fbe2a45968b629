//! The certificate this cloud shows, swapped while connections are served, and the TLS settings of its two listeners.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::PkiError;
use super::issue::KeyedCertificate;
use super::verifier::NodeVerifier;

/// Shows the certificate that was put in last.
pub(super) struct ServerCertificate(RwLock<Arc<CertifiedKey>>);

impl ServerCertificate {
    pub(super) fn new(key: Arc<CertifiedKey>) -> Self {
        Self(RwLock::new(key))
    }

    /// New connections get this one; those that are open keep theirs.
    pub(super) fn swap(&self, key: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = key;
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCertificate")
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.0.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

/// The leaf with its key; the authority travels along, so that a client that knows only its digest can find it.
pub(super) fn certified_key(
    leaf: &KeyedCertificate,
    authority: &CertificateDer<'static>,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, PkiError> {
    let key = PrivatePkcs8KeyDer::from(leaf.key.clone()).into();
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(PkiError::Tls)?;
    Ok(Arc::new(CertifiedKey::new(
        vec![leaf.certificate.clone(), authority.clone()],
        key,
    )))
}

/// For the link: nodes must show a certificate of the node authority.
///
/// No session is resumed: a resumed session would skip the verification of the client, and its cache costs memory for
/// connections that stay open for months.
pub(super) fn link_config(
    certificate: Arc<ServerCertificate>,
    verifier: Arc<NodeVerifier>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, PkiError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(PkiError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// For activation: any client.
pub(super) fn activation_config(
    certificate: Arc<ServerCertificate>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, PkiError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(PkiError::Tls)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
