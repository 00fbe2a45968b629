//! Objects: large files, fetched from where their reference says, resumed where the last attempt ended.

use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_model::{Digest, ObjectRef};
use bytes::{Bytes, BytesMut};

use super::error::StageError;
use super::source::{Source, from_link};
use super::{Claim, Stager};
use crate::blocking;
use crate::store::StoreError;
use crate::store::partial::Partial;

/// Bytes that are gathered before the disk is bothered.
const PIECE: usize = 256 * 1024;

/// An object that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) digest: Digest,
    /// 0 = unknown.
    pub(crate) size: u64,
    pub(crate) url: Option<String>,
}

impl From<ObjectRef> for Object {
    fn from(reference: ObjectRef) -> Self {
        Self {
            digest: reference.digest,
            size: reference.size,
            url: reference.url.filter(|url| !url.is_empty()),
        }
    }
}

/// What an attempt has to tell when it fails.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// Bytes that are here.
    length: u64,
    /// Bytes of an earlier attempt are among them: they may be the wrong ones.
    resumed: bool,
    /// Bytes came in this attempt.
    progressed: bool,
}

impl Stager {
    /// Tells which of these objects are not complete on disk.
    pub(super) async fn missing_objects(
        &self,
        wanted: Vec<Object>,
    ) -> Result<Vec<Object>, StageError> {
        let store = self.store.clone();
        let missing = blocking(move || {
            let mut missing = Vec::new();
            for object in wanted {
                if store.object(&object.digest)?.is_none() {
                    missing.push(object);
                }
            }
            Ok::<_, StoreError>(missing)
        })
        .await?;
        Ok(missing)
    }

    /// Fetches one object unless everybody stops waiting for it.
    pub(super) async fn fetch_object(&self, claim: Claim<Object>) {
        let fetched = async {
            let _slot = self.slots.acquire().await;
            self.fetch_with_patience(&claim).await
        };
        tokio::select! {
            ended = fetched => self.land(claim, ended),
            () = claim.abandoned() => {
                tracing::info!(digest = %claim.wanted.digest,
                    "nobody waits for this object any more; its part stays");
            }
        }
    }

