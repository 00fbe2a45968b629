//! What Pods and machines use: from the metrics API where there is one, else from each machine's kubelet, else nothing.
//!
//! The kubelet is asked through the API server (`nodes/proxy`), which a cluster's administrator may allow; it alone tells
//! of disks and network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baetyl_model::jiff::Timestamp;
use baetyl_model::report::{DiskStats, MachineStats, NetworkStats};
use baetyl_model::workload::{InstanceId, Usage};
use serde::Deserialize;
use tokio::time::Instant;

use crate::client::{Call, Resource, encode};
use crate::error::ApiError;
use crate::observe::Belongings;
use crate::quantity;
use crate::runtime::Cluster;
use crate::seen::{Machine, find, or_none};

#[cfg(test)]
mod tests;

/// Where metrics are, if there are any.
const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";
/// How long something that is not there, or that we may not read, is not asked for.
const ABSENT: Duration = Duration::from_secs(300);
/// How long figures are good for everybody who asks: those of Pods and of machines are asked for together.
const FRESH: Duration = Duration::from_secs(5);

/// Asks for figures and remembers them for a moment.
pub(crate) struct Meter {
    cluster: Cluster,
    last: tokio::sync::Mutex<Option<(Instant, Arc<Figures>)>>,
    /// Until when a source is not asked, and what a machine's network had carried.
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    absent: BTreeMap<Source, Instant>,
    network: BTreeMap<String, NetworkStats>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Metrics,
    Kubelets,
}

/// Figures of everything.
#[derive(Debug, Default)]
struct Figures {
    /// By namespace and name.
    pods: BTreeMap<(String, String), Usage>,
    /// By name.
    machines: BTreeMap<String, MachineFigures>,
}

#[derive(Debug, Clone, Default)]
struct MachineFigures {
    usage: Usage,
    disks: Vec<DiskStats>,
    network: NetworkStats,
    uptime_seconds: u64,
}

#[derive(Deserialize)]
struct Metrics {
    #[serde(default, deserialize_with = "or_none")]
    items: Vec<Metric>,
}

#[derive(Deserialize)]
struct Metric {
    metadata: MetricName,
    /// Of a machine.
    #[serde(default)]
    usage: Amounts,
    /// Of a Pod.
    #[serde(default, deserialize_with = "or_none")]
    containers: Vec<ContainerMetric>,
}

