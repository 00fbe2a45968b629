//! An engine that says what the test says.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use baetyl_kit::grpc::Server;
use baetyl_proto::engine::engine_service_server::{EngineService, EngineServiceServer};
use baetyl_proto::engine::{
    DescribeRequest, DescribeResponse, EnsureRunningRequest, EnsureRunningResponse, GetAppRequest,
    GetAppResponse, ListAppsRequest, ListAppsResponse, RestartAppRequest, RestartAppResponse,
    WatchEndpointsRequest, WatchEndpointsResponse, WatchLogsRequest, WatchLogsResponse,
};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::*;

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answer to the next requests to start an application.
type Script = Arc<Mutex<Option<Status>>>;

pub(super) struct FakeEngine {
    pub(super) kit: Kit,
    table: watch::Sender<Option<WatchEndpointsResponse>>,
    pub(super) started: Arc<Mutex<Vec<String>>>,
    pub(super) refuse_start: Script,
}

#[derive(Clone)]
struct Served {
    table: watch::Receiver<Option<WatchEndpointsResponse>>,
    started: Arc<Mutex<Vec<String>>>,
    refuse_start: Script,
}

impl FakeEngine {
    pub(super) async fn start(dir: &Path) -> Self {
        let kit = Kit::new("engine", dir, baetyl_kit::clock::Clock::system());
        let table = watch::Sender::new(None);
        let (started, refuse_start) = (Arc::default(), Script::default());
        let served = Served {
            table: table.subscribe(),
            started: Arc::clone(&started),
            refuse_start: Arc::clone(&refuse_start),
        };
        Server::new(&kit, "engine")
            .add_service(EngineServiceServer::new(served))
            .authorize(baetyl_callers::core())
            .serve(&Listen::Unix(kit.core_socket("engine")))
            .await
            .unwrap();
        Self {
            kit,
            table,
            started,
            refuse_start,
        }
    }

    pub(super) fn tell(&self, endpoints: Vec<AppEndpoint>, key: &SigningKey) {
        let app_key = key.public_key().to_vec().into();
        self.table.send_replace(Some(WatchEndpointsResponse {
            endpoints,
            app_key,
            ..WatchEndpointsResponse::default()
        }));
    }
}

#[tonic::async_trait]
impl EngineService for Served {
    type WatchEndpointsStream = Boxed<WatchEndpointsResponse>;

    async fn watch_endpoints(
        &self,
        _: Request<WatchEndpointsRequest>,
    ) -> Result<Response<Self::WatchEndpointsStream>, Status> {
        let tables = WatchStream::new(self.table.clone());
        Ok(Response::new(Box::pin(
            tables.filter_map(async |table| table.map(Ok)),
        )))
    }

    async fn ensure_running(
        &self,
        request: Request<EnsureRunningRequest>,
    ) -> Result<Response<EnsureRunningResponse>, Status> {
        self.started.lock().unwrap().push(request.into_inner().name);
        match self.refuse_start.lock().unwrap().clone() {
            Some(status) => Err(status),
            None => Ok(Response::new(EnsureRunningResponse {})),
        }
    }

    async fn list_apps(
        &self,
        _: Request<ListAppsRequest>,
    ) -> Result<Response<ListAppsResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn get_app(&self, _: Request<GetAppRequest>) -> Result<Response<GetAppResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn restart_app(
        &self,
        _: Request<RestartAppRequest>,
    ) -> Result<Response<RestartAppResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    type WatchLogsStream = Boxed<WatchLogsResponse>;

    async fn watch_logs(
        &self,
        _: Request<WatchLogsRequest>,
    ) -> Result<Response<Self::WatchLogsStream>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }
}
