//! TLS: certificates and keys from PEM, configurations for servers and clients, and what a certificate says.
//!
//! Everything is rustls with ring. Who is trusted is given as [`Roots`] or, while installing, as a [`Pin`]
//! of the CA. At which time a chain is judged can be decided by the caller ([`CertTime`]): the wall clock of
//! an edge node is no authority.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

mod certificate;
mod mounted;
mod service;
mod verify;

pub use certificate::{CertificateInfo, fingerprint, spki_sha256};
pub use service::{Ageless, Clients, Credentials, IdentitySender, ServiceIdentity};
pub use verify::{CertTime, Pin, Validity};

use verify::{ClientChain, PinnedServer, ServerChain};

/// Longest PEM file that is read.
const MAX_PEM: u64 = 1024 * 1024;

/// What is wrong with certificates, keys or the configuration made of them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}; check that it exists and that this user may read it")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The PEM text holds no certificate.
    #[error("{0} holds no certificate in PEM")]
    NoCertificate(String),
    /// The PEM text holds no private key.
    #[error("{0} holds no private key in PEM")]
    NoKey(String),
    /// Certificate and key do not go together, or a CA certificate is unusable.
    #[error("the certificates or the key cannot be used for TLS")]
    Unusable(#[from] rustls::Error),
    /// The roots are unusable.
    #[error("the trusted certificates cannot be used to verify a peer")]
    Roots(#[from] rustls::client::VerifierBuilderError),
    /// A service was given the certificate of another authority, or one that is not for both sides of a connection.
    #[error("none of the authorities given with the certificate vouches for it")]
    Foreign(#[source] rustls::Error),
    /// A certificate cannot be parsed.
    #[error("the certificate cannot be parsed: {0}")]
    Malformed(String),
    /// The text is no fingerprint.
    #[error(
        "{0:?} is no SHA-256 fingerprint; write 64 hex digits, with or without \"sha256:\" before them"
    )]
    BadPin(String),
}

/// A certificate chain (leaf first) and its private key.
#[derive(Debug)]
pub struct Identity {
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// From DER.
    pub fn new(certificates: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { certificates, key }
    }

    /// From PEM texts.
    ///
    /// # Errors
    /// When one of them holds nothing usable.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self {
            certificates: parse_certificates("the certificate chain", certificates)?,
            key: parse_key("the key", key)?,
        })
    }

    /// From PEM files.
    ///
    /// # Errors
    /// When one of them cannot be read or holds nothing usable.
    pub fn load(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            certificates: load_certificates(certificates)?,
            key: load_key(key)?,
        })
    }

    /// The chain, leaf first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            certificates: self.certificates.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// The CA certificates a peer's chain must lead to.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// These certificates.
    ///
    /// # Errors
    /// When one of them cannot be a CA, or there is none.
    pub fn new(certificates: &[CertificateDer<'_>]) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        for certificate in certificates {
            store.add(certificate.clone().into_owned())?;
        }
        if store.is_empty() {
            return Err(TlsError::NoCertificate("the list of roots".to_owned()));
        }
        Ok(Self(Arc::new(store)))
    }

    /// The certificates of a PEM text.
    ///
    /// # Errors
    /// When it holds no usable one.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        Self::new(&parse_certificates("the CA bundle", pem)?)
    }

    /// The certificates of a PEM file.
    ///
    /// # Errors
    /// When it cannot be read or holds no usable one.
    pub fn load(path: &Path) -> Result<Self, TlsError> {
        Self::new(&load_certificates(path)?)
    }

    /// A store made elsewhere, such as that of the web's CAs.
    pub fn from_store(store: RootCertStore) -> Self {
        Self(Arc::new(store))
    }
}

/// Whether a server asks for a client certificate.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// It does not.
    None,
    /// It verifies one if the client has one; who has none is seen as a peer without certificates.
    Optional(Roots),
    /// Who has none is refused in the handshake.
    Required(Roots),
}

/// How a client knows its server.
#[derive(Clone, Debug)]
pub enum ServerTrust {
    /// By its chain and name.
    Roots(Roots),
    /// By a CA certificate in its chain whose fingerprint is known, and by its name.
    Pin(Pin),
}

/// A server that shows `identity`, offers HTTP/2 and HTTP/1.1, and judges client chains at the time `time`
/// says (None: the wall clock).
///
/// # Errors
/// When key and certificates do not go together.
pub fn server_config(
    identity: Identity,
    clients: &ClientAuth,
    time: Option<Arc<dyn CertTime>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Optional(roots) | ClientAuth::Required(roots) => {
            let store = Arc::clone(&roots.0);
            let verifier = WebPkiClientVerifier::builder_with_provider(store, provider());
            let verifier = match clients {
                ClientAuth::Optional(_) => verifier.allow_unauthenticated().build()?,
                ClientAuth::None | ClientAuth::Required(_) => verifier.build()?,
            };
            builder.with_client_cert_verifier(Arc::new(ClientChain::new(verifier, time)))
        }
    };
    let mut config = builder.with_single_cert(identity.certificates, identity.key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A gRPC client (ALPN `h2`) that knows its server by `trust`, shows `identity` if asked, and judges the
/// server's chain at the time `time` says (None: the wall clock).
///
/// # Errors
/// When key and certificates do not go together, or the roots are unusable.
pub fn client_config(
    trust: &ServerTrust,
    identity: Option<Identity>,
    time: Option<Arc<dyn CertTime>>,
) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_with(trust, identity, time, &["h2"])
}

/// As [`client_config`], for other protocols than HTTP/2 (`&["http/1.1"]`, `&[]`).
///
/// # Errors
/// As [`client_config`].
pub fn client_config_with(
    trust: &ServerTrust,
    identity: Option<Identity>,
    time: Option<Arc<dyn CertTime>>,
    alpn: &[&str],
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous();
    let builder = match trust {
        ServerTrust::Roots(roots) => builder.with_custom_certificate_verifier(Arc::new(
            ServerChain::new(Arc::clone(&roots.0), time)?,
        )),
        ServerTrust::Pin(pin) => {
            builder.with_custom_certificate_verifier(Arc::new(PinnedServer::new(*pin, time)))
        }
    };
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.certificates, identity.key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// The certificates of a PEM file, in its order.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    parse_certificates(&path.display().to_string(), &read(path)?)
}

/// The private key of a PEM file (PKCS#8, SEC1 or PKCS#1).
///
/// # Errors
/// When it cannot be read or holds none.
pub fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    parse_key(&path.display().to_string(), &read(path)?)
}

/// The certificates of a PEM text; `what` names it in errors.
///
/// # Errors
/// When it holds none or a damaged one.
pub fn parse_certificates(
    what: &str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(TlsError::NoCertificate(what.to_owned())),
    }
}

/// The private key of a PEM text; `what` names it in errors.
///
/// # Errors
/// When it holds none.
pub fn parse_key(what: &str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::NoKey(what.to_owned()))
}

/// The one set of algorithms all configurations use.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<Arc<CryptoProvider>> =
        std::sync::LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&PROVIDER)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    crate::fsio::read_limited(path, MAX_PEM).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}
