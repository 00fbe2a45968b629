//! gRPC border for the core services: `NodeService`.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use baetyl_kit::grpc::details;
use baetyl_proto::node::node_service_server::NodeService;
use baetyl_proto::node::{
    AcceptDesireRequest, AcceptDesireResponse, GetShadowRequest, GetShadowResponse,
    PutReportRequest, PutReportResponse, SetIdentityRequest, SetIdentityResponse,
    TrustAppKeyRequest, TrustAppKeyResponse, WatchDesireRequest, WatchDesireResponse,
    WatchReportRequest, WatchReportResponse,
};
use baetyl_proto::reasons;
use baetyl_proto::shadow::DesireHeader;
use futures_util::{Stream, StreamExt as _};
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Request, Response, Status};

use crate::desire::{self, AcceptError};
use crate::ledger::LedgerError;
use crate::report;
use crate::shadow::{Identity, Report, Shadow};

/// A boxed stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service over the shadow.
#[derive(Clone, Debug)]
pub(crate) struct Node(pub(crate) Arc<Shadow>);

impl Node {
    /// Runs what writes to disk away from the threads that answer others.
    async fn write<T, F>(&self, work: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce(&Shadow) -> Result<T, Status> + Send + 'static,
    {
        let shadow = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&shadow))
            .await
            .map_err(|error| Status::internal(format!("the write was interrupted: {error}")))?
    }
}

#[tonic::async_trait]
impl NodeService for Node {
    async fn accept_desire(
        &self,
        request: Request<AcceptDesireRequest>,
    ) -> Result<Response<AcceptDesireResponse>, Status> {
        let signed = request
            .into_inner()
            .desire
            .ok_or_else(|| details::invalid("desire", "no desire in the request"))?;
        self.write(move |shadow| {
            let (changed, header) =
                desire::accept_desire(shadow, signed).map_err(|error| refusal(&error))?;
            let header = DesireHeader {
                node_uid: header.node_uid.to_string(),
                epoch: header.epoch.get(),
                generation: header.generation.get(),
                digest: header.digest.to_string(),
            };
            Ok(Response::new(AcceptDesireResponse {
                changed,
                header: Some(header),
            }))
        })
        .await
    }

    type WatchDesireStream = Answers<WatchDesireResponse>;

    async fn watch_desire(
        &self,
        request: Request<WatchDesireRequest>,
    ) -> Result<Response<Self::WatchDesireStream>, Status> {
        let token = request.into_inner().resume_token;
        let mut resumed = self.0.watched.desire.resume(&token)?;
        let stream = WatchStream::new(self.0.desire.subscribe()).filter_map(move |held| {
            let token = resumed.news(held.as_ref().map(|held| held.header.clone()));
            ready(token.map(|resume_token| {
                Ok(WatchDesireResponse {
                    desire: held.map(|held| held.signed.clone()),
                    resume_token,
                })
            }))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn put_report(
        &self,
        request: Request<PutReportRequest>,
    ) -> Result<Response<PutReportResponse>, Status> {
        let PutReportRequest { status, stats } = request.into_inner();
        self.write(move |shadow| {
            report::accept_report(shadow, status, stats).map_err(|error| storage(&error))?;
            Ok(Response::new(PutReportResponse {}))
        })
        .await
    }

    type WatchReportStream = Answers<WatchReportResponse>;

    async fn watch_report(
        &self,
        request: Request<WatchReportRequest>,
    ) -> Result<Response<Self::WatchReportStream>, Status> {
        let token = request.into_inner().resume_token;
        let mut resumed = self.0.watched.report.resume(&token)?;
        let mut last = None;
        let stream = WatchStream::new(self.0.report.subscribe()).filter_map(move |report| {
            let fresh = last.as_ref() != Some(&report.digest);
            last = Some(report.digest.clone());
            let token = resumed.news((report.digest.clone(), report.stats.clone()));
            ready(token.map(|token| Ok(render_report(&report, fresh, token))))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_shadow(
        &self,
        _: Request<GetShadowRequest>,
    ) -> Result<Response<GetShadowResponse>, Status> {
        let report = self.0.report.borrow().clone();
        let held = self.0.desire.borrow().clone();
        Ok(Response::new(GetShadowResponse {
            desire: held.map(|held| held.signed.clone()),
            status: report.status.as_deref().cloned(),
            stats: report.stats.as_deref().cloned(),
            status_digest: report.digest,
        }))
    }

    async fn trust_app_key(
        &self,
        request: Request<TrustAppKeyRequest>,
    ) -> Result<Response<TrustAppKeyResponse>, Status> {
        let key = request.into_inner().public_key;
        if key.len() != 32 {
            return Err(details::invalid(
                "public_key",
                format!("a raw ed25519 key has 32 bytes, not {}", key.len()),
            ));
        }
        self.0.trust_app_key(key.to_vec());
        Ok(Response::new(TrustAppKeyResponse {}))
    }

    async fn set_identity(
        &self,
        request: Request<SetIdentityRequest>,
    ) -> Result<Response<SetIdentityResponse>, Status> {
        let SetIdentityRequest {
            namespace,
            node_name,
            node_uid,
        } = request.into_inner();
        let node_uid = node_uid
            .parse()
            .map_err(|error| details::invalid("node_uid", format!("node_uid: {error}")))?;
        self.write(move |shadow| {
            let identity = Identity {
                namespace,
                node_name,
                node_uid,
            };
            shadow
                .persist_identity(identity)
                .map_err(|error| storage(&error))?;
            Ok(Response::new(SetIdentityResponse {}))
        })
        .await
    }
}

fn render_report(report: &Report, fresh: bool, resume_token: String) -> WatchReportResponse {
    WatchReportResponse {
        status: report.status.as_deref().filter(|_| fresh).cloned(),
        status_digest: report.digest.clone(),
        stats: report.stats.as_deref().cloned(),
        resume_token,
    }
}

fn refusal(error: &AcceptError) -> Status {
    use baetyl_model::desire::Refusal;
    match error {
        AcceptError::Refused { refusal, .. } => match refusal {
            Refusal::WrongNode => details::refused(
                Code::PermissionDenied,
                reasons::WRONG_NODE,
                error.to_string(),
            ),
            Refusal::Stale => by_order(reasons::STALE, error),
            Refusal::Conflict => by_order(reasons::CONFLICT, error),
        },
        AcceptError::Malformed(_) => {
            details::refused(Code::InvalidArgument, reasons::MALFORMED, error.to_string())
        }
        AcceptError::Ledger(ledger) => storage(ledger),
    }
}

/// A sync of the first release reads the reason in the text.
fn by_order(reason: &str, error: &AcceptError) -> Status {
    let message = format!("{reason}: {error}");
    details::refused(Code::FailedPrecondition, reason, message)
}

pub(crate) fn storage(error: &LedgerError) -> Status {
    tracing::error!(
        error = baetyl_kit::error::chain(error),
        "the ledger refused"
    );
    if error.is_full() {
        Status::resource_exhausted(format!("{error}: the disk is full"))
    } else {
        Status::internal(error.to_string())
    }
}

#[cfg(test)]
mod tests;
