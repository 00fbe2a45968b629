//! The interface as its callers see it: the real router over a real database in a temporary directory.

mod access;
mod apps;
mod bad_input;
mod bodies;
mod compatibility;
mod conditions;
mod functions;
mod installation;
mod nodes;
mod objects;
mod secrets;

use axum::Router;
use axum::body::Body;
use baetyl_kit::clock::Clock;
use baetyl_kit::metrics::Metrics;
use baetyl_model::Namespace;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{Deps, router};
use crate::auth::{Tokens, create_token};
use crate::catalog::applications::Runtimes;
use crate::install::kube::{CoreConfig, KubeInstall};
use crate::install::{InstallConfig, InstallTokens};
use crate::objects::{Objects, ObjectsConfig};
use crate::pki::{Pki, PkiConfig};
use crate::report::{ReportConfig, Reports};
use crate::seal::Seal;
use crate::store::tests::{Fixture, by, fixture};
use crate::store::{Role, Store};

/// A cloud without listeners.
pub(crate) struct TestCloud {
    pub(crate) store: Store,
    pub(crate) namespace: Namespace,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) reports: Reports,
    router: Router,
    token: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Baetyl v2's code of an error.
    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// Fields with mistakes.
    fn fields(&self) -> Vec<&str> {
        let errors = self.body["errors"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        errors
            .iter()
            .map(|error| error["field"].as_str().unwrap_or_default())
            .collect()
    }
}

pub(crate) async fn cloud() -> TestCloud {
    let Fixture {
        store,
        namespace,
        dir,
    } = fixture().await;
    let clock = Clock::system();
    let seal = Seal::open_dir(dir.path()).unwrap();
    let pki = Pki::open(
        &store,
        &seal,
        PkiConfig::default(),
        &["127.0.0.1".to_owned()],
        clock.clone(),
    )
    .await
    .unwrap();
    let reports = Reports::new(store.clone(), ReportConfig::default(), clock.clone()).0;
    let router = router(Deps {
        store: store.clone(),
        objects: Objects::open(&dir.path().join("objects"), &ObjectsConfig::default()).unwrap(),
        authenticator: std::sync::Arc::new(Tokens::new(store.clone())),
        runtimes: Runtimes::new([("python3".to_owned(), "registry/python3:1".to_owned())].into()),
        reports: reports.clone(),
        install: InstallTokens::new(pki.clone(), store.clone(), InstallConfig::default()),
        kube: KubeInstall::new(
            pki,
            CoreConfig {
                versions: vec!["0.9.1".to_owned()],
                ..CoreConfig::default()
            },
            "https://cloud.example:9003".to_owned(),
        ),
        clock,
        metrics: Metrics::new("cloud"),
    });
    let token = create_token(&store, &namespace, "test", Role::Admin, &by())
        .await
        .unwrap();
    TestCloud {
        store,
        namespace,
        dir,
        reports,
        router,
        token,
    }
}

impl TestCloud {
    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
            text,
        }
    }

    /// With the admin token and these headers.
    pub(crate) async fn call_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    /// With another token.
    async fn call_as(&self, token: &str, method: Method, path: &str, body: &Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"));
        self.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call_with(Method::GET, path, &[], Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call_with(Method::POST, path, &[], body.to_string())
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call_with(Method::PUT, path, &[], body.to_string())
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call_with(Method::DELETE, path, &[], Body::empty())
            .await
    }

    /// A write that is accepted; its answer's body.
    pub(crate) async fn ok(&self, method: Method, path: &str, body: &Value) -> Value {
        let answer = self.call_with(method, path, &[], body.to_string()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.body
    }

    pub(crate) async fn created(&self, path: &str, body: Value) -> Value {
        self.ok(Method::POST, path, &body).await
    }

    /// A read that succeeds.
    pub(crate) async fn read(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.body
    }

    async fn revision(&self) -> u64 {
        self.store.revision(&self.namespace).await.unwrap().get()
    }

    async fn token_of(&self, namespace: &str, role: Role) -> String {
        let namespace = Namespace::new(namespace).unwrap();
        create_token(&self.store, &namespace, role.as_str(), role, &by())
            .await
            .unwrap()
    }
}

/// A configuration of one plain key.
fn config(name: &str, text: &str) -> Value {
    json!({"name": name, "data": [{"key": "conf.yml", "value": {"type": "kv", "value": text}}]})
}

/// An application that runs everywhere `env=test` is.
fn app(name: &str) -> Value {
    json!({"name": name, "selector": "env=test", "services": [{"name": "web", "image": "nginx:1.25"}]})
}
