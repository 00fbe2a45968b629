//! Requests to the API server over one HTTP/2 connection that is asked for signs of life.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::access::{Access, Token};
use crate::config::{KubeConfig, OpenError, Times};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What carries requests. One to the API server has a path only, one to a kubelet names it (`https://host:port/path`).
/// Tests have one without a network.
pub(crate) trait Transport: Send + Sync + 'static {
    /// Sends a request and gives the head of the answer.
    fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> BoxFuture<'static, Result<Response<Body>, BoxError>>;

    /// Whom it reaches, for messages.
    fn server(&self) -> &str;
}

type Connections = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// How long a token and an authority are used before their files are looked at again. The kubelet replaces a token at
/// four fifths of its life, which is ten minutes at least.
const FRESH: Duration = Duration::from_secs(60);

/// What may wait in one answer until it is read, and in all of them: a log nobody reads must not hold up the watches.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// The real one.
pub(crate) struct Network {
    access: Access,
    times: Times,
    current: Mutex<Current>,
}

struct Current {
    connections: Connections,
    kubelets: Connections,
    authorization: Option<HeaderValue>,
    authority: Vec<u8>,
    read: Instant,
}

impl Network {
    /// Finds the way; nothing is asked of the API server.
    pub(crate) fn open(config: &KubeConfig) -> Result<Self, OpenError> {
        let access = Access::open(config)?;
        let (connections, kubelets) = connections(&access, &access.authority, config.times)?;
        let authorization = authorization(&access.token)?;
        Ok(Self {
            current: Mutex::new(Current {
                connections,
                kubelets,
                authorization,
                authority: access.authority.clone(),
                read: Instant::now(),
            }),
            times: config.times,
            access,
        })
    }

    /// The connections and the token, as the files have them now.
    fn current(&self, kubelet: bool) -> (Connections, Option<HeaderValue>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.read.elapsed() >= FRESH {
            current.read = Instant::now();
            self.refresh(&mut current);
        }
        let connections = if kubelet {
            &current.kubelets
        } else {
            &current.connections
        };
        (connections.clone(), current.authorization.clone())
    }

    /// Reads token and authority again; what cannot be read stays as it was, and the API server's answer tells.
    fn refresh(&self, current: &mut Current) {
        match authorization(&self.access.token) {
            Ok(authorization) => current.authorization = authorization,
            Err(error) => tracing::warn!(%error, "the token for the API server stays as it was"),
        }
        let Some(file) = &self.access.authority_file else {
            return;
        };
        let Ok(authority) = fs::read(file) else {
            return;
        };
        if current.authority == authority {
            return;
        }
        match connections(&self.access, &authority, self.times) {
            Ok((connections, kubelets)) => {
                current.connections = connections;
                current.kubelets = kubelets;
                current.authority = authority;
            }
            Err(error) => {
                tracing::warn!(%error, file = %file.display(), "the API server's authority stays as it was");
            }
        }
    }
}

/// The value of the header.
fn authorization(token: &Token) -> Result<Option<HeaderValue>, OpenError> {
    let text = match token {
        Token::None => return Ok(None),
        Token::Fixed(token) => token.clone(),
        Token::File(path) => fs::read_to_string(path).map_err(|source| OpenError::Read {
            path: path.clone(),
            source,
        })?,
    };
    let mut value = HeaderValue::try_from(format!("Bearer {}", text.trim())).map_err(|error| {
        OpenError::Tls {
            what: "the token",
            source: error.into(),
        }
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Those to the API server, and those to kubelets: the same authority speaks for both.
fn connections(
    access: &Access,
    authority: &[u8],
    times: Times,
) -> Result<(Connections, Connections), OpenError> {
    let tls = access.tls(authority)?;
    let builder = || {
        HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_only()
    };
    let named = match &access.server_name {
        None => builder(),
        Some(name) => {
            let name = ServerName::try_from(name.clone()).map_err(|error| OpenError::Tls {
                what: "tls-server-name",
                source: error.into(),
            })?;
            builder().with_server_name_resolver(FixedServerNameResolver::new(name))
        }
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(times.ping));
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    let mut client = Client::builder(TokioExecutor::new());
    client
        .http2_only(true)
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(2)
        .http2_initial_stream_window_size(STREAM_WINDOW);
    // Nobody waits for a kubelet: it is asked for no sign of life.
    let kubelets = client.build(builder().enable_http2().wrap_connector(tcp.clone()));
    let server = client
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(times.ping)
        .http2_keep_alive_timeout(times.ping)
        .http2_keep_alive_while_idle(true)
        .build(named.enable_http2().wrap_connector(tcp));
    Ok((server, kubelets))
}

impl Transport for Network {
    fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> BoxFuture<'static, Result<Response<Body>, BoxError>> {
        let kubelet = request.uri().authority().is_some();
        let (connections, authorization) = self.current(kubelet);
        let uri = if kubelet {
            request.uri().to_string()
        } else {
            format!("{}{}", self.access.server, request.uri())
        };
        async move {
            *request.uri_mut() = Uri::try_from(uri)?;
            let headers = request.headers_mut();
            headers.insert(USER_AGENT, HeaderValue::from_static("baetyl-engine"));
            if let Some(authorization) = authorization {
                headers.insert(AUTHORIZATION, authorization);
            }
            let response = connections.request(request).await?;
            Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
        }
        .boxed()
    }

    fn server(&self) -> &str {
        &self.access.server
    }
}
