//! A machine in the words of the report: its figures, and what Kubernetes says of it.

use std::collections::BTreeMap;

use baetyl_model::report::{MachineStats, ResourceStats};
use baetyl_model::workload::Usage;

use super::MachineFigures;
use crate::quantity;
use crate::seen::{Container, Machine, Pod, find, is_offered_by_plugin};
use crate::world::World;

pub(super) fn stats(world: &World, machine: &Machine, figures: MachineFigures) -> MachineStats {
    let status = &machine.status;
    let holds = |kind: &str| {
        find(&status.conditions, kind).is_some_and(|condition| &*condition.status == "True")
    };
    let capacity = |resource: &str| status.capacity.get(resource).map_or("", String::as_str);
    MachineStats {
        hostname: machine.metadata.name.clone(),
        cpu_used: figures.usage.cpu,
        cpu_total: quantity::parse(capacity("cpu")).unwrap_or(0.0),
        memory_used: figures.usage.memory,
        memory_total: quantity::whole(capacity("memory")),
        disks: figures.disks,
        network: figures.network,
        disk_pressure: holds("DiskPressure"),
        memory_pressure: holds("MemoryPressure"),
        pid_pressure: holds("PIDPressure"),
        network_unavailable: holds("NetworkUnavailable"),
        ready: holds("Ready"),
        uptime_seconds: figures.uptime_seconds,
        // A machine that runs anything uses memory.
        usage_unknown: figures.usage == Usage::default(),
        resources: resources(world, machine),
    }
}

/// What device plugins offer on a machine, and what the Pods that are seen ask of it.
fn resources(world: &World, machine: &Machine) -> Vec<ResourceStats> {
    let (status, name) = (&machine.status, machine.metadata.name.as_str());
    // What is broken is in the capacity still, and not for anybody.
    let offered: BTreeMap<&String, &String> = status
        .capacity
        .iter()
        .chain(&status.allocatable)
        .filter(|(resource, _)| is_offered_by_plugin(resource))
        .collect();
    let offered = offered.into_iter().map(|(resource, total)| {
        let pods = world.pods.values().map(|entry| &entry.item);
        let used = pods
            .filter(|pod| *pod.spec.node_name == *name && !is_over(pod))
            .map(|pod| asked(pod, resource))
            .fold(0, u64::saturating_add);
        ResourceStats {
            name: resource.clone(),
            used,
            total: quantity::whole(total),
        }
    });
    offered.collect()
}

/// The machine takes back what a Pod had when that has ended.
fn is_over(pod: &Pod) -> bool {
    matches!(&*pod.status.phase, "Failed" | "Succeeded")
}

/// Kubernetes' own sum: all containers together, or the init container that asks for more than they do. Init containers
/// that go on beside the others count as these.
fn asked(pod: &Pod, resource: &str) -> u64 {
    let of = |container: &Container| {
        let amount = container.resources.requests.get(resource);
        amount.map_or(0, |amount| quantity::whole(amount))
    };
    let (mut beside, mut most) = (0_u64, 0_u64);
    for container in &pod.spec.init_containers {
        if container.restart_policy.as_deref() == Some("Always") {
            beside = beside.saturating_add(of(container));
            most = most.max(beside);
        } else {
            most = most.max(beside.saturating_add(of(container)));
        }
    }
    let all = pod.spec.containers.iter().map(of);
    most.max(all.fold(beside, u64::saturating_add))
}