    /// As many attempts as bring the object forward, and one from the start when old bytes were wrong.
    async fn fetch_with_patience(&self, claim: &Claim<Object>) -> Result<u64, StageError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let digest = claim.wanted.digest;
        loop {
            let mut track = Track::default();
            let error = match self.fetch_once(claim, &mut track).await {
                Ok(()) => return Ok(track.length),
                Err(error) => error,
            };
            match &error {
                // The store has thrown the bytes away: the next attempt begins from the start.
                StageError::Store(StoreError::Mismatch { .. }) if track.resumed => {
                    tracing::warn!(%digest, "a resumed object does not match; fetching it from the start");
                }
                StageError::Unreachable { .. } if track.progressed => {
                    tracing::info!(%digest, %error, "an object broke off; going on with it");
                    backoff.wait().await;
                }
                StageError::OutOfRange { .. } if track.length > 0 => {
                    let store = self.store.clone();
                    blocking(move || store.discard(&digest)).await?;
                }
                StageError::Store(StoreError::Full { needed, .. }) => {
                    if !self.make_room(&digest, *needed).await? {
                        return Err(error);
                    }
                }
                _ => return Err(error),
            }
        }
    }

    async fn fetch_once(&self, claim: &Claim<Object>, track: &mut Track) -> Result<(), StageError> {
        let wanted = &claim.wanted;
        let partial = self.begin(wanted).await?;
        track.length = partial.length();
        track.resumed = partial.is_resumed();
        // A cut between the last byte and the rename leaves a part that lacks nothing.
        let partial = if wanted.size > 0 && partial.length() == wanted.size {
            partial
        } else {
            self.fill(claim, partial, track).await?
        };
        let store = self.store.clone();
        blocking(move || store.finish(partial)).await?;
        Ok(())
    }

    async fn begin(&self, wanted: &Object) -> Result<Partial, StageError> {
        let (store, digest, size) = (self.store.clone(), wanted.digest, wanted.size);
        let begun = blocking(move || {
            let mut partial = store.begin(&digest)?;
            if size > 0 && partial.length() > size {
                store.restart(&mut partial)?;
            }
            Ok::<_, StoreError>(partial)
        });
        Ok(begun.await?)
    }

    /// Fetches what is missing of the part.
    async fn fill(
        &self,
        claim: &Claim<Object>,
        partial: Partial,
        track: &mut Track,
    ) -> Result<Partial, StageError> {
        let wanted = &claim.wanted;
        let mut source = self.open(wanted, partial.length()).await?;
        let mut partial = self.align(wanted, &source, partial).await?;
        track.length = partial.length();
        track.resumed = partial.is_resumed();
        let (limit, total) = match wanted.size {
            0 => (self.limits.max_object, source.total.unwrap_or(0)),
            size => (size, size),
        };
        claim.report(partial.length(), total);
        let mut piece = BytesMut::new();
        loop {
            let chunk = source.next().await;
            if let Ok(Some(chunk)) = &chunk {
                self.throttle.take(chunk.len()).await;
                piece.extend_from_slice(chunk);
            }
            if partial.length() + piece.len() as u64 > limit {
                return Err(self.too_long(&wanted.digest, limit).await);
            }
            let ended = !matches!(chunk, Ok(Some(_)));
            if piece.len() >= PIECE || (ended && !piece.is_empty()) {
                partial = self.append(partial, piece.split().freeze()).await?;
                track.length = partial.length();
                track.progressed = true;
                claim.report(partial.length(), total);
            }
            match chunk? {
                Some(_) => {}
                None if partial.length() < total => {
                    return Err(StageError::unreachable(
                        &wanted.digest,
                        "the sender ended before the last byte",
                    ));
                }
                None => return Ok(partial),
            }
        }
    }

    async fn open(&self, wanted: &Object, offset: u64) -> Result<Source, StageError> {
        let digest = &wanted.digest;
        if let Some(url) = &wanted.url {
            let origin = self.store.origin(digest);
            return self.http.open(digest, url, offset, origin.as_ref()).await;
        }
        let channel = self
            .channel()
            .ok_or_else(|| StageError::unreachable(digest, "the cloud is not reachable"))?;
        from_link(channel, digest, offset, self.limits.patience).await
    }

    /// Makes the part end where the source begins, and sees whether the rest fits on the disk.
    async fn align(
        &self,
        wanted: &Object,
        source: &Source,
        mut partial: Partial,
    ) -> Result<Partial, StageError> {
        let (from, origin, digest) = (source.from, source.origin.clone(), wanted.digest);
        if from != partial.length() && from != 0 {
            let reason = "the server sent another part than was asked for";
            return Err(StageError::unreachable(&digest, reason));
        }
        let total = source.total.unwrap_or(wanted.size).max(wanted.size);
        let reserve = self.limits.reserve;
        let store = self.store.clone();
        let aligned = blocking(move || {
            // All of it comes: another version than last time, or the server knows no ranges.
            if from != partial.length() {
                store.restart(&mut partial)?;
            }
            if let Some(origin) = &origin {
                store.set_origin(&digest, origin)?;
            }
            store.check_room(total.saturating_sub(partial.length()), reserve)?;
            Ok::<_, StoreError>(partial)
        });
        Ok(aligned.await?)
    }

    async fn append(&self, mut partial: Partial, bytes: Bytes) -> Result<Partial, StageError> {
        let store = self.store.clone();
        let appended = blocking(move || {
            store.append(&mut partial, &bytes)?;
            Ok::<_, StoreError>(partial)
        });
        Ok(appended.await?)
    }

    async fn too_long(&self, digest: &Digest, limit: u64) -> StageError {
        let (store, digest) = (self.store.clone(), *digest);
        match blocking(move || store.discard(&digest)).await {
            Ok(()) => StageError::TooLong { digest, limit },
            Err(error) => error.into(),
        }
    }

    /// After a full disk: true when something could be removed, so that trying again makes sense. Otherwise the part is
    /// given up if the disk would stay full with it; applications need to write, too.
    async fn make_room(&self, digest: &Digest, needed: u64) -> Result<bool, StageError> {
        let (keeper, store, digest) = (self.keeper.clone(), self.store.clone(), *digest);
        let reserve = self.limits.reserve;
        let freed = blocking(move || {
            if keeper.make_room(needed.saturating_add(reserve))? > 0 {
                return Ok(true);
            }
            if store.check_room(0, reserve).is_err() {
                tracing::warn!(%digest, "the disk is full; the part of this object is given up");
                store.discard(&digest)?;
            }
            Ok::<_, StoreError>(false)
        });
        Ok(freed.await?)
    }
}
