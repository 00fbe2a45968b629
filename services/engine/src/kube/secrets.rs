//! Secrets of the cluster that engine itself reads and writes.

use std::collections::BTreeMap;
use std::future::Future;

use crate::ports::RuntimeError;

/// Content of a Secret by key.
pub(crate) type Data = BTreeMap<String, Vec<u8>>;

/// Where Secrets are; an error is always one that may pass.
pub(crate) trait Secrets: Clone + Send + Sync + 'static {
    /// What a Secret holds; None: there is none.
    fn get(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<Data>, RuntimeError>> + Send;

    /// Makes a Secret hold exactly this. `labels` say who it belongs to.
    fn put(
        &self,
        namespace: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
        data: &Data,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Deletes a Secret; that there is none is fine.
    fn remove(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;
}
