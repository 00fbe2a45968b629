//! What travels up. *Status* is durable, has a digest, and the latest wins; *stats* are volatile and never on flash.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::desire::Header;
use crate::name::{AppName, Generation, Version};

mod stats;
pub mod v2;

pub use stats::{
    ContainerStats, DiskStats, InstanceStats, MachineStats, NetworkStats, NodeStats, ResourceStats,
};

/// The durable half of a report.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    /// The last desire the engine acted on; absent: none known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<Header>,
    /// Facts about the node as a whole.
    pub conditions: Vec<Condition>,
    /// Applications by name.
    pub apps: BTreeMap<AppName, AppStatus>,
    /// Properties that applications and users of the node reported.
    pub properties: BTreeMap<String, String>,
    /// Machines by host name: one in native mode, one per Kubernetes node in a cluster.
    pub nodes: BTreeMap<String, NodeInfo>,
    /// Which program reports.
    pub core: ProgramInfo,
    /// Kubernetes version; empty in native mode.
    pub mode_info: String,
    /// How applications run.
    pub run_mode: RunMode,
}

/// How a node runs applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunMode {
    /// As processes.
    #[default]
    Native,
    /// As Pods.
    Kube,
}

impl RunMode {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Kube => "kube",
        }
    }
}

impl fmt::Display for RunMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a program tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProgramInfo {
    /// e.g. "baetyl-engine"
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// "amd64", "arm64", "arm"
    pub arch: String,
    /// "linux"
    pub os: String,
    /// Variant of the architecture ("v7"); empty otherwise.
    pub variant: String,
}

/// Truth of a condition.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    #[default]
    Unknown,
}

impl Truth {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// One observed fact, as Kubernetes conditions tell it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    /// CamelCase word: Ready, Progressing, Degraded, Staged.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: Truth,
    /// CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// The generation this was observed at.
    pub observed_generation: Generation,
    /// When `status` changed last. In no digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition: Option<Timestamp>,
}

/// Whether something runs, in Baetyl v2's words.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum RunStatus {
    /// Not yet.
    Pending,
    /// It runs (and is ready, when it has a readiness probe).
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly, or does not come up.
    Failed,
    /// Nobody can tell.
    #[default]
    Unknown,
}

impl RunStatus {
    /// The word of Baetyl v2.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where an application's update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Phase {
    /// Bodies and objects of the wanted version are being fetched; the old version runs.
    #[default]
    Staging,
    /// The wanted version is being started.
    Applying,
    /// The wanted version was started and is watched.
    Probing,
    /// The wanted version runs well.
    Healthy,
    /// The wanted version failed; the last good one runs.
    RolledBack,
    /// The wanted version failed and there is nothing to go back to.
    Failed,
}

impl Phase {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Staging => "Staging",
            Self::Applying => "Applying",
            Self::Probing => "Probing",
            Self::Healthy => "Healthy",
            Self::RolledBack => "RolledBack",
            Self::Failed => "Failed",
        }
    }

    /// True for the phases an update ends in.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Healthy | Self::RolledBack | Self::Failed)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is none of a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{word}\" is not a {what}")]
pub struct WordError {
    /// What it should have been.
    pub what: &'static str,
    /// The word.
    pub word: String,
}

macro_rules! words {
    ($name:ident, $what:literal, [$($value:ident),+]) => {
        impl std::str::FromStr for $name {
            type Err = WordError;
            fn from_str(word: &str) -> Result<Self, WordError> {
                [$(Self::$value),+]
                    .into_iter()
                    .find(|value| value.as_str() == word)
                    .ok_or_else(|| WordError { what: $what, word: word.to_owned() })
            }
        }
    };
}

words!(RunMode, "run mode", [Native, Kube]);
words!(Truth, "condition status", [True, False, Unknown]);
words!(
    RunStatus,
    "run status",
    [Pending, Running, Succeeded, Failed, Unknown]
);
words!(
    Phase,
    "phase",
    [Staging, Applying, Probing, Healthy, RolledBack, Failed]
);

/// How one application does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// Its name.
    pub name: AppName,
    /// The version that runs now; absent: none runs yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// deployment, statefulset, daemonset, job.
    #[serde(default)]
    pub deploy_type: String,
    /// Whether it runs.
    #[serde(default)]
    pub status: RunStatus,
    /// Why it is not what was asked for; empty when it is.
    #[serde(default)]
    pub cause: String,
    /// The generation this was observed at.
    #[serde(default)]
    pub observed_generation: Generation,
    /// Where the update stands; absent: nothing was ever asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The version that was tried and failed, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedVersion>,
    /// Facts about the application.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Instances by name.
    #[serde(default)]
    pub instances: BTreeMap<String, InstanceStatus>,
    /// True for applications of the system.
    #[serde(default)]
    pub system: bool,
}

impl AppStatus {
    /// An application about which nothing is known but its name.
    pub fn unknown(name: AppName) -> Self {
        Self {
            name,
            version: None,
            deploy_type: String::new(),
            status: RunStatus::Unknown,
            cause: String::new(),
            observed_generation: Generation::default(),
            phase: None,
            failed: None,
            conditions: Vec::new(),
            instances: BTreeMap::new(),
            system: false,
        }
    }
}

/// A version that was tried and failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedVersion {
    /// The version.
    pub version: Version,
    /// Why, as a sentence.
    pub reason: String,
}

/// How one instance (process or Pod) does.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InstanceStatus {
    /// native: `<ns>.<app>.<version>.<service>.<i>`; kube: name of the Pod.
    pub name: String,
    /// Service of the application; empty in kube mode, where a Pod holds all.
    pub service: String,
    /// Whether it runs.
    pub status: RunStatus,
    /// Why it does not; empty when it does.
    pub cause: String,
    /// Address.
    pub ip: String,
    /// Machine it runs on.
    pub node_name: String,
    /// Process id; 0: none.
    pub pid: u64,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// How often it was started again.
    pub restarts: u32,
    /// What it listens on.
    pub ports: Vec<InstancePort>,
    /// Containers (kube).
    pub containers: Vec<ContainerStatus>,
    /// Init containers (kube).
    pub init_containers: Vec<ContainerStatus>,
    /// Whether it can serve: its readiness probe is good, or it has none and runs.
    pub ready: bool,
}

/// One port of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InstancePort {
    /// Name; may be empty.
    pub name: String,
    /// As the application names it.
    pub container_port: u16,
    /// Where it really is on the machine.
    pub port: u16,
    /// TCP, UDP, SCTP.
    pub protocol: String,
}

/// One container of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Name.
    pub name: String,
    /// Waiting, Running, Terminated.
    pub state: String,
    /// Why.
    pub reason: String,
    /// How often it was started again.
    pub restarts: u32,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeInfo {
    /// Host name.
    pub hostname: String,
    /// Comma separated non-loopback addresses.
    pub address: String,
    /// "amd64", "arm64", "arm"
    pub arch: String,
    /// "v7"; empty otherwise.
    pub variant: String,
    /// "linux"
    pub os: String,
    /// Kernel version.
    pub kernel_version: String,
    /// Name of the distribution.
    pub os_image: String,
    /// Container runtime; empty in native mode.
    pub container_runtime: String,
    /// Machine id.
    pub machine_id: String,
    /// Changes at every boot.
    pub boot_id: String,
    /// Id of the hardware.
    pub system_uuid: String,
    /// "master" or "worker".
    pub role: String,
    /// Labels of the Kubernetes node.
    pub labels: BTreeMap<String, String>,
    /// Id of the host.
    pub host_id: String,
}
