//! The conversation with sync: objects by digest, from where the last attempt ended, and which configurations the node
//! still needs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::error::BoxError;
use baetyl_kit::fsio;
use baetyl_kit::grpc::{self, Client, Connect, Endpoint};
use baetyl_kit::tls::{self, CertTime, Roots, ServerTrust};
use baetyl_model::Digest;
use baetyl_model::objects::StagedObject;
use baetyl_model::trust::{RELEASED, Validity, edge_accepts_cloud};
use baetyl_proto::sync::object_service_client::ObjectServiceClient;
use baetyl_proto::sync::{FetchObjectRequest, FetchObjectResponse, SelectNeededRequest};
use bytes::BytesMut;
use jiff::Timestamp;
use tonic::{Code, Status, Streaming};

use super::{RESERVE, StageArgs, StageError};
use crate::blocking;
use crate::store::partial::Partial;
use crate::store::{Store, StoreError, wrong_size};

/// Bytes that are gathered before the disk is bothered.
const PIECE: usize = 256 * 1024;

/// Longest ticket file: a ticket and white space.
const MAX_TICKET: u64 = 16 * 1024;

/// Sync, as this Pod sees it.
pub(super) type Sync = ObjectServiceClient<Client>;

/// The clock of a node may say anything; all that is certain is that this release is not in the future.
#[derive(Debug)]
struct AtRelease;

impl CertTime for AtRelease {
    fn judge_at(&self, chain: tls::Validity, _wall: i64) -> i64 {
        let validity = Validity::from_seconds(chain.not_before, chain.not_after);
        edge_accepts_cloud(&[validity], RELEASED).map_or(RELEASED.as_second(), Timestamp::as_second)
    }
}

/// A channel that shows the ticket. Files are read anew each time: engine replaces them while we wait.
///
/// # Errors
/// When address, authority or ticket cannot be used.
pub(super) fn connect(args: &StageArgs) -> Result<Sync, StageError> {
    let try_connect = || -> Result<Client, BoxError> {
        let ticket = fsio::read_limited(&args.ticket, MAX_TICKET)
            .map_err(|error| format!("the ticket {}: {error}", args.ticket.display()))?;
        let ticket = String::from_utf8_lossy(&ticket);
        let mut connect = Connect::new(args.server.clone()).bearer(ticket.trim());
        if let Endpoint::Https(_) = args.server {
            let ca = args.ca.as_deref().ok_or("https needs --ca")?;
            let trust = ServerTrust::Roots(Roots::load(ca)?);
            connect = connect.tls(tls::client_config(&trust, None, Some(Arc::new(AtRelease)))?);
        }
        Ok(connect.lazy()?)
    };
    let client = try_connect().map_err(|source| StageError::Server {
        server: args.server.clone(),
        source,
    })?;
    Ok(ObjectServiceClient::new(client))
}

/// Which of these configurations something on the node may still need.
///
/// # Errors
/// Why that is not known, as a sentence.
pub(super) async fn select_needed(
    args: &StageArgs,
    configurations: &[Digest],
) -> Result<HashSet<Digest>, String> {
    let mut client = connect(args).map_err(|error| error.to_string())?;
    let request = SelectNeededRequest {
        digests: configurations.iter().map(ToString::to_string).collect(),
    };
    let answer = client.select_needed(grpc::unary(request)).await;
    let needed = answer.map_err(|status| said(&status))?.into_inner().needed;
    needed
        .iter()
        .map(|digest| digest.parse().map_err(|error| format!("{error}")))
        .collect()
}

/// Fetches what is missing of one object into the store, where it is complete and verified then.
///
/// # Errors
/// Why it is not, this time or at all.
pub(super) async fn fetch(
    client: &Sync,
    server: &Endpoint,
    store: &Arc<Store>,
    object: &StagedObject,
    silence: Duration,
) -> Result<(), StageError> {
    let mut fetching = Fetching {
        store,
        object,
        server,
        silence,
        progressed: false,
    };
    let partial = fetching.begin().await?;
    let resumed = partial.is_resumed();
    let partial = if object.size > 0 && partial.length() == object.size {
        partial
    } else {
        fetching.fill(client.clone(), partial).await?
    };
    let length = partial.length();
    let (store, digest) = (Arc::clone(store), object.digest);
    match blocking(move || store.finish(partial)).await {
        Ok(_) if object.size > 0 && length != object.size => {
            Err(wrong_size(&digest, object.size, length).into())
        }
        Ok(_) => {
            tracing::info!(file = %object.file_name, %digest, bytes = length, "an object is here");
            Ok(())
        }
        // The bytes of an earlier attempt may be at fault; they were thrown away.
        Err(StoreError::Mismatch { .. }) if resumed => {
            Err(fetching
                .unreachable("what was here of it did not match; it is fetched from the start"))
        }
        Err(error) => Err(error.into()),
    }
}

