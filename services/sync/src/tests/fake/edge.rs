//! Node, engine and function proxy on their sockets.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use baetyl_kit::Kit;
use baetyl_kit::grpc::Server;
use baetyl_kit::listen::Listen;
use baetyl_proto::engine::engine_service_server::{EngineService, EngineServiceServer};
use baetyl_proto::engine::{self as engine};
use baetyl_proto::function::function_service_server::{FunctionService, FunctionServiceServer};
use baetyl_proto::function::{
    InvokeRequest, InvokeResponse, InvokeStreamRequest, InvokeStreamResponse, ListFunctionsRequest,
    ListFunctionsResponse,
};
use baetyl_proto::node::node_service_server::{NodeService, NodeServiceServer};
use baetyl_proto::node::{
    AcceptDesireRequest, AcceptDesireResponse, GetShadowRequest, GetShadowResponse,
    PutReportRequest, PutReportResponse, SetIdentityRequest, SetIdentityResponse,
    TrustAppKeyRequest, TrustAppKeyResponse, WatchDesireRequest, WatchDesireResponse,
    WatchReportRequest, WatchReportResponse,
};
use baetyl_proto::shadow::{NodeStats, NodeStatus, SignedDesire};
use baetyl_proto::{digest, sign};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A node service that takes every desire, unless told otherwise.
#[derive(Clone)]
pub(crate) struct FakeNode {
    pub(crate) held: watch::Sender<Option<SignedDesire>>,
    pub(crate) report: watch::Sender<WatchReportResponse>,
    /// What reached AcceptDesire.
    pub(crate) offered: Arc<Mutex<Vec<SignedDesire>>>,
    /// Instead of taking a desire.
    pub(crate) refuse: Arc<Mutex<Option<Status>>>,
    pub(crate) identities: Arc<Mutex<Vec<SetIdentityRequest>>>,
}

impl FakeNode {
    pub(crate) fn new() -> Self {
        Self {
            held: watch::Sender::new(None),
            report: watch::Sender::new(WatchReportResponse::default()),
            offered: Arc::default(),
            refuse: Arc::default(),
            identities: Arc::default(),
        }
    }

    /// On the usual socket, until `kit` stops.
    pub(crate) async fn serve(&self, kit: &Kit) {
        Server::new(kit, "node")
            .add_service(NodeServiceServer::new(self.clone()))
            .authorize(baetyl_callers::core())
            .serve(&Listen::Unix(kit.core_socket("node")))
            .await
            .unwrap();
    }

    /// Reports a status whose run mode is this word; gives its digest.
    pub(crate) fn put_status(&self, word: &str) -> String {
        let status = NodeStatus {
            run_mode: word.to_owned(),
            ..NodeStatus::default()
        };
        let digest = digest::of_status(&status).to_string();
        self.report.send_modify(|report| {
            report.status = Some(status);
            report.status_digest.clone_from(&digest);
        });
        digest
    }

    pub(crate) fn put_stats(&self, seconds: i64) {
        let time = Some(prost_types::Timestamp { seconds, nanos: 0 });
        self.report.send_modify(|report| {
            report.stats = Some(NodeStats {
                time,
                ..NodeStats::default()
            });
        });
    }

    pub(crate) fn offered(&self) -> usize {
        self.offered.lock().unwrap().len()
    }
}

#[tonic::async_trait]
impl NodeService for FakeNode {
    async fn accept_desire(
        &self,
        request: Request<AcceptDesireRequest>,
    ) -> Result<Response<AcceptDesireResponse>, Status> {
        let signed = request.into_inner().desire.unwrap();
        self.offered.lock().unwrap().push(signed.clone());
        if let Some(status) = &*self.refuse.lock().unwrap() {
            return Err(status.clone());
        }
        let header = sign::read_desire(&signed).unwrap().header();
        let changed = self.held.send_replace(Some(signed.clone())) != Some(signed);
        Ok(Response::new(AcceptDesireResponse {
            changed,
            header: Some(header.into()),
        }))
    }

    type WatchDesireStream = Answers<WatchDesireResponse>;

    async fn watch_desire(
        &self,
        _: Request<WatchDesireRequest>,
    ) -> Result<Response<Self::WatchDesireStream>, Status> {
        let held = WatchStream::new(self.held.subscribe()).map(|desire| {
            Ok(WatchDesireResponse {
                desire,
                ..WatchDesireResponse::default()
            })
        });
        Ok(Response::new(Box::pin(held)))
    }

