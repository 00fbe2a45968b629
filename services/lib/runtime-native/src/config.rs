//! Settings of the runtime.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings of the runtime.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// The program `baetyl-shim`.
    pub shim: PathBuf,
    /// Instance directories: `<run_dir>/<ns>/<app>/<version>/<service>/<i>`.
    pub run_dir: PathBuf,
    /// What the shims record, in the same tree. Applications must not be able to write here.
    pub state_dir: PathBuf,
    /// Logs: `<log_dir>/<ns>/<app>/<version>/<service>-<i>.log`.
    pub log_dir: PathBuf,
    /// Relative host paths are beneath this directory.
    pub host_dir: PathBuf,
    /// Where secret files lie.
    pub secrets: SecretsDir,
    /// Waiting time before a start after a failure.
    pub backoff: Backoff,
    /// Size and number of log files.
    pub logs: LogLimits,
    /// Where cgroups for limits are made.
    pub cgroup: CgroupMode,
    /// How long a shim may take to start its program before it is looked for. Long: a machine that boots everything at
    /// once is slow.
    pub launch_time: Duration,
}

/// Where secret files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretsDir {
    /// The first directory in memory that can be used (`/run`, `$XDG_RUNTIME_DIR`, `/dev/shm`), else the instance
    /// directory with a warning.
    Auto,
    /// This directory; must be in memory (tmpfs), else the runtime does not open.
    Memory(PathBuf),
    /// The instance directory.
    OnDisk,
}

/// Where cgroups for limits are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupMode {
    /// Version 2 or 1, whichever has the controllers. Version 2: beneath the root where that may be written, else beneath
    /// the runtime's own cgroup when nothing else is in it. Version 1: beneath the runtime's own.
    Auto,
    /// In this directory of a cgroup version 2 tree that was delegated to us and holds no processes.
    Delegated(PathBuf),
    /// In these directories of cgroup version 1 trees.
    DelegatedV1 {
        /// In the tree of the memory controller.
        memory: PathBuf,
        /// In the tree of the cpu controller.
        cpu: PathBuf,
    },
    /// Nowhere: limits are not enforced and say so.
    Off,
}

/// Waiting time before a start after a failure: `initial`, then twice as long each time, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// First waiting time.
    pub initial: Duration,
    /// Longest waiting time. Kubernetes: 5 minutes.
    pub max: Duration,
    /// A run that lasted this long starts the count anew. Kubernetes: 10 minutes.
    pub reset_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(300),
            reset_after: Duration::from_secs(600),
        }
    }
}

/// Size and number of log files of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// Bytes after which a log is rotated.
    pub max_bytes: u64,
    /// Rotated files kept beside the current one (`.1` is the newest).
    pub keep: u32,
    /// How often sizes are looked at. A writer can exceed `max_bytes` by what it writes in that time.
    pub check_every: Duration,
}

impl Default for LogLimits {
    fn default() -> Self {
        // 3 files of 10 MiB: an instance that logs without end costs 30 MiB, as Kubernetes' default does per container.
        Self {
            max_bytes: 10 << 20,
            keep: 2,
            check_every: Duration::from_secs(5),
        }
    }
}

impl NativeConfig {
    /// The layout of an edge node beneath its data directory, with the given shim.
    pub fn beneath(data_dir: &Path, shim: PathBuf) -> Self {
        Self {
            shim,
            run_dir: data_dir.join("engine/run"),
            state_dir: data_dir.join("engine/state"),
            log_dir: data_dir.join("log"),
            host_dir: data_dir.join("host"),
            secrets: SecretsDir::Auto,
            backoff: Backoff::default(),
            logs: LogLimits::default(),
            cgroup: CgroupMode::Auto,
            launch_time: Duration::from_secs(30),
        }
    }
}
