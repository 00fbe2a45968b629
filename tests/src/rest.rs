//! A REST client for tests: status, headers and JSON of every answer, nothing hidden.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// One server and one bearer token (or none).
#[derive(Clone, Debug)]
pub struct Rest {
    pool: Client<HttpConnector, Full<Bytes>>,
    base: String,
    token: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body as it came.
    pub bytes: Bytes,
}

impl Answer {
    /// The body as JSON; `null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    /// The JSON of a success.
    ///
    /// # Errors
    /// When the status is no success; with the body.
    pub fn ok(self) -> Result<Value> {
        if !self.status.is_success() {
            bail!("{}: {}", self.status, String::from_utf8_lossy(&self.bytes));
        }
        Ok(self.json())
    }
}

impl Rest {
    /// A client of `base` (`http://host:port`).
    #[must_use]
    pub fn new(base: &str, token: Option<&str>) -> Self {
        Self {
            pool: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(1)
                .build_http(),
            base: base.to_owned(),
            token: token.map(ToOwned::to_owned),
        }
    }

    /// The same server with another token.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self {
            token: token.map(ToOwned::to_owned),
            ..self.clone()
        }
    }

    /// The same server and token over connections of its own.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::new(&self.base, self.token.as_deref())
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let response = self
            .pool
            .request(request)
            .await
            .with_context(|| format!("{} does not answer", self.base))?;
        let (parts, body) = response.into_parts();
        let bytes = body
            .collect()
            .await
            .context("the answer broke off")?
            .to_bytes();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            bytes,
        })
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn json(&self, method: Method, path: &str, body: &Value) -> Result<Answer> {
        let bytes = Bytes::from(serde_json::to_vec(body)?);
        self.send(method, path, &[("content-type", "application/json")], bytes)
            .await
    }

    /// GET, JSON of a success.
    ///
    /// # Errors
    /// When it is none.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, &[], Bytes::new())
            .await?
            .ok()
            .with_context(|| format!("GET {path}"))
    }

    /// POST, JSON of a success.
    ///
    /// # Errors
    /// When it is none.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(Method::POST, path, body)
            .await?
            .ok()
            .with_context(|| format!("POST {path}"))
    }

    /// PUT, JSON of a success.
    ///
    /// # Errors
    /// When it is none.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(Method::PUT, path, body)
            .await?
            .ok()
            .with_context(|| format!("PUT {path}"))
    }

    /// DELETE, JSON of a success.
    ///
    /// # Errors
    /// When it is none.
    pub async fn delete(&self, path: &str) -> Result<Value> {
        self.send(Method::DELETE, path, &[], Bytes::new())
            .await?
            .ok()
            .with_context(|| format!("DELETE {path}"))
    }
}
