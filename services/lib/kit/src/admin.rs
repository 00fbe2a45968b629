//! The admin port: `/livez`, `/readyz` and `/metrics` in plain HTTP, and `grpc.health.v1.Health` beside them (HTTP/2 without
//! TLS), loopback unless told otherwise.
//!
//! Live means that this process answers; it never depends on anything else. Ready means that no latch is
//! closed. Metrics may be guarded by a bearer token, for when the port leaves the loopback address.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::config::{SecretError, SecretFile};
use crate::crypto::constant_time_eq;
use crate::grpc::health::ReadinessHealth;
use crate::kit::Kit;
use crate::listen::Listen;
use crate::serve::{self, ServeError};

/// The section `admin` of every service's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Where the admin port listens.
    pub listen: Listen,
    /// A file with the bearer token that `/metrics` wants; without it the page is open to whoever reaches
    /// the port.
    pub metrics_token: Option<SecretFile>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: Listen::loopback(),
            metrics_token: None,
        }
    }
}

/// Why the admin port does not run.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The token of the metrics page cannot be read.
    #[error("cannot guard the metrics page")]
    Token(#[from] SecretError),
    /// The server does not start.
    #[error("the port for health and metrics does not start; give it a free address")]
    Serve(#[from] ServeError),
}

/// Serves the admin port of `kit`; the address is written to `<data-dir>/run/<service>-admin.addr`.
///
/// # Errors
/// When it cannot bind or the token cannot be read.
pub async fn serve(kit: &Kit, config: &AdminConfig) -> Result<Listen, AdminError> {
    let token = config
        .metrics_token
        .as_ref()
        .map(SecretFile::read_text)
        .transpose()?;
    let name = format!("{}-admin", kit.name());
    let router = router(kit.clone(), token);
    Ok(serve::http(kit, &name, &config.listen, None, router).await?)
}

#[derive(Clone)]
struct Admin {
    kit: Kit,
    token: Option<String>,
}

/// The three pages, and health for those who probe with gRPC.
pub fn router(kit: Kit, metrics_token: Option<String>) -> Router {
    let health = ReadinessHealth {
        readiness: kit.readiness().clone(),
        stopping: kit.shutdown().clone(),
        services: Vec::new(),
    };
    let health = Routes::new(HealthServer::new(health)).into_axum_router();
    // Whatever else is asked for is not there, in the words of HTTP.
    let health = health.reset_fallback();
    let pages = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Admin {
            kit,
            token: metrics_token,
        });
    pages.merge(health)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let mut snapshot = admin.kit.readiness().snapshot();
    // A service that stops takes no new work, whatever its latches say.
    snapshot.ready &= !admin.kit.shutdown().is_cancelled();
    let status = if snapshot.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, axum::Json(snapshot)).into_response()
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if let Some(wanted) = &admin.token {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        if !given.is_some_and(|given| constant_time_eq(given.as_bytes(), wanted.as_bytes())) {
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
            return (StatusCode::UNAUTHORIZED, challenge).into_response();
        }
    }
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (content_type, admin.kit.metrics().render()).into_response()
}

#[cfg(test)]
mod tests;
