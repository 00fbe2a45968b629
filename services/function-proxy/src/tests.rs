//! The real proxy on port 0, with a scripted engine and runtimes that do what a test says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use baetyl_kit::Kit;
use baetyl_kit::crypto::SigningKey;
use baetyl_kit::grpc::{Client, Connect, Endpoint, connect_lazy};
use baetyl_kit::listen::Listen;
use baetyl_proto::engine::{Endpoint as AppEndpoint, FunctionInfo};
use baetyl_proto::faas::function_client::FunctionClient;
use baetyl_proto::function::function_service_client::FunctionServiceClient;
use baetyl_proto::token::{Claims, issue};
use baetyl_testkit::{PATIENCE, TestDir, eventually, until};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioExecutor;

use crate::Config;

mod auth;
mod bounds;
mod engine;
mod grpc;
mod http_calls;
mod python;
mod runtime;
mod runtimes;
mod tls;

use engine::FakeEngine;
use runtime::Runtime;

/// A proxy with its surroundings.
struct World {
    dir: TestDir,
    kit: Kit,
    config: Config,
    key: SigningKey,
    engine: FakeEngine,
}

impl World {
    /// A running proxy; engine has not told anything yet.
    async fn silent(change: impl FnOnce(&mut Config)) -> Self {
        let dir = TestDir::new();
        let mut config = Config::default();
        config.http.listen = Listen::loopback();
        config.grpc.listen = Listen::loopback();
        change(&mut config);
        let engine = FakeEngine::start(dir.path()).await;
        let kit = start(&dir, &config).await;
        let key = SigningKey::generate().unwrap();
        Self {
            dir,
            kit,
            config,
            key,
            engine,
        }
    }

    /// A running proxy that knows these applications, each with function `f`, and whose access is given.
    async fn new(apps: &[(&str, &str)], change: impl FnOnce(&mut Config)) -> Self {
        let world = Self::silent(change).await;
        world.tell(
            apps.iter()
                .map(|(app, access)| endpoint(app, &["f"], access))
                .collect(),
        );
        tokio::time::timeout(PATIENCE, world.kit.readiness().until_ready())
            .await
            .unwrap();
        world
    }

    /// As above, with one open application `greet`.
    async fn greet() -> Self {
        Self::new(&[("greet", "anonymous")], |_| ()).await
    }

    /// Stops the proxy and starts another one.
    async fn restart(&mut self) {
        self.kit.stop(PATIENCE).await.unwrap();
        self.kit = start(&self.dir, &self.config).await;
    }

    fn tell(&self, endpoints: Vec<AppEndpoint>) {
        self.engine.tell(endpoints, &self.key);
    }

    fn token(&self, app: &str) -> String {
        token(&self.key, app, app, &format!("{app}.1"))
    }

    fn address(&self, name: &str) -> SocketAddr {
        let path = self
            .dir
            .path()
            .join(format!("run/function-proxy-{name}.addr"));
        std::fs::read_to_string(path)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    /// A call over HTTP with these headers.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let uri = format!("http://{}{path}", self.address("http"));
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .build_http::<Full<Bytes>>();
        let sending = client.request(request.body(Full::new(body.into())).unwrap());
        let response = tokio::time::timeout(PATIENCE, sending)
            .await
            .expect("no answer came")
            .unwrap();
        let (parts, body) = response.into_parts();
        Answer(Response::from_parts(
            parts,
            body.collect().await.unwrap().to_bytes(),
        ))
    }

    async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Method::POST, path, &[], body).await
    }

    /// Clients of the gRPC listener; with the token, if there is one.
    fn grpc(&self, token: Option<&str>) -> (FunctionServiceClient<Client>, FunctionClient<Client>) {
        let mut connect = Connect::new(Endpoint::Http(self.address("grpc").to_string()));
        if let Some(token) = token {
            connect = connect.bearer(token);
        }
        clients(connect.lazy().unwrap())
    }

    /// Clients of the core socket in this role.
    fn core(&self, role: &str) -> (FunctionServiceClient<Client>, FunctionClient<Client>) {
        clients(
            connect_lazy(
                &Endpoint::unix(self.kit.core_socket("function-proxy")),
                role,
            )
            .unwrap(),
        )
    }

    /// A registered runtime of the application with function `f`.
    async fn runtime(&self, app: &str, concurrency: u32) -> Runtime {
        Runtime::register(self, app, &format!("{app}.1"), &["f"], concurrency)
            .await
            .unwrap()
    }

    /// Waits until the metrics have this line.
    async fn until_metric(&self, line: &str) {
        until(PATIENCE, line, async || {
            let metrics = self.kit.metrics().render();
            if metrics.lines().any(|found| found == line) {
                Ok(())
            } else {
                Err(metrics)
            }
        })
        .await;
    }
}

async fn start(dir: &TestDir, config: &Config) -> Kit {
    let kit = Kit::new(
        "function-proxy",
        dir.path(),
        baetyl_kit::clock::Clock::system(),
    );
    kit.tasks()
        .spawn_required("run", crate::run(config.clone(), kit.clone()));
    let http = dir.path().join("run/function-proxy-http.addr");
    let _ = std::fs::remove_file(&http);
    eventually!(http.exists(), "the proxy listens");
    kit
}

fn clients(channel: Client) -> (FunctionServiceClient<Client>, FunctionClient<Client>) {
    const MOST: usize = 8 * 1024 * 1024;
    let own = FunctionServiceClient::new(channel.clone());
    let v2 = FunctionClient::new(channel);
    (
        own.max_decoding_message_size(MOST)
            .max_encoding_message_size(MOST),
        v2.max_decoding_message_size(MOST)
            .max_encoding_message_size(MOST),
    )
}

fn token(key: &SigningKey, app: &str, service: &str, instance: &str) -> String {
    let claims = Claims {
        app: app.to_owned(),
        service: service.to_owned(),
        instance: instance.to_owned(),
        iat: 0,
    };
    issue(&claims, |bytes| key.sign(bytes))
}

fn endpoint(app: &str, functions: &[&str], access: &str) -> AppEndpoint {
    let info = |name: &&str| FunctionInfo {
        name: (*name).to_owned(),
        handler: format!("index.{name}"),
    };
    AppEndpoint {
        app: app.to_owned(),
        service: app.to_owned(),
        instance: format!("{app}.1"),
        functions: functions.iter().map(info).collect(),
        access: access.to_owned(),
        ready: true,
        ..AppEndpoint::default()
    }
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// What came back over HTTP.
#[derive(Debug)]
struct Answer(Response<Bytes>);

impl Answer {
    fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    fn header(&self, name: &str) -> &str {
        self.0
            .headers()
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    fn body(&self) -> &[u8] {
        self.0.body()
    }

    /// `(status, errCode, message)` of an error, which is JSON.
    fn error(&self) -> (u16, String, String) {
        assert_eq!(self.header("content-type"), "application/json");
        let body: serde_json::Value = serde_json::from_slice(self.body()).unwrap();
        let text = |key: &str| body[key].as_str().unwrap().to_owned();
        (self.status(), text("errCode"), text("message"))
    }
}
