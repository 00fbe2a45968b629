//! The durable half of a report.

use std::collections::BTreeMap;

use baetyl_model::name::{AppName, Generation, Version};
use baetyl_model::report::{
    AppStatus, Condition, ContainerStatus, FailedVersion, InstancePort, InstanceStatus, NodeInfo,
    NodeStatus, Phase, ProgramInfo, RunMode, RunStatus, Truth,
};

use super::desire::{properties_from_wire, properties_to_wire};
use super::{ConvertError, all, invalid, time};
use crate::{meta, shadow as wire};

/// Items by name; a repeated name is refused.
fn by_name<K: Ord + std::fmt::Display, V>(
    field: &'static str,
    items: Vec<V>,
    name: impl Fn(&V) -> K,
) -> Result<BTreeMap<K, V>, ConvertError> {
    let mut map = BTreeMap::new();
    for item in items {
        let key = name(&item);
        if map.contains_key(&key) {
            return Err(ConvertError::Invalid {
                field,
                message: format!("{key} is given twice"),
            });
        }
        map.insert(key, item);
    }
    Ok(map)
}

fn some_version(version: String) -> Result<Option<Version>, ConvertError> {
    if version.is_empty() {
        Ok(None)
    } else {
        Ok(Some(Version::new(version)?))
    }
}

fn port(field: &'static str, port: u32) -> Result<u16, ConvertError> {
    u16::try_from(port).map_err(invalid(field))
}

impl From<Condition> for meta::Condition {
    fn from(condition: Condition) -> Self {
        Self {
            r#type: condition.kind,
            status: condition.status.as_str().to_owned(),
            reason: condition.reason,
            message: condition.message,
            observed_generation: condition.observed_generation.get(),
            last_transition_time: condition.last_transition.map(time::to_wire),
        }
    }
}

impl TryFrom<meta::Condition> for Condition {
    type Error = ConvertError;
    fn try_from(condition: meta::Condition) -> Result<Self, ConvertError> {
        Ok(Self {
            kind: condition.r#type,
            status: condition
                .status
                .parse::<Truth>()
                .map_err(invalid("conditions.status"))?,
            reason: condition.reason,
            message: condition.message,
            observed_generation: Generation(condition.observed_generation),
            last_transition: time::optional(
                "last_transition_time",
                condition.last_transition_time,
            )?,
        })
    }
}

impl From<ProgramInfo> for meta::ProgramInfo {
    fn from(info: ProgramInfo) -> Self {
        let ProgramInfo {
            name,
            version,
            arch,
            os,
            variant,
        } = info;
        Self {
            name,
            version,
            arch,
            os,
            variant,
        }
    }
}

impl From<meta::ProgramInfo> for ProgramInfo {
    fn from(info: meta::ProgramInfo) -> Self {
        let meta::ProgramInfo {
            name,
            version,
            arch,
            os,
            variant,
        } = info;
        Self {
            name,
            version,
            arch,
            os,
            variant,
        }
    }
}

impl From<RunStatus> for wire::RunStatus {
    fn from(status: RunStatus) -> Self {
        match status {
            RunStatus::Pending => Self::Pending,
            RunStatus::Running => Self::Running,
            RunStatus::Succeeded => Self::Succeeded,
            RunStatus::Failed => Self::Failed,
            RunStatus::Unknown => Self::Unknown,
        }
    }
}

impl From<wire::RunStatus> for RunStatus {
    fn from(status: wire::RunStatus) -> Self {
        match status {
            wire::RunStatus::Pending => Self::Pending,
            wire::RunStatus::Running => Self::Running,
            wire::RunStatus::Succeeded => Self::Succeeded,
            wire::RunStatus::Failed => Self::Failed,
            wire::RunStatus::Unspecified | wire::RunStatus::Unknown => Self::Unknown,
        }
    }
}

/// A number this program does not know is a newer word: nobody here can tell.
fn run_status(number: i32) -> RunStatus {
    wire::RunStatus::try_from(number).map_or(RunStatus::Unknown, Into::into)
}

impl From<NodeInfo> for wire::NodeInfo {
    fn from(info: NodeInfo) -> Self {
        Self {
            hostname: info.hostname,
            address: info.address,
            arch: info.arch,
            variant: info.variant,
            os: info.os,
            kernel_version: info.kernel_version,
            os_image: info.os_image,
            container_runtime: info.container_runtime,
            machine_id: info.machine_id,
            boot_id: info.boot_id,
            system_uuid: info.system_uuid,
            role: info.role,
            labels: info.labels,
            host_id: info.host_id,
        }
    }
}

impl From<wire::NodeInfo> for NodeInfo {
    fn from(info: wire::NodeInfo) -> Self {
        Self {
            hostname: info.hostname,
            address: info.address,
            arch: info.arch,
            variant: info.variant,
            os: info.os,
            kernel_version: info.kernel_version,
            os_image: info.os_image,
            container_runtime: info.container_runtime,
            machine_id: info.machine_id,
            boot_id: info.boot_id,
            system_uuid: info.system_uuid,
            role: info.role,
            labels: info.labels,
            host_id: info.host_id,
        }
    }
}

impl From<ContainerStatus> for wire::ContainerStatus {
    fn from(status: ContainerStatus) -> Self {
        let ContainerStatus {
            name,
            state,
            reason,
            restarts,
        } = status;
        Self {
            name,
            state,
            reason,
            restarts,
        }
    }
}

