//! gRPC border for the other core services: `SyncService`.

use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use baetyl_kit::clock::Clock;
use baetyl_kit::error::chain;
use baetyl_kit::grpc::details;
use baetyl_kit::resume::Revisions;
use baetyl_model::{Digest, ObjectRef, ResourceRef};
use baetyl_proto::convert::{ConvertError, time};
use baetyl_proto::shadow::Event;
use baetyl_proto::sync::open_object_response::Content;
use baetyl_proto::sync::sync_service_server::SyncService;
use baetyl_proto::sync::{
    ExportIdentityRequest, ExportIdentityResponse, GetIdentityRequest, GetIdentityResponse,
    GetLinkStateRequest, GetLinkStateResponse, InstallIdentityRequest, InstallIdentityResponse,
    LinkState, OpenObjectRequest, OpenObjectResponse, PutEventRequest, PutEventResponse,
    ReadResourceRequest, ReadResourceResponse, SetPinsRequest, SetPinsResponse, StageRequest,
    StageResponse, TrustAppKeyRequest, TrustAppKeyResponse, WatchLinkStateRequest,
    WatchLinkStateResponse,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use crate::blocking;
use crate::db::{Db, DbError};
use crate::identity::store::{IdentityError, IdentityStore};
use crate::keep::Keeper;
use crate::objects::{AppKey, Objects};
use crate::outbox::Outbox;
use crate::stage::error::store_code;
use crate::stage::{Stager, Wanted};
use crate::store::{Store, StoreError, pins, read_chunk};
use crate::trust::TrustClock;

/// Bytes of an object in one message.
const CHUNK: usize = 64 * 1024;

/// What one call may name: the references of a whole node are far fewer.
pub(crate) const MAX_REFERENCES: usize = 10_000;

/// A boxed stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service over store, link and identity.
pub(crate) struct Server {
    pub(crate) clock: Clock,
    pub(crate) db: Arc<Db>,
    pub(crate) store: Arc<Store>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) stager: Arc<Stager>,
    pub(crate) identity: Arc<IdentityStore>,
    pub(crate) trust: Arc<TrustClock>,
    pub(crate) outbox: Outbox,
    pub(crate) link: watch::Receiver<LinkState>,
    pub(crate) link_states: Revisions<LinkState>,
    pub(crate) app_key: Arc<AppKey>,
}

impl Server {
    /// The border for the init containers of Pods.
    pub(crate) fn objects(&self) -> Objects {
        Objects {
            store: Arc::clone(&self.store),
            keeper: Arc::clone(&self.keeper),
        }
    }
}

#[tonic::async_trait]
impl SyncService for Server {
    type StageStream = Answers<StageResponse>;

