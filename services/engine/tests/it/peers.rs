//! Node and sync as far as engine calls them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use baetyl_kit::{Kit, grpc};
use baetyl_proto::node::node_service_server::{NodeService, NodeServiceServer};
use baetyl_proto::sync::link_state::Phase;
use baetyl_proto::sync::sync_service_server::{SyncService, SyncServiceServer};
use baetyl_proto::{node, shadow, sync};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What both peers know.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) desire: watch::Sender<Option<shadow::SignedDesire>>,
    pub(crate) bodies: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(crate) objects: PathBuf,
    pub(crate) statuses: Mutex<Vec<shadow::NodeStatus>>,
    pub(crate) stats: Mutex<Vec<shadow::NodeStats>>,
    pub(crate) key: Mutex<Vec<u8>>,
    /// What sync was told, for tickets.
    pub(crate) ticket_key: Mutex<Vec<u8>>,
    pub(crate) pins: Mutex<Vec<String>>,
    pub(crate) events: Mutex<Vec<sync::PutEventRequest>>,
}

impl Peers {
    /// Nobody desired anything yet. `objects`: where staged objects lie.
    pub(crate) fn new(objects: PathBuf) -> Arc<Self> {
        std::fs::create_dir_all(&objects).unwrap();
        Arc::new(Self {
            desire: watch::Sender::new(None),
            bodies: Mutex::default(),
            objects,
            statuses: Mutex::default(),
            stats: Mutex::default(),
            key: Mutex::default(),
            ticket_key: Mutex::default(),
            pins: Mutex::default(),
            events: Mutex::default(),
        })
    }

    /// Both listen on their sockets until `kit` is stopped.
    pub(crate) async fn serve(self: &Arc<Self>, kit: &Kit) {
        let node = grpc::Server::new(kit, "node")
            .add_service(NodeServiceServer::new(Node(Arc::clone(self))));
        node.authorize(baetyl_callers::core())
            .serve(&unix(kit, "node"))
            .await
            .unwrap();
        let sync = grpc::Server::new(kit, "sync")
            .add_service(SyncServiceServer::new(Sync(Arc::clone(self))));
        sync.authorize(baetyl_callers::core())
            .serve(&unix(kit, "sync"))
            .await
            .unwrap();
    }
}

fn unix(kit: &Kit, service: &str) -> baetyl_kit::listen::Listen {
    baetyl_kit::listen::Listen::Unix(kit.core_socket(service))
}

fn unused<T>() -> Result<T, Status> {
    Err(Status::unimplemented("engine does not call this"))
}

struct Node(Arc<Peers>);

#[tonic::async_trait]
impl NodeService for Node {
    type WatchDesireStream = Answers<node::WatchDesireResponse>;
    type WatchReportStream = Answers<node::WatchReportResponse>;

    async fn watch_desire(
        &self,
        _: Request<node::WatchDesireRequest>,
    ) -> Result<Response<Self::WatchDesireStream>, Status> {
        let desires = WatchStream::new(self.0.desire.subscribe());
        Ok(Response::new(Box::pin(desires.map(|desire| {
            Ok(node::WatchDesireResponse {
                desire,
                ..node::WatchDesireResponse::default()
            })
        }))))
    }

    async fn put_report(
        &self,
        request: Request<node::PutReportRequest>,
    ) -> Result<Response<node::PutReportResponse>, Status> {
        let report = request.into_inner();
        self.0.statuses.lock().unwrap().extend(report.status);
        self.0.stats.lock().unwrap().extend(report.stats);
        Ok(Response::new(node::PutReportResponse {}))
    }

    async fn trust_app_key(
        &self,
        request: Request<node::TrustAppKeyRequest>,
    ) -> Result<Response<node::TrustAppKeyResponse>, Status> {
        *self.0.key.lock().unwrap() = request.into_inner().public_key.to_vec();
        Ok(Response::new(node::TrustAppKeyResponse {}))
    }

    async fn accept_desire(
        &self,
        _: Request<node::AcceptDesireRequest>,
    ) -> Result<Response<node::AcceptDesireResponse>, Status> {
        unused()
    }

    async fn watch_report(
        &self,
        _: Request<node::WatchReportRequest>,
    ) -> Result<Response<Self::WatchReportStream>, Status> {
        unused()
    }

    async fn get_shadow(
        &self,
        _: Request<node::GetShadowRequest>,
    ) -> Result<Response<node::GetShadowResponse>, Status> {
        unused()
    }

    async fn set_identity(
        &self,
        _: Request<node::SetIdentityRequest>,
    ) -> Result<Response<node::SetIdentityResponse>, Status> {
        unused()
    }
}

