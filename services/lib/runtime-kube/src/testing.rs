//! A small API server for tests, without a network: it keeps objects, tells watches of them, and can be told to fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::{Api, Body, BoxError, Transport};
use crate::config::{KubeConfig, Times};
use crate::runtime::KubeRuntime;

mod serve;

use serve::decode;

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) body: Value,
    pub(crate) user: Option<String>,
    pub(crate) at: Instant,
}

impl Asked {
    pub(crate) fn is_watch(&self) -> bool {
        self.query.get("watch").is_some_and(|watch| watch == "true")
    }

    pub(crate) fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

/// What is answered instead of what would be.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A status with a message and a pause to be made.
    Refuse(u16, &'static str, Option<u64>),
    /// A whole body.
    Say(u16, Value),
    /// Nothing, ever.
    Hang,
    /// The connection breaks.
    Break,
    /// These pieces, and then silence (or the end).
    Pieces(Vec<String>, bool),
}

type Rule = Box<dyn Fn(&Asked) -> Option<Reply> + Send>;

#[derive(Default)]
struct State {
    /// By path.
    objects: BTreeMap<String, Value>,
    version: u64,
    history: Vec<(u64, String, &'static str, Value)>,
    watches: Vec<Watching>,
    asked: Vec<Asked>,
    rules: Vec<(usize, Rule)>,
    /// Versions before this are too old to watch from.
    oldest: u64,
    frozen: bool,
}

struct Watching {
    list: String,
    selector: String,
    events: mpsc::Sender<Result<Bytes, BoxError>>,
}

/// The fake; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

impl Fake {
    pub(crate) fn api(&self) -> Api {
        Api::over(Arc::new(self.clone()), Times::default())
    }

    pub(crate) fn runtime(&self) -> KubeRuntime {
        KubeRuntime::over(self.api(), KubeConfig::default(), CancellationToken::new())
    }

    /// A runtime that has seen everything.
    pub(crate) async fn seeing(&self) -> KubeRuntime {
        let runtime = self.runtime();
        let mut observed = runtime.watch();
        observed
            .wait_for(|observed| observed.unknown.is_none())
            .await
            .unwrap();
        runtime
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Answers the next `times` requests that `rule` has an answer for.
    pub(crate) fn rule(
        &self,
        times: usize,
        rule: impl Fn(&Asked) -> Option<Reply> + Send + 'static,
    ) {
        self.state().rules.push((times, Box::new(rule)));
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    pub(crate) fn forget_asked(&self) {
        self.state().asked.clear();
    }

    /// Method and path of all writes so far.
    pub(crate) fn writes(&self) -> Vec<String> {
        let asked = self.asked();
        let writes = asked.iter().filter(|asked| asked.is_write());
        writes
            .map(|asked| format!("{} {}", asked.method, asked.path))
            .collect()
    }

    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// Puts an object at `<list>/<its name>`.
    pub(crate) fn set(&self, list: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.state().set(&format!("{list}/{name}"), object);
    }

    pub(crate) fn delete(&self, path: &str) {
        self.state().delete(path);
    }

    /// Watches end as after their time.
    pub(crate) fn end_watches(&self) {
        self.state().watches.clear();
    }

    /// Watches break, and all versions so far are forgotten.
    pub(crate) fn forget_history(&self) {
        let mut state = self.state();
        state.version += 1;
        state.oldest = state.version;
        state.watches.clear();
    }

    /// As if the server were stopped: no answer, watches silent; or again as before.
    pub(crate) fn freeze(&self, frozen: bool) {
        let mut state = self.state();
        state.frozen = frozen;
        if frozen {
            // Its pings are not answered, and the client breaks the connection.
            for watching in state.watches.drain(..) {
                let _ = watching.events.try_send(Err("keep-alive timed out".into()));
            }
        }
    }

    /// How many watches are open.
    pub(crate) fn watches(&self) -> usize {
        let mut state = self.state();
        state
            .watches
            .retain(|watching| !watching.events.is_closed());
        state.watches.len()
    }

    fn answer(&self, asked: &Asked) -> Option<Result<Response<Body>, BoxError>> {
        let mut state = self.state();
        state.asked.push(asked.clone());
        if state.frozen {
            return None;
        }
        let found = state
            .rules
            .iter()
            .position(|(times, rule)| *times > 0 && rule(asked).is_some());
        if let Some(index) = found {
            let (times, rule) = &mut state.rules[index];
            *times -= 1;
            let reply = rule(asked).unwrap();
            return reply.answer();
        }
        Some(Ok(state.serve(asked)))
    }
}

impl Reply {
    fn answer(self) -> Option<Result<Response<Body>, BoxError>> {
        match self {
            Self::Hang => None,
            Self::Break => Some(Err("connection reset by peer".into())),
            Self::Say(code, value) => Some(Ok(respond(code, &value))),
            Self::Refuse(code, message, pause) => {
                let mut response = respond(code, &status(code, "", message));
                if let Some(pause) = pause {
                    response.headers_mut().insert("retry-after", pause.into());
                }
                Some(Ok(response))
            }
            Self::Pieces(pieces, ends) => {
                let pieces = stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from(piece))));
                let body = if ends {
                    pieces.boxed()
                } else {
                    pieces.chain(stream::pending()).boxed()
                };
                Some(Ok(Response::new(streamed(body))))
            }
        }
    }
}

fn streamed(
    stream: impl futures_util::Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
) -> Body {
    StreamBody::new(stream.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

fn respond(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string()))
        .map_err(|never| match never {})
        .boxed_unsync();
    Response::builder().status(code).body(body).unwrap()
}

pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}

impl Transport for Fake {
    fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> BoxFuture<'static, Result<Response<Body>, BoxError>> {
        let this = self.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let header = |name: &str| {
                let value = head.headers.get(name)?;
                Some(value.to_str().unwrap().to_owned())
            };
            let query = head.uri.query().unwrap_or_default().split('&');
            let asked = Asked {
                method: head.method.clone(),
                // A kubelet is named in front.
                path: match head.uri.authority() {
                    None => decode(head.uri.path()),
                    Some(kubelet) => format!("https://{kubelet}{}", head.uri.path()),
                },
                query: query
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(name, value)| (name.to_owned(), decode(value)))
                    .collect(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
                user: header("impersonate-user"),
                at: Instant::now(),
            };
            match this.answer(&asked) {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn server(&self) -> &str {
        "https://fake"
    }
}

/// Where the objects of a kind are in the namespace of user applications.
pub(crate) fn list(kind: &str) -> String {
    let (group, plural) = match kind {
        "Pod" => ("api/v1", "pods"),
        "Secret" => ("api/v1", "secrets"),
        "ConfigMap" => ("api/v1", "configmaps"),
        "Service" => ("api/v1", "services"),
        "Event" => ("api/v1", "events"),
        "Deployment" => ("apis/apps/v1", "deployments"),
        "StatefulSet" => ("apis/apps/v1", "statefulsets"),
        "DaemonSet" => ("apis/apps/v1", "daemonsets"),
        "Job" => ("apis/batch/v1", "jobs"),
        "CronJob" => ("apis/batch/v1", "cronjobs"),
        "HorizontalPodAutoscaler" => ("apis/autoscaling/v2", "horizontalpodautoscalers"),
        other => panic!("{other}"),
    };
    format!("/{group}/namespaces/baetyl-edge/{plural}")
}

/// Labels of ours.
pub(crate) fn labels(app: &str, version: &str) -> Value {
    json!({
        "app.kubernetes.io/managed-by": "baetyl",
        "baetyl-app-name": app,
        "baetyl-app-version": version,
    })
}
