//! What is seen of the workloads of one version, as one whole.

use baetyl_model::name::{AppName, Version};
use baetyl_model::report::{InstanceStatus, RunStatus};
use baetyl_model::rollup::{self, Restarts, Shape as RollupShape};
use baetyl_model::update::Health;
use baetyl_model::workload::{Observed, WorkloadKey, WorkloadState};

use crate::ports::Runtime;
use crate::shape::Shape;

/// Workloads of one version, in the order of its services. An application without services (objects of its author's own)
/// is one as a whole, where the runtime has such.
pub(crate) fn workloads<R: Runtime>(
    runtime: &R,
    app: &AppName,
    system: bool,
    version: &Version,
    shape: &Shape,
) -> Vec<WorkloadKey> {
    let mut keys: Vec<WorkloadKey> = Vec::new();
    let services = shape.services.iter().map(|service| service.name.as_str());
    let whole = shape.services.is_empty().then_some("");
    for service in services.chain(whole) {
        let key = runtime.key_of(app, system, version, service);
        keys.extend(key.filter(|key| !keys.contains(key)));
    }
    keys
}

/// How the instances of these workloads add up; the runtime may know better than the application how many there shall be.
pub(crate) fn for_rollup(shape: &Shape, observed: &Observed, keys: &[WorkloadKey]) -> RollupShape {
    let wanted = keys.iter().map(|key| {
        let workload = observed.workloads.get(key);
        workload
            .and_then(|workload| workload.wanted)
            .unwrap_or(shape.instances)
    });
    RollupShape {
        wanted: wanted.fold(0, u32::saturating_add),
        job: shape.is_job(),
    }
}

/// All instances of these workloads in the words of the report.
pub(crate) fn report_all(observed: &Observed, keys: &[WorkloadKey]) -> Vec<InstanceStatus> {
    keys.iter()
        .flat_map(|key| observed.of(key))
        .map(|seen| seen.status.clone())
        .collect()
}

/// Why these workloads as such are not what was asked for, in the runtime's words; empty when nothing is said.
pub(crate) fn message(observed: &Observed, keys: &[WorkloadKey]) -> String {
    let said = keys.iter().filter_map(|key| observed.workloads.get(key));
    let said: Vec<&str> = said
        .map(|workload| workload.message.as_str())
        .filter(|message| !message.is_empty())
        .collect();
    said.join("; ")
}

/// How the instances of a version on probation do. `before` has the restarts each had when the version was started.
pub(crate) fn health(
    shape: &Shape,
    observed: &Observed,
    keys: &[WorkloadKey],
    before: &Restarts,
) -> Health {
    let failed = keys
        .iter()
        .filter_map(|key| observed.workloads.get(key))
        .find(|workload| workload.state == WorkloadState::Failed && workload.instances.is_empty());
    if let Some(failed) = failed {
        return Health::Failing {
            reason: failed.message.clone(),
        };
    }
    let instances: Vec<InstanceStatus> = keys
        .iter()
        .flat_map(|key| observed.of(key))
        .map(|seen| {
            let mut status = seen.status.clone();
            // What is absent or no program for this machine will not be there at the next try.
            if seen.hopeless {
                status.status = RunStatus::Failed;
            }
            status
        })
        .collect();
    let shape = for_rollup(shape, observed, keys);
    rollup::health(shape, &instances.iter().collect::<Vec<_>>(), before)
}
