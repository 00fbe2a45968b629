//! A report as Baetyl v2's clients know it (`report` of a node view).
//!
//! Quantities are decimal strings, percentages strings from 0 to 1, as v2's views show them. What v2 has no place for
//! (phases, conditions, failed versions, restarts, ports) is added under names of its own, which v2's clients ignore.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    AppStatus, Condition, ContainerStatus, DiskStats, InstanceStats, InstanceStatus, MachineStats,
    NodeInfo, NodeStats, NodeStatus, ResourceStats,
};

#[cfg(test)]
mod tests;

/// What the cloud knows beside the report itself.
#[derive(Debug, Clone, Default)]
pub struct ViewFacts {
    /// When the cloud received the last report or sign of life, by its own clock.
    pub time: Option<Timestamp>,
    /// True when the node is online; else the status of applications is not shown.
    pub online: bool,
    /// Address the node's link comes from; empty when unknown.
    pub client_ip: String,
}

/// The `report` of a node view. A node that never reported has an empty one.
pub fn render_v2_report(
    status: Option<&NodeStatus>,
    stats: Option<&NodeStats>,
    facts: &ViewFacts,
) -> Value {
    let Some(status) = status else {
        return json!({});
    };
    let usage: BTreeMap<(&str, &str), &InstanceStats> = stats
        .iter()
        .flat_map(|stats| &stats.instances)
        .map(|stats| ((stats.app.as_str(), stats.instance.as_str()), stats))
        .collect();
    let (system, user): (Vec<_>, Vec<_>) = status.apps.values().partition(|app| app.system);
    let versions = |apps: &[&AppStatus]| -> Vec<Value> {
        let running = apps
            .iter()
            .filter_map(|app| Some((&app.name, app.version.as_ref()?)));
        running
            .map(|(name, version)| json!({"name": name, "version": version}))
            .collect()
    };
    let states = |apps: &[&AppStatus]| -> Vec<Value> {
        apps.iter()
            .map(|app| render_app(app, &usage, facts.online))
            .collect()
    };
    let nodes: Map<_, _> = status
        .nodes
        .iter()
        .map(|(host, info)| (host.clone(), render_info(info, &facts.client_ip)))
        .collect();
    let node_stats: Map<_, _> = stats
        .iter()
        .flat_map(|stats| &stats.nodes)
        .map(|machine| (machine.hostname.clone(), render_machine(machine)))
        .collect();
    let core = json!({"goVersion": "", "binVersion": status.core.version, "gitRevision": ""});
    let mut view = json!({
        "core": core,
        "apps": versions(&user),
        "sysapps": versions(&system),
        "appstats": states(&user),
        "sysappstats": states(&system),
        "node": nodes,
        "nodestats": node_stats,
        "nodeinsnum": instances_by_host(status),
        "modeinfo": status.mode_info,
        "conditions": status.conditions.iter().map(render_condition).collect::<Vec<_>>(),
    });
    if let Some(time) = facts.time {
        view["time"] = json!(time);
    }
    if let Some(observed) = &status.observed {
        view["observedEpoch"] = json!(observed.epoch);
        view["observedGeneration"] = json!(observed.generation);
    }
    view
}

/// How many instances each machine has.
fn instances_by_host(status: &NodeStatus) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for instance in status.apps.values().flat_map(|app| app.instances.values()) {
        if !instance.node_name.is_empty() {
            *counts.entry(instance.node_name.as_str()).or_default() += 1;
        }
    }
    counts
}

/// Leaves out members that are empty, as Go's `omitempty` does.
fn omit_empty(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| match field {
            Value::Null => false,
            Value::Bool(flag) => *flag,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
        });
    }
    value
}

fn render_condition(condition: &Condition) -> Value {
    let time = condition.last_transition;
    let mut value = omit_empty(json!({
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": condition.observed_generation,
        "lastTransitionTime": time,
    }));
    value["type"] = json!(condition.kind);
    value["status"] = json!(condition.status);
    value
}

fn render_app(
    app: &AppStatus,
    usage: &BTreeMap<(&str, &str), &InstanceStats>,
    online: bool,
) -> Value {
    let instances: Map<_, _> = app
        .instances
        .iter()
        .map(|(id, instance)| {
            let usage = usage
                .get(&(app.name.as_str(), instance.name.as_str()))
                .copied();
            (id.clone(), render_instance(app, instance, usage))
        })
        .collect();
    let status = if online { app.status.as_str() } else { "" };
    let mut value = omit_empty(json!({
        "version": app.version,
        "deployType": app.deploy_type,
        "status": status,
        "cause": app.cause,
        "instances": instances,
        "phase": app.phase,
        "failedVersion": app.failed.as_ref().map(|failed| &failed.version),
        "failedReason": app.failed.as_ref().map(|failed| &failed.reason),
        "observedGeneration": app.observed_generation,
        "conditions": app.conditions.iter().map(render_condition).collect::<Vec<_>>(),
    }));
    value["name"] = json!(app.name);
    value
}

fn render_instance(
    app: &AppStatus,
    instance: &InstanceStatus,
    usage: Option<&InstanceStats>,
) -> Value {
    let containers = |list: &[ContainerStatus]| -> Vec<Value> {
        list.iter()
            .map(|container| render_container(container, usage))
            .collect()
    };
    let ports: Vec<_> = instance
        .ports
        .iter()
        .map(|port| json!({"containerPort": port.container_port, "port": port.port, "protocol": port.protocol}))
        .collect();
    let mut value = omit_empty(json!({
        "serviceName": instance.service,
        "appName": app.name,
        "usage": usage.map(|usage| used(usage.cpu_used, usage.memory_used)),
        "status": instance.status.as_str(),
        "cause": instance.cause,
        "ip": instance.ip,
        "nodeName": instance.node_name,
        "pid": instance.pid,
        "createTime": instance.start_time,
        "containers": containers(&instance.containers),
        "initContainers": containers(&instance.init_containers),
        "restarts": instance.restarts,
        "ports": ports,
    }));
    value["name"] = json!(instance.name);
    value["ready"] = json!(instance.ready);
    value
}