    async fn put_report(
        &self,
        _: Request<PutReportRequest>,
    ) -> Result<Response<PutReportResponse>, Status> {
        Err(Status::unimplemented("not sync's"))
    }

    type WatchReportStream = Answers<WatchReportResponse>;

    async fn watch_report(
        &self,
        _: Request<WatchReportRequest>,
    ) -> Result<Response<Self::WatchReportStream>, Status> {
        let report = WatchStream::new(self.report.subscribe()).map(Ok);
        Ok(Response::new(Box::pin(report)))
    }

    async fn get_shadow(
        &self,
        _: Request<GetShadowRequest>,
    ) -> Result<Response<GetShadowResponse>, Status> {
        Err(Status::unimplemented("not sync's"))
    }

    async fn trust_app_key(
        &self,
        _: Request<TrustAppKeyRequest>,
    ) -> Result<Response<TrustAppKeyResponse>, Status> {
        Err(Status::unimplemented("not sync's"))
    }

    async fn set_identity(
        &self,
        request: Request<SetIdentityRequest>,
    ) -> Result<Response<SetIdentityResponse>, Status> {
        self.identities.lock().unwrap().push(request.into_inner());
        Ok(Response::new(SetIdentityResponse {}))
    }
}

/// An engine that counts restarts, and a function proxy that echoes.
#[derive(Clone, Default)]
pub(crate) struct FakeWorkers {
    pub(crate) restarts: Arc<Mutex<Vec<String>>>,
}

impl FakeWorkers {
    pub(crate) async fn serve(&self, kit: &Kit) {
        Server::new(kit, "engine")
            .add_service(EngineServiceServer::new(self.clone()))
            .authorize(baetyl_callers::core())
            .serve(&Listen::Unix(kit.core_socket("engine")))
            .await
            .unwrap();
        Server::new(kit, "function-proxy")
            .add_service(FunctionServiceServer::new(self.clone()))
            .authorize(baetyl_callers::core())
            .serve(&Listen::Unix(kit.core_socket("function-proxy")))
            .await
            .unwrap();
    }
}

fn not_here<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not sync's"))
}

#[tonic::async_trait]
impl EngineService for FakeWorkers {
    async fn list_apps(
        &self,
        _: Request<engine::ListAppsRequest>,
    ) -> Result<Response<engine::ListAppsResponse>, Status> {
        not_here()
    }

    async fn get_app(
        &self,
        _: Request<engine::GetAppRequest>,
    ) -> Result<Response<engine::GetAppResponse>, Status> {
        not_here()
    }

    async fn restart_app(
        &self,
        request: Request<engine::RestartAppRequest>,
    ) -> Result<Response<engine::RestartAppResponse>, Status> {
        self.restarts
            .lock()
            .unwrap()
            .push(request.into_inner().name);
        Ok(Response::new(engine::RestartAppResponse {}))
    }

    type WatchEndpointsStream = Answers<engine::WatchEndpointsResponse>;

    async fn watch_endpoints(
        &self,
        _: Request<engine::WatchEndpointsRequest>,
    ) -> Result<Response<Self::WatchEndpointsStream>, Status> {
        not_here()
    }

    async fn ensure_running(
        &self,
        _: Request<engine::EnsureRunningRequest>,
    ) -> Result<Response<engine::EnsureRunningResponse>, Status> {
        not_here()
    }

    type WatchLogsStream = Answers<engine::WatchLogsResponse>;

    async fn watch_logs(
        &self,
        _: Request<engine::WatchLogsRequest>,
    ) -> Result<Response<Self::WatchLogsStream>, Status> {
        not_here()
    }

    async fn describe(
        &self,
        _: Request<engine::DescribeRequest>,
    ) -> Result<Response<engine::DescribeResponse>, Status> {
        not_here()
    }
}

#[tonic::async_trait]
impl FunctionService for FakeWorkers {
    async fn invoke(
        &self,
        request: Request<InvokeRequest>,
    ) -> Result<Response<InvokeResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(InvokeResponse {
            payload: request.payload,
            metadata: request.metadata,
            invoke_id: format!("{}/{}", request.service, request.function),
        }))
    }

    type InvokeStreamStream = Answers<InvokeStreamResponse>;

    async fn invoke_stream(
        &self,
        _: Request<InvokeStreamRequest>,
    ) -> Result<Response<Self::InvokeStreamStream>, Status> {
        not_here()
    }

    async fn list_functions(
        &self,
        _: Request<ListFunctionsRequest>,
    ) -> Result<Response<ListFunctionsResponse>, Status> {
        not_here()
    }
}
