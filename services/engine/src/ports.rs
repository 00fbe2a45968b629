//! What engine needs of others, as small traits it owns: the runtime, sync's content store, node's shadow.
//!
//! Each has one adapter (`native.rs`, `content.rs`, `shadow.rs`) and one hand-written fake for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baetyl_kit::tasks::Tasks;
use baetyl_model::desire::{ObjectRef, ResourceRef};
use baetyl_model::name::{AppName, Version};
use baetyl_model::report::{MachineStats, NodeInfo, RunMode};
use baetyl_model::workload::{InstanceId, Observed, Usage, WorkloadKey};
use baetyl_model::{Digest, NodeStats, NodeStatus};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::{mpsc, watch};

use crate::release::{Contents, Handed, Resolved};

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

/// Runs workloads and sees how they do. See `docs/adr/0013-one-runtime-port-two-runtimes.md`.
pub trait Runtime: Clone + Send + Sync + 'static {
    /// One workload, ready to be run.
    type Workload: Clone + Debug + Send + Sync + 'static;
    /// What a change is told by; [`Runtime::observed`] says what it is.
    type Seen: Send + Sync + 'static;

    /// True when a version takes over from the one before by being run: nothing of the one before is kept up beside it
    /// or stopped around it, and init services are part of the workload.
    const IN_PLACE: bool;

    /// How applications run, for the report.
    const MODE: RunMode;

    /// True when engine holds the objects of applications itself; otherwise they go from sync to where they are used.
    const TAKES_OBJECTS: bool;

    /// Names a workload.
    fn key(workload: &Self::Workload) -> &WorkloadKey;

    /// The workload a service of a version belongs to; None when its name is none.
    fn key_of(
        &self,
        app: &AppName,
        system: bool,
        version: &Version,
        service: &str,
    ) -> Option<WorkloadKey>;

    /// Turns a release into workloads; nothing is run yet. What is handed out on the way is noted in `handed`, and what
    /// is noted there is handed out again.
    ///
    /// # Errors
    /// The first thing that keeps it from running here, as a sentence.
    fn resolve(
        &self,
        contents: &Contents<'_>,
        handed: &mut Handed,
    ) -> Result<Resolved<Self::Workload>, String>;

    /// What was handed to an application before the start belongs to it before anybody else is given anything.
    fn bring_back(&self, app: &AppName, handed: &Handed);

    /// The application is gone: what was handed to it is free.
    fn release(&self, app: &AppName);

    /// Takes a workload under supervision: adopts what runs of it and starts the rest. The same again changes nothing.
    fn run(
        &self,
        workload: Self::Workload,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Stops all instances; what explains how they did stays.
    fn stop(&self, key: &WorkloadKey) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Stops all instances and removes everything they left.
    fn remove(&self, key: &WorkloadKey) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Ends and starts all instances of a supervised workload.
    fn restart(&self, key: &WorkloadKey) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Wakes when what is observed changes.
    fn watch(&self) -> watch::Receiver<Self::Seen>;

    /// What is supervised and how it does, now.
    fn observed(&self) -> Arc<Observed>;

    /// Workloads that left something here, supervised or not.
    fn found(&self) -> impl Future<Output = Result<Vec<WorkloadKey>, RuntimeError>> + Send;

    /// True when users of applications must be able to pass engine's directory.
    fn shares_directory(&self) -> bool;

    /// What about this node keeps the runtime from doing all it should: condition, reason, sentence.
    fn remarks(&self) -> Vec<Remark>;

    /// Instances of a workload that have a log although nobody supervises them.
    fn unsupervised_logs(&self, key: &WorkloadKey) -> Vec<InstanceId>;

    /// A log from `start`, then what follows when asked: pieces of at most [`LOG_PIECE`] bytes, with the position after
    /// each.
    fn logs(
        &self,
        id: &InstanceId,
        start: LogStart,
        follow: bool,
    ) -> BoxStream<'static, Result<(Bytes, LogPosition), LogError>>;

    /// CPU (cores) and memory (bytes) of every running instance.
    fn usage(&self) -> impl Future<Output = BTreeMap<InstanceId, Usage>> + Send;

    /// The machines applications run on, where the runtime knows them; None: node looks at its own.
    fn machines(&self) -> Option<Machines>;

    /// Figures of these machines; empty: node looks at its own.
    fn machine_stats(&self) -> impl Future<Output = Vec<MachineStats>> + Send;

    /// Removes what the runtime keeps of configurations and secrets that nobody needs any more.
    fn sweep(
        &self,
        needed: BTreeSet<Digest>,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;
}

/// The machines of a cluster.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Machines {
    /// By host name.
    pub nodes: Arc<BTreeMap<String, NodeInfo>>,
    /// Version of the cluster's software.
    pub mode_info: String,
}

/// A fact about the node that its report tells as a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// CamelCase word.
    pub condition: &'static str,
    /// CamelCase word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// Bytes in one piece of a log; a message is at most 4 MiB.
pub const LOG_PIECE: usize = 64 * 1024;

/// Where in a log, as a text that only the runtime reads; without `;`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPosition(pub String);

/// Where to begin reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogStart {
    /// With that many lines from the end.
    Tail(usize),
    /// After what was read.
    After(LogPosition),
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// What followed the position is gone.
    #[error("what followed is no longer there")]
    TooOld,
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] std::io::Error),
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
