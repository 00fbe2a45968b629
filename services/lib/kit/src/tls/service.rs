//! Who a service is towards the others of its node: certificate, key and authorities that are replaced while it runs.
//!
//! [`ServiceIdentity`] is what servers and clients carry; each new connection uses what is newest. It comes from a
//! directory ([`ServiceIdentity::mounted`]) or from whoever holds an [`IdentitySender`], such as the authority itself.
//! Chains are judged by chain and name alone: nobody inside a node can trust its clock, and certificates are replaced by age.

use std::io;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier as _;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::UnixTime;
use tokio::sync::watch;

use super::verify::{CertTime, ClientChain, Validity};
use super::{
    ClientAuth, Identity, Roots, ServerTrust, TlsError, client_config, fingerprint, provider,
    server_config,
};

/// Judges every chain at the beginning of its validity: age decides nothing.
#[derive(Clone, Copy, Debug)]
pub struct Ageless;

impl CertTime for Ageless {
    fn judge_at(&self, chain: Validity, _wall: i64) -> i64 {
        chain.not_before
    }
}

/// Whether a server inside a node wants to see certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Who has none of the node's authorities is refused in the handshake: for the core services.
    Required,
    /// Who has none may prove itself otherwise; a wrong one is refused in the handshake: for applications.
    Optional,
}

/// Certificate, key and authorities of a service.
#[derive(Clone, Debug)]
pub struct Credentials {
    identity: Identity,
    authorities: Roots,
}

impl Credentials {
    /// From PEM texts: the chain with the service's own certificate first, its key, and the authorities of the node (while
    /// one replaces another, both).
    ///
    /// # Errors
    /// When a text holds nothing usable, key and certificate do not go together, or none of the authorities issued the
    /// certificate for use on both sides of a connection.
    pub fn from_pem(certificate: &[u8], key: &[u8], authorities: &[u8]) -> Result<Self, TlsError> {
        let credentials = Self {
            identity: Identity::from_pem(certificate, key)?,
            authorities: Roots::from_pem(authorities)?,
        };
        credentials.check_issuer()?;
        Ok(credentials)
    }

    /// Half of a new set with half of an old one must not replace the old one.
    fn check_issuer(&self) -> Result<(), TlsError> {
        let Some((own, rest)) = self.identity.certificates().split_first() else {
            return Err(TlsError::NoCertificate("the certificate chain".to_owned()));
        };
        let store = Arc::clone(&self.authorities.0);
        let verifier = WebPkiClientVerifier::builder_with_provider(store, provider()).build()?;
        ClientChain::new(verifier, Some(Arc::new(Ageless)))
            .verify_client_cert(own, rest, UnixTime::now())
            .map_err(TlsError::Foreign)?;
        Ok(())
    }
}

/// What connections are made with.
#[derive(Debug)]
struct Made {
    required: Arc<ServerConfig>,
    optional: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    fingerprint: String,
}

impl Made {
    fn of(credentials: Credentials) -> Result<Self, TlsError> {
        let Credentials {
            identity,
            authorities,
        } = credentials;
        let fingerprint = identity.certificates().first().map(fingerprint);
        let time = || Some(Arc::new(Ageless) as Arc<dyn CertTime>);
        let server = |clients| server_config(identity.clone(), &clients, time());
        Ok(Self {
            required: server(ClientAuth::Required(authorities.clone()))?,
            optional: server(ClientAuth::Optional(authorities.clone()))?,
            fingerprint: fingerprint.unwrap_or_default(),
            client: client_config(&ServerTrust::Roots(authorities), Some(identity), time())?,
        })
    }
}

/// The identity of a service, for its servers and clients. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServiceIdentity {
    made: watch::Receiver<Option<Arc<Made>>>,
    missing: Arc<str>,
}

/// Replaces the credentials of a [`ServiceIdentity`]. When it is dropped the last ones stay.
#[derive(Debug)]
pub struct IdentitySender(watch::Sender<Option<Arc<Made>>>);

impl ServiceIdentity {
    /// An identity that comes from memory. Until the first credentials servers hang up on whoever connects, and clients
    /// fail with `missing` (`"waiting for …"`); both go on by themselves afterwards.
    pub fn channel(missing: &str) -> (IdentitySender, Self) {
        let (sender, made) = watch::channel(None);
        let identity = Self {
            made,
            missing: missing.into(),
        };
        (IdentitySender(sender), identity)
    }

    /// What a new connection to one of our servers is accepted with; None while there are no credentials.
    pub fn server(&self, clients: Clients) -> Option<Arc<ServerConfig>> {
        let made = self.made.borrow();
        made.as_ref().map(|made| match clients {
            Clients::Required => Arc::clone(&made.required),
            Clients::Optional => Arc::clone(&made.optional),
        })
    }

    /// What a new connection of ours is opened with.
    ///
    /// # Errors
    /// While there are no credentials; says what is waited for.
    pub fn client(&self) -> io::Result<Arc<ClientConfig>> {
        let made = self.made.borrow();
        made.as_ref()
            .map(|made| Arc::clone(&made.client))
            .ok_or_else(|| io::Error::other(self.missing.to_string()))
    }

    /// SHA-256 of the certificate in use, as 64 hex digits; None while there is none.
    pub fn fingerprint(&self) -> Option<String> {
        let made = self.made.borrow();
        made.as_ref().map(|made| made.fingerprint.clone())
    }
}

impl IdentitySender {
    /// New connections use these from now on; those that are open go on. Gives the
    /// [fingerprint](ServiceIdentity::fingerprint).
    ///
    /// # Errors
    /// When TLS cannot be spoken with them; the ones before stay in use.
    pub fn replace(&self, credentials: Credentials) -> Result<String, TlsError> {
        let made = Made::of(credentials)?;
        let fingerprint = made.fingerprint.clone();
        self.0.send_replace(Some(Arc::new(made)));
        Ok(fingerprint)
    }
}