    async fn stage(
        &self,
        request: Request<StageRequest>,
    ) -> Result<Response<Self::StageStream>, Status> {
        let StageRequest { resources, objects } = request.into_inner();
        if resources.len() + objects.len() > MAX_REFERENCES {
            return Err(details::invalid(
                "resources",
                format!("more than {MAX_REFERENCES} references in one call"),
            ));
        }
        let malformed = |field: &'static str| {
            move |error: ConvertError| details::invalid(field, error.to_string())
        };
        let wanted = Wanted {
            resources: resources
                .into_iter()
                .map(ResourceRef::try_from)
                .collect::<Result<_, _>>()
                .map_err(malformed("resources"))?,
            objects: objects
                .into_iter()
                .map(ObjectRef::try_from)
                .collect::<Result<_, _>>()
                .map_err(malformed("objects"))?,
        };
        let waiting = self
            .stager
            .stage(wanted)
            .await
            .map_err(|error| error.to_status())?;
        let progress = waiting
            .into_stream()
            .map(|item| item.map_err(|error| error.to_status()));
        Ok(Response::new(Box::pin(progress)))
    }

    async fn set_pins(
        &self,
        request: Request<SetPinsRequest>,
    ) -> Result<Response<SetPinsResponse>, Status> {
        let SetPinsRequest { owner, digests } = request.into_inner();
        if owner.is_empty() || owner.len() > 64 {
            return Err(details::invalid(
                "owner",
                "owner: 1 to 64 characters are wanted",
            ));
        }
        let digests: Vec<Digest> = digests
            .iter()
            .map(|digest| parse(digest))
            .collect::<Result<_, _>>()?;
        let db = Arc::clone(&self.db);
        blocking(move || pins::set_pins(&db, &owner, &digests))
            .await
            .map_err(|error| database(&error))?;
        self.keeper.changed();
        Ok(Response::new(SetPinsResponse {}))
    }

    async fn read_resource(
        &self,
        request: Request<ReadResourceRequest>,
    ) -> Result<Response<ReadResourceResponse>, Status> {
        let digest = parse(&request.into_inner().digest)?;
        let store = Arc::clone(&self.store);
        let body = blocking(move || store.read_body(&digest))
            .await
            .map_err(|error| storage(&error))?
            .ok_or_else(|| not_staged(&digest))?;
        Ok(Response::new(ReadResourceResponse { body: body.into() }))
    }

    type OpenObjectStream = Answers<OpenObjectResponse>;

    async fn open_object(
        &self,
        request: Request<OpenObjectRequest>,
    ) -> Result<Response<Self::OpenObjectStream>, Status> {
        let OpenObjectRequest { digest, want_path } = request.into_inner();
        let digest = parse(&digest)?;
        let store = Arc::clone(&self.store);
        if want_path {
            let path = blocking(move || store.object(&digest))
                .await
                .map_err(|error| storage(&error))?
                .ok_or_else(|| not_staged(&digest))?;
            let path = path
                .into_os_string()
                .into_string()
                .map_err(|_| Status::internal("the path of the store is not plain text"))?;
            let only = stream::once(async { Ok(content(Content::Path(path))) });
            return Ok(Response::new(Box::pin(only)));
        }
        let file = blocking(move || store.open_object(&digest))
            .await
            .map_err(|error| storage(&error))?
            .ok_or_else(|| not_staged(&digest))?;
        let content = chunks(file).map(|chunk| chunk.map(|chunk| content(Content::Chunk(chunk))));
        Ok(Response::new(Box::pin(content)))
    }

    async fn get_link_state(
        &self,
        _: Request<GetLinkStateRequest>,
    ) -> Result<Response<GetLinkStateResponse>, Status> {
        let state = Some(self.link.borrow().clone());
        Ok(Response::new(GetLinkStateResponse { state }))
    }

    type WatchLinkStateStream = Answers<WatchLinkStateResponse>;

    async fn watch_link_state(
        &self,
        request: Request<WatchLinkStateRequest>,
    ) -> Result<Response<Self::WatchLinkStateStream>, Status> {
        let token = request.into_inner().resume_token;
        let mut resumed = self.link_states.resume(&token)?;
        let states = WatchStream::new(self.link.clone()).filter_map(move |state| {
            let token = resumed.news(state.clone());
            std::future::ready(token.map(|resume_token| {
                Ok(WatchLinkStateResponse {
                    state: Some(state),
                    resume_token,
                })
            }))
        });
        Ok(Response::new(Box::pin(states)))
    }

    async fn install_identity(
        &self,
        request: Request<InstallIdentityRequest>,
    ) -> Result<Response<InstallIdentityResponse>, Status> {
        let parts = request.into_inner().into();
        let store = Arc::clone(&self.identity);
        let changed = blocking(move || store.install(parts))
            .await
            .map_err(|error| identity(&error))?;
        if let Some(installed) = self.identity.current() {
            // Init got it over a connection it trusts.
            if let Ok(begin) = Timestamp::from_second(installed.not_before()) {
                self.trust.raise(begin).await;
            }
            tracing::info!(changed, node = %installed.node_name, uid = %installed.node_uid, "an identity is installed");
        }
        Ok(Response::new(InstallIdentityResponse { changed }))
    }

    async fn get_identity(
        &self,
        _: Request<GetIdentityRequest>,
    ) -> Result<Response<GetIdentityResponse>, Status> {
        let Some(installed) = self.identity.current() else {
            return Ok(Response::new(GetIdentityResponse::default()));
        };
        Ok(Response::new(GetIdentityResponse {
            installed: true,
            namespace: installed.namespace.to_string(),
            node_name: installed.node_name.to_string(),
            node_uid: installed.node_uid.to_string(),
            certificate_fingerprint: installed.fingerprint(),
            not_after: Timestamp::from_second(installed.not_after())
                .ok()
                .map(time::to_wire),
        }))
    }

    async fn export_identity(
        &self,
        _: Request<ExportIdentityRequest>,
    ) -> Result<Response<ExportIdentityResponse>, Status> {
        let installed = self.identity.current();
        Ok(Response::new(ExportIdentityResponse {
            identity: installed.map(|installed| installed.parts().into()),
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
        self.app_key.trust(key.to_vec());
        Ok(Response::new(TrustAppKeyResponse {}))
    }

    async fn put_event(
        &self,
        request: Request<PutEventRequest>,
    ) -> Result<Response<PutEventResponse>, Status> {
        let PutEventRequest {
            reason,
            message,
            about,
            r#type,
        } = request.into_inner();
        if !is_camel_case(&reason) {
            return Err(details::invalid(
                "reason",
                "reason: a CamelCase word is wanted",
            ));
        }
        if r#type != "Normal" && r#type != "Warning" {
            return Err(details::invalid(
                "type",
                "type: Normal or Warning is wanted",
            ));
        }
        let event = Event {
            time: Some(time::to_wire(self.clock.now())),
            reason,
            message,
            about,
            r#type,
            ..Event::default()
        };
        let outbox = self.outbox.clone();
        let sequence = blocking(move || outbox.put(event))
            .await
            .map_err(|error| database(&error))?;
        Ok(Response::new(PutEventResponse { sequence }))
    }
}

/// The file in pieces; each is read when the caller has taken the one before.
pub(crate) fn chunks(file: File) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    stream::unfold(Some(file), |file| async move {
        let mut file = file?;
        let read = blocking(move || {
            let chunk = read_chunk(&mut file, CHUNK)?;
            Ok::<_, io::Error>((file, chunk))
        });
        match read.await {
            Ok((_, chunk)) if chunk.is_empty() => None,
            Ok((file, chunk)) => Some((Ok(chunk.into()), Some(file))),
            Err(error) => Some((Err(Status::internal(format!("the disk: {error}"))), None)),
        }
    })
}

