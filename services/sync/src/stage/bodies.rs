//! Bodies of resources: all that are missing in one batched fetch over the link.

use std::collections::HashMap;
use std::sync::Arc;

use baetyl_kit::grpc::MAX_MESSAGE;
use baetyl_model::{Digest, Kind, ResourceRef};
use baetyl_proto::link::link_service_client::LinkServiceClient;
use baetyl_proto::link::{FetchResourcesRequest, FetchResourcesResponse};
use tokio::time::timeout;
use tonic::transport::Channel;

use super::error::StageError;
use super::{Claim, Stager};
use crate::blocking;
use crate::store::Shelf;

/// Digests a call may name (the contract's number).
const BATCH: usize = 1000;

/// A body that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) shelf: Shelf,
}

impl From<ResourceRef> for Body {
    fn from(reference: ResourceRef) -> Self {
        Self {
            digest: reference.digest,
            size: reference.size,
            shelf: match reference.kind {
                Kind::Secret => Shelf::Sealed,
                Kind::Application | Kind::Configuration => Shelf::Plain,
            },
        }
    }
}

/// What came of the body that arrives now.
struct Arriving {
    digest: Digest,
    bytes: Vec<u8>,
    too_long: bool,
}

impl Stager {
    /// Fetches all claimed bodies. Each claim is told how it ended.
    pub(super) async fn fetch_bodies(&self, claims: Vec<Claim<Body>>) {
        let mut waiting: HashMap<Digest, Claim<Body>> = claims
            .into_iter()
            .map(|claim| (claim.wanted.digest, claim))
            .collect();
        let digests: Vec<Digest> = waiting.keys().copied().collect();
        let total = waiting.values().map(|claim| claim.wanted.size).sum();
        if let Err(error) = self.room_for(total).await {
            let error = Arc::new(error);
            for claim in waiting.into_values() {
                self.fail(claim, Arc::clone(&error));
            }
            return;
        }
        for batch in digests.chunks(BATCH) {
            if let Err(failure) = self.fetch_batch(batch, &mut waiting).await {
                for digest in batch {
                    if let Some(claim) = waiting.remove(digest) {
                        self.land(claim, Err(failure(digest)));
                    }
                }
            }
        }
    }

    /// Before anything is fetched: does it fit?
    async fn room_for(&self, bytes: u64) -> Result<(), StageError> {
        let (store, reserve) = (self.store.clone(), self.limits.reserve);
        self.with_room(move || store.check_room(bytes, reserve))
            .await?;
        Ok(())
    }

    /// One call. What arrives complete leaves `waiting`; the error is for the rest of the batch.
    async fn fetch_batch(
        &self,
        batch: &[Digest],
        waiting: &mut HashMap<Digest, Claim<Body>>,
    ) -> Result<(), Box<dyn Fn(&Digest) -> StageError + Send>> {
        let channel = self.channel().ok_or_else(offline)?;
        let request = FetchResourcesRequest {
            digests: batch.iter().map(ToString::to_string).collect(),
        };
        let mut client = LinkServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let patience = self.limits.patience;
        let silent = move || -> Box<dyn Fn(&Digest) -> StageError + Send> {
            Box::new(move |digest| StageError::silent(digest, patience))
        };
        let mut stream = timeout(patience, client.fetch_resources(request))
            .await
            .map_err(|_| silent())?
            .map_err(answered)?
            .into_inner();
        let mut arriving: Option<Arriving> = None;
        loop {
            let message = timeout(patience, stream.message())
                .await
                .map_err(|_| silent())?
                .map_err(answered)?;
            let Some(message) = message else { break };
            self.throttle.take(message.chunk.len()).await;
            self.take_part(message, &mut arriving, waiting).await;
        }
        if batch.iter().any(|digest| waiting.contains_key(digest)) {
            return Err(Box::new(|digest| {
                StageError::unreachable(digest, "the cloud ended its answer before this body")
            }));
        }
        Ok(())
    }

    /// Adds a part to the body that arrives; stores it when it was the last.
    async fn take_part(
        &self,
        part: FetchResourcesResponse,
        arriving: &mut Option<Arriving>,
        waiting: &mut HashMap<Digest, Claim<Body>>,
    ) {
        // What was not asked for, and what came before, is passed over.
        let Ok(digest) = part.digest.parse::<Digest>() else {
            return;
        };
        let Some(claim) = waiting.get(&digest) else {
            return;
        };
        let mut body = match arriving.take() {
            Some(body) if body.digest == digest => body,
            _ => Arriving {
                digest,
                bytes: Vec::new(),
                too_long: false,
            },
        };
        let limit = claim.wanted.size.min(self.limits.max_body);
        if (body.bytes.len() + part.chunk.len()) as u64 > limit {
            body.too_long = true;
            body.bytes = Vec::new();
        }
        if !body.too_long {
            body.bytes.extend_from_slice(&part.chunk);
        }
        if !part.last {
            *arriving = Some(body);
            return;
        }
        let Some(claim) = waiting.remove(&digest) else {
            return;
        };
        let stored = if body.too_long {
            Err(StageError::TooLong { digest, limit })
        } else {
            self.keep_body(&claim.wanted, body.bytes).await
        };
        self.land(claim, stored);
    }

    async fn keep_body(&self, wanted: &Body, bytes: Vec<u8>) -> Result<u64, StageError> {
        let (store, wanted) = (self.store.clone(), wanted.clone());
        let size = bytes.len() as u64;
        if size != wanted.size {
            return Err(StageError::Store(crate::store::wrong_size(
                &wanted.digest,
                wanted.size,
                size,
            )));
        }
        self.with_room(move || store.put_body(wanted.shelf, &wanted.digest, &bytes))
            .await?;
        Ok(size)
    }

    /// Tells which of these bodies are not complete on disk.
    pub(super) async fn missing_bodies(&self, wanted: Vec<Body>) -> Result<Vec<Body>, StageError> {
        let store = self.store.clone();
        blocking(move || {
            let mut missing = Vec::new();
            for body in wanted {
                if store.read_body(&body.digest)?.is_none() {
                    missing.push(body);
                }
            }
            Ok(missing)
        })
        .await
    }

    /// The link to the cloud, when there is one now.
    pub(super) fn channel(&self) -> Option<Channel> {
        self.uplink.borrow().clone()
    }
}

/// For what is missing without a link.
fn offline() -> Box<dyn Fn(&Digest) -> StageError + Send> {
    Box::new(|digest| StageError::unreachable(digest, "the cloud is not reachable"))
}

fn answered(status: tonic::Status) -> Box<dyn Fn(&Digest) -> StageError + Send> {
    Box::new(move |digest| StageError::from_cloud(digest, &status))
}