fn render_container(container: &ContainerStatus, usage: Option<&InstanceStats>) -> Value {
    let figures = usage.into_iter().flat_map(|usage| &usage.containers);
    let mut own = figures.filter(|figures| figures.name == container.name);
    omit_empty(json!({
        "name": container.name,
        "usage": own.next().map(|figures| used(figures.cpu_used, figures.memory_used)),
        "state": container.state,
        "reason": container.reason,
        "restarts": container.restarts,
    }))
}

fn used(cpu: f64, memory: u64) -> Value {
    json!({"cpu": cores(cpu), "memory": memory.to_string()})
}

fn render_info(info: &NodeInfo, client_ip: &str) -> Value {
    let mut value = omit_empty(json!({
        "hostname": info.hostname,
        "address": info.address,
        "arch": info.arch,
        "kernelVer": info.kernel_version,
        "os": info.os,
        "variant": info.variant,
        "hostID": info.host_id,
        "role": info.role,
        "labels": info.labels,
        "clientIP": client_ip,
    }));
    // Baetyl v2 always writes these.
    value["containerRuntime"] = json!(info.container_runtime);
    value["machineID"] = json!(info.machine_id);
    value["bootID"] = json!(info.boot_id);
    value["systemUUID"] = json!(info.system_uuid);
    value["osImage"] = json!(info.os_image);
    value
}

/// Cores to a thousandth, as v2's views show them.
fn cores(cores: f64) -> String {
    ((cores * 1000.0).round() / 1000.0).to_string()
}

/// "0" when nothing is known, "1" when all is used, else the fraction.
#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
fn fraction(used: u64, total: u64) -> String {
    part(used as f64, total as f64)
}

fn part(used: f64, total: f64) -> String {
    if total <= 0.0 {
        "0".to_owned()
    } else if used >= total {
        "1".to_owned()
    } else {
        (used / total).to_string()
    }
}

/// What is counted in whole numbers: file systems, and what device plugins offer, as Kubernetes names it; all GPUs
/// together besides, under v2's word.
fn counted(machine: &MachineStats) -> Vec<ResourceStats> {
    let disk = |name: String, disk: &DiskStats| ResourceStats {
        name,
        used: disk.used,
        total: disk.total,
    };
    // "disk" is the root file system, or the first one there is.
    let is_root = |disk: &&DiskStats| disk.mount_point == "/";
    let main = machine.disks.iter().find(is_root);
    let main = main.or(machine.disks.first());
    let mut counted: Vec<_> = main
        .map(|main| disk("disk".to_owned(), main))
        .into_iter()
        .collect();
    let disks = machine.disks.iter();
    counted.extend(disks.map(|one| disk(format!("disk_{}", one.mount_point), one)));
    counted.extend(machine.resources.iter().cloned());
    let gpus = machine
        .resources
        .iter()
        .filter(|resource| resource.name.contains("gpu"));
    let all = gpus.fold(ResourceStats::default(), |all, one| ResourceStats {
        name: "gpu".to_owned(),
        used: all.used.saturating_add(one.used),
        total: all.total.saturating_add(one.total),
    });
    counted.extend(Some(all).filter(|all| !all.name.is_empty()));
    counted
}

fn render_machine(machine: &MachineStats) -> Value {
    let mut usage = BTreeMap::from([
        ("cpu".to_owned(), cores(machine.cpu_used)),
        ("memory".to_owned(), machine.memory_used.to_string()),
    ]);
    if machine.usage_unknown {
        usage.clear();
    }
    let mut capacity = BTreeMap::from([
        ("cpu".to_owned(), cores(machine.cpu_total)),
        ("memory".to_owned(), machine.memory_total.to_string()),
    ]);
    let mut percent = BTreeMap::from([
        ("cpu".to_owned(), part(machine.cpu_used, machine.cpu_total)),
        (
            "memory".to_owned(),
            fraction(machine.memory_used, machine.memory_total),
        ),
    ]);
    if machine.usage_unknown {
        percent.values_mut().for_each(|value| "0".clone_into(value));
    }
    for ResourceStats { name, used, total } in counted(machine) {
        usage.insert(name.clone(), used.to_string());
        capacity.insert(name.clone(), total.to_string());
        percent.insert(name, fraction(used, total));
    }
    let network = machine.network;
    let mut value = omit_empty(json!({
        "diskPressure": machine.disk_pressure,
        "memoryPressure": machine.memory_pressure,
        "pidPressure": machine.pid_pressure,
        "NetworkUnavailable": machine.network_unavailable,
        "ready": machine.ready,
        "uptimeSeconds": machine.uptime_seconds,
    }));
    value["usage"] = json!(usage);
    value["capacity"] = json!(capacity);
    value["percent"] = json!(percent);
    value["netio"] = json!({
        "netBytesSent": network.bytes_sent.to_string(),
        "netBytesRecv": network.bytes_received.to_string(),
        "netPacketsSent": network.packets_sent.to_string(),
        "netPacketsRecv": network.packets_received.to_string(),
    });
    value
}
