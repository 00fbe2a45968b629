//! TLS of the two listeners: the certificate they show, swapped while connections are served, and who completes a
//! handshake with the link.
//!
//! The chain of a node is always verified, by the clock of this cloud. An expired certificate passes for a grace period,
//! so that a node that was offline for a year can ask for a new one; what it may call is decided by [`crate::link`].

use std::sync::Arc;

use baetyl_kit::clock::Clock;
use baetyl_kit::tls::{self, CertTime, ClientAuth, Identity, Roots, TlsError, Validity};
use jiff::SignedDuration;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;

use super::issue::KeyedCertificate;

/// Judges an expired chain as of its last second while the grace lasts, any other as of now.
#[derive(Debug)]
struct Grace {
    clock: Clock,
    grace: SignedDuration,
}

impl CertTime for Grace {
    fn judge_at(&self, chain: Validity, _wall: i64) -> i64 {
        let now = self.clock.now().as_second();
        let excused =
            now > chain.not_after && now <= chain.not_after.saturating_add(self.grace.as_secs());
        if excused { chain.not_after } else { now }
    }
}

/// The settings of both listeners; new connections use the newest.
#[derive(Debug)]
pub(super) struct Listeners {
    link: watch::Sender<Arc<ServerConfig>>,
    activation: watch::Sender<Arc<ServerConfig>>,
    nodes: Roots,
    time: Arc<Grace>,
}

impl Listeners {
    /// Both show `leaf`; the link asks for certificates of `nodes`.
    pub(super) fn new(
        leaf: &KeyedCertificate,
        authority: &CertificateDer<'static>,
        nodes: &CertificateDer<'static>,
        clock: Clock,
        grace: SignedDuration,
    ) -> Result<Self, TlsError> {
        let nodes = Roots::new(std::slice::from_ref(nodes))?;
        let time = Arc::new(Grace { clock, grace });
        let (link, activation) = configs(leaf, authority, &nodes, &time)?;
        Ok(Self {
            link: watch::Sender::new(link),
            activation: watch::Sender::new(activation),
            nodes,
            time,
        })
    }

    /// New connections are shown this certificate; those that are open keep theirs.
    pub(super) fn show(
        &self,
        leaf: &KeyedCertificate,
        authority: &CertificateDer<'static>,
    ) -> Result<(), TlsError> {
        let (link, activation) = configs(leaf, authority, &self.nodes, &self.time)?;
        self.link.send_replace(link);
        self.activation.send_replace(activation);
        Ok(())
    }

    pub(super) fn link(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.link.subscribe()
    }

    pub(super) fn activation(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.activation.subscribe()
    }
}

/// The authority travels along, so that a client that knows only its digest can find it.
fn configs(
    leaf: &KeyedCertificate,
    authority: &CertificateDer<'static>,
    nodes: &Roots,
    time: &Arc<Grace>,
) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), TlsError> {
    let identity = || {
        let key = PrivatePkcs8KeyDer::from(leaf.key.clone()).into();
        Identity::new(vec![leaf.certificate.clone(), authority.clone()], key)
    };
    let time: Arc<dyn CertTime> = Arc::<Grace>::clone(time);
    let link = tls::server_config(identity(), &ClientAuth::Required(nodes.clone()), Some(time))?;
    let mut link = Arc::unwrap_or_clone(link);
    // A resumed session would skip the verification of the node, and the cache costs memory for connections that stay
    // open for months.
    link.session_storage = Arc::new(NoServerSessionStorage {});
    link.send_tls13_tickets = 0;
    let activation = tls::server_config(identity(), &ClientAuth::None, None)?;
    Ok((Arc::new(link), activation))
}
