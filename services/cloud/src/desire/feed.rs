//! The rows of each namespace at its newest revision, pushed to whoever derives from them.

use std::collections::HashMap;
use std::sync::Arc;

use baetyl_kit::backoff::Backoff;
use baetyl_kit::error::chain;
use baetyl_kit::tasks::Tasks;
use baetyl_model::{Namespace, Revision};
use tokio::sync::{Mutex, watch};

use crate::store::{Snapshot, Store, StoreError};

/// Why there are no rows.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The database failed or the namespace does not exist.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One loader per namespace that has a link; cheap to clone.
#[derive(Clone, Debug)]
pub struct DesireFeed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    tasks: Tasks,
    feeds: Mutex<HashMap<Namespace, watch::Receiver<Arc<Snapshot>>>>,
}

impl DesireFeed {
    /// Loaders run as tasks of `tasks`.
    pub fn new(store: Store, tasks: Tasks) -> Self {
        Self(Arc::new(Inner {
            store,
            tasks,
            feeds: Mutex::default(),
        }))
    }

    /// The newest rows, and every newer set as soon as it is committed. What is seen is never older than any commit
    /// that was acknowledged before this call.
    ///
    /// # Errors
    /// When the namespace does not exist or the database fails.
    pub async fn subscribe(
        &self,
        namespace: &Namespace,
    ) -> Result<watch::Receiver<Arc<Snapshot>>, FeedError> {
        let mut feeds = self.0.feeds.lock().await;
        // A feed whose loader ended (its namespace was deleted) is replaced.
        if let Some(feed) = feeds
            .get(namespace)
            .filter(|feed| feed.has_changed().is_ok())
        {
            return Ok(feed.clone());
        }
        // Watch first, then read: a commit between the two is seen twice rather than not at all.
        let revisions = self.0.store.watch(namespace);
        let (sender, receiver) = watch::channel(self.0.store.snapshot(namespace).await?);
        feeds.insert(namespace.clone(), receiver.clone());
        let loader = load(self.0.store.clone(), namespace.clone(), revisions, sender);
        self.0.tasks.spawn_until_shutdown("desire feed", loader);
        Ok(receiver)
    }

    /// The rows of now, for a single question.
    ///
    /// # Errors
    /// When the namespace does not exist or the database fails.
    pub async fn current(&self, namespace: &Namespace) -> Result<Arc<Snapshot>, FeedError> {
        Ok(self.0.store.snapshot(namespace).await?)
    }
}

/// Ends when nobody can change the namespace any more.
async fn load(
    store: Store,
    namespace: Namespace,
    mut revisions: watch::Receiver<Revision>,
    sender: watch::Sender<Arc<Snapshot>>,
) {
    let mut backoff = Backoff::local();
    while revisions.changed().await.is_ok() {
        loop {
            match store.snapshot(&namespace).await {
                Ok(snapshot) => {
                    backoff.reset();
                    sender.send_replace(snapshot);
                    break;
                }
                Err(StoreError::NoNamespace(_)) => return,
                Err(error) => {
                    tracing::error!(%namespace, error = %chain(&error), "cannot read what nodes shall run; trying again");
                    backoff.wait().await;
                }
            }
        }
    }
}
