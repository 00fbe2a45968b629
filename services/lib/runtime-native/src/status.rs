//! What is seen of an instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::spec::{InstanceId, InstancePort, Instances as _, WorkloadKey};

/// Everything the runtime supervises, as it is now. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// By instance.
    pub instances: BTreeMap<InstanceId, Arc<InstanceStatus>>,
    /// How workloads do as a whole.
    pub workloads: BTreeMap<WorkloadKey, WorkloadState>,
}

impl Observed {
    /// The instances of one workload, in order.
    pub fn of<'a>(
        &'a self,
        key: &'a WorkloadKey,
    ) -> impl Iterator<Item = (&'a InstanceId, &'a InstanceStatus)> + 'a {
        self.instances
            .range(key.instance(0)..=key.instance(u32::MAX))
            .map(|(id, status)| (id, status.as_ref()))
    }
}

/// How a workload does as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkloadState {
    /// It serves or works, or tries to; its instances tell more.
    Active,
    /// Every instance ended well and none will be started again.
    Succeeded,
    /// It ended badly and nothing will be started again.
    Failed,
    /// It is being stopped on request.
    Stopping,
}

/// One instance.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceStatus {
    /// Where it stands.
    pub phase: Phase,
    /// Running, started up, and its readiness probe (if any) passes.
    pub ready: bool,
    /// Why it is in this phase, when that is not plain.
    pub reason: Option<Reason>,
    /// The same for people; empty when there is nothing to say.
    pub message: String,
    /// The running processes; absent when none runs.
    pub process: Option<RunRecord>,
    /// True when the running process was found again after the runtime was remade.
    pub adopted: bool,
    /// How often it was started again, since the workload was first run; survives the runtime.
    pub restarts: u32,
    /// How the last run ended.
    pub last_exit: Option<LastExit>,
    /// Ports of its spec.
    pub ports: Vec<InstancePort>,
    /// What could not be done as asked though it runs: limits without a cgroup, secrets on disk.
    pub warnings: Vec<Warning>,
}

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not started yet.
    Pending,
    /// Its directory is being made or its process started.
    Starting,
    /// Its process runs.
    Running,
    /// It ended and waits before it is started again.
    Backoff,
    /// It was asked to end.
    Stopping,
    /// It ended on request.
    Stopped,
    /// It ended well and is not started again.
    Succeeded,
    /// It ended badly, or cannot start, and is not started again.
    Failed,
    /// It is gone and nobody saw how it ended, or it cannot be ended. Never used for something that runs.
    Unknown,
}

/// Why an instance is in its phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The instance directory could not be made.
    PrepareFailed,
    /// There is no such program.
    EntryMissing,
    /// The program exists and may not be executed.
    NotExecutable,
    /// The program is for another machine, or no program.
    BadFormat,
    /// The working directory does not exist or may not be entered.
    WorkingDirMissing,
    /// A probe that native mode does not have, or one without an action.
    ProbeInvalid,
    /// The program could not be started for another reason.
    StartFailed,
    /// It ended with an exit code.
    Exited,
    /// It was ended by a signal.
    Killed,
    /// It was ended because it used more memory than its limit.
    OutOfMemory,
    /// It was restarted because its liveness probe failed.
    LivenessFailed,
    /// It was restarted because its startup probe failed.
    StartupFailed,
    /// Its shim died without a record.
    ShimLost,
    /// The machine was restarted while it ran.
    Rebooted,
    /// It was restarted or stopped on request.
    Requested,
    /// Its readiness probe does not pass.
    NotReady,
    /// Its startup probe has not passed yet.
    NotStarted,
    /// Processes of it are left that cannot be ended.
    CannotEnd,
}

impl Reason {
    /// CamelCase word for reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrepareFailed => "PrepareFailed",
            Self::EntryMissing => "EntryMissing",
            Self::NotExecutable => "NotExecutable",
            Self::BadFormat => "BadFormat",
            Self::WorkingDirMissing => "WorkingDirMissing",
            Self::ProbeInvalid => "ProbeInvalid",
            Self::StartFailed => "StartFailed",
            Self::Exited => "Exited",
            Self::Killed => "Killed",
            Self::OutOfMemory => "OOMKilled",
            Self::LivenessFailed => "LivenessFailed",
            Self::StartupFailed => "StartupFailed",
            Self::ShimLost => "ShimLost",
            Self::Rebooted => "Rebooted",
            Self::Requested => "Requested",
            Self::NotReady => "NotReady",
            Self::NotStarted => "NotStarted",
            Self::CannotEnd => "CannotEnd",
        }
    }

    /// True for faults of the version itself that no second try will mend: the program is absent or no program.
    pub const fn is_permanent(self) -> bool {
        matches!(
            self,
            Self::EntryMissing | Self::NotExecutable | Self::BadFormat | Self::ProbeInvalid
        )
    }
}

/// A process that cannot be mistaken for another one: pids are reused, start times within one boot are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessIdent {
    /// Process id.
    pub pid: u32,
    /// Clock ticks from boot to its start (field 22 of `/proc/<pid>/stat`).
    pub start_ticks: u64,
}

/// The processes of one run, as the shim recorded them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Boot the process ids belong to.
    pub boot_id: String,
    /// The shim; leader of the session.
    pub shim: ProcessIdent,
    /// The application; leader of its process group.
    pub app: ProcessIdent,
    /// Unix time of the start in milliseconds, by the clock of that moment.
    pub started_at_ms: i64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastExit {
    /// How.
    pub end: RunEnd,
    /// Why it ended: by itself, by a probe, on request.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// Unix time in milliseconds, by the clock of that moment; absent when nobody saw it.
    pub at_ms: Option<i64>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It never began.
    NotStarted,
    /// Nobody saw it.
    Unknown,
}

impl RunEnd {
    /// True only when it is known to have ended with code 0.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

/// Something that could not be done as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// CamelCase word: `LimitsNotEnforced`, `SecretsOnDisk`, `UserNotChanged`.
    pub kind: &'static str,
    /// For people.
    pub message: String,
}

/// What one instance uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InstanceUsage {
    /// CPU time since the start, in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory in bytes: proportional share where it can be read, else resident.
    pub memory_bytes: u64,
    /// Memory of our own shim in it, in bytes.
    pub shim_bytes: u64,
    /// How many processes it has, without the shim.
    pub processes: u32,
}
