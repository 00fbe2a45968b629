//! The machines of the cluster, and which Kubernetes runs there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baetyl_model::report::NodeInfo;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::client::Call;
use crate::runtime::Cluster;
use crate::seen::Machine;
use crate::world::{Watch, What, World};

#[cfg(test)]
mod tests;

/// Labels of a machine that runs the control plane; Kubernetes called it differently in time.
const MASTER: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];
/// How long to wait before the version is asked for again after it was not told.
const PAUSE: Duration = Duration::from_secs(30);
/// The same after a refusal.
const LONG_PAUSE: Duration = Duration::from_secs(300);

/// All machines by name.
pub(crate) fn infos(world: &World) -> BTreeMap<String, NodeInfo> {
    let machines = world.machines.values();
    machines
        .map(|entry| (entry.item.metadata.name.clone(), info(&entry.item)))
        .collect()
}

fn info(machine: &Machine) -> NodeInfo {
    let (metadata, status) = (&machine.metadata, &machine.status);
    let info = &status.node_info;
    let addresses = |kind: &str| {
        let all = status.addresses.iter();
        let found = all.filter(|address| &*address.kind == kind);
        found.map(|address| &*address.address).collect::<Vec<_>>()
    };
    let is_master = MASTER
        .iter()
        .any(|label| metadata.labels.contains_key(*label));
    NodeInfo {
        hostname: addresses("Hostname")
            .first()
            .map_or_else(|| metadata.name.clone(), |name| (*name).to_owned()),
        address: addresses("InternalIP").join(","),
        arch: info.architecture.to_string(),
        os: info.operating_system.to_string(),
        kernel_version: info.kernel_version.to_string(),
        os_image: info.os_image.to_string(),
        container_runtime: info.container_runtime_version.to_string(),
        machine_id: info.machine_id.to_string(),
        boot_id: info.boot_id.to_string(),
        system_uuid: info.system_uuid.to_string(),
        role: if is_master { "master" } else { "worker" }.to_owned(),
        labels: metadata.labels.clone(),
        ..NodeInfo::default()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
}

/// Asks for the version of Kubernetes whenever the API server was away: it may have become another one meanwhile.
pub(crate) async fn tell_version(cluster: Cluster, told: watch::Sender<Arc<str>>) {
    let mut changes = cluster.shared.changes();
    loop {
        let version = match cluster.api.call::<Version>(Call::get("/version")).await {
            Ok(version) => version,
            Err(error) => {
                let pause = if error.code() == 0 { PAUSE } else { LONG_PAUSE };
                sleep(pause).await;
                continue;
            }
        };
        told.send_if_modified(|before| {
            let changed = before.as_ref() != version.git_version.as_str();
            if changed {
                *before = version.git_version.as_str().into();
            }
            changed
        });
        if !gone_and_back(&cluster, &mut changes).await {
            return;
        }
    }
}

/// Waits until the API server was away and is there again.
async fn gone_and_back(cluster: &Cluster, changes: &mut watch::Receiver<u64>) -> bool {
    for broken in [true, false] {
        while is_broken(cluster) != broken {
            if changes.changed().await.is_err() {
                return false;
            }
        }
    }
    true
}

fn is_broken(cluster: &Cluster) -> bool {
    let watch = Watch {
        what: What::Pods,
        namespace: cluster.config.user_namespace.clone(),
    };
    let world = cluster.shared.look();
    let sight = world.sights.get(&watch);
    sight.is_some_and(|sight| sight.broken.is_some())
}
