//! Services of an application: one container, program or function runtime each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{JobConfig, Probe, is_default};

/// One container, program or function runtime.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Service {
    /// Name inside the application ([`crate::ServiceName`]).
    pub name: String,
    /// Kube: host name of the Pod.
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: String,
    /// Kube: image. Helm: file name of the chart.
    #[serde(skip_serializing_if = "is_default")]
    pub image: String,
    /// Where volumes appear.
    #[serde(skip_serializing_if = "is_default")]
    pub volume_mounts: Vec<VolumeMount>,
    /// What it listens on.
    #[serde(skip_serializing_if = "is_default")]
    pub ports: Vec<ContainerPort>,
    /// Devices of the machine it may use.
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<Device>,
    /// Arguments.
    #[serde(skip_serializing_if = "is_default")]
    pub args: Vec<String>,
    /// Command; empty: what the image or program package says.
    #[serde(skip_serializing_if = "is_default")]
    pub command: Vec<String>,
    /// Working directory.
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: String,
    /// Environment, in order.
    #[serde(skip_serializing_if = "is_default")]
    pub env: Vec<EnvVar>,
    /// Limits and requests.
    #[serde(skip_serializing_if = "is_default")]
    pub resources: Option<Resources>,
    /// Kube: runtime class. Helm: key of the values file.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: String,
    /// Security settings.
    #[serde(rename = "security", skip_serializing_if = "is_default")]
    pub security: Option<Security>,
    /// Function applications: code and runtime.
    #[serde(skip_serializing_if = "is_default")]
    pub function_config: Option<FunctionConfig>,
    /// Function applications: what can be called; the first one is the default.
    #[serde(skip_serializing_if = "is_default")]
    pub functions: Vec<Function>,
    /// REST only, native: configuration that holds the program package; stored as a volume at `/var/lib/baetyl/bin`.
    #[serde(skip_serializing_if = "is_default")]
    pub program_config: String,
    /// Is it alive? Restarted when not.
    #[serde(skip_serializing_if = "is_default")]
    pub liveness_probe: Option<Probe>,
    /// Can it serve?
    #[serde(skip_serializing_if = "is_default")]
    pub readiness_probe: Option<Probe>,
    /// Has it started? The other probes wait for it.
    #[serde(skip_serializing_if = "is_default")]
    pub startup_probe: Option<Probe>,
    /// `Always`, `Never`, `IfNotPresent`.
    #[serde(skip_serializing_if = "is_default")]
    pub image_pull_policy: String,
    /// Deprecated: labels of the service.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Deprecated: see [`super::Application::host_network`].
    #[serde(skip_serializing_if = "is_default")]
    pub host_network: bool,
    /// Deprecated: see [`super::Application::replicas`].
    #[serde(skip_serializing_if = "is_default")]
    pub replica: Option<i32>,
    /// Deprecated: see [`super::Application::job`].
    #[serde(skip_serializing_if = "is_default")]
    pub job_config: Option<JobConfig>,
    /// Deprecated: workload; see [`super::Application::workload`].
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: String,
}

/// Where a volume appears inside an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeMount {
    /// Name of a volume of the application.
    pub name: String,
    /// Absolute path inside the instance.
    #[serde(skip_serializing_if = "is_default")]
    pub mount_path: String,
    /// Only this file or directory of the volume.
    #[serde(skip_serializing_if = "is_default")]
    pub sub_path: String,
    /// Refuse writes.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// Cannot be changed in the user interface (v2).
    #[serde(skip_serializing_if = "is_default")]
    pub immutable: bool,
    /// Remove what it holds with the application (v2).
    #[serde(skip_serializing_if = "is_default")]
    pub auto_clean: bool,
}

