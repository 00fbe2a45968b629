//! What the store must keep, and when it is cleaned.
//!
//! Kept is what owners pinned, what the held desire references, and what was staged a moment ago (its caller has not
//! pinned it yet). Nothing at all is removed before an owner has declared its pins and a desire is known: an emptied
//! database must not cost a running application its files.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baetyl_kit::error::chain;
use baetyl_model::Digest;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::blocking;
use crate::db::Db;
use crate::node::Held;
use crate::store::gc::Watermark;
use crate::store::{Store, StoreError, pins};

/// How long something that was staged is kept without a pin: longer than any caller takes to pin it.
const GRACE: Duration = Duration::from_secs(600);

/// Between two cleanings that nothing asked for.
const EVERY: Duration = Duration::from_secs(3600);

/// Changes come in bursts (desire, pins, pins); one cleaning serves them all.
const SETTLE: Duration = Duration::from_millis(500);

/// Decides what stays.
pub(crate) struct Keeper {
    db: Arc<Db>,
    store: Arc<Store>,
    held: watch::Receiver<Held>,
    watermark: Watermark,
    staged: Mutex<HashMap<Digest, Instant>>,
    wake: Notify,
}

impl Keeper {
    pub(crate) fn new(
        db: Arc<Db>,
        store: Arc<Store>,
        held: watch::Receiver<Held>,
        watermark: Watermark,
    ) -> Self {
        Self {
            db,
            store,
            held,
            watermark,
            staged: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Keeps these for a while, pinned or not.
    pub(crate) fn hold(&self, digests: &[Digest]) {
        let now = Instant::now();
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        staged.retain(|_, since| now - *since < GRACE);
        staged.extend(digests.iter().map(|digest| (*digest, now)));
    }

    /// Something that decides what stays has changed.
    pub(crate) fn changed(&self) {
        self.wake.notify_one();
    }

    /// Cleans after changes and every hour, until shutdown.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut held = self.held.clone();
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                Ok(()) = held.changed() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            tokio::time::sleep(SETTLE).await;
            let keeper = Arc::clone(&self);
            if let Err(error) = blocking(move || keeper.clean(keeper.watermark)).await {
                tracing::warn!(error = %chain(&error), "the store could not be cleaned; trying again later");
            }
        }
    }

    /// Frees `bytes` on the file system if that is possible; gives how many were freed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn make_room(&self, bytes: u64) -> Result<u64, StoreError> {
        let watermark = Watermark {
            min_free: self.watermark.min_free.max(bytes),
            ..self.watermark
        };
        self.clean(watermark)
    }

    /// Which of these something may still need; None when that is not known.
    pub(crate) fn needed(&self, digests: &[Digest]) -> Option<Vec<Digest>> {
        let keep = self.keep()?;
        Some(
            digests
                .iter()
                .filter(|digest| keep.contains(*digest))
                .copied()
                .collect(),
        )
    }

    fn clean(&self, watermark: Watermark) -> Result<u64, StoreError> {
        match self.keep() {
            Some(keep) => self
                .store
                .collect(&keep, watermark)
                .map(|collected| collected.bytes),
            None => Ok(0),
        }
    }

    /// What stays; None when that is not known, and everything does.
    fn keep(&self) -> Option<HashSet<Digest>> {
        let mut keep = self.held.borrow().digests()?;
        match pins::pins(&self.db) {
            Ok(Some(pinned)) => keep.extend(pinned),
            Ok(None) => return None,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the pins cannot be read; nothing is removed");
                return None;
            }
        }
        let now = Instant::now();
        let staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        keep.extend(
            staged
                .iter()
                .filter(|(_, since)| now - **since < GRACE)
                .map(|(digest, _)| *digest),
        );
        Some(keep)
    }
}

#[cfg(test)]
mod tests;