#[derive(Deserialize)]
struct MetricName {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct ContainerMetric {
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
    fn read(&self) -> Usage {
        Usage {
            cpu: quantity::parse(&self.cpu).unwrap_or(0.0),
            memory: quantity::whole(&self.memory),
        }
    }
}

/// What a kubelet says.
#[derive(Deserialize)]
struct Summary {
    node: NodeSummary,
    #[serde(default)]
    pods: Vec<PodSummary>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct NodeSummary {
    start_time: Option<Timestamp>,
    cpu: Cpu,
    memory: Memories,
    fs: Option<Disk>,
    network: Option<Network>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Cpu {
    time: Option<Timestamp>,
    usage_nano_cores: u64,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Memories {
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
    interfaces: Vec<Interface>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Interface {
    name: String,
    rx_bytes: u64,
    tx_bytes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSummary {
    pod_ref: MetricName,
    #[serde(default)]
    cpu: Cpu,
    #[serde(default)]
    memory: Memories,
}

#[expect(clippy::cast_precision_loss, reason = "no machine has so many cores")]
fn usage(cpu: &Cpu, memory: &Memories) -> Usage {
    Usage {
        cpu: cpu.usage_nano_cores as f64 / 1e9,
        memory: memory.working_set_bytes,
    }
}

impl Meter {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            last: tokio::sync::Mutex::default(),
            memory: Mutex::default(),
        }
    }

    /// What each Pod of ours uses.
    pub(crate) async fn usage(&self) -> BTreeMap<InstanceId, Usage> {
        let figures = self.figures().await;
        let world = self.cluster.shared.look();
        let belongings = Belongings::of(&world, &self.cluster.config);
        let mut found = BTreeMap::new();
        for key in belongings.keys() {
            for pod in belongings.pods(key) {
                let meta = &pod.metadata;
                let id = (meta.namespace.clone(), meta.name.clone());
                if let Some(usage) = figures.pods.get(&id) {
                    let id = InstanceId {
                        workload: key.clone(),
                        name: meta.name.clone(),
                    };
                    found.insert(id, *usage);
                }
            }
        }
        found
    }

    /// Figures of each machine.
    pub(crate) async fn machines(&self) -> Vec<MachineStats> {
        let figures = self.figures().await;
        let world = self.cluster.shared.look();
        let machines = world.machines.values();
        machines
            .map(|entry| {
                let figures = figures.machines.get(&entry.item.metadata.name);
                stats(&entry.item, figures.cloned().unwrap_or_default())
            })
            .collect()
    }

    async fn figures(&self) -> Arc<Figures> {
        let mut last = self.last.lock().await;
        if let Some((when, figures)) = last.as_ref()
            && when.elapsed() < FRESH
        {
            return figures.clone();
        }
        let figures = Arc::new(self.ask().await);
        *last = Some((Instant::now(), figures.clone()));
        figures
    }

    async fn ask(&self) -> Figures {
        let mut figures = Figures::default();
        let measured = self.ask_metrics(&mut figures).await;
        self.ask_kubelets(&mut figures, measured).await;
        figures
    }

    /// Asks the metrics API; false: there is none.
    async fn ask_metrics(&self, figures: &mut Figures) -> bool {
        if self.is_absent(Source::Metrics) {
            return false;
        }
        let path = format!("{METRICS}/nodes");
        let machines: Metrics = match self.cluster.api.call(Call::get(path)).await {
            Ok(machines) => machines,
            Err(error) => return self.absent(Source::Metrics, &error),
        };
        for machine in machines.items {
            let entry = figures.machines.entry(machine.metadata.name).or_default();
            entry.usage = machine.usage.read();
        }
        for namespace in self.namespaces() {
            let path = format!("{METRICS}/namespaces/{}/pods", encode(&namespace));
            match self.cluster.api.call::<Metrics>(Call::get(path)).await {
                Ok(pods) => figures.pods.extend(pods.items.iter().map(of_pod)),
                Err(error) => {
                    tracing::debug!(%error, namespace, "no figures of the Pods of a namespace");
                }
            }
        }
        true
    }

    /// Asks each kubelet; of what was `measured` already only what else there is.
    async fn ask_kubelets(&self, figures: &mut Figures, measured: bool) {
        if self.is_absent(Source::Kubelets) {
            return;
        }
        let names: Vec<String> = {
            let world = self.cluster.shared.look();
            let machines = world.machines.values();
            machines
                .map(|entry| entry.item.metadata.name.clone())
                .collect()
        };
        for name in names {
            let path = format!("{}/proxy/stats/summary", Resource::NODE.one("", &name));
            let summary: Summary = match self.cluster.api.call(Call::get(path)).await {
                Ok(summary) => summary,
                Err(error) if matches!(error.code(), 401 | 403) => {
                    self.absent(Source::Kubelets, &error);
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, machine = name, "its kubelet does not tell figures");
                    continue;
                }
            };
            let entry = figures.machines.entry(name.clone()).or_default();
            self.take(&name, &summary, entry, measured);
            if !measured {
                figures.pods.extend(summary.pods.into_iter().map(|pod| {
                    let id = (pod.pod_ref.namespace, pod.pod_ref.name);
                    (id, usage(&pod.cpu, &pod.memory))
                }));
            }
        }
    }

    fn take(&self, name: &str, summary: &Summary, entry: &mut MachineFigures, measured: bool) {
        let node = &summary.node;
        if !measured {
            entry.usage = usage(&node.cpu, &node.memory);
        }
        entry.disks = node
            .fs
            .iter()
            .map(|disk| DiskStats {
                mount_point: "/".to_owned(),
                used: disk.used_bytes,
                total: disk.capacity_bytes,
            })
            .collect();
        entry.network = self.traffic(name, node.network.as_ref());
        // Both times are of the machine's own clock.
        if let (Some(start), Some(now)) = (node.start_time, node.cpu.time) {
            let seconds = now.duration_since(start).as_secs();
            entry.uptime_seconds = u64::try_from(seconds).unwrap_or(0);
        }
    }

    /// What a machine's network carried since it was asked before; interfaces of Pods carry it once more.
    fn traffic(&self, name: &str, network: Option<&Network>) -> NetworkStats {
        let Some(network) = network else {
            return NetworkStats::default();
        };
        let all = network.interfaces.iter().filter(|interface| {
            let virtual_ones = ["veth", "cni", "flannel", "cali", "docker", "lo", "kube-"];
            !virtual_ones
                .iter()
                .any(|prefix| interface.name.starts_with(prefix))
        });
        let mut now = NetworkStats::default();
        for interface in all {
            now.bytes_sent += interface.tx_bytes;
            now.bytes_received += interface.rx_bytes;
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        match memory.network.insert(name.to_owned(), now) {
            None => NetworkStats::default(),
            Some(before) => NetworkStats {
                bytes_sent: now.bytes_sent.saturating_sub(before.bytes_sent),
                bytes_received: now.bytes_received.saturating_sub(before.bytes_received),
                ..NetworkStats::default()
            },
        }
    }

    /// Our namespaces, and those of others where Pods of ours are.
    fn namespaces(&self) -> Vec<String> {
        let world = self.cluster.shared.look();
        let config = &self.cluster.config;
        let mut all: Vec<String> = config.namespaces().map(str::to_owned).into();
        all.extend(Belongings::of(&world, config).foreign());
        all
    }

    fn is_absent(&self, source: Source) -> bool {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let until = memory.absent.get(&source);
        until.is_some_and(|until| Instant::now() < *until)
    }

    /// Remembers that a source is not there; gives false for the convenience of the caller.
    fn absent(&self, source: Source, error: &ApiError) -> bool {
        tracing::debug!(%error, ?source, "no figures from there");
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        // Without an answer nobody knows whether it is there.
        if error.code() != 0 {
            memory.absent.insert(source, Instant::now() + ABSENT);
        }
        false
    }
}

fn of_pod(pod: &Metric) -> ((String, String), Usage) {
    let mut sum = Usage::default();
    for container in &pod.containers {
        let usage = container.usage.read();
        sum.cpu += usage.cpu;
        sum.memory = sum.memory.saturating_add(usage.memory);
    }
    let id = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
    (id, sum)
}

fn stats(machine: &Machine, figures: MachineFigures) -> MachineStats {
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
        ..MachineStats::default()
    }
}
