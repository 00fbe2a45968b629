//! The connection loop under every server: accept, TLS, HTTP/1 and HTTP/2, graceful end.
//!
//! Each connection and each HTTP/2 stream is a task of this loop. When the token is cancelled nothing more
//! is accepted, connections finish the requests they have, and the loop returns when all are done. When the
//! loop itself is dropped (the drain deadline), all of them end at once.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use crate::kit::Kit;
use crate::listen::{BindError, Io, Listen, Listener, Peer, PeerAddr, UnixAccess};
use crate::tls::{Clients, ServiceIdentity};

/// A peer that has not finished its handshake by then is not going to.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without traffic is asked this often whether it is still there …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// … and is closed when it does not answer in this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// When the system is out of file descriptors, accepting again at once would only burn the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The TLS configuration of a server, fixed or replaceable while it runs (new connections use the newest).
#[derive(Clone, Debug)]
pub enum ServerTls {
    /// Never changes.
    Fixed(Arc<ServerConfig>),
    /// Replaced by its sender, for example after a renewal.
    Watched(watch::Receiver<Arc<ServerConfig>>),
    /// The identity of a service inside its node. Without credentials whoever connects is hung up on.
    Identity(ServiceIdentity, Clients),
}

impl ServerTls {
    fn current(&self) -> Option<Arc<ServerConfig>> {
        match self {
            Self::Fixed(config) => Some(Arc::clone(config)),
            Self::Watched(receiver) => Some(Arc::clone(&receiver.borrow())),
            Self::Identity(identity, clients) => identity.server(*clients),
        }
    }

    /// What a server inside a node speaks at `listen`: TLS with the identity of its service over TCP, nothing over a Unix
    /// socket, nor on loopback without an identity.
    ///
    /// # Errors
    /// [`ServeError::Plaintext`] for all else without an identity.
    pub fn in_node(
        kit: &Kit,
        server: &str,
        listen: &Listen,
        clients: Clients,
    ) -> Result<Option<Self>, ServeError> {
        match (listen, kit.identity()) {
            (Listen::Unix(_), _) => Ok(None),
            (Listen::Tcp(_), Some(identity)) => Ok(Some(Self::Identity(identity.clone(), clients))),
            (Listen::Tcp(addr), None) if addr.ip().is_loopback() => Ok(None),
            (Listen::Tcp(_), None) => Err(ServeError::Plaintext {
                server: server.to_owned(),
                listen: listen.clone(),
            }),
        }
    }
}

impl From<Arc<ServerConfig>> for ServerTls {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self::Fixed(config)
    }
}

impl From<watch::Receiver<Arc<ServerConfig>>> for ServerTls {
    fn from(receiver: watch::Receiver<Arc<ServerConfig>>) -> Self {
        Self::Watched(receiver)
    }
}

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It could not bind.
    #[error("server {server} cannot start")]
    Bind {
        /// Which server.
        server: String,
        /// Why.
        source: BindError,
    },
    /// Plaintext that others could read.
    #[error(
        "server {server} at {listen} is reachable from other machines; give this service a certificate (tls.dir), or let \
         it listen on 127.0.0.1 or a Unix socket"
    )]
    Plaintext {
        /// Which server.
        server: String,
        /// Where.
        listen: Listen,
    },
    /// The bound address could not be read or written to the run directory.
    #[error("cannot record the address of server {server} in the run directory")]
    Address {
        /// Which server.
        server: String,
        /// Why.
        source: io::Error,
    },
}

/// Serves `router` over HTTP on `listen`, as a required task of `kit` named `name`. The bound address is
/// logged and, for TCP, written to `<data-dir>/run/<name>.addr`. Handlers find a [`Peer`] in the extensions.
///
/// # Errors
/// When it cannot bind.
pub async fn http(
    kit: &Kit,
    name: &str,
    listen: &Listen,
    tls: Option<ServerTls>,
    router: Router,
) -> Result<Listen, ServeError> {
    let listener = bind(name, listen, UnixAccess::Private).await?;
    http_on(kit, name, listener, tls, router)
}

