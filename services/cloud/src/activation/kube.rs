//! What the install command of a node in mode kube fetches: the script, the manifests, and whether the node is there yet.
//!
//! All of it is for those who have an install token of the node, in the header `authorization` and not in the address,
//! which proxies write down. A token that was used is good for reading as long as it lives: the script may be run again.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use baetyl_kit::error::chain;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use super::rest::Refusal;
use crate::install::InstallTokens;
use crate::install::kube::{KubeError, KubeInstall, KubeOptions, SCRIPT, SCRIPT_PATH};
use crate::report::{Ready, Reports};
use crate::store::{NodeRow, Store, StoreError};

/// What the paths below `/v1/init` need. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KubeDoor {
    /// The database.
    pub store: Store,
    /// Checks tokens.
    pub tokens: InstallTokens,
    /// Makes manifests.
    pub install: KubeInstall,
    /// Whether a node is there.
    pub reports: Reports,
}

/// The paths. Those that begin with `baetyl-` are Baetyl v2's.
pub(super) fn router(door: KubeDoor) -> Router {
    Router::new()
        .route(SCRIPT_PATH, get(script))
        .route("/v1/init/baetyl-install.sh", get(script))
        .route("/v1/init/kube/manifests", get(manifests))
        .route("/v1/init/baetyl-init-deployment.yml", get(manifests))
        .route("/v1/init/kube/state", get(state))
        .with_state(Arc::new(door))
}

/// The node of the token a request carries.
struct Admitted(NodeRow);

impl FromRequestParts<Arc<KubeDoor>> for Admitted {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        door: &Arc<KubeDoor>,
    ) -> Result<Self, Self::Rejection> {
        let admitted = admit(door, &parts.headers).await;
        admitted.map(Self).map_err(|refusal| {
            let is_unknown = refusal.status() == StatusCode::UNAUTHORIZED;
            let mut response = refusal.answer(&parts.headers);
            if is_unknown {
                let scheme = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            }
            response
        })
    }
}

async fn admit(door: &KubeDoor, headers: &HeaderMap) -> Result<NodeRow, Refusal> {
    let denied =
        |message: String| Refusal::new(StatusCode::UNAUTHORIZED, "ErrRequestAccessDenied", message);
    let given = headers
        .get(AUTHORIZATION)
        .and_then(|given| given.to_str().ok());
    let token = given.and_then(|given| given.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else {
        let message = "an install token is needed, as `authorization: Bearer …`; get an install command for the node";
        return Err(denied(message.to_owned()));
    };
    let claims = door
        .tokens
        .verify(token)
        .map_err(|error| denied(error.to_string()))?;
    let found = door
        .store
        .node_by_uid(&claims.namespace, &claims.uid)
        .await
        .map_err(|error| broken(&error))?;
    found.ok_or_else(|| {
        let node = claims.node;
        denied(format!(
            "node {node} does not exist any more; create it and get a new install command"
        ))
    })
}

fn broken(error: &StoreError) -> Refusal {
    tracing::error!(error = %chain(error), "an installation was not answered");
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "UnknownError",
        "the cloud cannot install nodes at the moment; try again",
    )
}

fn text(kind: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn script(_: Admitted) -> Response {
    text("text/x-shellscript; charset=utf-8", SCRIPT)
}

async fn manifests(
    Admitted(node): Admitted,
    State(door): State<Arc<KubeDoor>>,
    headers: HeaderMap,
    options: Result<Query<KubeOptions>, QueryRejection>,
) -> Response {
    let wrong = |message: String| {
        Refusal::new(StatusCode::BAD_REQUEST, "ErrRequestParamInvalid", message).answer(&headers)
    };
    let options = match options {
        Ok(Query(options)) => options,
        Err(rejection) => return wrong(rejection.body_text()),
    };
    match door.install.manifests(&node, &options) {
        Ok(manifests) => {
            tracing::info!(namespace = %node.namespace, node = %node.name, uid = %node.uid, "manifests fetched");
            text("application/yaml; charset=utf-8", manifests)
        }
        Err(error) => wrong(refused(&error)),
    }
}

fn refused(error: &KubeError) -> String {
    if error.parameter().is_none() {
        tracing::error!(error = %chain(error), "the configuration of this cloud makes no manifests");
    }
    error.to_string()
}

async fn state(
    Admitted(node): Admitted,
    State(door): State<Arc<KubeDoor>>,
    headers: HeaderMap,
) -> Response {
    let report = match door.reports.report(&node.namespace, &node.uid).await {
        Ok(report) => report,
        Err(error) => return broken(&error).answer(&headers),
    };
    let ready = match report.summary.ready {
        Ready::Uninstalled => "uninstalled",
        Ready::Online => "online",
        Ready::Offline => "offline",
    };
    let version = report.status.map(|status| status.core.version);
    let state = json!({
        "node": format!("{}/{}", node.namespace, node.name),
        "ready": ready,
        "version": version.unwrap_or_default(),
    });
    let mut response = Json(state).into_response();
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, never);
    response
}
