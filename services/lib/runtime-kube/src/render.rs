//! One version of an application as the objects it consists of. Pure: equal input, equal objects.
//!
//! [`render`] picks by the application's type: `container` and `function` are a workload with one Pod template
//! (`workload.rs`, `pod.rs`, `container.rs`, `volumes.rs`), `yaml` is what its author wrote (`manifests.rs`), `helm` is a
//! Job (`helm.rs`).

use std::collections::BTreeMap;

use baetyl_model::name::ResourceName;
use baetyl_model::workload::WorkloadKey;
use baetyl_model::{Application, Configuration, DesiredApp, Secret};

use crate::object::Object;

mod build;
mod container;
mod content;
mod env;
mod error;
mod fields;
mod helm;
mod kinds;
mod manifests;
mod pod;
mod probe;
mod resources;
mod scale;
mod service;
mod staging;
mod target;
#[cfg(test)]
mod tests;
mod volumes;
mod workload;
mod yaml;

use build::Build;

pub use error::RenderError;
pub use helm::uninstall;

/// Everything one rendering needs.
pub struct Request<'a> {
    /// What shall run: versions and digests.
    pub release: &'a DesiredApp,
    /// The application itself.
    pub app: &'a Application,
    /// Bodies of its configurations.
    pub configurations: &'a BTreeMap<ResourceName, Configuration>,
    /// Bodies of its secrets.
    pub secrets: &'a BTreeMap<ResourceName, Secret>,
    /// The edge node, as the cloud names it.
    pub node: &'a Node,
    /// What all applications of this node have in common.
    pub place: &'a Place,
}

/// The edge node, as the cloud names it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Tenant.
    pub namespace: String,
    /// Name of the node.
    pub name: String,
}

/// What all applications of one node have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Image with `baetyl-sync stage`, for the init container that fetches objects. Empty: there is none.
    pub sync_image: String,
    /// Image that runs Helm. Empty: there is none.
    pub helm_image: String,
    /// Image with `baetyl-init release`, for the init container that clears away what a killed Helm left. Empty: there is none.
    pub init_image: String,
    /// Images of function runtimes by id, e.g. `python3`.
    pub runtimes: BTreeMap<String, String>,
    /// Resources that device plugins offer, by the path of the device they stand for.
    pub devices: BTreeMap<String, String>,
    /// Names of Secrets with which our own images are pulled; they are there already.
    pub pull_secrets: Vec<String>,
    /// Most bytes an archive among the objects may hold unpacked.
    pub max_unpacked: u64,
    /// Directory of the machine for what applications keep there.
    pub host_path_lib: String,
    /// Where applications reach the node service.
    pub node_address: String,
    /// Where applications reach the function proxy (gRPC).
    pub function_address: String,
    /// Where the init container fetches objects.
    pub sync_address: String,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            sync_image: String::new(),
            helm_image: String::new(),
            init_image: String::new(),
            runtimes: BTreeMap::new(),
            devices: BTreeMap::new(),
            pull_secrets: Vec::new(),
            max_unpacked: 4 << 30,
            host_path_lib: "/var/lib/baetyl".to_owned(),
            node_address: "https://baetyl-node.baetyl-edge-system:50021".to_owned(),
            function_address: "https://baetyl-function.baetyl-edge-system:50012".to_owned(),
            sync_address: "https://baetyl-sync.baetyl-edge-system:50031".to_owned(),
        }
    }
}

/// What a version of an application is for Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Interchangeable Pods.
    Deployment,
    /// Pods with names of their own.
    StatefulSet,
    /// One Pod on each machine.
    DaemonSet,
    /// Pods that end.
    Job,
    /// A Job at given times.
    CronJob,
    /// Objects its author wrote (`type: yaml`).
    Objects,
    /// A Job that installs a chart (`type: helm`).
    Helm,
}

/// The objects of one version of an application.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// Its service is [`baetyl_model::workload::WHOLE`].
    pub key: WorkloadKey,
    /// In the order they are applied.
    pub objects: Vec<Object>,
    /// Pods there shall be, or of a job successful ends; None: only Kubernetes knows (a daemonset, a scaled application,
    /// a CronJob, an author's own objects, a chart).
    pub wanted: Option<u32>,
    /// What it is.
    pub kind: Workload,
    /// Fields others set stay as they are (`preserveUpdates`).
    pub preserve: bool,
    /// Pods of two versions cannot be there at once: they share a port of the machine or something they write to.
    pub exclusive: bool,
    /// What was done otherwise than written, in sentences.
    pub warnings: Vec<String>,
}

impl Rendered {
    /// The namespace the chart of a Helm application is put into.
    #[must_use]
    pub fn helm_namespace(&self) -> Option<&str> {
        let jobs = self.objects.iter().filter(|_| self.kind == Workload::Helm);
        jobs.filter_map(|job| job.body.pointer("/spec/template/spec/containers/0/args"))
            .filter_map(serde_json::Value::as_array)
            .flatten()
            .find_map(|arg| arg.as_str()?.strip_prefix("--namespace="))
    }
}

/// Renders a version.
///
/// # Errors
/// The first thing that keeps it from running on Kubernetes.
pub fn render(request: &Request<'_>) -> Result<Rendered, RenderError> {
    let build = Build::new(request)?;
    match request.app.kind() {
        "container" | "function" => workload::render(build),
        "yaml" => manifests::render(build),
        "helm" => helm::render(build),
        other => Err(RenderError::Kind(other.to_owned())),
    }
}