/// A port a service listens on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Port of the machine; 0: none (kube), one from the range (native).
    #[serde(skip_serializing_if = "is_default")]
    pub host_port: i32,
    /// Port the program listens on.
    #[serde(skip_serializing_if = "is_default")]
    pub container_port: i32,
    /// `TCP` (default), `UDP`, `SCTP`.
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: String,
    /// Address of the machine to bind `host_port` on.
    #[serde(rename = "hostIP", skip_serializing_if = "is_default")]
    pub host_ip: String,
    /// `ClusterIP` or `NodePort`.
    #[serde(skip_serializing_if = "is_default")]
    pub service_type: String,
    /// Port on every Kubernetes node, with `NodePort`.
    #[serde(skip_serializing_if = "is_default")]
    pub node_port: i32,
}

impl ContainerPort {
    /// `TCP`, `UDP` or `SCTP`, in capitals, with the default filled in.
    pub fn protocol(&self) -> String {
        if self.protocol.is_empty() {
            "TCP".to_owned()
        } else {
            self.protocol.to_ascii_uppercase()
        }
    }

    /// Fills in protocol and service type.
    pub(super) fn fill_defaults(&mut self) {
        self.protocol = self.protocol();
        if self.service_type.is_empty() {
            "ClusterIP".clone_into(&mut self.service_type);
        }
    }
}

/// A device of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    /// e.g. `/dev/ttyUSB0`
    pub device_path: String,
    /// Letters of `rwm`.
    #[serde(skip_serializing_if = "is_default")]
    pub policy: String,
    /// For people.
    #[serde(skip_serializing_if = "is_default")]
    pub description: String,
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value.
    #[serde(skip_serializing_if = "is_default")]
    pub value: String,
}

/// Limits and requests by resource (`cpu`, `memory`, `nvidia.com/gpu`), as Kubernetes quantities.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    /// At most.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: BTreeMap<String, String>,
    /// Wanted.
    #[serde(skip_serializing_if = "is_default")]
    pub requests: BTreeMap<String, String>,
}

/// Security settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Security {
    /// All rights on the machine.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
}

/// Code and runtime of a function service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FunctionConfig {
    /// Configuration that holds the code.
    pub name: String,
    /// `python3`, `nodejs10`, `sql` …
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: String,
    /// `token` (default) or `anonymous`: who may call the functions of this service.
    #[serde(skip_serializing_if = "is_default")]
    pub access: String,
}

/// A function of a function service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Function {
    /// Name it is called by.
    pub name: String,
    /// `module.function`
    #[serde(skip_serializing_if = "is_default")]
    pub handler: String,
    /// Directory of its code below the code mount. All in small letters, as v2 writes it.
    #[serde(rename = "codedir", skip_serializing_if = "is_default")]
    pub code_dir: String,
    /// `token` (default) or `anonymous`; a service is anonymous when it or all of its functions say so.
    #[serde(skip_serializing_if = "is_default")]
    pub access: String,
    /// Longest time one call may take, in milliseconds; absent: the proxy's. Baetyl v2 has no such thing.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_ms: Option<u32>,
}

impl Service {
    /// True when anybody may call the functions of this service without a token.
    pub fn is_anonymous(&self) -> bool {
        self.is_anonymous_or(false)
    }

    /// [`Service::is_anonymous`], with `otherwise` where neither the service nor the function says anything: the more
    /// specific word counts.
    pub fn is_anonymous_or(&self, otherwise: bool) -> bool {
        let says = |access: &str, otherwise: bool| match access {
            "" => otherwise,
            access => access == "anonymous",
        };
        let of_service = self
            .function_config
            .as_ref()
            .map_or("", |config| config.access.as_str());
        let by_functions = !self.functions.is_empty()
            && self
                .functions
                .iter()
                .all(|function| says(&function.access, otherwise));
        says(of_service, by_functions)
    }

    /// The mount at exactly that path.
    pub fn mount_at(&self, path: &str) -> Option<&VolumeMount> {
        self.volume_mounts
            .iter()
            .find(|mount| mount.mount_path.trim_end_matches('/') == path)
    }
}