struct Sync(Arc<Peers>);

#[tonic::async_trait]
impl SyncService for Sync {
    type StageStream = Answers<sync::StageResponse>;
    type OpenObjectStream = Answers<sync::OpenObjectResponse>;
    type WatchLinkStateStream = Answers<sync::WatchLinkStateResponse>;

    async fn stage(
        &self,
        request: Request<sync::StageRequest>,
    ) -> Result<Response<Self::StageStream>, Status> {
        let request = request.into_inner();
        let bodies = self.0.bodies.lock().unwrap();
        for reference in &request.resources {
            if !bodies.contains_key(&reference.digest) {
                return Err(Status::unavailable(format!(
                    "{} is missing and the cloud is not reachable",
                    reference.name
                )));
            }
        }
        for object in &request.objects {
            if !self.0.objects.join(&object.digest[7..]).exists() {
                return Err(Status::unavailable(format!(
                    "{} is missing",
                    object.file_name
                )));
            }
        }
        let done = u32::try_from(request.resources.len() + request.objects.len()).unwrap();
        let step = sync::StageResponse {
            items_done: done,
            items_total: done,
            bytes_done: 0,
            bytes_total: 0,
        };
        Ok(Response::new(Box::pin(stream::iter([Ok(step)]))))
    }

    async fn set_pins(
        &self,
        request: Request<sync::SetPinsRequest>,
    ) -> Result<Response<sync::SetPinsResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.owner, "engine");
        *self.0.pins.lock().unwrap() = request.digests;
        Ok(Response::new(sync::SetPinsResponse {}))
    }

    async fn read_resource(
        &self,
        request: Request<sync::ReadResourceRequest>,
    ) -> Result<Response<sync::ReadResourceResponse>, Status> {
        let body = self
            .0
            .bodies
            .lock()
            .unwrap()
            .get(&request.into_inner().digest)
            .cloned();
        let body = body.ok_or_else(|| Status::not_found("not staged"))?;
        Ok(Response::new(sync::ReadResourceResponse {
            body: body.into(),
        }))
    }

    async fn open_object(
        &self,
        request: Request<sync::OpenObjectRequest>,
    ) -> Result<Response<Self::OpenObjectStream>, Status> {
        let request = request.into_inner();
        assert!(request.want_path);
        let path = self.0.objects.join(&request.digest[7..]);
        let path = sync::open_object_response::Content::Path(path.display().to_string());
        let answer = sync::OpenObjectResponse {
            content: Some(path),
        };
        Ok(Response::new(Box::pin(stream::iter([Ok(answer)]))))
    }

    async fn put_event(
        &self,
        request: Request<sync::PutEventRequest>,
    ) -> Result<Response<sync::PutEventResponse>, Status> {
        self.0.events.lock().unwrap().push(request.into_inner());
        Ok(Response::new(sync::PutEventResponse { sequence: 1 }))
    }

    async fn watch_link_state(
        &self,
        _: Request<sync::WatchLinkStateRequest>,
    ) -> Result<Response<Self::WatchLinkStateStream>, Status> {
        let state = Some(sync::LinkState {
            phase: Phase::Online.into(),
            ..sync::LinkState::default()
        });
        let now = stream::iter([Ok(sync::WatchLinkStateResponse {
            state,
            ..sync::WatchLinkStateResponse::default()
        })]);
        Ok(Response::new(Box::pin(now.chain(stream::pending()))))
    }

    async fn get_link_state(
        &self,
        _: Request<sync::GetLinkStateRequest>,
    ) -> Result<Response<sync::GetLinkStateResponse>, Status> {
        unused()
    }

    async fn install_identity(
        &self,
        _: Request<sync::InstallIdentityRequest>,
    ) -> Result<Response<sync::InstallIdentityResponse>, Status> {
        unused()
    }

    async fn get_identity(
        &self,
        _: Request<sync::GetIdentityRequest>,
    ) -> Result<Response<sync::GetIdentityResponse>, Status> {
        unused()
    }

    async fn export_identity(
        &self,
        _: Request<sync::ExportIdentityRequest>,
    ) -> Result<Response<sync::ExportIdentityResponse>, Status> {
        unused()
    }

    async fn trust_app_key(
        &self,
        request: Request<sync::TrustAppKeyRequest>,
    ) -> Result<Response<sync::TrustAppKeyResponse>, Status> {
        *self.0.ticket_key.lock().unwrap() = request.into_inner().public_key.to_vec();
        Ok(Response::new(sync::TrustAppKeyResponse {}))
    }
}
