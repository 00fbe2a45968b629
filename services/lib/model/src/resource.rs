//! What an operator writes: nodes, applications, configurations, secrets, registries, certificates.
//!
//! Field names are Baetyl v2's. These types hold text as it was given (names are `String`, enumerations are words), so
//! that [`validate`] can name all mistakes of a body at once instead of the first one; what passed is safe to parse into
//! the types of [`crate::name`]. Unset values are not written, except where v2 always writes them. Reading: prefer
//! [`crate::strict::parse`], which accepts Go's `null` and lists unknown fields.

pub mod application;
pub mod configuration;
pub mod node;
pub mod probe;
pub mod quantity;
pub mod secret;
pub mod service;
pub mod strategy;
pub mod time;
pub mod validate;
pub mod view;
pub mod volume;

#[cfg(test)]
mod tests;

pub use application::{Application, AutoScale, JobConfig, Metric, MetricResource};
pub use configuration::{ConfigItem, Configuration, ConfigurationView, ObjectItem};
pub use node::NodeInput;
pub use probe::{ExecAction, GrpcAction, HttpGetAction, HttpHeader, Port, Probe, TcpSocketAction};
pub use quantity::Quantity;
pub use secret::{Certificate, Registry, Secret, SecretBytes, SecretKind, SecretView};
pub use service::{
    ContainerPort, Device, EnvVar, Function, FunctionConfig, Resources, Security, Service,
    VolumeMount,
};
pub use strategy::Strategy;
pub use validate::{
    FieldError, Rules, validate_application, validate_certificate, validate_configuration,
    validate_node, validate_registry, validate_secret,
};
pub use volume::{
    Claim, EmptyDir, HostPath, NamedRef, Reference, RegistryRef, Volume, VolumeSource,
};

/// Labels and annotations with a meaning of their own.
pub mod label {
    /// Set on every node: its name.
    pub const NODE_NAME: &str = "baetyl-node-name";
    /// The application a generated resource belongs to.
    pub const APP_NAME: &str = "baetyl-app-name";
    /// "kube" or "native"; kept by the cloud, not shown.
    pub const APP_MODE: &str = "baetyl-app-mode";
    /// "true": hidden from lists and protected.
    pub const CLOUD_SYSTEM: &str = "baetyl-cloud-system";
    /// "true": not shown to users.
    pub const INVISIBLE: &str = "resource-invisible";
    /// Kubernetes namespace a YAML or Helm application is put in.
    pub const CUSTOM_NAMESPACE: &str = "baetyl-custom-namespace";
    /// Kind of a secret: `registry`, `certificate`, `config`.
    pub const SECRET_TYPE: &str = "secret-type";
    /// Kind of a configuration: `baetyl-program`, `baetyl-function`, `baetyl-image`, `baetyl-helm-tar`, `baetyl-helm-value`.
    pub const CONFIG_TYPE: &str = "baetyl-config-type";
    /// Runtime a function configuration is for.
    pub const FUNCTION: &str = "baetyl-function";
    /// Mode of a node.
    pub const NODE_MODE: &str = "baetyl-node-mode";
    /// Whether a node is a cluster.
    pub const CLUSTER: &str = "baetyl-cluster";
    /// Accelerator of a node.
    pub const ACCELERATOR: &str = "baetyl-accelerator";
    /// "online": the one way to have images pulled at every start.
    pub const IMAGE_PULL: &str = "baetyl-image-pull";
    /// How an application is updated: `rolling` or `recreate`.
    pub const UPDATE_STRATEGY: &str = "baetyl-update-strategy";
    /// How long a version of an application may take to become ready, pulling its images included, where the node's own
    /// limit does not fit: `90s`, `20m`, `2h`.
    pub const PROGRESS_DEADLINE: &str = "baetyl-progress-deadline";
}

/// Paths with a meaning of their own inside an instance.
pub mod path {
    /// Where the program package of a native application is mounted.
    pub const PROGRAM: &str = "/var/lib/baetyl/bin";
    /// Where the configuration of an application is mounted.
    pub const CONFIG: &str = "/etc/baetyl";
    /// Where the code of a function is mounted.
    pub const CODE: &str = "/var/lib/baetyl/code";
}

/// Lets a field be left out when it has its default value.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