impl From<wire::ContainerStatus> for ContainerStatus {
    fn from(status: wire::ContainerStatus) -> Self {
        let wire::ContainerStatus {
            name,
            state,
            reason,
            restarts,
        } = status;
        Self {
            name,
            state,
            reason,
            restarts,
        }
    }
}

impl From<InstancePort> for wire::InstancePort {
    fn from(port: InstancePort) -> Self {
        Self {
            name: port.name,
            container_port: port.container_port.into(),
            port: port.port.into(),
            protocol: port.protocol,
        }
    }
}

impl TryFrom<wire::InstancePort> for InstancePort {
    type Error = ConvertError;
    fn try_from(wire: wire::InstancePort) -> Result<Self, ConvertError> {
        Ok(Self {
            name: wire.name,
            container_port: port("container_port", wire.container_port)?,
            port: port("port", wire.port)?,
            protocol: wire.protocol,
        })
    }
}

impl From<InstanceStatus> for wire::InstanceStatus {
    fn from(status: InstanceStatus) -> Self {
        Self {
            name: status.name,
            service: status.service,
            status: wire::RunStatus::from(status.status).into(),
            cause: status.cause,
            ip: status.ip,
            node_name: status.node_name,
            pid: status.pid,
            start_time: status.start_time.map(time::to_wire),
            restarts: status.restarts,
            ports: status.ports.into_iter().map(Into::into).collect(),
            containers: status.containers.into_iter().map(Into::into).collect(),
            init_containers: status.init_containers.into_iter().map(Into::into).collect(),
            ready: status.ready,
        }
    }
}

impl TryFrom<wire::InstanceStatus> for InstanceStatus {
    type Error = ConvertError;
    fn try_from(status: wire::InstanceStatus) -> Result<Self, ConvertError> {
        Ok(Self {
            status: run_status(status.status),
            name: status.name,
            service: status.service,
            cause: status.cause,
            ip: status.ip,
            node_name: status.node_name,
            pid: status.pid,
            start_time: time::optional("start_time", status.start_time)?,
            restarts: status.restarts,
            ports: all(status.ports)?,
            containers: status.containers.into_iter().map(Into::into).collect(),
            init_containers: status.init_containers.into_iter().map(Into::into).collect(),
            ready: status.ready,
        })
    }
}

impl From<AppStatus> for wire::AppStatus {
    fn from(status: AppStatus) -> Self {
        let failed = status
            .failed
            .map(|failed| (failed.version.into(), failed.reason));
        let (failed_version, failed_reason) = failed.unwrap_or_default();
        Self {
            name: status.name.into(),
            version: status.version.map_or_else(String::new, Into::into),
            deploy_type: status.deploy_type,
            status: wire::RunStatus::from(status.status).into(),
            cause: status.cause,
            observed_generation: status.observed_generation.get(),
            phase: status.phase.map_or("", Phase::as_str).to_owned(),
            failed_version,
            failed_reason,
            conditions: status.conditions.into_iter().map(Into::into).collect(),
            instances: status.instances.into_values().map(Into::into).collect(),
            system: status.system,
        }
    }
}

impl TryFrom<wire::AppStatus> for AppStatus {
    type Error = ConvertError;
    fn try_from(status: wire::AppStatus) -> Result<Self, ConvertError> {
        let reason = status.failed_reason;
        let failed =
            some_version(status.failed_version)?.map(|version| FailedVersion { version, reason });
        let phase = Some(status.phase).filter(|phase| !phase.is_empty());
        let instances = all(status.instances)?;
        Ok(Self {
            status: run_status(status.status),
            name: AppName::new(status.name)?,
            version: some_version(status.version)?,
            deploy_type: status.deploy_type,
            cause: status.cause,
            observed_generation: Generation(status.observed_generation),
            phase: phase
                .map(|phase| phase.parse().map_err(invalid("phase")))
                .transpose()?,
            failed,
            conditions: all(status.conditions)?,
            instances: by_name("instances", instances, |instance: &InstanceStatus| {
                instance.name.clone()
            })?,
            system: status.system,
        })
    }
}

impl From<NodeStatus> for wire::NodeStatus {
    fn from(status: NodeStatus) -> Self {
        Self {
            observed: status.observed.map(Into::into),
            conditions: status.conditions.into_iter().map(Into::into).collect(),
            apps: status.apps.into_values().map(Into::into).collect(),
            properties: properties_to_wire(status.properties),
            nodes: status.nodes.into_values().map(Into::into).collect(),
            core: Some(status.core.into()),
            mode_info: status.mode_info,
            run_mode: status.run_mode.as_str().to_owned(),
        }
    }
}

impl TryFrom<wire::NodeStatus> for NodeStatus {
    type Error = ConvertError;
    fn try_from(status: wire::NodeStatus) -> Result<Self, ConvertError> {
        let nodes = status.nodes.into_iter().map(NodeInfo::from).collect();
        let run_mode = match status.run_mode.as_str() {
            "" => RunMode::default(),
            word => word.parse().map_err(invalid("run_mode"))?,
        };
        Ok(Self {
            observed: status.observed.map(TryInto::try_into).transpose()?,
            conditions: all(status.conditions)?,
            apps: by_name("apps", all(status.apps)?, |app: &AppStatus| {
                app.name.clone()
            })?,
            properties: properties_from_wire("properties", status.properties)?,
            nodes: by_name("nodes", nodes, |node: &NodeInfo| node.hostname.clone())?,
            core: status.core.unwrap_or_default().into(),
            mode_info: status.mode_info,
            run_mode,
        })
    }
}
