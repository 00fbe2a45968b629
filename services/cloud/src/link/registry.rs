//! Which nodes have a stream open, one per node.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baetyl_kit::metrics::{Gauge, Metrics};
use baetyl_model::{Namespace, NodeUid};
use baetyl_proto::link::CommandResult;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::store::AppRow;

/// Commands that wait for a node to take them; more are refused.
const COMMANDS: usize = 4;

/// Names a node in all namespaces.
type Key = (Namespace, NodeUid);

/// A request of an operator on its way to a node.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) arguments: Vec<u8>,
    pub(super) timeout: Duration,
    pub(super) answer: oneshot::Sender<CommandResult>,
}

/// Why a command gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No stream.
    #[error("the node is not connected; try again when it is online")]
    NotConnected,
    /// The node takes no more at the moment.
    #[error("the node has too many commands to do; try again later")]
    Busy,
    /// No answer in time, or the stream ended first. Whether the node did it is not known.
    #[error("the node gave no answer in time; whether it did the command is not known")]
    NoAnswer,
}

/// All open streams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Links(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    streams: Mutex<HashMap<Key, Entry>>,
    next: AtomicU64,
    count: Gauge,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    end: oneshot::Sender<Status>,
    orders: mpsc::Sender<Order>,
    /// What was delivered last and before that: a node may still fetch for both.
    delivered: [Vec<Arc<AppRow>>; 2],
}

/// One stream's place; gives it up when dropped.
#[derive(Debug)]
pub(super) struct Registration {
    links: Links,
    key: Key,
    id: u64,
}

/// What reaches a stream from outside.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) end: oneshot::Receiver<Status>,
    pub(super) orders: mpsc::Receiver<Order>,
}

impl Links {
    /// None open. The number of streams is the gauge `links`.
    pub fn new(metrics: &Metrics) -> Self {
        let count = metrics.gauge("links", "Nodes with an open stream.", &[]);
        Self(Arc::new(Inner {
            streams: Mutex::default(),
            next: AtomicU64::new(1),
            count,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many streams are open.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True when no stream is open.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// True when this node has a stream.
    pub fn is_connected(&self, namespace: &Namespace, uid: &NodeUid) -> bool {
        self.lock().contains_key(&(namespace.clone(), uid.clone()))
    }

    /// A new stream of a node; an older one of the same node ends.
    pub(super) fn register(&self, namespace: &Namespace, uid: &NodeUid) -> (Registration, Signals) {
        let key = (namespace.clone(), uid.clone());
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (end, end_signal) = oneshot::channel();
        let (orders, taken) = mpsc::channel(COMMANDS);
        let entry = Entry {
            id,
            end,
            orders,
            delivered: Default::default(),
        };
        let mut streams = self.lock();
        let older = streams.insert(key.clone(), entry);
        self.count(streams.len());
        drop(streams);
        if let Some(older) = older {
            // The older stream may be gone already.
            let _ = older
                .end
                .send(Status::aborted("a newer stream of this node took over"));
        }
        let registration = Registration {
            links: self.clone(),
            key,
            id,
        };
        (
            registration,
            Signals {
                end: end_signal,
                orders: taken,
            },
        )
    }

    /// A stream without a node behind it: its place and the reason why it ends.
    #[cfg(test)]
    pub(crate) fn register_for_test(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
    ) -> (impl Drop + use<>, oneshot::Receiver<Status>) {
        let (registration, signals) = self.register(namespace, uid);
        (registration, signals.end)
    }

    /// Ends the stream of a node, if it has one.
    pub(crate) fn end(&self, namespace: &Namespace, uid: &NodeUid, reason: &str) {
        let mut streams = self.lock();
        let entry = streams.remove(&(namespace.clone(), uid.clone()));
        self.count(streams.len());
        drop(streams);
        if let Some(entry) = entry {
            let _ = entry.end.send(Status::unauthenticated(reason));
        }
    }

    /// What a node may fetch besides its current desire.
    pub(super) fn delivered(&self, namespace: &Namespace, uid: &NodeUid) -> Vec<Arc<AppRow>> {
        let streams = self.lock();
        let entry = streams.get(&(namespace.clone(), uid.clone()));
        entry
            .into_iter()
            .flat_map(|entry| entry.delivered.iter().flatten().cloned())
            .collect()
    }

    /// Sends a command down a node's stream and waits for its result. `arguments`: JSON of the kind.
    ///
    /// # Errors
    /// When the node is not connected, has too much to do, or does not answer in time.
    pub async fn command(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
        kind: &str,
        arguments: Vec<u8>,
        timeout: Duration,
    ) -> Result<CommandResult, CommandError> {
        let (answer, result) = oneshot::channel();
        let id = uuid::Uuid::new_v4().to_string();
        let order = Order {
            id,
            kind: kind.to_owned(),
            arguments,
            timeout,
            answer,
        };
        let orders = {
            let streams = self.lock();
            let entry = streams
                .get(&(namespace.clone(), uid.clone()))
                .ok_or(CommandError::NotConnected)?;
            entry.orders.clone()
        };
        orders.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CommandError::Busy,
            mpsc::error::TrySendError::Closed(_) => CommandError::NotConnected,
        })?;
        let answered = tokio::time::timeout(timeout, result).await;
        answered
            .ok()
            .and_then(Result::ok)
            .ok_or(CommandError::NoAnswer)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float; nobody has 2^53 links"
    )]
    fn count(&self, streams: usize) {
        self.0.count.set(streams as f64);
    }
}

impl Registration {
    /// Remembers what was delivered, for what the node will fetch.
    pub(super) fn delivered(&self, apps: Vec<Arc<AppRow>>) {
        if let Some(entry) = self
            .links
            .lock()
            .get_mut(&self.key)
            .filter(|entry| entry.id == self.id)
        {
            entry.delivered.swap(0, 1);
            entry.delivered[0] = apps;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut streams = self.links.lock();
        // A newer stream may have taken the place.
        if streams
            .get(&self.key)
            .is_some_and(|entry| entry.id == self.id)
        {
            streams.remove(&self.key);
        }
        self.links.count(streams.len());
    }
}
