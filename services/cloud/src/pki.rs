//! Who is who: the authorities of this cloud, the certificates of its nodes, the certificate it shows itself, and the
//! keys that sign desires.
//!
//! Everything is made at the first start and kept sealed in the database. Two authorities: one signs node certificates,
//! one signs the certificate shown on the link and activation listeners, which is renewed while the program runs.
//! Nothing here decides what a node may do; that is [`crate::link`].

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baetyl_kit::clock::Clock;
use baetyl_kit::crypto;
use baetyl_kit::tls::TlsError;
use baetyl_model::Namespace;
use jiff::{SignedDuration, Timestamp};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer as _, X509Certificate};

mod csr;
mod identity;
mod issue;
mod keys;
mod tls;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use csr::{CsrError, NodeCsr};
pub use identity::{IdentityError, NodeIdentity, PeerIdentity};

use crate::config::TrustDomain;
use crate::config::checked::within;
use crate::seal::{Seal, SealError};
use crate::store::{Doing as _, Store, StoreError};
use issue::{Authority, KeyedCertificate, ServerName};

/// How often the server certificate is looked at. By the wall clock, which may jump: one long sleep could miss it.
const RENEWAL_CHECK: Duration = Duration::from_secs(600);

/// Settings of the authorities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PkiConfig {
    /// The name in node certificates, `spiffe://<trust_domain>/…`. Cannot be changed while nodes are activated.
    pub trust_domain: TrustDomain,
    /// Life of a node certificate in days; nodes renew at two thirds of it.
    #[serde(deserialize_with = "within::<_, 1, 36_500>")]
    pub node_certificate_days: u32,
    /// For how many days an expired node certificate may still be exchanged for a new one.
    #[serde(deserialize_with = "within::<_, 1, 36_500>")]
    pub grace_days: u32,
    /// Life of the certificate this cloud shows, in days; renewed at two thirds of it.
    #[serde(deserialize_with = "within::<_, 1, 36_500>")]
    pub server_certificate_days: u32,
}

impl Default for PkiConfig {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            node_certificate_days: 90,
            // The promise is 400 days offline and back without a visit.
            grace_days: 400,
            server_certificate_days: 90,
        }
    }
}

/// What can go wrong with keys and certificates of this cloud.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key could not be sealed or opened.
    #[error("cannot use a private key of this cloud")]
    Seal(#[source] SealError),
    /// No randomness.
    #[error("cannot make a key")]
    Randomness(#[source] crypto::CryptoError),
    /// A certificate could not be made or read.
    #[error(
        "cannot make or read a certificate; are the configured host names plain names or addresses?"
    )]
    Certificate(#[source] rcgen::Error),
    /// TLS refused a key or certificate.
    #[error("TLS does not accept a key or certificate of this cloud")]
    Tls(#[source] TlsError),
    /// A stored key is of another kind.
    #[error("the stored key {0} is damaged; restore the database from a backup")]
    Damaged(&'static str),
}

/// A certificate that was made for a node.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    /// DER.
    pub certificate: CertificateDer<'static>,
    /// sha256 of the DER, as hex.
    pub fingerprint: String,
    /// End of its life.
    pub not_after: Timestamp,
}

/// The key that signs the desires of one tenant.
pub struct DesireKey {
    pair: Ed25519KeyPair,
}

impl DesireKey {
    /// For [`baetyl_proto::sign`].
    pub const fn pair(&self) -> &Ed25519KeyPair {
        &self.pair
    }

    /// The raw public key that nodes trust.
    pub fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        key
    }
}

impl fmt::Debug for DesireKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DesireKey({})", crypto::key_id(&self.public_key()))
    }
}

/// The authorities. Cheap to clone.
#[derive(Clone)]
pub struct Pki(Arc<Inner>);

struct Inner {
    store: Store,
    seal: Seal,
    config: PkiConfig,
    clock: Clock,
    names: Vec<ServerName>,
    node_authority: Authority,
    server_authority: Authority,
    install_key: [u8; 32],
    listeners: tls::Listeners,
    server_until: Mutex<Validity>,
    desire_keys: tokio::sync::Mutex<HashMap<Namespace, Arc<DesireKey>>>,
}

/// Life of a certificate in seconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Validity {
    begin: i64,
    end: i64,
}

