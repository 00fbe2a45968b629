//! Staging: everything an application needs is fetched, verified and on disk before anything is switched.
//!
//! Owns what is being fetched now. A digest is fetched once however many callers wait for it; all missing bodies of a
//! call travel in one batch; an object that nobody waits for any more stops (its part stays). Start at
//! [`Stager::stage`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baetyl_kit::Tasks;
use baetyl_kit::error::chain;
use baetyl_model::{Digest, ObjectRef, ResourceRef};
use tokio::sync::{Semaphore, watch};
use tonic::transport::Channel;

pub(crate) mod bodies;
pub(crate) mod error;
pub(crate) mod objects;
pub(crate) mod progress;
pub(crate) mod source;
pub(crate) mod throttle;

use crate::blocking;
use crate::keep::Keeper;
use crate::store::{Store, StoreError};
use bodies::Body;
use error::StageError;
use objects::Object;
use progress::Waiting;
use source::Http;
use throttle::Throttle;

/// Objects that travel at the same time: more only make each slower.
const OBJECTS_AT_ONCE: usize = 2;

/// Numbers that bound staging.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes that stay free on the file system.
    pub(crate) reserve: u64,
    /// Longest body.
    pub(crate) max_body: u64,
    /// Longest object whose author gave no size.
    pub(crate) max_object: u64,
    /// Silence after which a sender counts as gone.
    pub(crate) patience: Duration,
}

/// How far one digest is.
#[derive(Clone, Debug)]
pub(crate) enum Flight {
    /// Bytes that are here, and all if that is known (else 0).
    Running { done: u64, total: u64 },
    /// Complete on disk.
    Done { bytes: u64 },
    /// Not this time.
    Failed(Arc<StageError>),
}

/// The one who fetches a digest; dropping it without [`Stager::land`] tells those who wait that it was interrupted.
pub(crate) struct Claim<T> {
    pub(crate) wanted: T,
    digest: Digest,
    flight: Arc<watch::Sender<Flight>>,
    flights: Arc<Flights>,
}

#[derive(Default)]
struct Flights(Mutex<HashMap<Digest, Arc<watch::Sender<Flight>>>>);

/// Fetches what is missing.
pub(crate) struct Stager {
    store: Arc<Store>,
    keeper: Arc<Keeper>,
    uplink: watch::Receiver<Option<Channel>>,
    http: Http,
    throttle: Throttle,
    limits: Limits,
    slots: Semaphore,
    tasks: Tasks,
    flights: Arc<Flights>,
}

/// What a caller wants staged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) resources: Vec<ResourceRef>,
    pub(crate) objects: Vec<ObjectRef>,
}

impl Stager {
    pub(crate) fn new(
        store: Arc<Store>,
        keeper: Arc<Keeper>,
        uplink: watch::Receiver<Option<Channel>>,
        http: Http,
        throttle: Throttle,
        limits: Limits,
        tasks: Tasks,
    ) -> Self {
        Self {
            store,
            keeper,
            uplink,
            http,
            throttle,
            limits,
            slots: Semaphore::new(OBJECTS_AT_ONCE),
            tasks,
            flights: Arc::default(),
        }
    }

    /// Begins to fetch what is missing and gives what to wait for. What is dropped is not waited for.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn stage(self: &Arc<Self>, wanted: Wanted) -> Result<Waiting, StageError> {
        let bodies = unique(wanted.resources.into_iter().map(Body::from), |body| {
            body.digest
        });
        let objects = unique(wanted.objects.into_iter().map(Object::from), |object| {
            object.digest
        });
        let all: Vec<Digest> = bodies
            .iter()
            .map(|body| body.digest)
            .chain(objects.iter().map(|object| object.digest))
            .collect();
        // Before looking: what is found now must not be collected before the caller could pin it.
        self.keeper.hold(&all);
        let missing_bodies = self.missing_bodies(bodies).await?;
        let missing_objects = self.missing_objects(objects).await?;
        let present = all.len() - missing_bodies.len() - missing_objects.len();

