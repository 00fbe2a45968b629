//! REST client: one request, one JSON answer, errors in the cloud's own words.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::context::Target;

/// A cloud that has not answered by then is not going to: it answers in milliseconds, and bodies have at most 4 MiB.
const PATIENCE: Duration = Duration::from_secs(60);

/// Talks to one cloud with one token.
pub(crate) struct Client {
    pool: Https,
    server: String,
    token: String,
}

/// Connections over HTTP and HTTPS.
pub(crate) type Https = Pool<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What the cloud answered to a failed request.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    text: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.text, self.status.as_u16())
    }
}

impl std::error::Error for Refused {}

impl Client {
    /// A client for the target; reads the token file.
    ///
    /// # Errors
    /// When the token or authority file is not readable.
    pub(crate) fn new(target: &Target) -> Result<Self> {
        let token = fs::read_to_string(&target.token_file).with_context(|| {
            format!("cannot read the token file {}", target.token_file.display())
        })?;
        Ok(Self {
            pool: https(target.ca_file.as_deref())?,
            server: target.server.trim_end_matches('/').to_owned(),
            token: token.trim().to_owned(),
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.send(Method::GET, path, None, None).await?.0)
    }

    /// The resource and its entity tag, or nothing when it does not exist.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<(Value, Option<String>)>> {
        match self.send(Method::GET, path, None, None).await {
            Ok(found) => Ok(Some(found)),
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(refused) if refused.status == StatusCode::NOT_FOUND => Ok(None),
                _ => Err(error),
            },
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        Ok(self.send(Method::POST, path, Some(body), None).await?.0)
    }

    pub(crate) async fn put(
        &self,
        path: &str,
        body: &Value,
        if_match: Option<&str>,
    ) -> Result<Value> {
        Ok(self.send(Method::PUT, path, Some(body), if_match).await?.0)
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Value> {
        Ok(self.send(Method::DELETE, path, None, None).await?.0)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Result<(Value, Option<String>)> {
        let exchange = self.exchange(method, path, body, if_match);
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .with_context(|| {
                format!(
                    "the cloud at {} did not answer within {PATIENCE:?}",
                    self.server
                )
            })?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Result<(Value, Option<String>)> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header(
                http::header::AUTHORIZATION,
                format!("Bearer {}", self.token),
            )
            .header(http::header::ACCEPT, "application/json");
        if let Some(tag) = if_match {
            request = request.header(http::header::IF_MATCH, tag);
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(http::header::CONTENT_TYPE, "application/json");
                Bytes::from(serde_json::to_vec(body)?)
            }
            None => Bytes::new(),
        };
        let request = request
            .body(Full::new(bytes))
            .with_context(|| format!("{} is no address", self.server))?;
        let response = self
            .pool
            .request(request)
            .await
            .with_context(|| format!("the cloud at {} does not answer", self.server))?;
        let status = response.status();
        for warning in response.headers().get_all(http::header::WARNING) {
            eprintln!("warning: {}", warning.to_str().unwrap_or("(not text)"));
        }
        let tag = response
            .headers()
            .get(http::header::ETAG)
            .and_then(|tag| tag.to_str().ok())
            .map(ToOwned::to_owned);
        let bytes = response
            .into_body()
            .collect()
            .await
            .context("the answer broke off")?
            .to_bytes();
        if !status.is_success() {
            let text = serde_json::from_slice::<Value>(&bytes)
                .ok()
                .and_then(|body| body["message"].as_str().map(ToOwned::to_owned))
                .unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned());
            return Err(Refused { status, text }.into());
        }
        if bytes.is_empty() {
            return Ok((Value::Null, tag));
        }
        Ok((
            serde_json::from_slice(&bytes)
                .context("the cloud answered something that is not JSON")?,
            tag,
        ))
    }
}

/// A client that knows https servers by the authority in the file, or by those of the web.
///
/// # Errors
/// When the file holds no authority.
pub(crate) fn https(ca_file: Option<&Path>) -> Result<Https> {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls(ca_file)?)
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Pool::builder(TokioExecutor::new()).build(connector))
}

fn tls(ca_file: Option<&Path>) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path)
                .with_context(|| format!("cannot read the authority file {}", path.display()))?;
            for certificate in certificates {
                roots
                    .add(certificate.with_context(|| format!("{} is not PEM", path.display()))?)?;
            }
            if roots.is_empty() {
                bail!("{} holds no certificate", path.display());
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Percent-encodes a query value.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time passes at once while nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn a_cloud_that_takes_the_request_and_says_nothing_is_given_up() {
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("token");
        fs::write(&token_file, "t").unwrap();
        let client = Client::new(&Target {
            server: format!("http://{}", silent.local_addr().unwrap()),
            token_file,
            ca_file: None,
        })
        .unwrap();
        let error = client.get("/v1/nodes").await.unwrap_err();
        assert!(
            error.to_string().contains("did not answer within"),
            "{error:#}"
        );
    }
}
