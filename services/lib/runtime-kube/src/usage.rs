//! What Pods and machines use: CPU and memory from the metrics API where there is one, else from each machine's kubelet;
//! disks, network and uptime from the kubelets alone.
//!
//! A kubelet is asked at its own address, which takes the right to `nodes/stats` and nothing else. It is believed only
//! when it shows a certificate of the cluster's authority: it is given our token. Where it has another one (kubeadm's
//! default is one the kubelet made itself), it is asked through the API server, which takes the right to `nodes/proxy`: a
//! cluster's administrator may give it, knowing that it lets its holder run commands in Pods.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baetyl_model::report::{DiskStats, MachineStats, NetworkStats};
use baetyl_model::workload::{InstanceId, Usage};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::client::{Call, Resource, encode};
use crate::error::ApiError;
use crate::observe::Belongings;
use crate::runtime::Cluster;
use crate::seen::Machine;

mod machine;
mod read;
#[cfg(test)]
mod tests;

use read::{Metrics, Summary, Traffic};

/// Where metrics are, if there are any.
const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";
/// How long something that is not there, or that we may not read, is not asked for.
const ABSENT: Duration = Duration::from_secs(300);
/// How long a kubelet that does not answer is not asked for: its machine may be off.
const SILENT: Duration = Duration::from_secs(60);
/// How long figures are good for everybody who asks: those of Pods and of machines are asked for together.
const FRESH: Duration = Duration::from_secs(5);
/// Where a kubelet listens when its machine does not say.
const KUBELET: u16 = 10250;

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
    traffic: BTreeMap<String, Traffic>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Metrics,
    /// A machine's kubelet, at its own address.
    Kubelet(String),
    /// Kubelets, through the API server.
    Proxy,
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
                    found.insert(id, usage.clone());
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
                machine::stats(&world, &entry.item, figures.cloned().unwrap_or_default())
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
        let mut figures = Figures::default();
        let measured = self.ask_metrics(&mut figures).await;
        self.ask_kubelets(&mut figures, measured).await;
        let figures = Arc::new(figures);
        *last = Some((Instant::now(), figures.clone()));
        figures
    }

    /// Asks the metrics API; false: there is none.
    async fn ask_metrics(&self, figures: &mut Figures) -> bool {
        if self.is_absent(&Source::Metrics) {
            return false;
        }
        let path = format!("{METRICS}/nodes");
        let machines: Metrics = match self.cluster.api.call(Call::get(path)).await {
            Ok(machines) => machines,
            Err(error) => {
                // Without an answer nobody knows whether it is there.
                if error.code() != 0 {
                    self.absent(Source::Metrics, ABSENT, &error);
                }
                return false;
            }
        };
        for machine in machines.items {
            let usage = machine.of_machine();
            let entry = figures.machines.entry(machine.metadata.name).or_default();
            entry.usage = usage;
        }
        for namespace in self.namespaces() {
            let path = format!("{METRICS}/namespaces/{}/pods", encode(&namespace));
            match self.cluster.api.call::<Metrics>(Call::get(path)).await {
                Ok(pods) => figures.pods.extend(pods.items.iter().map(|pod| {
                    let name = &pod.metadata;
                    ((name.namespace.clone(), name.name.clone()), pod.of_pod())
                })),
                Err(error) => {
                    tracing::debug!(%error, namespace, "no figures of the Pods of a namespace");
                }
            }
        }
        true
    }

    /// Asks each kubelet; of what was `measured` already only what else there is.
    async fn ask_kubelets(&self, figures: &mut Figures, measured: bool) {
        let machines: Vec<(String, Option<String>)> = {
            let world = self.cluster.shared.look();
            let machines = world.machines.values();
            machines
                .map(|entry| (entry.item.metadata.name.clone(), kubelet(&entry.item)))
                .collect()
        };
        let asked = machines.iter().map(async |(name, address)| {
            let summary = self.ask_kubelet(name, address.as_deref()).await;
            (name, summary)
        });
        // All at once: one that does not answer keeps nobody waiting twice.
        for (name, summary) in join_all(asked).await {
            let Some(summary) = summary else {
                continue;
            };
            let entry = figures.machines.entry(name.clone()).or_default();
            if !measured {
                entry.usage = summary.usage();
                figures.pods.extend(summary.pods.iter().map(|pod| {
                    let name = &pod.pod_ref;
                    ((name.namespace.clone(), name.name.clone()), pod.usage())
                }));
            }
            entry.disks = summary.disks();
            entry.network = self.traffic(name, summary.traffic());
            entry.uptime_seconds = summary.uptime_seconds();
        }
        let mut memory = self.memory();
        memory
            .traffic
            .retain(|known, _| machines.iter().any(|(name, _)| name == known));
    }

    async fn ask_kubelet(&self, name: &str, address: Option<&str>) -> Option<Summary> {
        let source = Source::Kubelet(name.to_owned());
        if let Some(address) = address
            && !self.is_absent(&source)
        {
            let call = Call::get(format!("{address}/stats/summary"));
            match self.cluster.api.call(call).await {
                Ok(summary) => return Some(summary),
                Err(error) if error.code() == 0 => self.absent(source, SILENT, &error),
                Err(error) => self.absent(source, ABSENT, &error),
            }
        }
        if self.is_absent(&Source::Proxy) {
            return None;
        }
        let path = format!("{}/proxy/stats/summary", Resource::NODE.one("", name));
        match self.cluster.api.call(Call::get(path)).await {
            Ok(summary) => Some(summary),
            Err(error) => {
                if matches!(error.code(), 401 | 403) {
                    self.absent(Source::Proxy, ABSENT, &error);
                }
                tracing::debug!(%error, machine = name, "its kubelet does not tell figures");
                None
            }
        }
    }

    /// What a machine's network carried since it was asked before.
    fn traffic(&self, name: &str, now: Option<Traffic>) -> NetworkStats {
        let mut carried = NetworkStats::default();
        let Some(now) = now else {
            return carried;
        };
        let mut memory = self.memory();
        if let Some(before) = memory.traffic.get(name) {
            for (interface, (sent, received)) in &now {
                // A new interface, or one that began anew, has carried all of it since.
                let (sent_before, received_before) = before
                    .get(interface)
                    .filter(|before| before.0 <= *sent && before.1 <= *received)
                    .unwrap_or(&(0, 0));
                carried.bytes_sent += sent - sent_before;
                carried.bytes_received += received - received_before;
            }
        }
        memory.traffic.insert(name.to_owned(), now);
        carried
    }

    /// Our namespaces, and those of others where Pods of ours are.
    fn namespaces(&self) -> Vec<String> {
        let world = self.cluster.shared.look();
        let config = &self.cluster.config;
        let mut all: Vec<String> = config.namespaces().map(str::to_owned).into();
        all.extend(Belongings::of(&world, config).foreign());
        all
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_absent(&self, source: &Source) -> bool {
        let memory = self.memory();
        let until = memory.absent.get(source);
        until.is_some_and(|until| Instant::now() < *until)
    }

    /// A source is not asked for a while.
    fn absent(&self, source: Source, pause: Duration, error: &ApiError) {
        let mut memory = self.memory();
        if memory.absent.contains_key(&source) {
            tracing::debug!(%error, ?source, "still no figures from there");
        } else {
            tracing::info!(%error, ?source, "no figures from there; it is asked again from time to time");
        }
        memory.absent.insert(source, Instant::now() + pause);
    }
}

/// Where the kubelet of a machine listens.
fn kubelet(machine: &Machine) -> Option<String> {
    let status = &machine.status;
    let mut addresses = status.addresses.iter();
    let internal = addresses.find(|address| &*address.kind == "InternalIP")?;
    let host = match &*internal.address {
        address if address.contains(':') => format!("[{address}]"),
        address => address.to_owned(),
    };
    let port = match status.daemon_endpoints.kubelet_endpoint.port {
        0 => KUBELET,
        port => port,
    };
    Some(format!("https://{host}:{port}"))
}