/// As [`http()`], on a listener that is already bound.
///
/// # Errors
/// When the address cannot be recorded.
pub fn http_on(
    kit: &Kit,
    name: &str,
    listener: Listener,
    tls: Option<ServerTls>,
    router: Router,
) -> Result<Listen, ServeError> {
    let failed = |source| ServeError::Address {
        server: name.to_owned(),
        source,
    };
    let addr = listener.local_addr().map_err(failed)?;
    if matches!(addr, Listen::Tcp(_)) {
        kit.write_addr(name, &addr).map_err(failed)?;
    }
    tracing::info!(server = name, %addr, tls = tls.is_some(), "listening");
    let token = kit.shutdown().clone();
    kit.tasks()
        .spawn_required(name, connections(listener, tls, router, token));
    Ok(addr)
}

pub(crate) async fn bind(
    name: &str,
    listen: &Listen,
    access: UnixAccess,
) -> Result<Listener, ServeError> {
    Listener::bind(listen, access)
        .await
        .map_err(|source| ServeError::Bind {
            server: name.to_owned(),
            source,
        })
}

/// The loop itself; returns after the token was cancelled and all connections are done.
async fn connections(
    listener: Listener,
    tls: Option<ServerTls>,
    router: Router,
    token: CancellationToken,
) {
    let tracker = TaskTracker::new();
    let kill = CancellationToken::new();
    let _kill_on_drop = kill.clone().drop_guard();
    let context = Connection {
        router,
        token: token.clone(),
        kill,
        tracker: tracker.clone(),
    };
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((io, addr)) => {
                let context = context.clone();
                let kill = context.kill.clone();
                let tls = match &tls {
                    None => None,
                    Some(tls) => match tls.current() {
                        Some(config) => Some(config),
                        None => {
                            tracing::debug!(peer = %addr, "hung up: there are no credentials yet");
                            continue;
                        }
                    },
                };
                let serving = async move {
                    kill.run_until_cancelled(Box::pin(context.serve(io, addr, tls)))
                        .await;
                };
                tracker.spawn(serving.in_current_span());
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    drop(context);
    tracker.close();
    tracker.wait().await;
}

#[derive(Clone)]
struct Connection {
    router: Router,
    token: CancellationToken,
    kill: CancellationToken,
    tracker: TaskTracker,
}

impl Connection {
    async fn serve(self, io: Io, addr: PeerAddr, tls: Option<Arc<ServerConfig>>) {
        let mut peer = Peer::new(addr);
        let Some(config) = tls else {
            return self.serve_http(io, peer).await;
        };
        let handshake = TlsAcceptor::from(config).accept(io);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => {
                if let Some(chain) = stream.get_ref().1.peer_certificates() {
                    peer.certificates = chain
                        .iter()
                        .map(|certificate| certificate.clone().into_owned())
                        .collect();
                }
                self.serve_http(stream, peer).await;
            }
            Ok(Err(error)) => tracing::debug!(peer = %addr, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(peer = %addr, "TLS handshake took too long"),
        }
    }

    async fn serve_http(
        self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
    ) {
        let executor = Streams {
            kill: self.kill,
            tracker: self.tracker,
        };
        let mut builder = auto::Builder::new(executor);
        builder.http1().timer(TokioTimer::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        let router = self.router;
        let addr = peer.addr;
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            router.clone().oneshot(request)
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.token.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %addr, %error, "connection ended");
        }
    }
}

/// Runs the streams of HTTP/2 connections so that none outlives the loop.
#[derive(Clone)]
struct Streams {
    kill: CancellationToken,
    tracker: TaskTracker,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let kill = self.kill.clone();
        let stream = async move {
            kill.run_until_cancelled(future).await;
        };
        self.tracker.spawn(stream.in_current_span());
    }
}
