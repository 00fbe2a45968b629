//! What a runtime runs and what it sees of it, in words that fit processes and Pods alike.
//!
//! A runtime decides what a version of an application is made of; engine names the parts by [`WorkloadKey`] and learns
//! from [`Observed`] how they do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{AppName, Namespace, ServiceName, Version};
use crate::report::{ContainerStats, InstanceStatus};

/// The service name under which a runtime runs a whole application as one workload.
pub const WHOLE: &str = "pod";

/// One workload of one application version: a service (native mode) or the whole application ([`WHOLE`], kube mode).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadKey {
    /// `baetyl-edge` or `baetyl-edge-system`.
    pub namespace: Namespace,
    /// Application.
    pub app: AppName,
    /// Version of the application.
    pub version: Version,
    /// Service of the application.
    pub service: ServiceName,
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}.{}.{}",
            self.namespace, self.app, self.version, self.service
        )
    }
}

/// One instance: a process with its helpers, or a Pod. Shown by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The workload it belongs to.
    pub workload: WorkloadKey,
    /// native: `<ns>.<app>.<version>.<service>.<i>`; kube: name of the Pod.
    pub name: String,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Everything a runtime runs for us, as it is now. Cheap to clone behind an `Arc`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// Why nobody can tell at the moment (a sentence); what is below is then the last that was seen.
    pub unknown: Option<String>,
    /// By workload.
    pub workloads: BTreeMap<WorkloadKey, Workload>,
}

/// What is seen of one workload.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Workload {
    /// How it does as a whole.
    pub state: WorkloadState,
    /// Why, when that is not plain; a sentence.
    pub message: String,
    /// What somebody else took away of what it is made of, a sentence; empty: nothing.
    pub taken: String,
    /// How many instances there shall be, where the runtime knows better than the application: one for each machine, or
    /// what an autoscaler says.
    pub wanted: Option<u32>,
    /// Its instances in order.
    pub instances: Vec<Arc<Instance>>,
}

/// How a workload does as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkloadState {
    /// It serves or works, or tries to; its instances tell more.
    #[default]
    Active,
    /// Every instance ended well and none will be started again.
    Succeeded,
    /// It ended badly, or was refused, and nothing will be started again.
    Failed,
    /// It is being stopped on request.
    Stopping,
}

/// What is seen of one instance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Instance {
    /// In the words of the report. The name is that of [`InstanceId`].
    pub status: InstanceStatus,
    /// It does not run, and trying again is of no use: no such program, no such image for this machine.
    pub hopeless: bool,
}

impl Observed {
    /// The instances of one workload, in order.
    pub fn of<'a>(&'a self, key: &WorkloadKey) -> impl Iterator<Item = &'a Instance> + 'a {
        self.workloads
            .get(key)
            .into_iter()
            .flat_map(|workload| workload.instances.iter().map(AsRef::as_ref))
    }
}

/// What an instance uses.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Usage {
    /// Cores.
    pub cpu: f64,
    /// Bytes.
    pub memory: u64,
    /// The same of each container of a Pod, sorted by name; empty in native mode.
    pub containers: Vec<ContainerStats>,
}
