//! `grpc.health.v1.Health`, answered from the latches at the moment of asking.

use std::pin::Pin;

use futures_util::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::readiness::Readiness;

/// The health of a server: the same for the server as a whole (`""`) and each of its services.
pub(crate) struct ReadinessHealth {
    pub(crate) readiness: Readiness,
    pub(crate) stopping: CancellationToken,
    pub(crate) services: Vec<&'static str>,
}

impl ReadinessHealth {
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.contains(&service)
    }
}

fn current(readiness: &Readiness, stopping: &CancellationToken) -> ServingStatus {
    if readiness.is_ready() && !stopping.is_cancelled() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for ReadinessHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if !self.knows(service) {
            return Err(Status::not_found(format!("there is no service {service}")));
        }
        let status = current(&self.readiness, &self.stopping);
        Ok(Response::new(response(status)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if !self.knows(&request.get_ref().service) {
            // The protocol wants this status as a message, not as an error.
            let unknown = Ok(response(ServingStatus::ServiceUnknown));
            let stream = futures_util::stream::iter([unknown]);
            return Ok(Response::new(Box::pin(stream)));
        }
        let readiness = self.readiness.clone();
        let stopping = self.stopping.clone();
        let state = (readiness.changes(), None);
        let stream = futures_util::stream::unfold(state, move |(mut changes, told)| {
            let (readiness, stopping) = (readiness.clone(), stopping.clone());
            async move {
                loop {
                    changes.borrow_and_update();
                    let status = current(&readiness, &stopping);
                    if told != Some(status) {
                        return Some((Ok(response(status)), (changes, Some(status))));
                    }
                    if stopping.is_cancelled() {
                        // That was said; a process that stops does not wait for those who watch.
                        return None;
                    }
                    tokio::select! {
                        () = stopping.cancelled() => {}
                        changed = changes.changed() => changed.ok()?,
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
