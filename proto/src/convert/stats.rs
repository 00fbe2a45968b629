//! The volatile half of a report.

use baetyl_model::report::{
    ContainerStats, DiskStats, InstanceStats, MachineStats, NetworkStats, NodeStats, ResourceStats,
};

use super::{ConvertError, time};
use crate::shadow as wire;

impl From<NetworkStats> for wire::NetworkStats {
    fn from(stats: NetworkStats) -> Self {
        let NetworkStats {
            bytes_sent,
            bytes_received,
            packets_sent,
            packets_received,
        } = stats;
        Self {
            bytes_sent,
            bytes_received,
            packets_sent,
            packets_received,
        }
    }
}

impl From<wire::NetworkStats> for NetworkStats {
    fn from(stats: wire::NetworkStats) -> Self {
        let wire::NetworkStats {
            bytes_sent,
            bytes_received,
            packets_sent,
            packets_received,
        } = stats;
        Self {
            bytes_sent,
            bytes_received,
            packets_sent,
            packets_received,
        }
    }
}

impl From<MachineStats> for wire::MachineStats {
    fn from(stats: MachineStats) -> Self {
        let disk = |DiskStats {
                        mount_point,
                        used,
                        total,
                    }| wire::DiskStats {
            mount_point,
            used,
            total,
        };
        Self {
            hostname: stats.hostname,
            cpu_used: stats.cpu_used,
            cpu_total: stats.cpu_total,
            memory_used: stats.memory_used,
            memory_total: stats.memory_total,
            disks: stats.disks.into_iter().map(disk).collect(),
            network: Some(stats.network.into()),
            disk_pressure: stats.disk_pressure,
            memory_pressure: stats.memory_pressure,
            pid_pressure: stats.pid_pressure,
            ready: stats.ready,
            uptime_seconds: stats.uptime_seconds,
            network_unavailable: stats.network_unavailable,
            resources: stats.resources.into_iter().map(Into::into).collect(),
            usage_unknown: stats.usage_unknown,
        }
    }
}

impl From<wire::MachineStats> for MachineStats {
    fn from(stats: wire::MachineStats) -> Self {
        let disk = |wire::DiskStats {
                        mount_point,
                        used,
                        total,
                    }| DiskStats {
            mount_point,
            used,
            total,
        };
        Self {
            hostname: stats.hostname,
            cpu_used: stats.cpu_used,
            cpu_total: stats.cpu_total,
            memory_used: stats.memory_used,
            memory_total: stats.memory_total,
            disks: stats.disks.into_iter().map(disk).collect(),
            network: stats.network.unwrap_or_default().into(),
            disk_pressure: stats.disk_pressure,
            memory_pressure: stats.memory_pressure,
            pid_pressure: stats.pid_pressure,
            ready: stats.ready,
            uptime_seconds: stats.uptime_seconds,
            network_unavailable: stats.network_unavailable,
            resources: stats.resources.into_iter().map(Into::into).collect(),
            usage_unknown: stats.usage_unknown,
        }
    }
}

impl From<ResourceStats> for wire::ResourceStats {
    fn from(stats: ResourceStats) -> Self {
        let ResourceStats { name, used, total } = stats;
        Self { name, used, total }
    }
}

impl From<wire::ResourceStats> for ResourceStats {
    fn from(stats: wire::ResourceStats) -> Self {
        let wire::ResourceStats { name, used, total } = stats;
        Self { name, used, total }
    }
}

impl From<ContainerStats> for wire::ContainerStats {
    fn from(stats: ContainerStats) -> Self {
        let ContainerStats {
            name,
            cpu_used,
            memory_used,
        } = stats;
        Self {
            name,
            cpu_used,
            memory_used,
        }
    }
}

impl From<wire::ContainerStats> for ContainerStats {
    fn from(stats: wire::ContainerStats) -> Self {
        let wire::ContainerStats {
            name,
            cpu_used,
            memory_used,
        } = stats;
        Self {
            name,
            cpu_used,
            memory_used,
        }
    }
}

impl From<InstanceStats> for wire::InstanceStats {
    fn from(stats: InstanceStats) -> Self {
        let InstanceStats {
            app,
            instance,
            cpu_used,
            memory_used,
            containers,
        } = stats;
        Self {
            app,
            instance,
            cpu_used,
            memory_used,
            containers: containers.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<wire::InstanceStats> for InstanceStats {
    fn from(stats: wire::InstanceStats) -> Self {
        let wire::InstanceStats {
            app,
            instance,
            cpu_used,
            memory_used,
            containers,
        } = stats;
        Self {
            app,
            instance,
            cpu_used,
            memory_used,
            containers: containers.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<NodeStats> for wire::NodeStats {
    fn from(stats: NodeStats) -> Self {
        Self {
            time: stats.time.map(time::to_wire),
            nodes: stats.nodes.into_iter().map(Into::into).collect(),
            instances: stats.instances.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::NodeStats> for NodeStats {
    type Error = ConvertError;
    fn try_from(stats: wire::NodeStats) -> Result<Self, ConvertError> {
        Ok(Self {
            time: time::optional("time", stats.time)?,
            nodes: stats.nodes.into_iter().map(Into::into).collect(),
            instances: stats.instances.into_iter().map(Into::into).collect(),
        })
    }
}
