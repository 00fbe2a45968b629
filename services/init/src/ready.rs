//! Waits until every core service says `SERVING`.

use baetyl_kit::Kit;
use baetyl_kit::grpc;
use tonic::Status;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::{Config, Error, connect, until};

/// Returns when all are ready, in the order of the configuration.
///
/// # Errors
/// When one is not ready before the deadline; it is named.
pub(crate) async fn until_ready(config: &Config, kit: &Kit) -> Result<(), Error> {
    for service in &config.wait_for {
        let health = HealthClient::new(connect(config, kit, *service)?);
        until(config.deadline, "a core service is not ready", async || {
            let request = grpc::unary(HealthCheckRequest {
                service: String::new(),
            });
            let answer = health.clone().check(request).await;
            let answer = answer.map_err(|status| {
                Status::unavailable(format!("{service}: {}", status.message()))
            })?;
            match answer.into_inner().status() {
                ServingStatus::Serving => Ok(()),
                _ => Err(Status::unavailable(format!("{service} is not ready"))),
            }
        })
        .await?;
        tracing::info!(%service, "ready");
    }
    Ok(())
}
