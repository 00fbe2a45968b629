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
use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ActivateError, Activated, Activator};
use crate::pki::NodeCsr;

/// A request has about 1 KiB.
const MAX_BODY: usize = 64 * 1024;

/// Both spellings: Baetyl v2's edges leave the slash out, its cloud had it.
pub(super) fn router(activator: Activator) -> Router {
    Router::new()
        .route("/v1/active", post(active))
        .route("/v1/active/", post(active))
        .fallback(|| async {
            answer(
                StatusCode::NOT_FOUND,
                "ErrRequestMethodNotFound",
                "nothing is served here",
            )
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
}

#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
struct CertificateView {
    ca: String,
    cert: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorView<'a> {
    code: &'a str,
    message: &'a str,
    request_id: String,
}

async fn active(
    State(activator): State<Activator>,
    body: Result<Json<ActiveRequest>, JsonRejection>,
) -> Response {
    let request = match body {
        Ok(Json(request)) => request,
        Err(rejection) => {
            return answer(
                rejection.status(),
                "ErrRequestParamInvalid",
                &rejection.body_text(),
            );
        }
    };
    match activate(&activator, &request).await {
        Ok(activated) => Json(view(&activated)).into_response(),
        Err(error) => refusal(&error),
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
        .activate(&request.install_token, &NodeCsr::from_pem(&request.csr)?)
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

fn pem(der: &[u8]) -> String {
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let text = STANDARD.encode(der);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// The border: every error to its status.
fn refusal(error: &ActivateError) -> Response {
    let message = error.to_string();
    match error {
        ActivateError::NoProof
        | ActivateError::Token(_)
        | ActivateError::UsedUp(_)
        | ActivateError::NodeGone(_) => {
            answer(StatusCode::UNAUTHORIZED, "ErrRequestAccessDenied", &message)
        }
        ActivateError::NoCsr | ActivateError::Csr(_) => {
            answer(StatusCode::BAD_REQUEST, "ErrRequestParamInvalid", &message)
        }
        ActivateError::OtherKey(_) => answer(StatusCode::CONFLICT, "ErrResourceConflict", &message),
        ActivateError::Batch => answer(StatusCode::NOT_IMPLEMENTED, "ErrNotImplemented", &message),
        ActivateError::Pki(_) | ActivateError::Store(_) => {
            tracing::error!(error = %chain(error), "activation failed");
            let message = "the cloud cannot activate nodes at the moment; try again";
            answer(StatusCode::SERVICE_UNAVAILABLE, "UnknownError", message)
        }
    }
}

fn answer(status: StatusCode, code: &str, message: &str) -> Response {
    let body = ErrorView {
        code,
        message,
        request_id: Uuid::new_v4().to_string(),
    };
    (status, Json(body)).into_response()
}
