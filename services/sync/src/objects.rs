//! gRPC border for the init containers of Pods with objects: `ObjectService`. Who comes here has shown a ticket.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use baetyl_kit::grpc::{CallerInfo, details};
use baetyl_model::Digest;
use baetyl_proto::sync::object_service_server::ObjectService;
use baetyl_proto::sync::{
    FetchObjectRequest, FetchObjectResponse, SelectNeededRequest, SelectNeededResponse,
};
use baetyl_proto::ticket;
use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use crate::blocking;
use crate::keep::Keeper;
use crate::server::{MAX_REFERENCES, chunks, not_staged, parse, storage};
use crate::store::Store;

/// The key tickets are checked with, once engine told it. In memory only: engine tells it again at each connect.
#[derive(Debug, Default)]
pub(crate) struct AppKey(RwLock<Option<Vec<u8>>>);

impl AppKey {
    pub(crate) fn trust(&self, key: Vec<u8>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }

    pub(crate) fn get(&self) -> Option<Vec<u8>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The service over the store.
pub(crate) struct Objects {
    pub(crate) store: Arc<Store>,
    pub(crate) keeper: Arc<Keeper>,
}

#[tonic::async_trait]
impl ObjectService for Objects {
    type FetchObjectStream =
        Pin<Box<dyn Stream<Item = Result<FetchObjectResponse, Status>> + Send>>;

    async fn fetch_object(
        &self,
        request: Request<FetchObjectRequest>,
    ) -> Result<Response<Self::FetchObjectStream>, Status> {
        let digest = parse(&request.get_ref().digest)?;
        let ticket = CallerInfo::of(&request)?
            .detail::<ticket::Claims>()
            .ok_or_else(|| Status::internal("the caller was let in without a ticket"))?;
        if !ticket.names(&digest) {
            return Err(Status::permission_denied(format!(
                "the ticket of application {} does not name {digest}",
                ticket.app
            )));
        }
        let offset = request.get_ref().offset;
        let store = Arc::clone(&self.store);
        let file = blocking(move || {
            let file = store
                .open_object(&digest)
                .map_err(|error| storage(&error))?
                .ok_or_else(|| not_staged(&digest))?;
            skip(file, offset, &digest)
        });
        let content =
            chunks(file.await?).map(|chunk| chunk.map(|chunk| FetchObjectResponse { chunk }));
        Ok(Response::new(Box::pin(content)))
    }

    async fn select_needed(
        &self,
        request: Request<SelectNeededRequest>,
    ) -> Result<Response<SelectNeededResponse>, Status> {
        let digests = request.into_inner().digests;
        if digests.len() > MAX_REFERENCES {
            let message = format!("more than {MAX_REFERENCES} digests in one call");
            return Err(details::invalid("digests", message));
        }
        let digests: Vec<Digest> = digests
            .iter()
            .map(|digest| parse(digest))
            .collect::<Result<_, _>>()?;
        let keeper = Arc::clone(&self.keeper);
        let needed = blocking(move || keeper.needed(&digests))
            .await
            .ok_or_else(|| {
                Status::unavailable(
                    "what this node needs is not known yet: it has no desire, or engine has not declared its pins",
                )
            })?;
        Ok(Response::new(SelectNeededResponse {
            needed: needed.iter().map(ToString::to_string).collect(),
        }))
    }
}

/// The file from `offset` on.
fn skip(mut file: File, offset: u64, digest: &Digest) -> Result<File, Status> {
    let disk = |error: io::Error| Status::internal(format!("the disk: {error}"));
    let length = file.metadata().map_err(disk)?.len();
    if offset > length {
        return Err(Status::out_of_range(format!(
            "{digest} has {length} bytes, fewer than {offset}"
        )));
    }
    file.seek(SeekFrom::Start(offset)).map_err(disk)?;
    Ok(file)
}
