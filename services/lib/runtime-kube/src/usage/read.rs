//! What the metrics API and kubelets say, as far as it is used.

use std::collections::BTreeMap;

use baetyl_model::jiff::Timestamp;
use baetyl_model::report::{ContainerStats, DiskStats};
use baetyl_model::workload::Usage;
use serde::Deserialize;

use crate::quantity;
use crate::seen::or_none;

/// Interfaces whose name begins so carry what goes through the others, too: those of Pods, bridges and tunnels between
/// machines.
const CARRIED_BY_OTHERS: [&str; 10] = [
    "veth", "cni", "flannel", "cali", "cilium", "lxc", "docker", "br-", "lo", "kube-",
];

/// A list of the metrics API.
#[derive(Deserialize)]
pub(super) struct Metrics {
    #[serde(default, deserialize_with = "or_none")]
    pub(super) items: Vec<Metric>,
}

/// Of a machine or a Pod.
#[derive(Deserialize)]
pub(super) struct Metric {
    pub(super) metadata: Name,
    /// Of a machine.
    #[serde(default)]
    usage: Amounts,
    /// Of a Pod.
    #[serde(default, deserialize_with = "or_none")]
    containers: Vec<ContainerMetric>,
}

#[derive(Deserialize)]
pub(super) struct Name {
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
}

#[derive(Deserialize)]
struct ContainerMetric {
    #[serde(default)]
    name: String,
    #[serde(default)]
    usage: Amounts,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Amounts {
    cpu: String,
    memory: String,
}

impl Amounts {
    fn cores(&self) -> f64 {
        quantity::parse(&self.cpu).unwrap_or(0.0)
    }

    fn bytes(&self) -> u64 {
        quantity::whole(&self.memory)
    }
}

impl Metric {
    pub(super) fn of_machine(&self) -> Usage {
        Usage {
            cpu: self.usage.cores(),
            memory: self.usage.bytes(),
            ..Usage::default()
        }
    }

    pub(super) fn of_pod(&self) -> Usage {
        sum(self.containers.iter().map(|container| ContainerStats {
            name: container.name.clone(),
            cpu_used: container.usage.cores(),
            memory_used: container.usage.bytes(),
        }))
    }
}

/// What containers use together, and each by itself.
fn sum(containers: impl Iterator<Item = ContainerStats>) -> Usage {
    let mut usage = Usage::default();
    for container in containers {
        usage.cpu += container.cpu_used;
        usage.memory = usage.memory.saturating_add(container.memory_used);
        usage.containers.push(container);
    }
    usage
        .containers
        .sort_by(|one, other| one.name.cmp(&other.name));
    usage
}

/// What a kubelet says.
#[derive(Deserialize)]
pub(super) struct Summary {
    node: NodeSummary,
    #[serde(default, deserialize_with = "or_none")]
    pub(super) pods: Vec<PodSummary>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct NodeSummary {
    start_time: Option<Timestamp>,
    cpu: Cpu,
    memory: Memory,
    fs: Option<Disk>,
    network: Option<Network>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Cpu {
    time: Option<Timestamp>,
    usage_nano_cores: u64,
}

impl Cpu {
    #[expect(clippy::cast_precision_loss, reason = "no machine has so many cores")]
    fn cores(&self) -> f64 {
        self.usage_nano_cores as f64 / 1e9
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Memory {
    working_set_bytes: u64,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Disk {
    capacity_bytes: u64,
    used_bytes: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Network {
    #[serde(deserialize_with = "or_none")]
    interfaces: Vec<Interface>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Interface {
    name: String,
    rx_bytes: u64,
    tx_bytes: u64,
}

/// What a kubelet says of a Pod.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSummary {
    pub(super) pod_ref: Name,
    #[serde(default)]
    cpu: Cpu,
    #[serde(default)]
    memory: Memory,
    #[serde(default, deserialize_with = "or_none")]
    containers: Vec<ContainerSummary>,
}

#[derive(Deserialize)]
struct ContainerSummary {
    name: String,
    #[serde(default)]
    cpu: Cpu,
    #[serde(default)]
    memory: Memory,
}

/// What the interfaces of a machine have carried: (sent, received) by name.
pub(super) type Traffic = BTreeMap<String, (u64, u64)>;

impl Summary {
    pub(super) fn usage(&self) -> Usage {
        Usage {
            cpu: self.node.cpu.cores(),
            memory: self.node.memory.working_set_bytes,
            ..Usage::default()
        }
    }

    pub(super) fn disks(&self) -> Vec<DiskStats> {
        let disks = self.node.fs.iter().map(|disk| DiskStats {
            mount_point: "/".to_owned(),
            used: disk.used_bytes,
            total: disk.capacity_bytes,
        });
        disks.collect()
    }

    /// Both times are of the machine's own clock.
    pub(super) fn uptime_seconds(&self) -> u64 {
        let (Some(start), Some(now)) = (self.node.start_time, self.node.cpu.time) else {
            return 0;
        };
        u64::try_from(now.duration_since(start).as_secs()).unwrap_or(0)
    }

    /// None: it does not tell.
    pub(super) fn traffic(&self) -> Option<Traffic> {
        let interfaces = self.node.network.as_ref()?.interfaces.iter();
        let own = interfaces.filter(|interface| {
            !CARRIED_BY_OTHERS
                .iter()
                .any(|begin| interface.name.starts_with(begin))
        });
        Some(
            own.map(|one| (one.name.clone(), (one.tx_bytes, one.rx_bytes)))
                .collect(),
        )
    }
}

impl PodSummary {
    /// What the Pod uses as a whole is a little more than its containers do.
    pub(super) fn usage(&self) -> Usage {
        let containers = self.containers.iter().map(|container| ContainerStats {
            name: container.name.clone(),
            cpu_used: container.cpu.cores(),
            memory_used: container.memory.working_set_bytes,
        });
        Usage {
            cpu: self.cpu.cores(),
            memory: self.memory.working_set_bytes,
            ..sum(containers)
        }
    }
}