fn content(content: Content) -> OpenObjectResponse {
    OpenObjectResponse {
        content: Some(content),
    }
}

pub(crate) fn parse(digest: &str) -> Result<Digest, Status> {
    digest
        .parse()
        .map_err(|error| details::invalid("digest", format!("{error}")))
}

fn is_camel_case(word: &str) -> bool {
    (1..=128).contains(&word.len())
        && word.starts_with(|first: char| first.is_ascii_uppercase())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

pub(crate) fn not_staged(digest: &Digest) -> Status {
    Status::not_found(format!("{digest} is not staged on this node"))
}

pub(crate) fn storage(error: &StoreError) -> Status {
    tracing::error!(error = %chain(error), "the store refused");
    Status::new(store_code(error), chain(error))
}

fn database(error: &DbError) -> Status {
    tracing::error!(error = %chain(error), "the database refused");
    if error.is_full() {
        Status::resource_exhausted(chain(error))
    } else {
        Status::internal(chain(error))
    }
}

fn identity(error: &IdentityError) -> Status {
    match error {
        IdentityError::Invalid(_) => Status::invalid_argument(chain(error)),
        IdentityError::OtherNode { .. } => Status::already_exists(chain(error)),
        IdentityError::None => Status::failed_precondition(chain(error)),
        IdentityError::Db(source) => database(source),
        IdentityError::Seal(_) => Status::internal(chain(error)),
        IdentityError::File { source, .. } => {
            if source.kind() == io::ErrorKind::StorageFull {
                Status::resource_exhausted(chain(error))
            } else {
                Status::internal(chain(error))
            }
        }
    }
}