struct Fetching<'a> {
    store: &'a Arc<Store>,
    object: &'a StagedObject,
    server: &'a Endpoint,
    silence: Duration,
    progressed: bool,
}

impl Fetching<'_> {
    /// The part that is here, if its rest fits on the disk.
    async fn begin(&self) -> Result<Partial, StageError> {
        let (store, digest, size) = (Arc::clone(self.store), self.object.digest, self.object.size);
        let begun = blocking(move || {
            let mut partial = store.begin(&digest)?;
            if size > 0 && partial.length() > size {
                store.restart(&mut partial)?;
            }
            store.check_room(size.saturating_sub(partial.length()), RESERVE)?;
            Ok::<_, StoreError>(partial)
        });
        Ok(begun.await?)
    }

    /// Fetches what is missing of the part.
    async fn fill(
        &mut self,
        mut client: Sync,
        mut partial: Partial,
    ) -> Result<Partial, StageError> {
        let (digest, size) = (self.object.digest, self.object.size);
        tracing::info!(file = %self.object.file_name, %digest, from = partial.length(), size, "fetching an object");
        let request = FetchObjectRequest {
            digest: digest.to_string(),
            offset: partial.length(),
        };
        let opened = tokio::time::timeout(self.silence, client.fetch_object(request)).await;
        let mut stream = match opened {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(self.refused(&status, partial.length()).await?),
            Err(_) => return Err(self.silent()),
        };
        let mut piece = BytesMut::new();
        loop {
            let chunk = self.next(&mut stream).await;
            let ended = !matches!(chunk, Ok(Some(_)));
            if let Ok(Some(message)) = &chunk {
                piece.extend_from_slice(&message.chunk);
            }
            let length = partial.length() + piece.len() as u64;
            if size > 0 && length > size {
                self.discard().await?;
                return Err(wrong_size(&digest, size, length).into());
            }
            if piece.len() >= PIECE || (ended && !piece.is_empty()) {
                let (store, bytes) = (Arc::clone(self.store), piece.split().freeze());
                partial = blocking(move || {
                    store.append(&mut partial, &bytes)?;
                    Ok::<_, StoreError>(partial)
                })
                .await?;
                self.progressed = true;
            }
            match chunk? {
                Some(_) => {}
                None if partial.length() < size => {
                    return Err(self.unreachable("it ended before the last byte"));
                }
                None => return Ok(partial),
            }
        }
    }

    async fn next(
        &self,
        stream: &mut Streaming<FetchObjectResponse>,
    ) -> Result<Option<FetchObjectResponse>, StageError> {
        match tokio::time::timeout(self.silence, stream.message()).await {
            Ok(message) => message.map_err(|status| self.unreachable(said(&status))),
            Err(_) => Err(self.silent()),
        }
    }

    /// Everything that sync says no to may pass: it stages what is missing, engine replaces tickets. A part that is longer
    /// than the object is thrown away.
    async fn refused(&self, status: &Status, length: u64) -> Result<StageError, StageError> {
        if status.code() == Code::OutOfRange && length > 0 {
            self.discard().await?;
        }
        Ok(self.unreachable(said(status)))
    }

    async fn discard(&self) -> Result<(), StageError> {
        let (store, digest) = (Arc::clone(self.store), self.object.digest);
        Ok(blocking(move || store.discard(&digest)).await?)
    }

    fn silent(&self) -> StageError {
        self.unreachable(format!("nothing came for {} s", self.silence.as_secs()))
    }

    fn unreachable(&self, reason: impl Into<String>) -> StageError {
        StageError::Unreachable {
            digest: self.object.digest,
            server: self.server.clone(),
            reason: reason.into(),
            progressed: self.progressed,
        }
    }
}

fn said(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
