//! What an instance is: everything the runtime must know to run one process tree, and nothing about why.
//!
//! The engine renders these from an application; the runtime never sees the application itself. A [`WorkloadSpec`] is one
//! service of one application version with all its instances (replicas, or completions of a job).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use baetyl_model::resource::Probe;
pub use baetyl_model::workload::WorkloadKey;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

mod limits;

pub use limits::{Limits, QuantityError};

/// Mount path of the volume that holds a program package (`program.yml` and its files).
pub const PROGRAM_MOUNT: &str = "/var/lib/baetyl/bin";

/// File of a program package that names its entry.
pub const PROGRAM_FILE: &str = "program.yml";

/// Ports handed to instances when the configuration says nothing: Baetyl v2's range.
pub const DEFAULT_PORTS: RangeInclusive<u16> = 50200..=51000;

/// Grace between SIGTERM and SIGKILL when the spec says nothing: Kubernetes' default.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// The instances of a workload. Directories on disk follow the four parts of its key.
pub trait Instances {
    /// The id of instance `index` (from 1).
    fn instance(&self, index: u32) -> InstanceId;
}

impl Instances for WorkloadKey {
    fn instance(&self, index: u32) -> InstanceId {
        InstanceId {
            workload: self.clone(),
            index,
        }
    }
}

/// One instance of a workload. Shown as `<ns>.<app>.<version>.<service>.<i>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    /// The workload it belongs to: one service of one application version.
    pub workload: WorkloadKey,
    /// From 1.
    pub index: u32,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.workload, self.index)
    }
}

/// One service of one application version with all its instances. Never changes while it is run: what would change it
/// is another version.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadSpec {
    /// Who it is.
    pub key: WorkloadKey,
    /// Whether it serves or ends.
    pub kind: WorkloadKind,
    /// One per replica, or one per completion of a job; instance `i` of the workload is entry `i - 1`.
    pub instances: Vec<InstanceSpec>,
}

/// Whether a workload serves for ever or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkloadKind {
    /// All instances run at once.
    Service {
        /// What follows an exit.
        restart: RestartPolicy,
    },
    /// Every instance runs until it succeeded once.
    Job {
        /// How many run at once; 0 counts as 1.
        parallelism: u32,
        /// How many exits with failure, all instances together, are tried again. Kubernetes' default is 6.
        backoff_limit: u32,
    },
}

/// What follows an exit of a service's instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Started again, also after success.
    #[default]
    Always,
    /// Started again after failure; success ends it.
    OnFailure,
    /// The first exit ends it.
    Never,
}

/// One process tree. Only what differs between replicas of a service differs between their specs: ports, environment,
/// token file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InstanceSpec {
    /// What is started.
    pub program: Program,
    /// Arguments after those that [`Program`] gives.
    pub args: Vec<String>,
    /// The whole environment, except PATH, HOME, LANG and TZ, which are taken from the runtime's own when absent here.
    /// The runtime adds `BAETYL_INSTANCE_DIR` (the instance directory, by which leftovers are recognised).
    pub env: BTreeMap<String, String>,
    /// Working directory. Relative: inside the instance directory. Absent: the instance directory.
    pub working_dir: Option<PathBuf>,
    /// Volumes, each at its path.
    pub mounts: Vec<Mount>,
    /// Files beside the volumes: path relative to the instance directory (e.g. `token`).
    pub files: Vec<FileSpec>,
    /// Ports of this instance, for probes by name and for the report.
    pub ports: Vec<InstancePort>,
    /// Limits enforced by cgroup where the machine permits.
    pub limits: Limits,
    /// Soft and hard limits of the process. Absent: the runtime's own.
    pub rlimits: Vec<Rlimit>,
    /// User it runs as. Absent: the runtime's own. Needs root.
    pub user: Option<RunAs>,
    /// Restarted when it fails.
    pub liveness: Option<Probe>,
    /// Not ready while it fails.
    pub readiness: Option<Probe>,
    /// The other probes wait for it; restarted when it fails.
    pub startup: Option<Probe>,
    /// Time between SIGTERM and SIGKILL. Absent: [`DEFAULT_GRACE`].
    pub grace: Option<Duration>,
}

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Program {
    /// `program.yml` in the volume mounted at [`PROGRAM_MOUNT`].
    #[default]
    Package,
    /// Program and first arguments. Without a slash it is looked up in PATH of the instance, else a relative path
    /// is inside the program mount when there is one, then inside the instance directory.
    Command(Vec<String>),
}

/// A volume at its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Name of the volume, for messages.
    pub name: String,
    /// Path as the application writes it; absolute paths are taken beneath the instance directory.
    pub path: String,
    /// Only this file or directory of the volume; empty: all of it.
    pub sub_path: String,
    /// What it holds.
    pub source: MountSource,
}

/// What a volume holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A path of the machine, as a symbolic link. Must be absolute; created as a directory when absent.
    HostPath(PathBuf),
    /// A directory that lives as long as the instance directory.
    EmptyDir,
    /// Files of a configuration, mode 0644, and directories of its objects.
    Config(Vec<FileSpec>),
    /// Files of a secret, mode 0600, in memory (tmpfs) where that is permitted.
    Secret(Vec<FileSpec>),
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Relative path, without `..`.
    pub path: String,
    /// What is in it.
    pub content: Content,
    /// Permission bits. Absent: 0644 for a configuration, 0600 for a secret and for files beside the volumes.
    pub mode: Option<u32>,
}

/// What is in a file.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes. Never shown by `Debug`.
    Bytes(Bytes),
    /// A copy of this file (a reflink where the file system can).
    Copy(PathBuf),
    /// A hard link to this file, a copy when it is on another file system. The application can write to the original
    /// when it runs as the owner's user.
    Link(PathBuf),
    /// A whole directory, copied.
    Tree(PathBuf),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Copy(path) => write!(f, "Copy({})", path.display()),
            Self::Link(path) => write!(f, "Link({})", path.display()),
            Self::Tree(path) => write!(f, "Tree({})", path.display()),
        }
    }
}

/// A port of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstancePort {
    /// Name; empty: none.
    pub name: String,
    /// As the application names it; 0: it names none. A probe of this number goes to `port`.
    pub declared: u16,
    /// Where it really is on the machine.
    pub port: u16,
}

/// A limit of the process (`setrlimit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// What is limited.
    pub resource: RlimitResource,
    /// The process may raise it up to `hard`.
    pub soft: u64,
    /// The most.
    pub hard: u64,
}

/// What a [`Rlimit`] limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RlimitResource {
    /// Open files.
    Files,
    /// Processes of the user.
    Processes,
    /// Size of a core dump in bytes.
    Core,
    /// Size of a written file in bytes.
    FileSize,
}

/// User and group of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}
