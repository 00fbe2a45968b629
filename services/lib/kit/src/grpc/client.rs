//! Channels that connect when they are used and again after every loss.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tower::Service;

use super::ROLE;
use crate::listen::Listen;
use crate::tls::{CertificateInfo, ServiceIdentity};
use crate::trace::{TRACEPARENT, TraceContext};

/// A channel that names our role and carries the trace context: what generated clients are made with
/// (`NodeServiceClient::new(client)`). Cheap to clone; clones share the connection.
pub type Client = InterceptedService<Channel, Outgoing>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer: `"unix:/path"`, `"http://host:port"` or `"https://host:port"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// Plain HTTP/2 (host and port).
    Http(String),
    /// HTTP/2 over TLS (host and port).
    Https(String),
}

/// The text names no peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no endpoint; write \"unix:/absolute/path\", \"http://host:port\" or \"https://host:port\""
)]
pub struct EndpointError(String);

impl Endpoint {
    /// The Unix socket at `path`.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(path.into())
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = || EndpointError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if Path::new(path).is_absolute() {
                Ok(Self::Unix(path.into()))
            } else {
                Err(error())
            };
        }
        let uri: Uri = text.parse().map_err(|_| error())?;
        let (Some(host), true) = (
            uri.host(),
            matches!(uri.path(), "" | "/") && uri.query().is_none(),
        ) else {
            return Err(error());
        };
        match uri.scheme_str() {
            Some("http") => Ok(Self::Http(format!(
                "{host}:{}",
                uri.port_u16().unwrap_or(80)
            ))),
            Some("https") => Ok(Self::Https(format!(
                "{host}:{}",
                uri.port_u16().unwrap_or(443)
            ))),
            _ => Err(error()),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

/// The bound address of a server without TLS.
impl From<&Listen> for Endpoint {
    fn from(listen: &Listen) -> Self {
        match listen {
            Listen::Unix(path) => Self::Unix(path.clone()),
            Listen::Tcp(addr) => Self::Http(addr.to_string()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https(authority) => write!(f, "https://{authority}"),
        }
    }
}

/// The TLS configuration of a client, fixed or replaceable (new connections use the newest).
#[derive(Clone, Debug)]
pub enum ClientTls {
    /// Never changes.
    Fixed(Arc<ClientConfig>),
    /// Replaced by its sender, for example after a renewal.
    Watched(watch::Receiver<Arc<ClientConfig>>),
    /// The identity of a service inside its node. Without credentials no connection comes about.
    Identity(ServiceIdentity),
}

impl ClientTls {
    fn current(&self) -> io::Result<Arc<ClientConfig>> {
        match self {
            Self::Fixed(config) => Ok(Arc::clone(config)),
            Self::Watched(receiver) => Ok(Arc::clone(&receiver.borrow())),
            Self::Identity(identity) => identity.client(),
        }
    }
}

impl From<ServiceIdentity> for ClientTls {
    fn from(identity: ServiceIdentity) -> Self {
        Self::Identity(identity)
    }
}

impl From<Arc<ClientConfig>> for ClientTls {
    fn from(config: Arc<ClientConfig>) -> Self {
        Self::Fixed(config)
    }
}

impl From<watch::Receiver<Arc<ClientConfig>>> for ClientTls {
    fn from(receiver: watch::Receiver<Arc<ClientConfig>>) -> Self {
        Self::Watched(receiver)
    }
}

/// Why there is no channel. Not being connected is no such reason: a channel connects when it is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// `https` without a TLS configuration.
    #[error("{0} needs a TLS configuration; give one or use http")]
    NeedsTls(Endpoint),
    /// Another service of the node by `https`, and this one has no identity.
    #[error(
        "{0} wants to know who calls and this service has no certificate; name their directory in tls.dir, or use a Unix socket"
    )]
    NoIdentity(Endpoint),
    /// The host cannot be used as a name.
    #[error("{0} has no host that can be a TLS server name")]
    BadHost(Endpoint),
    /// A role or token with characters that metadata cannot carry.
    #[error("the role or token for {0} has characters that gRPC metadata cannot carry")]
    BadMetadata(Endpoint),
}

/// A channel to `endpoint` that names `role` with each call. Needs a running tokio runtime.
///
/// # Errors
/// For `https` (use [`Connect`] with a TLS configuration) and for a role that is not plain text.
pub fn connect_lazy(endpoint: &Endpoint, role: &str) -> Result<Client, ConnectError> {
    Connect::new(endpoint.clone()).role(role).lazy()
}

/// All that can be said about a channel before it is made.
#[derive(Clone, Debug)]
pub struct Connect {
    endpoint: Endpoint,
    role: Option<String>,
    bearer: Option<String>,
    tls: Option<ClientTls>,
    server_name: Option<String>,
    server_id: Option<String>,
    keepalive: Option<Duration>,
    connect_timeout: Duration,
}

impl Connect {
    /// To this peer, without role, token or TLS.
    pub fn new(endpoint: Endpoint) -> Self {
        // The kernel tells at once when a local peer goes; over a network only asking helps.
        let keepalive = match endpoint {
            Endpoint::Unix(_) => None,
            Endpoint::Http(_) | Endpoint::Https(_) => Some(Duration::from_secs(30)),
        };
        Self {
            endpoint,
            role: None,
            bearer: None,
            tls: None,
            server_name: None,
            server_id: None,
            keepalive,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }

    /// Names our role with each call.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.role = Some(role.into());
        self
    }

    /// Sends `authorization: Bearer <token>` with each call.
    #[must_use]
    pub fn bearer(mut self, token: impl Into<String>) -> Self {
        self.bearer = Some(token.into());
        self
    }

    /// The TLS configuration for `https`. It must offer ALPN `h2`, as those of [`crate::tls`] do.
    #[must_use]
    pub fn tls(mut self, tls: impl Into<ClientTls>) -> Self {
        self.tls = Some(tls.into());
        self
    }

    /// Expects this name in the server's certificate instead of the host of the endpoint.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Expects this SPIFFE id in the server's certificate besides its name. Says nothing about other ways than `https`.
    #[must_use]
    pub fn server_id(mut self, id: impl Into<String>) -> Self {
        self.server_id = Some(id.into());
        self
    }

    /// How often an idle connection is asked whether it is still there; None: never.
    #[must_use]
    pub fn keepalive(mut self, interval: Option<Duration>) -> Self {
        self.keepalive = interval;
        self
    }

    /// How long one attempt to connect may take (default 10 s).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The channel. It connects when it is used. Needs a running tokio runtime.
    ///
    /// # Errors
    /// When what was given does not go together.
    pub fn lazy(self) -> Result<Client, ConnectError> {
        let outgoing = Outgoing {
            role: self.metadata(self.role.clone())?,
            bearer: self.metadata(self.bearer.as_ref().map(|token| format!("Bearer {token}")))?,
        };
        let channel = self.channel()?;
        Ok(InterceptedService::new(channel, outgoing))
    }

    fn metadata(&self, text: Option<String>) -> Result<Option<MetadataValue<Ascii>>, ConnectError> {
        text.map(|text| text.parse())
            .transpose()
            .map_err(|_| ConnectError::BadMetadata(self.endpoint.clone()))
    }

    fn channel(&self) -> Result<Channel, ConnectError> {
        let bad_host = || ConnectError::BadHost(self.endpoint.clone());
        let (target, authority) = match &self.endpoint {
            Endpoint::Unix(path) => (Target::Unix(path.clone()), "localhost"),
            Endpoint::Http(authority) => (Target::Tcp(authority.clone()), authority.as_str()),
            Endpoint::Https(authority) => {
                let tls = self
                    .tls
                    .clone()
                    .ok_or_else(|| ConnectError::NeedsTls(self.endpoint.clone()))?;
                let host = authority.rsplit_once(':').map_or("", |(host, _)| host);
                let host = self.server_name.as_deref().unwrap_or(host);
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                    .map_err(|_| bad_host())?;
                let secured = Secured {
                    authority: authority.clone(),
                    name,
                    tls,
                    id: self.server_id.clone(),
                };
                (Target::Tls(Box::new(secured)), authority.as_str())
            }
        };
        // Always `http` for tonic, which refuses `https` without its own TLS; the connector speaks TLS, and
        // the origin says so to the server.
        let scheme = match target {
            Target::Tls(..) => "https",
            Target::Unix(_) | Target::Tcp(_) => "http",
        };
        let origin: Uri = format!("{scheme}://{authority}")
            .parse()
            .map_err(|_| bad_host())?;
        let mut endpoint = tonic::transport::Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|_| bad_host())?
            .origin(origin)
            .connect_timeout(self.connect_timeout);
        if let Some(interval) = self.keepalive {
            endpoint = endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(interval)
                .keep_alive_while_idle(true);
        }
        Ok(endpoint.connect_with_connector_lazy(Connector(target)))
    }
}

/// Adds role, token and trace context to each call.
#[derive(Clone, Debug)]
pub struct Outgoing {
    role: Option<MetadataValue<Ascii>>,
    bearer: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Outgoing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(role) = &self.role {
            metadata.insert(ROLE, role.clone());
        }
        if let Some(bearer) = &self.bearer {
            metadata.insert("authorization", bearer.clone());
        }
        if let Some(context) = TraceContext::current()
            && let Ok(value) = context.to_string().parse()
        {
            metadata.insert(TRACEPARENT, value);
        }
        Ok(request)
    }
}

#[derive(Clone, Debug)]
enum Target {
    Unix(PathBuf),
    Tcp(String),
    Tls(Box<Secured>),
}

#[derive(Clone, Debug)]
struct Secured {
    authority: String,
    name: ServerName<'static>,
    tls: ClientTls,
    id: Option<String>,
}

impl Secured {
    async fn connect(self) -> io::Result<TlsStream<TcpStream>> {
        let config = self.tls.current()?;
        let stream = tcp(&self.authority).await?;
        let stream = TlsConnector::from(config)
            .connect(self.name, stream)
            .await?;
        if let Some(id) = &self.id {
            check_id(&stream, &self.authority, id)?;
        }
        Ok(stream)
    }
}

/// Before a byte of ours is sent.
fn check_id(stream: &TlsStream<TcpStream>, authority: &str, expected: &str) -> io::Result<()> {
    let shown = stream.get_ref().1.peer_certificates();
    let info = shown
        .and_then(|chain| chain.first())
        .and_then(|certificate| CertificateInfo::parse(certificate).ok());
    match info.as_ref().and_then(CertificateInfo::spiffe_id) {
        Some(id) if id == expected => Ok(()),
        other => Err(io::Error::other(format!(
            "{authority} is {} and not {expected}",
            other.unwrap_or("nobody in particular")
        ))),
    }
}

#[derive(Clone, Debug)]
struct Connector(Target);

/// A connection of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let target = self.0.clone();
        Box::pin(async move {
            let connected: Box<dyn Stream> = match target {
                Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Target::Tcp(authority) => Box::new(tcp(&authority).await?),
                Target::Tls(secured) => Box::new(secured.connect().await?),
            };
            Ok(TokioIo::new(connected))
        })
    }
}

async fn tcp(authority: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_socket_or_a_host_with_a_port() {
        for (text, shown) in [
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("http://127.0.0.1:5", "http://127.0.0.1:5"),
            ("https://cloud.example", "https://cloud.example:443"),
            ("https://[::1]:9005", "https://[::1]:9005"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown);
        }
        for text in ["", "cloud:9005", "unix:x", "ftp://a:1", "http://a:1/path"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn https_wants_a_tls_configuration() {
        let endpoint: Endpoint = "https://cloud.example:9005".parse().unwrap();
        let error = connect_lazy(&endpoint, "sync").unwrap_err();
        assert_eq!(error, ConnectError::NeedsTls(endpoint));
    }

    #[tokio::test]
    async fn a_role_must_be_plain_text() {
        let endpoint = Endpoint::unix("/run/x.sock");
        assert!(matches!(
            connect_lazy(&endpoint, "sy\nnc"),
            Err(ConnectError::BadMetadata(_))
        ));
    }
}
