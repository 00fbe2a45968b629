//! REST calls of an operator of the fleet.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// Label that all nodes of the fleet carry.
const LABEL: &str = "fleet";

/// One cloud and one token.
pub(crate) struct Cloud {
    pool: Client<HttpConnector, Full<Bytes>>,
    server: String,
    token: String,
}

/// What an install command says.
pub(crate) struct Install {
    pub(crate) url: String,
    pub(crate) pin: String,
    pub(crate) token: String,
}

impl Cloud {
    pub(crate) fn new(server: &str, token: &str) -> Self {
        let pool = Client::builder(TokioExecutor::new()).build_http();
        Self {
            pool,
            server: server.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", self.server))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json");
        let bytes = body
            .map(serde_json::to_vec)
            .transpose()?
            .unwrap_or_default();
        let response = self
            .pool
            .request(request.body(Full::new(bytes.into()))?)
            .await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!(
                "{method} {path}: {status} {}",
                String::from_utf8_lossy(&bytes)
            );
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Creates a node and fetches its install command.
    pub(crate) async fn describe(&self, name: &str) -> Result<Install> {
        let node = json!({"name": name, "nodeMode": "native", "labels": {LABEL: "yes"}});
        self.send(Method::POST, "/v1/nodes", Some(&node)).await?;
        let answer = self
            .send(
                Method::GET,
                &format!("/v1/nodes/{name}/init?mode=native"),
                None,
            )
            .await?;
        let command = answer["cmd"].as_str().context("no install command")?;
        let after = |word: &str| {
            let rest = command.split_once(word).map(|(_, rest)| rest);
            let value = rest.and_then(|rest| rest.split_whitespace().next());
            value
                .map(ToOwned::to_owned)
                .with_context(|| format!("no {word} in {command}"))
        };
        Ok(Install {
            url: after("--activate-url ")?,
            pin: after("--activate-ca-pin ")?,
            token: after("BAETYL_INIT__TOKEN=")?,
        })
    }

    /// Makes the next version of the application all nodes run; answers its version.
    pub(crate) async fn change(&self, number: usize) -> Result<String> {
        let app = json!({
            "name": "fleet-app", "type": "container", "mode": "native", "selector": format!("{LABEL}=yes"),
            "services": [{
                "name": "main", "command": ["/bin/sleep"], "args": ["1000"],
                "env": [{"name": "CHANGE", "value": number.to_string()}],
            }],
            "volumes": [],
        });
        let made = if number == 0 {
            self.send(Method::POST, "/v1/apps", Some(&app)).await?
        } else {
            self.send(Method::PUT, "/v1/apps/fleet-app", Some(&app))
                .await?
        };
        Ok(made["version"].as_str().context("no version")?.to_owned())
    }
}
