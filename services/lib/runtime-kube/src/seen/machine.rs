//! Machines.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Condition;

/// A machine.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Machine {
    pub(crate) metadata: MachineMeta,
    pub(crate) status: MachineStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct MachineMeta {
    pub(crate) name: String,
    pub(crate) resource_version: String,
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct MachineStatus {
    pub(crate) capacity: BTreeMap<String, String>,
    pub(crate) allocatable: BTreeMap<String, String>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) node_info: MachineInfo,
    pub(crate) daemon_endpoints: DaemonEndpoints,
}

/// Where the programs of a machine listen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct DaemonEndpoints {
    pub(crate) kubelet_endpoint: DaemonEndpoint,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DaemonEndpoint {
    #[serde(rename = "Port")]
    pub(crate) port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Address {
    #[serde(rename = "type")]
    pub(crate) kind: Box<str>,
    pub(crate) address: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct MachineInfo {
    pub(crate) architecture: Box<str>,
    #[serde(rename = "bootID")]
    pub(crate) boot_id: Box<str>,
    pub(crate) container_runtime_version: Box<str>,
    pub(crate) kernel_version: Box<str>,
    #[serde(rename = "machineID")]
    pub(crate) machine_id: Box<str>,
    pub(crate) operating_system: Box<str>,
    pub(crate) os_image: Box<str>,
    #[serde(rename = "systemUUID")]
    pub(crate) system_uuid: Box<str>,
}
