//! Why a version cannot be rendered.

use baetyl_model::labels::SelectorError;
use baetyl_model::name::NameError;

/// Why a version cannot be rendered. Always a fault of the version (or of what this node offers), never of the cluster.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Not a kind of application we know.
    #[error("type \"{0}\" is not one of container, function, yaml, helm")]
    Kind(String),
    /// Not a workload Kubernetes has.
    #[error("workload \"{0}\" is not one of deployment, statefulset, daemonset, job")]
    Workload(String),
    /// Nothing to run.
    #[error("the application has no services; give it at least one")]
    NoService,
    /// A name breaks its rule.
    #[error("a name is not one Kubernetes takes")]
    Name(#[from] NameError),
    /// A name that fits Baetyl, but not what it becomes.
    #[error("{what} \"{name}\" cannot be used: {rule}")]
    ObjectName {
        /// What it would be the name of.
        what: &'static str,
        /// The name.
        name: String,
        /// The rule.
        rule: &'static str,
    },
    /// A name of ours.
    #[error("{what} \"{name}\" is one of Baetyl's own; choose another")]
    Reserved {
        /// What it names.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Something is there twice.
    #[error("{what} \"{name}\" is there twice; each needs a name of its own")]
    Twice {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// There is no image.
    #[error("service {0} has no image; in kube mode every service needs one")]
    NoImage(String),
    /// No image for that runtime.
    #[error(
        "service {service} wants runtime \"{runtime}\"; this node has {known}. Give the service an image, or choose another runtime"
    )]
    Runtime {
        /// Service.
        service: String,
        /// What it wants.
        runtime: String,
        /// What there is.
        known: String,
    },
    /// An image of ours that this node was not told.
    #[error("{what} needs the image {image}, and this node was not told where it is")]
    OwnImage {
        /// What needs it.
        what: &'static str,
        /// The image.
        image: &'static str,
    },
    /// A mount names no volume.
    #[error("service {service} mounts volume \"{volume}\", which the application does not have")]
    Volume {
        /// Service.
        service: String,
        /// Volume.
        volume: String,
    },
    /// A volume has no source, or several, or one that only the cloud knows.
    #[error(
        "volume \"{0}\" must have exactly one of hostPath, config, secret, emptyDir, persistentVolumeClaim"
    )]
    Source(String),
    /// Two mounts at one path.
    #[error("service {service} mounts two volumes at {path}; each needs a path of its own")]
    MountTwice {
        /// Service.
        service: String,
        /// Path.
        path: String,
    },
    /// Something that did not come with the release.
    #[error("volume \"{volume}\" names {kind} \"{name}\", which did not come with this version")]
    Reference {
        /// Volume, or what else names it.
        volume: String,
        /// configuration or secret.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An object item without its object.
    #[error(
        "configuration \"{configuration}\" names object \"{file}\", which did not come with this version"
    )]
    Object {
        /// Configuration.
        configuration: String,
        /// File name.
        file: String,
    },
    /// More than a ConfigMap holds.
    #[error(
        "configuration \"{configuration}\" has {bytes} bytes; Kubernetes holds at most {most} in one. Make the large items objects"
    )]
    TooLarge {
        /// Configuration.
        configuration: String,
        /// Bytes of its plain items with their keys.
        bytes: usize,
        /// What fits.
        most: usize,
    },
    /// A registry's secret without what a registry needs.
    #[error("registry \"{0}\" has no address; correct the registry")]
    Registry(String),
    /// A relative host path that leads out of the host directory.
    #[error("host path \"{0}\" leads out of the host directory; leave out \"..\"")]
    HostPath(String),
    /// A host path type Kubernetes does not know.
    #[error(
        "volume \"{volume}\" has host path type \"{kind}\", which is not one of DirectoryOrCreate, Directory, FileOrCreate, File, Socket, CharDevice, BlockDevice"
    )]
    HostPathType {
        /// Volume.
        volume: String,
        /// As given.
        kind: String,
    },
    /// One port of the machine for several Pods.
    #[error(
        "service {service} has host port {port} and {replicas} instances; a port of the machine can have one owner"
    )]
    HostPort {
        /// Service.
        service: String,
        /// Port.
        port: u16,
        /// Instances.
        replicas: u32,
    },
    /// A port of the machine or of the cluster is wanted twice.
    #[error("{what} {port}/{protocol} is used by two services of the application")]
    PortTwice {
        /// host port, node port or port.
        what: &'static str,
        /// Port.
        port: u16,
        /// Protocol.
        protocol: String,
    },
    /// In the machine's network ports cannot be mapped.
    #[error(
        "service {service} has host port {host} for port {port}, but with hostNetwork both are the same port; leave out hostPort"
    )]
    HostNetworkPort {
        /// Service.
        service: String,
        /// The service's own.
        port: u16,
        /// The machine's.
        host: u16,
    },
    /// A port that is none.
    #[error("service {service} has port {port}, which is not between 1 and 65535")]
    PortNumber {
        /// Service.
        service: String,
        /// As given.
        port: i32,
    },
    /// Not a protocol.
    #[error("service {service} has protocol \"{protocol}\", which is not one of TCP, UDP, SCTP")]
    Protocol {
        /// Service.
        service: String,
        /// As given.
        protocol: String,
    },
    /// An amount that is none.
    #[error("{what}: {reason}")]
    Amount {
        /// Where it stands.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A probe that cannot be asked.
    #[error("service {service}, {probe}: {reason}")]
    Probe {
        /// Service.
        service: String,
        /// livenessProbe, readinessProbe or startupProbe.
        probe: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Services of one Pod want different things that a Pod has once.
    #[error(
        "services want the {what} \"{one}\" and \"{other}\"; the services of one application share it"
    )]
    Disagree {
        /// host name, runtime.
        what: &'static str,
        /// One of them.
        one: String,
        /// The other.
        other: String,
    },
    /// DNS policy.
    #[error(
        "dnsPolicy None needs name servers, which an application cannot name; use ClusterFirst or Default"
    )]
    DnsNone,
    /// DNS policy.
    #[error("dnsPolicy \"{0}\" is not one of ClusterFirst, ClusterFirstWithHostNet, Default")]
    DnsPolicy(String),
    /// Node selector.
    #[error("the application's nodeSelector cannot be read")]
    NodeSelector(#[source] SelectorError),
    /// Scaling.
    #[error("autoScaleCfg: {0}")]
    Scale(String),
    /// Timetable.
    #[error("jobConfig.schedule: {0}")]
    Schedule(String),
    /// A file of objects is no YAML.
    #[error("{place}, line {line} cannot be read as YAML{hint}")]
    Yaml {
        /// Configuration, file, document.
        place: String,
        /// Counted from 1 in the file; 0: nobody knows.
        line: usize,
        /// What to do, where that is known.
        hint: &'static str,
        /// What the parser says.
        #[source]
        source: serde_norway::Error,
    },
    /// A document is no Kubernetes object.
    #[error("{place}: {reason}")]
    Document {
        /// Configuration, file, document.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// An object of another namespace.
    #[error(
        "{place}: {object} names namespace \"{found}\", but the application is put into \"{wanted}\"; leave the namespace out, or set the application's label baetyl-custom-namespace"
    )]
    Namespace {
        /// Configuration, file, document.
        place: String,
        /// The object.
        object: String,
        /// What it names.
        found: String,
        /// Where it belongs.
        wanted: String,
    },
    /// No objects at all.
    #[error(
        "the application has no objects: none of its configurations has a file whose name contains yaml or yml"
    )]
    NoObjects,
    /// Helm.
    #[error("helm: {0}")]
    Chart(String),
}
