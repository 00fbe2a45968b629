//! From what the process supervisor sees to the words of the report.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use baetyl_model::report::{InstancePort, InstanceStatus, RunStatus};
use baetyl_model::workload::{self, Instance, Observed, Workload, WorkloadKey};
use baetyl_runtime_native::status::{self, Phase};
use baetyl_runtime_native::{self as native, InstanceId};
use jiff::Timestamp;

/// Translates, and remembers what did not change.
#[derive(Debug)]
pub(super) struct Translator {
    node_name: String,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    seen: Arc<native::Observed>,
    observed: Arc<Observed>,
    instances: BTreeMap<InstanceId, (Arc<status::InstanceStatus>, Arc<Instance>)>,
}

impl Translator {
    /// For a machine of that name.
    pub(super) fn new(node_name: String) -> Self {
        Self {
            node_name,
            last: Mutex::default(),
        }
    }

    /// What is seen, in neutral words.
    pub(super) fn translate(&self, seen: &Arc<native::Observed>) -> Arc<Observed> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&last.seen, seen) {
            return Arc::clone(&last.observed);
        }
        let mut instances = BTreeMap::new();
        let mut workloads: BTreeMap<WorkloadKey, Workload> = BTreeMap::new();
        for (key, state) in &seen.workloads {
            let workload = Workload {
                state: self::state(*state),
                ..Workload::default()
            };
            workloads.insert(key.clone(), workload);
        }
        for (id, status) in &seen.instances {
            let known = last.instances.remove(id);
            let instance = match known {
                Some((before, instance)) if Arc::ptr_eq(&before, status) => instance,
                _ => Arc::new(instance(id, status, &self.node_name)),
            };
            let workload = workloads.entry(id.workload.clone()).or_default();
            workload.instances.push(Arc::clone(&instance));
            instances.insert(id.clone(), (Arc::clone(status), instance));
        }
        let observed = Arc::new(Observed {
            unknown: None,
            workloads,
        });
        *last = Last {
            seen: Arc::clone(seen),
            observed: Arc::clone(&observed),
            instances,
        };
        observed
    }
}

/// The neutral name of an instance.
pub(crate) fn id(id: &InstanceId) -> workload::InstanceId {
    workload::InstanceId {
        workload: id.workload.clone(),
        name: id.to_string(),
    }
}

fn state(state: status::WorkloadState) -> workload::WorkloadState {
    match state {
        status::WorkloadState::Active => workload::WorkloadState::Active,
        status::WorkloadState::Succeeded => workload::WorkloadState::Succeeded,
        status::WorkloadState::Failed => workload::WorkloadState::Failed,
        status::WorkloadState::Stopping => workload::WorkloadState::Stopping,
    }
}

/// One instance in the words of the report.
pub(crate) fn instance(
    id: &InstanceId,
    seen: &status::InstanceStatus,
    node_name: &str,
) -> Instance {
    let run_status = match seen.phase {
        Phase::Running => RunStatus::Running,
        Phase::Succeeded => RunStatus::Succeeded,
        Phase::Failed => RunStatus::Failed,
        Phase::Unknown => RunStatus::Unknown,
        Phase::Pending | Phase::Starting | Phase::Backoff | Phase::Stopping | Phase::Stopped => {
            RunStatus::Pending
        }
    };
    let process = seen.process.as_ref();
    let status = InstanceStatus {
        name: id.to_string(),
        service: id.workload.service.to_string(),
        status: run_status,
        cause: cause(seen),
        ip: "127.0.0.1".to_owned(),
        node_name: node_name.to_owned(),
        pid: process.map_or(0, |process| u64::from(process.app.pid)),
        start_time: process
            .and_then(|process| Timestamp::from_millisecond(process.started_at_ms).ok()),
        restarts: seen.restarts,
        ports: seen.ports.iter().map(port).collect(),
        containers: Vec::new(),
        init_containers: Vec::new(),
        ready: seen.ready,
    };
    Instance {
        status,
        hopeless: seen.phase == Phase::Backoff
            && seen.reason.is_some_and(status::Reason::is_permanent),
    }
}

fn port(port: &native::spec::InstancePort) -> InstancePort {
    InstancePort {
        name: port.name.clone(),
        container_port: port.declared,
        port: port.port,
        protocol: "TCP".to_owned(),
    }
}

/// Why it is not as it should be; empty when it is. A limit that is not enforced is told, too.
fn cause(seen: &status::InstanceStatus) -> String {
    let ok = (seen.phase == Phase::Running && seen.ready) || seen.phase == Phase::Succeeded;
    if ok {
        let warnings: Vec<&str> = seen
            .warnings
            .iter()
            .map(|warning| warning.message.as_str())
            .collect();
        return warnings.join("; ");
    }
    let of_exit = seen
        .last_exit
        .as_ref()
        .filter(|_| seen.phase != Phase::Running)
        .map(|exit| exit.message.as_str());
    let said = if seen.message.is_empty() {
        of_exit.unwrap_or_default()
    } else {
        &seen.message
    };
    match seen.reason {
        Some(reason) if said.is_empty() => reason.as_str().to_owned(),
        Some(reason) => format!("{}: {said}", reason.as_str()),
        None => said.to_owned(),
    }
}
