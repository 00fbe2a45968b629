//! The interface for operators: Baetyl v2's paths, field names and lists, with right statuses.
//!
//! [`routes::operations`] is the table of everything there is: method, path, the role it needs, what it takes and gives,
//! and its handler. The router, the authorization and the OpenAPI document are made from it, so none of them can know a
//! route the others do not.
//!
//! A handler reads as: take the input apart, check it (all mistakes at once), open a transaction, let
//! [`crate::catalog`] write, commit, show the result. The namespace is the caller's, never the path's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use baetyl_kit::clock::Clock;
use baetyl_kit::metrics::{Metrics, SECONDS};
use baetyl_model::Namespace;
use http::header::{CONTENT_TYPE, WARNING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use serde::Serialize;

use crate::auth::{Authenticator, Caller};
use crate::catalog::CatalogError;
use crate::catalog::applications::Runtimes;
use crate::install::InstallTokens;
use crate::install::kube::KubeInstall;
use crate::objects::Objects;
use crate::report::Reports;
use crate::store::{By, Role, Store, Tx};

mod apps;
mod body;
mod certificates;
mod configs;
mod error;
mod etag;
mod functions;
mod list;
mod namespace;
mod nodes;
mod objects;
mod registries;
mod routes;
mod secrets;
mod shared;

#[cfg(test)]
pub(crate) mod tests;

use body::Warnings;
use error::{ApiError, Code};

pub(crate) use error::{PROBLEM_JSON, wants_problem};
pub(crate) use routes::{Input, Operation, Output, Versions, operations};

/// What the interface works with.
pub struct Deps {
    /// The database.
    pub store: Store,
    /// Uploaded files.
    pub objects: Objects,
    /// Who calls.
    pub authenticator: Arc<dyn Authenticator>,
    /// Function runtimes.
    pub runtimes: Runtimes,
    /// What nodes report.
    pub reports: Reports,
    /// Install commands.
    pub install: InstallTokens,
    /// Installation of nodes in mode kube.
    pub kube: KubeInstall,
    /// Time of changes.
    pub clock: Clock,
    /// Counts requests.
    pub metrics: Metrics,
}

/// [`Deps`], shared between requests.
#[derive(Clone)]
pub(crate) struct Rest(Arc<Deps>);

impl std::ops::Deref for Rest {
    type Target = Deps;

    fn deref(&self) -> &Deps {
        &self.0
    }
}

/// The whole interface.
pub fn router(deps: Deps) -> Router {
    let rest = Rest(Arc::new(deps));
    let mut router = Router::new();
    for operation in operations() {
        let mut route = operation.handler;
        if let Some(role) = operation.role {
            route = route.route_layer(middleware::from_fn_with_state(
                (rest.clone(), role),
                authorize,
            ));
        }
        router = router.route(operation.path, route);
    }
    router
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(unknown_route)
        .layer(middleware::from_fn_with_state(rest.clone(), around))
        .with_state(rest)
}

async fn unknown_route() -> ApiError {
    ApiError::new(
        Code::ErrRequestMethodNotFound,
        "The request method is not found.",
    )
}

async fn method_not_allowed() -> ApiError {
    let error = ApiError::new(
        Code::ErrRequestMethodNotFound,
        "The path does not know this method; see Allow.",
    );
    ApiError {
        status: StatusCode::METHOD_NOT_ALLOWED,
        ..error
    }
}

/// Lets a caller through to a route that needs `role`.
async fn authorize(
    State((rest, role)): State<(Rest, Role)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let caller = rest.authenticator.authenticate(request.headers()).await?;
    if caller.role < role {
        return Err(ApiError::new(
            Code::ErrResourceAccessForbidden,
            format!(
                "The role {} may not do this; it takes the role {role}.",
                caller.role
            ),
        ));
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The id of a request, ours or the caller's.
#[derive(Debug, Clone)]
struct RequestId(String);

const REQUEST_ID: [HeaderName; 2] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-bce-request-id"),
];
/// Longer ids are cut off: they go into the log and the database.
const MAX_REQUEST_ID: usize = 128;

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let given = REQUEST_ID
            .iter()
            .find_map(|name| headers.get(name)?.to_str().ok());
        let given =
            given.filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic()));
        match given {
            Some(id) => Self(id.chars().take(MAX_REQUEST_ID).collect()),
            None => Self(uuid::Uuid::now_v7().to_string()),
        }
    }
}

