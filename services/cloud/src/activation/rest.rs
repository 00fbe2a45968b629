//! Activation over REST, in Baetyl v2's field names: `POST /v1/active`.

use axum::Json;
use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use baetyl_kit::error::chain;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{ActivateError, Activated, Activator};
use crate::install::kube::pem;
use crate::openapi::{Shape, shape};
use crate::pki::NodeCsr;
use crate::rest::{PROBLEM_JSON, wants_problem};

/// A request has about 1 KiB.
const MAX_BODY: usize = 64 * 1024;

/// Both spellings: Baetyl v2's edges leave the slash out, its cloud had it.
pub(super) fn router(activator: Activator) -> Router {
    Router::new()
        .route("/v1/active", post(active))
        .route("/v1/active/", post(active))
        .fallback(|headers: HeaderMap| async move {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "ErrRequestMethodNotFound",
                "nothing is served here",
            )
            .answer(&headers)
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(activator)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ActiveRequest {
    batch_name: String,
    /// From an install command.
    install_token: String,
    /// PEM.
    csr: String,
    /// "native" or "kube"; empty: it does not say.
    mode: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActiveResponse {
    node_name: String,
    namespace: String,
    node_uid: String,
    certificate: CertificateView,
    /// Raw ed25519 public keys, base64.
    desire_keys: Vec<String>,
    link_addresses: Vec<String>,
}

/// PEM. Without `key`: it is on the node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "NodeCertificate")]
struct CertificateView {
    ca: String,
    cert: String,
}

/// Of request and answer.
pub(super) fn shapes() -> (Shape, Shape) {
    (shape::<ActiveRequest>(), shape::<ActiveResponse>())
}

async fn active(
    State(activator): State<Activator>,
    headers: HeaderMap,
    body: Result<Json<ActiveRequest>, JsonRejection>,
) -> Response {
    let request = match body {
        Ok(Json(request)) => request,
        Err(rejection) => {
            let text = rejection.body_text();
            return Refusal::new(rejection.status(), "ErrRequestParamInvalid", text)
                .answer(&headers);
        }
    };
    match activate(&activator, &request).await {
        Ok(activated) => Json(view(&activated)).into_response(),
        Err(error) => refusal(&error).answer(&headers),
    }
}

async fn activate(
    activator: &Activator,
    request: &ActiveRequest,
) -> Result<Activated, ActivateError> {
    if request.install_token.is_empty() && !request.batch_name.is_empty() {
        return Err(ActivateError::Batch);
    }
    if request.csr.is_empty() {
        return Err(ActivateError::NoCsr);
    }
    activator
        .activate(&request.install_token, &request.mode, || {
            NodeCsr::from_pem(&request.csr)
        })
        .await
}

fn view(answer: &Activated) -> ActiveResponse {
    ActiveResponse {
        node_name: answer.node.name.to_string(),
        namespace: answer.node.namespace.to_string(),
        node_uid: answer.node.uid.to_string(),
        certificate: CertificateView {
            ca: pem(&answer.authority),
            cert: pem(&answer.certificate.certificate),
        },
        desire_keys: answer
            .desire_keys
            .iter()
            .map(|key| STANDARD.encode(key))
            .collect(),
        link_addresses: answer.link_addresses.clone(),
    }
}

/// The border: every error to its status.
fn refusal(error: &ActivateError) -> Refusal {
    let message = error.to_string();
    match error {
        ActivateError::NoProof
        | ActivateError::Token(_)
        | ActivateError::UsedUp(_)
        | ActivateError::NodeGone(_) => {
            Refusal::new(StatusCode::UNAUTHORIZED, "ErrRequestAccessDenied", message)
        }
        ActivateError::NoCsr | ActivateError::Csr(_) | ActivateError::Mode { .. } => {
            Refusal::new(StatusCode::BAD_REQUEST, "ErrRequestParamInvalid", message)
        }
        ActivateError::OtherKey(_) => {
            Refusal::new(StatusCode::CONFLICT, "ErrResourceConflict", message)
        }
        ActivateError::Batch => {
            Refusal::new(StatusCode::NOT_IMPLEMENTED, "ErrNotImplemented", message)
        }
        ActivateError::Pki(_) | ActivateError::Store(_) => {
            tracing::error!(error = %chain(error), "activation failed");
            let message = "the cloud cannot activate nodes at the moment; try again";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "UnknownError", message)
        }
    }
}

/// An answer that is an error.
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// Baetyl v2's form, or problem+json for those who ask for it.
    pub(super) fn answer(self, request: &HeaderMap) -> Response {
        let Self {
            status,
            code,
            message,
        } = self;
        let id = Uuid::new_v4().to_string();
        let mut response = if wants_problem(request) {
            let title = status.canonical_reason().unwrap_or("Error");
            let mut response = Json(json!({
                "type": "about:blank", "title": title, "status": status.as_u16(), "detail": message, "code": code,
                "requestId": id,
            }))
            .into_response();
            let kind = HeaderValue::from_static(PROBLEM_JSON);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        } else {
            Json(json!({"code": code, "message": message, "requestId": id})).into_response()
        };
        *response.status_mut() = status;
        response
    }
}