        let mut waits = Vec::new();
        let mut batch = Vec::new();
        for body in missing_bodies {
            let (claim, wait) = self.flights.join(body.digest, body.size, body);
            waits.push(wait);
            batch.extend(claim);
        }
        if !batch.is_empty() {
            let stager = Arc::clone(self);
            self.tasks.spawn_until_shutdown("fetch-bodies", async move {
                stager.fetch_bodies(batch).await
            });
        }
        for object in missing_objects {
            let (claim, wait) = self.flights.join(object.digest, object.size, object);
            waits.push(wait);
            if let Some(claim) = claim {
                let stager = Arc::clone(self);
                self.tasks.spawn_until_shutdown("fetch-object", async move {
                    stager.fetch_object(claim).await
                });
            }
        }
        Ok(Waiting::new(present, waits))
    }

    /// Tells those who wait how it ended.
    fn land<T>(&self, claim: Claim<T>, ended: Result<u64, StageError>) {
        match ended {
            Ok(bytes) => {
                claim.flights.lock().remove(&claim.digest);
                claim.flight.send_replace(Flight::Done { bytes });
            }
            Err(error) => self.fail(claim, Arc::new(error)),
        }
    }

    fn fail<T>(&self, claim: Claim<T>, error: Arc<StageError>) {
        tracing::warn!(digest = %claim.digest, error = %chain(error.as_ref()), "not staged");
        claim.flights.lock().remove(&claim.digest);
        claim.flight.send_replace(Flight::Failed(error));
    }

    /// Runs a step that writes; when the disk is full, makes room and runs it once more.
    async fn with_room<T: Send + 'static>(
        &self,
        step: impl Fn() -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let step = Arc::new(step);
        let first = Arc::clone(&step);
        match blocking(move || first()).await {
            Err(StoreError::Full { path, needed }) => {
                let keeper = Arc::clone(&self.keeper);
                let reserve = self.limits.reserve;
                let freed =
                    blocking(move || keeper.make_room(needed.saturating_add(reserve))).await?;
                if freed == 0 {
                    return Err(StoreError::Full { path, needed });
                }
                blocking(move || step()).await
            }
            other => other,
        }
    }
}

impl Flights {
    /// Waits for whoever fetches this digest; with a claim when nobody does yet.
    fn join<T>(
        self: &Arc<Self>,
        digest: Digest,
        total: u64,
        wanted: T,
    ) -> (Option<Claim<T>>, progress::Wait) {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(&digest) {
            return (None, progress::Wait::new(digest, flight.subscribe()));
        }
        let (flight, receiver) = watch::channel(Flight::Running { done: 0, total });
        let flight = Arc::new(flight);
        flights.insert(digest, Arc::clone(&flight));
        let claim = Claim {
            wanted,
            digest,
            flight,
            flights: Arc::clone(self),
        };
        (Some(claim), progress::Wait::new(digest, receiver))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<watch::Sender<Flight>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Claim<T> {
    /// Says how far it is.
    fn report(&self, done: u64, total: u64) {
        self.flight.send_replace(Flight::Running { done, total });
    }

    /// Returns when nobody waits any more. The digest is free to be claimed anew then.
    async fn abandoned(&self) {
        loop {
            self.flight.closed().await;
            let mut flights = self.flights.lock();
            // Somebody may have joined between the two lines above.
            if self.flight.receiver_count() == 0 {
                flights.remove(&self.digest);
                return;
            }
        }
    }
}

impl<T> Drop for Claim<T> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        // Its own entry only: after an abandoned flight another may have begun.
        if flights
            .get(&self.digest)
            .is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
        {
            flights.remove(&self.digest);
        }
    }
}

/// The first of each digest, in order.
fn unique<T>(items: impl Iterator<Item = T>, digest_of: impl Fn(&T) -> Digest) -> Vec<T> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(digest_of(item))).collect()
}

#[cfg(test)]
mod tests;
