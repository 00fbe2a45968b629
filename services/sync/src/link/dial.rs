//! One connection to the cloud: TCP, TLS judged at the trusted time, HTTP/2.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baetyl_kit::error::chain;
use baetyl_kit::grpc::Endpoint;
use baetyl_kit::tls::{self, CertTime, CertificateInfo, Roots, ServerTrust, TlsError};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;
use tower::service_fn;

use super::verdict::{Verdict, Watched, is_tls_refusal};
use crate::identity::Identity;
use crate::trust::TrustClock;

/// An object that waits for the bandwidth cap fills the window of its stream; the others need room in the connection's.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Why there is no connection to an address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The address does not answer.
    #[error("{address} does not answer")]
    Unreachable {
        /// Which address.
        address: Endpoint,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("{address} did not answer within {} s", .patience.as_secs())]
    TooLong {
        /// Which address.
        address: Endpoint,
        /// How long was waited.
        patience: Duration,
    },
    /// The server is not the cloud of this node, or does not know this node.
    #[error("{address} is not trusted, or does not trust this node")]
    Handshake {
        /// Which address.
        address: Endpoint,
        /// Why.
        source: io::Error,
    },
    /// The identity cannot be used for TLS.
    #[error("the identity cannot be used to connect to {address}")]
    Tls {
        /// Which address.
        address: Endpoint,
        /// Why.
        source: TlsError,
    },
    /// It does not speak HTTP/2, or has no name.
    #[error("{address} does not speak gRPC")]
    Protocol {
        /// Which address.
        address: Endpoint,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DialError {
    /// True when the two do not accept each other, as opposed to a network that is away.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Handshake { source, .. } => is_tls_refusal(source),
            Self::Tls { .. } => true,
            Self::Unreachable { .. } | Self::TooLong { .. } | Self::Protocol { .. } => false,
        }
    }
}

/// A connection, and what the cloud said to our certificate on it so far.
pub(crate) struct Dialed {
    pub(crate) channel: Channel,
    pub(crate) verdict: Arc<Verdict>,
}

/// No address works.
pub(crate) struct NotDialed {
    /// Why, in one line.
    pub(crate) reason: String,
    /// Whether one of them refused, or was refused.
    pub(crate) is_refusal: bool,
}

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialing {
    pub(crate) connect_timeout: Duration,
    pub(crate) keepalive: Duration,
}

/// The addresses in turn; the first that works.
///
/// # Errors
/// Why none does.
pub(crate) async fn dial(
    identity: &Identity,
    trust: &Arc<TrustClock>,
    how: Dialing,
) -> Result<Dialed, NotDialed> {
    let mut reasons = Vec::new();
    let mut is_refusal = false;
    for address in &identity.link_addresses {
        match dial_one(identity, address, trust, how).await {
            Ok(dialed) => return Ok(dialed),
            Err(error) => {
                is_refusal |= error.is_refusal();
                reasons.push(chain(&error));
            }
        }
    }
    Err(NotDialed {
        reason: reasons.join("; "),
        is_refusal,
    })
}

async fn dial_one(
    identity: &Identity,
    address: &Endpoint,
    trust: &Arc<TrustClock>,
    how: Dialing,
) -> Result<Dialed, DialError> {
    let Endpoint::Https(authority) = address else {
        let source = "only https addresses are used".into();
        return Err(protocol(address, source));
    };
    let connected = timeout(how.connect_timeout, async {
        let stream = handshake(identity, address, authority, trust).await?;
        let verdict = Arc::new(Verdict::default());
        let stream = Watched::new(stream, Arc::clone(&verdict));
        let channel = http2(stream, address, authority, how).await?;
        Ok(Dialed { channel, verdict })
    });
    connected.await.map_err(|_| DialError::TooLong {
        address: address.clone(),
        patience: how.connect_timeout,
    })?
}

async fn handshake(
    identity: &Identity,
    address: &Endpoint,
    authority: &str,
    trust: &Arc<TrustClock>,
) -> Result<TlsStream<TcpStream>, DialError> {
    let unusable = |source| DialError::Tls {
        address: address.clone(),
        source,
    };
    let roots = Roots::new(&identity.authorities).map_err(unusable)?;
    let time: Arc<dyn CertTime> = trust.clone();
    let config = tls::client_config(
        &ServerTrust::Roots(roots),
        Some(identity.for_tls()),
        Some(time),
    )
    .map_err(unusable)?;
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| protocol(address, error.into()))?;
    let unreachable = |source| DialError::Unreachable {
        address: address.clone(),
        source,
    };
    let tcp = TcpStream::connect(authority).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let stream = TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|source| DialError::Handshake {
            address: address.clone(),
            source,
        })?;
    // Only now, and by the leaf alone: it was signed by an authority, and its holder has shown the key.
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let begin = leaf
        .and_then(|leaf| CertificateInfo::parse(leaf).ok())
        .and_then(|leaf| Timestamp::from_second(leaf.not_before).ok());
    if let Some(begin) = begin {
        trust.raise(begin).await;
    }
    Ok(stream)
}

/// A channel over exactly this stream: when it ends, calls fail, and the link dials anew with whatever is true then.
async fn http2(
    stream: Watched<TlsStream<TcpStream>>,
    address: &Endpoint,
    authority: &str,
    how: Dialing,
) -> Result<Channel, DialError> {
    let failed = |source: tonic::transport::Error| protocol(address, source.into());
    let origin = format!("https://{authority}")
        .parse()
        .map_err(|error: http::uri::InvalidUri| protocol(address, error.into()))?;
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = service_fn(move |_| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            stream
                .map(TokioIo::new)
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
        }
    });
    tonic::transport::Endpoint::from_shared(format!("http://{authority}"))
        .map_err(failed)?
        .origin(origin)
        .http2_keep_alive_interval(how.keepalive)
        .keep_alive_timeout(how.keepalive)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .buffer_size(32)
        .connect_with_connector(connector)
        .await
        .map_err(failed)
}

fn protocol(address: &Endpoint, source: Box<dyn std::error::Error + Send + Sync>) -> DialError {
    DialError::Protocol {
        address: address.clone(),
        source,
    }
}
