//! One version of an application as the objects it consists of.

use std::collections::BTreeMap;

use baetyl_model::name::ResourceName;
use baetyl_model::workload::WorkloadKey;
use baetyl_model::{Application, Configuration, DesiredApp, Secret};

use crate::object::Object;

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
    /// Images of function runtimes by id, e.g. `python3`.
    pub runtimes: BTreeMap<String, String>,
    /// Resources that device plugins offer, by the path of the device they stand for.
    pub devices: BTreeMap<String, String>,
    /// Names of Secrets with which our own images are pulled; they are there already.
    pub pull_secrets: Vec<String>,
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
            runtimes: BTreeMap::new(),
            devices: BTreeMap::new(),
            pull_secrets: Vec::new(),
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
    /// What was done otherwise than written, in sentences.
    pub warnings: Vec<String>,
}

/// Why a version cannot be rendered. Always a fault of the version.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Not a kind Kubernetes has.
    #[error(
        "workload \"{0}\" is not one of deployment, statefulset, daemonset, job; correct the application"
    )]
    Workload(String),
}

/// Renders a version.
///
/// # Errors
/// The first thing that keeps it from running on Kubernetes.
pub fn render(request: &Request<'_>) -> Result<Rendered, RenderError> {
    Err(RenderError::Workload(request.app.workload().to_owned()))
}
