//! What engine needs of others, as small traits it owns: the runtime, sync's content store, node's shadow.
//!
//! Each has one adapter (`native.rs`, `content.rs`, `shadow.rs`) and one hand-written fake for tests.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baetyl_kit::tasks::Tasks;
use baetyl_model::desire::{ObjectRef, ResourceRef};
use baetyl_model::{Digest, NodeStats, NodeStatus};
use baetyl_runtime_native::{
    InstanceId, LogPosition, LogStart, Observed, WorkloadKey, WorkloadSpec,
};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::{mpsc, watch};

use crate::users::Users;

/// Everything engine is joined to.
pub trait Ports: Send + Sync + 'static {
    /// Runs workloads.
    type Runtime: Runtime;
    /// Holds bodies and objects.
    type Content: Content;
    /// Holds the desire, takes the report.
    type Shadow: Shadow;
}

/// A runtime that does not do what it is asked, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// Something else is under way under the same key: it has to be stopped first.
    #[error("{0}")]
    InTheWay(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Runs workloads and sees how they do.
pub trait Runtime: Clone + Send + Sync + 'static {
    /// Takes a workload under supervision: adopts what runs of it and starts the rest. The same again changes nothing.
    ///
    /// # Errors
    /// When it is refused.
    fn run(&self, spec: WorkloadSpec) -> Result<(), RuntimeError>;

    /// Stops all instances; directories and logs stay.
    fn stop(&self, key: &WorkloadKey) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Stops all instances and removes everything they left.
    fn remove(&self, key: &WorkloadKey) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Ends and starts all instances of a supervised workload.
    fn restart(&self, key: &WorkloadKey) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// What is supervised and how it does.
    fn watch(&self) -> watch::Receiver<Arc<Observed>>;

    /// Workloads that left something on this machine, supervised or not.
    fn found(&self) -> impl Future<Output = Result<Vec<WorkloadKey>, RuntimeError>> + Send;

    /// Ports for an instance; the previous ones while they are free or the instance holds them itself.
    ///
    /// # Errors
    /// When none are left.
    fn assign_ports(
        &self,
        id: &InstanceId,
        count: usize,
        previous: &[u16],
    ) -> Result<Vec<u16>, RuntimeError>;

    /// Gives the ports of a workload back.
    fn release_ports(&self, key: &WorkloadKey);

    /// Users that applications run as.
    fn users(&self) -> &Users;

    /// Directory of an instance.
    fn instance_dir(&self, id: &InstanceId) -> PathBuf;

    /// A log from `start`, then what follows when asked; with the position after each piece.
    fn logs(
        &self,
        id: &InstanceId,
        start: LogStart,
        follow: bool,
    ) -> BoxStream<'static, std::io::Result<(Bytes, LogPosition)>>;

    /// CPU (cores) and memory (bytes) of every running instance.
    fn usage(&self) -> impl Future<Output = BTreeMap<InstanceId, Usage>> + Send;
}

/// What an instance uses.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Cores.
    pub cpu: f64,
    /// Bytes.
    pub memory: u64,
}

/// Why something is not complete on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Trying again later can help: sync or the cloud is not there, the disk is full.
    #[error("{0}")]
    Later(String),
    /// Trying again is of no use until something else changes.
    #[error("{0}")]
    Never(String),
}

impl ContentError {
    /// True when trying again is of no use.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Never(_))
    }
}

/// How far staging got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Things that are complete.
    pub items_done: u32,
    /// Things wanted.
    pub items_total: u32,
    /// Bytes fetched.
    pub bytes_done: u64,
    /// Bytes to fetch, as far as known.
    pub bytes_total: u64,
}

/// What happens to the link and to sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentEvent {
    /// Sync answers (again): what it forgot must be declared anew.
    Opened,
    /// The cloud can be reached, or not.
    Online(bool),
}

/// An event for the cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent {
    /// CamelCase word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// What it is about, e.g. `app/shop`.
    pub about: String,
    /// Something went wrong.
    pub warning: bool,
}

/// Sync's content store.
pub trait Content: Clone + Send + Sync + 'static {
    /// Makes sure that everything named is complete and verified on disk.
    fn stage(
        &self,
        resources: Vec<ResourceRef>,
        objects: Vec<ObjectRef>,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> impl Future<Output = Result<(), ContentError>> + Send;

    /// Declares what engine needs, instead of what it declared before.
    fn set_pins(
        &self,
        digests: Vec<Digest>,
    ) -> impl Future<Output = Result<(), ContentError>> + Send;

    /// The verified body of a staged resource.
    fn read_resource(
        &self,
        digest: &Digest,
    ) -> impl Future<Output = Result<Vec<u8>, ContentError>> + Send;

    /// A path to a staged object; `spool` is a file that may be written when sync shares no disk with us.
    fn open_object(
        &self,
        digest: &Digest,
        spool: &Path,
    ) -> impl Future<Output = Result<PathBuf, ContentError>> + Send;

    /// Tells the public key of tickets for objects.
    fn trust_app_key(&self, key: [u8; 32])
    -> impl Future<Output = Result<(), ContentError>> + Send;

    /// Puts an event into the durable outbox.
    fn put_event(
        &self,
        event: &CloudEvent,
    ) -> impl Future<Output = Result<(), ContentError>> + Send;

    /// What happens to the link, for ever; reconnects by itself.
    fn watch(&self, tasks: &Tasks) -> mpsc::Receiver<ContentEvent>;
}

/// What happens to the desire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShadowEvent {
    /// Node answers (again): what it forgot must be told anew.
    Opened,
    /// The encoded desire that node holds; None: it knows none.
    Desire(Option<Vec<u8>>),
}

/// Node does not take what it is told, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ShadowError(pub String);

/// Node's shadow.
pub trait Shadow: Clone + Send + Sync + 'static {
    /// The desire, for ever; reconnects by itself.
    fn watch(&self, tasks: &Tasks) -> mpsc::Receiver<ShadowEvent>;

    /// Tells one or both halves of the report.
    fn put_report(
        &self,
        status: Option<NodeStatus>,
        stats: Option<NodeStats>,
    ) -> impl Future<Output = Result<(), ShadowError>> + Send;

    /// Tells the public key of application tokens.
    fn trust_app_key(&self, key: [u8; 32]) -> impl Future<Output = Result<(), ShadowError>> + Send;
}
