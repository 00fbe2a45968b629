//! What a caller of Stage sees: one sum over all digests it waits for, and the first failure at the end.

use std::sync::Arc;
use std::time::Duration;

use baetyl_model::Digest;
use baetyl_proto::sync::StageResponse;
use futures_util::stream::{SelectAll, StreamExt as _, select_all};
use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::WatchStream;

use super::Flight;
use super::error::StageError;

/// Bytes alone are not told more often than this.
const EVERY: Duration = Duration::from_millis(250);

/// How far a call is.
pub(crate) type Progress = StageResponse;

/// One digest that is waited for.
pub(crate) struct Wait {
    digest: Digest,
    flight: watch::Receiver<Flight>,
}

impl Wait {
    pub(super) fn new(digest: Digest, flight: watch::Receiver<Flight>) -> Self {
        Self { digest, flight }
    }
}

type Changes = SelectAll<stream::BoxStream<'static, (usize, Option<Flight>)>>;

/// Everything a call waits for. Dropping it ends the waiting.
pub(crate) struct Waiting {
    present: usize,
    digests: Vec<Digest>,
    flights: Vec<Flight>,
    changes: Changes,
    failure: Option<Arc<StageError>>,
    told: Option<Instant>,
}

impl Waiting {
    pub(super) fn new(present: usize, waits: Vec<Wait>) -> Self {
        let digests = waits.iter().map(|wait| wait.digest).collect();
        let flights = waits
            .iter()
            .map(|wait| wait.flight.borrow().clone())
            .collect();
        let changes = select_all(waits.into_iter().enumerate().map(|(index, wait)| {
            let end = stream::once(async move { (index, None) });
            WatchStream::new(wait.flight)
                .map(move |flight| (index, Some(flight)))
                .chain(end)
                .boxed()
        }));
        Self {
            present,
            digests,
            flights,
            changes,
            failure: None,
            told: None,
        }
    }

    /// Progress now and then; the last item says that all is complete, or why not. Every flight is waited for, so that
    /// one failure does not stop what others can still use.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Progress, Arc<StageError>>> {
        stream::unfold(Some(self), |waiting| async move {
            let mut waiting = waiting?;
            loop {
                match waiting.changes.next().await {
                    Some((index, flight)) => {
                        if waiting.note(index, flight) {
                            let progress = waiting.sum();
                            return Some((Ok(progress), Some(waiting)));
                        }
                    }
                    None => {
                        let last = match waiting.failure.take() {
                            Some(failure) => Err(failure),
                            None => Ok(waiting.sum()),
                        };
                        return Some((last, None));
                    }
                }
            }
        })
    }

    /// Takes in a change; true when it is worth telling.
    fn note(&mut self, index: usize, flight: Option<Flight>) -> bool {
        let (Some(known), Some(digest)) = (self.flights.get_mut(index), self.digests.get(index))
        else {
            return false;
        };
        match flight {
            Some(Flight::Failed(error)) => {
                self.failure.get_or_insert(Arc::clone(&error));
                *known = Flight::Failed(error);
                false
            }
            Some(done @ Flight::Done { .. }) => {
                *known = done;
                true
            }
            Some(running) => {
                *known = running;
                let now = Instant::now();
                let due = self.told.is_none_or(|told| now - told >= EVERY);
                if due {
                    self.told = Some(now);
                }
                due
            }
            None => {
                // Its fetcher is gone; without a result it was interrupted.
                if matches!(known, Flight::Running { .. }) {
                    let error = StageError::Interrupted { digest: *digest };
                    self.failure.get_or_insert(Arc::new(error));
                }
                false
            }
        }
    }

    fn sum(&self) -> Progress {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let mut done = self.present;
        let (mut bytes_done, mut bytes_total) = (0, 0);
        for flight in &self.flights {
            match flight {
                Flight::Running { done, total } => {
                    bytes_done += done;
                    bytes_total += total.max(done);
                }
                Flight::Done { bytes } => {
                    done += 1;
                    bytes_done += bytes;
                    bytes_total += bytes;
                }
                Flight::Failed(_) => {}
            }
        }
        Progress {
            items_done: count(done),
            items_total: count(self.present + self.flights.len()),
            bytes_done,
            bytes_total,
        }
    }
}