impl Validity {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, PkiError> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| PkiError::Damaged(keys::SERVER))?;
        let validity = certificate.validity();
        Ok(Self {
            begin: validity.not_before.timestamp(),
            end: validity.not_after.timestamp(),
        })
    }

    /// From two thirds of life on, and when the clock says that it has not begun.
    const fn is_due(self, now: i64) -> bool {
        now < self.begin || now >= self.begin + (self.end - self.begin) / 3 * 2
    }
}

impl Pki {
    /// Reads the keys of this cloud, or makes them. `hosts`: names and addresses by which nodes reach this machine.
    ///
    /// # Errors
    /// When the database fails, a key cannot be opened, or a host is no name.
    pub async fn open(
        store: &Store,
        seal: &Seal,
        config: PkiConfig,
        hosts: &[String],
        clock: Clock,
    ) -> Result<Self, PkiError> {
        let mut tx = store
            .writer()
            .begin_with("BEGIN IMMEDIATE")
            .await
            .doing("read the keys of the cloud")?;
        let now = clock.now();
        let node = load_or_make(&mut tx, seal, keys::NODE_AUTHORITY, now, || {
            issue::new_authority("node")
        })
        .await?;
        let server = load_or_make(&mut tx, seal, keys::SERVER_AUTHORITY, now, || {
            issue::new_authority("server")
        })
        .await?;
        let install = load_or_make(&mut tx, seal, keys::INSTALL_TOKEN, now, new_secret).await?;
        let (node_authority, server_authority) = (
            Authority::from_parts(&node)?,
            Authority::from_parts(&server)?,
        );
        let names = ServerName::all(hosts);
        let leaf = server_leaf(&mut tx, seal, &config, &server_authority, &names, now).await?;
        tx.commit().await.doing("write the keys of the cloud")?;
        let (authority, nodes) = (&server_authority.certificate, &node_authority.certificate);
        let grace = days(config.grace_days);
        let listeners = tls::Listeners::new(&leaf, authority, nodes, clock.clone(), grace)
            .map_err(PkiError::Tls)?;
        Ok(Self(Arc::new(Inner {
            store: store.clone(),
            seal: seal.clone(),
            config,
            clock,
            names,
            node_authority,
            server_authority,
            install_key: install
                .key
                .try_into()
                .map_err(|_| PkiError::Damaged(keys::INSTALL_TOKEN))?,
            listeners,
            server_until: Mutex::new(Validity::of(&leaf.certificate)?),
            desire_keys: tokio::sync::Mutex::default(),
        })))
    }

    /// The name in node certificates.
    pub fn trust_domain(&self) -> &str {
        self.0.config.trust_domain.as_str()
    }