/// Around every request: its id, warnings, errors in their form, one log line.
async fn around(State(rest): State<Rest>, mut request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let id = RequestId::of(request.headers());
    let warnings = Warnings::default();
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(warnings.clone());
    let (method, path, headers) = (
        request.method().clone(),
        request.uri().path().to_owned(),
        request.headers().clone(),
    );
    let span = tracing::info_span!("rest", request_id = %id.0);
    let response = tracing::Instrument::instrument(next.run(request), span).await;
    let mut response = error::render(response, &headers, &id.0);
    count(&rest.metrics, &method, response.status(), begin.elapsed());
    tracing::debug!(%method, path, status = response.status().as_u16(), request_id = %id.0, "answered");
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        for name in REQUEST_ID {
            response.headers_mut().insert(name, value.clone());
        }
    }
    for warning in warnings.take() {
        // RFC 7234: code, agent ("-": nobody in particular), quoted text. Headers are ASCII.
        let text = warning
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace(|c: char| !c.is_ascii() || c.is_ascii_control(), "?");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

fn count(metrics: &Metrics, method: &Method, status: StatusCode, took: Duration) {
    // Anybody can send any method: only known ones get a series.
    let method = match *method {
        Method::GET | Method::HEAD => "read",
        Method::POST | Method::PUT | Method::DELETE => "write",
        _ => "other",
    };
    let labels = [("kind", method), ("status", status.as_str())];
    metrics
        .counter("rest_requests_total", "Requests of operators.", &labels)
        .inc();
    let help = "Time from the end of the head of a request to its answer.";
    metrics
        .histogram("rest_request_seconds", help, &[("kind", method)], SECONDS)
        .observe_duration(took);
}

/// What every handler needs: the cloud, who calls, for which request.
struct Ctx {
    rest: Rest,
    caller: Caller,
    request_id: String,
}

impl FromRequestParts<Rest> for Ctx {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>().cloned();
        let id = parts.extensions.get::<RequestId>();
        let (Some(caller), Some(id)) = (caller, id) else {
            // A route in the table without a role has no caller to speak of.
            return Err(ApiError::new(
                Code::ErrRequestAccessDenied,
                "The request access is denied.",
            ));
        };
        Ok(Self {
            rest: rest.clone(),
            caller,
            request_id: id.0.clone(),
        })
    }
}

impl Ctx {
    fn namespace(&self) -> &Namespace {
        &self.caller.namespace
    }

    fn now(&self) -> Timestamp {
        // Microseconds are what the database keeps.
        let now = self.rest.clock.now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    fn by(&self) -> By {
        By {
            actor: self.caller.actor.clone(),
            request_id: self.request_id.clone(),
            time: self.now(),
        }
    }

    async fn begin(&self) -> Result<Tx, ApiError> {
        Ok(self.rest.store.begin(self.namespace(), self.by()).await?)
    }

    /// Commits, and says which change was accepted.
    async fn commit(&self, tx: Tx) -> Result<(), ApiError> {
        if let Some(revision) = tx.commit().await? {
            crate::desire::accepted(
                self.namespace().as_str(),
                revision,
                &self.caller.actor,
                &self.request_id,
            );
        }
        Ok(())
    }
}

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Missing(things) => {
                let texts: Vec<_> = things
                    .iter()
                    .map(|(kind, name)| Self::not_found(kind, name).message)
                    .collect();
                Self::new(Code::ErrResourceNotFound, texts.join(" "))
            }
            CatalogError::InUse { kind, name, users } => Self::in_use(kind, &name, &users),
            CatalogError::Fields(findings) => Self::mistakes(body::mistakes(findings)),
            CatalogError::TooLarge { size, max } => Self::new(
                Code::ErrDataTooLarge,
                format!(
                    "The data has {size} bytes, {max} are the most; put large files into an object."
                ),
            ),
            CatalogError::Salt(_) => Self::internal(&error),
            CatalogError::Store(error) => error.into(),
        }
    }
}

/// A JSON answer.
fn reply<T: Serialize>(value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut response = Response::new(Body::from(body));
            let kind = HeaderValue::from_static("application/json; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(error) => axum::response::IntoResponse::into_response(ApiError::internal(&error)),
    }
}

/// Baetyl v2's answer when there is nothing to say.
#[derive(Debug, Serialize, serde::Deserialize)]
struct Success {
    success: bool,
}

fn success() -> Response {
    reply(&Success { success: true })
}
