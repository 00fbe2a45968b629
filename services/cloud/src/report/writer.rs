//! One task that writes what nodes report, many reports in one transaction.
//!
//! A commit waits for the disk; a thousand nodes that report at once must not wait a thousand times.

use baetyl_kit::error::chain;
use baetyl_model::desire::Header;
use baetyl_model::{Epoch, Generation, Namespace, NodeUid};
use jiff::Timestamp;
use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::rows;
use crate::events::{self, NewEvent};
use crate::store::{Doing as _, Store, StoreError};

/// Most writes that wait; senders wait when it is full.
const QUEUE: usize = 256;

/// One thing to be written about a node.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) namespace: Namespace,
    pub(super) uid: NodeUid,
    pub(super) what: What,
    /// Told when it is on disk; dropped when it could not be written.
    pub(super) done: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
pub(super) enum What {
    Status {
        digest: String,
        status: Vec<u8>,
        now: Timestamp,
    },
    Acknowledged(Header),
    Refused(String),
    Epoch {
        epoch: Epoch,
        generation: Generation,
    },
    Event(Box<NewEvent>),
    LastSeen(Timestamp),
}

/// Where writes go.
pub(super) type Writer = mpsc::Sender<Write>;

/// The other end of a [`Writer`].
pub(super) type Queue = mpsc::Receiver<Write>;

/// A queue and its two ends.
pub(super) fn queue() -> (Writer, Queue) {
    mpsc::channel(QUEUE)
}

/// Empties the queue until `finish`, then once more; who writes after that is told that nothing was stored.
pub(super) async fn run(
    store: Store,
    keep_events: u32,
    mut queue: Queue,
    finish: CancellationToken,
) {
    let mut batch = Vec::new();
    while let Some(count) = finish
        .run_until_cancelled(queue.recv_many(&mut batch, QUEUE))
        .await
    {
        if count == 0 {
            return;
        }
        write_batch(&store, keep_events, &mut batch).await;
    }
    queue.close();
    while queue.recv_many(&mut batch, QUEUE).await > 0 {
        write_batch(&store, keep_events, &mut batch).await;
    }
}

async fn write_batch(store: &Store, keep_events: u32, batch: &mut Vec<Write>) {
    match write(store, keep_events, batch).await {
        Ok(()) => batch
            .drain(..)
            .filter_map(|write| write.done)
            .for_each(|done| {
                // Nobody waits any more: fine.
                let _ = done.send(());
            }),
        Err(error) => {
            // Who waits is told by the dropped sender; the node reports again.
            tracing::error!(error = %chain(&error), reports = batch.len(), "cannot write what nodes report");
            batch.clear();
        }
    }
}

async fn write(store: &Store, keep_events: u32, batch: &[Write]) -> Result<(), StoreError> {
    let mut tx = store
        .writer()
        .begin_with("BEGIN IMMEDIATE")
        .await
        .doing("write reports")?;
    for write in batch {
        apply(&mut tx, keep_events, write).await?;
    }
    tx.commit().await.doing("write reports")
}

async fn apply(
    connection: &mut SqliteConnection,
    keep_events: u32,
    write: &Write,
) -> Result<(), StoreError> {
    let (namespace, uid) = (&write.namespace, &write.uid);
    match &write.what {
        What::Status {
            digest,
            status,
            now,
        } => rows::put_status(connection, namespace, uid, digest, status, *now).await,
        What::Acknowledged(header) => rows::put_acknowledged(connection, namespace, header).await,
        What::Refused(refused) => rows::put_refused(connection, namespace, uid, refused).await,
        What::Epoch { epoch, generation } => {
            rows::put_epoch(connection, namespace, uid, *epoch, *generation).await
        }
        What::Event(event) => {
            if let Some(sequence) = event.sequence
                && !rows::take_sequence(connection, namespace, uid, sequence).await?
            {
                return Ok(());
            }
            events::insert(connection, namespace, uid, event, keep_events).await
        }
        What::LastSeen(time) => rows::put_last_seen(connection, namespace, uid, *time).await,
    }
}
