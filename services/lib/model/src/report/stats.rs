//! The volatile half of a report.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Figures of a node: never in a digest, never on flash.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStats {
    /// When they were read, by the node's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// One entry per machine.
    pub nodes: Vec<MachineStats>,
    /// One entry per instance.
    pub instances: Vec<InstanceStats>,
}

/// Figures of one machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MachineStats {
    /// Host name.
    pub hostname: String,
    /// Cores in use.
    pub cpu_used: f64,
    /// Cores present.
    pub cpu_total: f64,
    /// Bytes in use.
    pub memory_used: u64,
    /// Bytes present.
    pub memory_total: u64,
    /// One entry per file system.
    pub disks: Vec<DiskStats>,
    /// Since the last figures.
    pub network: NetworkStats,
    /// Kubernetes' word: too little disk.
    pub disk_pressure: bool,
    /// Kubernetes' word: too little memory.
    pub memory_pressure: bool,
    /// Kubernetes' word: too many processes.
    pub pid_pressure: bool,
    /// Whether the machine takes work.
    pub ready: bool,
    /// Seconds since boot.
    pub uptime_seconds: u64,
    /// Kubernetes' word: the network of the machine is not set up.
    pub network_unavailable: bool,
    /// What device plugins offer, sorted by name.
    pub resources: Vec<ResourceStats>,
    /// Nobody can tell what is in use: `cpu_used` and `memory_used` are no figures.
    pub usage_unknown: bool,
}

/// A countable resource of a machine besides CPU and memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceStats {
    /// As Kubernetes names it, e.g. "nvidia.com/gpu".
    pub name: String,
    /// Requested by Pods on the machine.
    pub used: u64,
    /// What the machine has to give.
    pub total: u64,
}

/// Figures of one file system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DiskStats {
    /// Where it is mounted.
    pub mount_point: String,
    /// Bytes in use.
    pub used: u64,
    /// Bytes present.
    pub total: u64,
}

/// Network traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkStats {
    /// Bytes out.
    pub bytes_sent: u64,
    /// Bytes in.
    pub bytes_received: u64,
    /// Packets out.
    pub packets_sent: u64,
    /// Packets in.
    pub packets_received: u64,
}

/// Figures of one instance.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InstanceStats {
    /// Application.
    pub app: String,
    /// Instance.
    pub instance: String,
    /// Cores in use.
    pub cpu_used: f64,
    /// Bytes in use.
    pub memory_used: u64,
    /// Each container of a Pod by itself, sorted by name; empty in native mode and when nobody can tell.
    pub containers: Vec<ContainerStats>,
}

/// Figures of one container of a Pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStats {
    /// Name.
    pub name: String,
    /// Cores in use.
    pub cpu_used: f64,
    /// Bytes in use.
    pub memory_used: u64,
}