    /// The clock that decides about certificates.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// DER of the authority that signs the certificate shown to nodes.
    pub fn server_authority(&self) -> &CertificateDer<'static> {
        &self.0.server_authority.certificate
    }

    /// `sha256:<hex>` of [`server_authority`](Self::server_authority): what an install command pins.
    pub fn server_authority_pin(&self) -> String {
        format!("sha256:{}", crypto::sha256_hex(self.server_authority()))
    }

    /// DER of the authority that signs node certificates.
    pub fn node_authority(&self) -> &CertificateDer<'static> {
        &self.0.node_authority.certificate
    }

    /// Authenticates install tokens.
    pub(crate) fn install_key(&self) -> &[u8; 32] {
        &self.0.install_key
    }

    /// Makes a certificate for the key of a request, in the name of `node`. Stores nothing.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn issue_node_certificate(
        &self,
        csr: &NodeCsr,
        node: &NodeIdentity,
    ) -> Result<IssuedCertificate, PkiError> {
        let life = days(self.0.config.node_certificate_days);
        let now = self.0.clock.now();
        let certificate = issue::new_node_certificate(
            &self.0.node_authority,
            csr,
            node,
            self.trust_domain(),
            now,
            life,
        )?;
        let fingerprint = crypto::sha256_hex(&certificate);
        Ok(IssuedCertificate {
            certificate,
            fingerprint,
            not_after: now + life,
        })
    }

    /// TLS of the link: clients show a certificate of the node authority. Replaced at each renewal.
    pub fn link_tls(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.0.listeners.link()
    }

    /// TLS of activation: any client. Replaced at each renewal.
    pub fn activation_tls(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.0.listeners.activation()
    }

    /// The key that signs the desires of a tenant; made at first use.
    ///
    /// # Errors
    /// When the database fails or the key cannot be opened.
    pub async fn desire_key(&self, namespace: &Namespace) -> Result<Arc<DesireKey>, PkiError> {
        let mut cache = self.0.desire_keys.lock().await;
        if let Some(key) = cache.get(namespace) {
            return Ok(Arc::clone(key));
        }
        let mut tx = self
            .0
            .store
            .writer()
            .begin_with("BEGIN IMMEDIATE")
            .await
            .doing("read the desire key")?;
        let der = keys::desire_key(&mut tx, &self.0.seal, namespace, self.0.clock.now()).await?;
        tx.commit().await.doing("write the desire key")?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|_| PkiError::Damaged("desire key"))?;
        let key = Arc::new(DesireKey { pair });
        cache.insert(namespace.clone(), Arc::clone(&key));
        Ok(key)
    }

    /// Renews the certificate this cloud shows if two thirds of its life are over. True when it did.
    ///
    /// # Errors
    /// When the database fails; the old certificate stays in use.
    pub async fn renew_server_certificate(&self) -> Result<bool, PkiError> {
        let inner = &self.0;
        let now = inner.clock.now();
        let until = *inner
            .server_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !until.is_due(now.as_second()) {
            return Ok(false);
        }
        let life = days(inner.config.server_certificate_days);
        let leaf = issue::new_server_certificate(&inner.server_authority, &inner.names, now, life)?;
        let mut connection = inner
            .store
            .writer()
            .acquire()
            .await
            .doing("write the server certificate")?;
        keys::put(&mut connection, &inner.seal, keys::SERVER, &leaf, now).await?;
        inner
            .listeners
            .show(&leaf, &inner.server_authority.certificate)
            .map_err(PkiError::Tls)?;
        *inner
            .server_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Validity::of(&leaf.certificate)?;
        tracing::info!(not_after = %(now + life), "server certificate renewed");
        Ok(true)
    }

    /// Keeps the server certificate fresh until `stop`.
    pub async fn run_renewal(self, stop: CancellationToken) {
        let mut check = tokio::time::interval(RENEWAL_CHECK);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(check.tick()).await.is_some() {
            if let Err(error) = self.renew_server_certificate().await {
                tracing::error!(error = %baetyl_kit::error::chain(&error), "cannot renew the server certificate");
            }
        }
    }
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pki({})", self.trust_domain())
    }
}

fn days(count: u32) -> SignedDuration {
    SignedDuration::from_hours(24 * i64::from(count))
}

/// A symmetric key in the shape of the other keys.
fn new_secret() -> Result<KeyedCertificate, PkiError> {
    let key = crypto::random_bytes::<32>()
        .map_err(PkiError::Randomness)?
        .to_vec();
    Ok(KeyedCertificate {
        certificate: CertificateDer::from(Vec::new()),
        key,
    })
}

async fn load_or_make(
    connection: &mut SqliteConnection,
    seal: &Seal,
    name: &'static str,
    now: Timestamp,
    make: impl FnOnce() -> Result<KeyedCertificate, PkiError>,
) -> Result<KeyedCertificate, PkiError> {
    if let Some(found) = keys::load(connection, seal, name).await? {
        return Ok(found);
    }
    let made = make()?;
    keys::put(connection, seal, name, &made, now).await?;
    Ok(made)
}

/// The stored server certificate if it is for these names and young enough, else a new one.
async fn server_leaf(
    connection: &mut SqliteConnection,
    seal: &Seal,
    config: &PkiConfig,
    authority: &Authority,
    names: &[ServerName],
    now: Timestamp,
) -> Result<KeyedCertificate, PkiError> {
    if let Some(leaf) = keys::load(connection, seal, keys::SERVER).await?
        && ServerName::of_certificate(&leaf.certificate).as_deref() == Some(names)
        && !Validity::of(&leaf.certificate)?.is_due(now.as_second())
    {
        return Ok(leaf);
    }
    let leaf =
        issue::new_server_certificate(authority, names, now, days(config.server_certificate_days))?;
    keys::put(connection, seal, keys::SERVER, &leaf, now).await?;
    Ok(leaf)
}
