//! From what the runtime sees to the words of the report.

use baetyl_model::name::{AppName, ServiceName, Version};
use baetyl_model::report::{InstancePort, InstanceStatus, RunStatus};
use baetyl_model::rollup::{self, Restarts, Shape as RollupShape};
use baetyl_model::update::Health;
use baetyl_runtime_native::status::{self, Phase};
use baetyl_runtime_native::{InstanceId, Observed, WorkloadKey};
use jiff::Timestamp;

use crate::resolve::namespace_of;
use crate::shape::Shape;

/// Workloads of one version: one for each service, in order.
pub(crate) fn workloads(
    app: &AppName,
    system: bool,
    version: &Version,
    shape: &Shape,
) -> Vec<WorkloadKey> {
    let keys = shape.services.iter().filter_map(|service| {
        Some(WorkloadKey {
            namespace: namespace_of(system),
            app: app.clone(),
            version: version.clone(),
            service: ServiceName::new(service.name.as_str()).ok()?,
        })
    });
    keys.collect()
}

/// All instances of these workloads, in order.
pub(crate) fn of<'a>(
    observed: &'a Observed,
    keys: &'a [WorkloadKey],
) -> impl Iterator<Item = (&'a InstanceId, &'a status::InstanceStatus)> {
    keys.iter().flat_map(|key| observed.of(key))
}

/// One instance in the words of the report.
pub(crate) fn to_report(
    id: &InstanceId,
    seen: &status::InstanceStatus,
    node_name: &str,
) -> InstanceStatus {
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
    InstanceStatus {
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
    }
}

fn port(port: &baetyl_runtime_native::spec::InstancePort) -> InstancePort {
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

/// All instances of these workloads in the words of the report.
pub(crate) fn report_all(
    observed: &Observed,
    keys: &[WorkloadKey],
    node_name: &str,
) -> Vec<InstanceStatus> {
    of(observed, keys)
        .map(|(id, seen)| to_report(id, seen, node_name))
        .collect()
}

/// How the instances of a version on probation do. `before` has the restarts each had when the version was started.
pub(crate) fn health(
    shape: RollupShape,
    observed: &Observed,
    keys: &[WorkloadKey],
    before: &Restarts,
) -> Health {
    let on_probation = |(id, seen): (&InstanceId, &status::InstanceStatus)| {
        let mut instance = to_report(id, seen, "");
        // A program that is absent or no program will not be there at the next try.
        if seen.phase == Phase::Backoff && seen.reason.is_some_and(status::Reason::is_permanent) {
            instance.status = RunStatus::Failed;
        }
        instance
    };
    let instances: Vec<_> = of(observed, keys).map(on_probation).collect();
    rollup::health(shape, &instances.iter().collect::<Vec<_>>(), before)
}
