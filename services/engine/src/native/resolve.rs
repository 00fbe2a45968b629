//! Turns one release (application, configurations, secrets, objects) into what the runtime runs.
//!
//! Pure but for the ports, which the caller hands out. Nothing here touches the disk: objects are named by the path they
//! have in [`Objects`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use baetyl_model::desire::DesiredApp;
use baetyl_model::name::{NameError, ServiceName};
use baetyl_model::resource::{JobConfig, Service};
use baetyl_runtime_native::spec::{
    FileSpec, InstancePort, InstanceSpec, Limits, Program, QuantityError, RestartPolicy, RunAs,
};
use baetyl_runtime_native::{InstanceId, Instances as _, WorkloadKey, WorkloadKind, WorkloadSpec};
use jiff::Timestamp;

use crate::bodies::Bodies;
use crate::certificates::Certificates;
use crate::objects::Objects;
use crate::release::{NodeIdentity, Resolved, namespace_of};
use crate::shape::Shape;
use crate::token::TokenIssuer;

mod env;
mod function;
mod mounts;

/// Why a release cannot run here. Always a fault of the release, except `Ports`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// Needs Kubernetes.
    #[error("applications of type {0} need Kubernetes; this node runs in native mode")]
    Kind(String),
    /// A name breaks its rule.
    #[error("a service of the application has an invalid name")]
    Name(#[from] NameError),
    /// There is nothing to start.
    #[error(
        "service {service} has no program: mount a package at /var/lib/baetyl/bin or give it a command"
    )]
    NoProgram {
        /// Service.
        service: String,
    },
    /// The engine has no such runtime.
    #[error("service {service} wants runtime \"{runtime}\"; this node has {known}")]
    Runtime {
        /// Service.
        service: String,
        /// What it wants.
        runtime: String,
        /// What there is.
        known: String,
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
    #[error("volume \"{0}\" must have exactly one of hostPath, config, secret, emptyDir")]
    Source(String),
    /// Needs Kubernetes, too.
    #[error(
        "volume \"{0}\" is a PersistentVolumeClaim, which needs Kubernetes; this node runs in native mode"
    )]
    Claim(String),
    /// And so does a job with a timetable.
    #[error("a job with a schedule (\"{0}\") needs Kubernetes; this node runs in native mode")]
    Schedule(String),
    /// A volume names something that did not come with the release.
    #[error("volume \"{volume}\" names {kind} \"{name}\", which did not come with this version")]
    Reference {
        /// Volume.
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
    /// A relative host path that leads out of the host directory.
    #[error(
        "host path \"{0}\" leads out of the host directory; use an absolute path or one without \"..\""
    )]
    HostPath(String),
    /// One port of the machine for several instances.
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
    /// A port that is none.
    #[error("service {service} has port {port}, which is not between 0 and 65535")]
    PortNumber {
        /// Service.
        service: String,
        /// As given.
        port: i32,
    },
    /// A limit that is none.
    #[error("service {service} has an invalid limit")]
    Limits {
        /// Service.
        service: String,
        /// Why.
        #[source]
        source: QuantityError,
    },
    /// No ports are left.
    #[error("no port can be handed out to {instance}: {reason}")]
    Ports {
        /// Instance.
        instance: String,
        /// Why.
        reason: String,
    },
}

/// What every instance on this node has in common.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The directory all edge services share.
    pub data_dir: PathBuf,
    /// Instance directories lie beneath `<run_dir>/<ns>/<app>/<version>/<service>/<i>`.
    pub run_dir: PathBuf,
    /// Socket of the node service for applications.
    pub node_socket: PathBuf,
    /// Socket of the function proxy for applications.
    pub function_socket: PathBuf,
    /// Commands of function runtimes by id.
    pub runtimes: BTreeMap<String, Vec<String>>,
    /// Ids of those whose program only engine's own user can start.
    pub private_runtimes: BTreeSet<String>,
}

impl Place {
    /// Directory of one instance.
    pub(crate) fn instance_dir(&self, id: &InstanceId) -> PathBuf {
        let key = &id.workload;
        let mut dir = self.run_dir.clone();
        dir.extend([
            key.namespace.as_str(),
            key.app.as_str(),
            key.version.as_str(),
            key.service.as_str(),
        ]);
        dir.join(id.index.to_string())
    }
}

/// What one resolution needs.
pub(crate) struct Request<'a> {
    /// What shall run.
    pub release: &'a DesiredApp,
    /// Its bodies.
    pub bodies: &'a Bodies,
    /// Where objects are.
    pub objects: &'a Objects,
    /// The node's directories and runtimes.
    pub place: &'a Place,
    /// Who the node is.
    pub node: &'a NodeIdentity,
    /// Makes token files.
    pub tokens: &'a TokenIssuer,
    /// When the release was taken in: goes into tokens, so that resolving again gives the same files.
    pub taken_at: Timestamp,
    /// User the application runs as.
    pub user: Option<RunAs>,
    /// Certificates by service.
    pub certificates: &'a BTreeMap<String, Certificates>,
}

/// Hands out ports: instance and how many.
pub(crate) type AssignPorts<'a> = dyn FnMut(&InstanceId, usize) -> Result<Vec<u16>, String> + 'a;

/// Resolves a release.
///
/// # Errors
/// The first thing that keeps it from running here.
pub(crate) fn resolve(
    request: &Request<'_>,
    ports: &mut AssignPorts<'_>,
) -> Result<Resolved<WorkloadSpec>, ResolveError> {
    let app = &request.bodies.app;
    if matches!(app.kind(), "helm" | "yaml") {
        return Err(ResolveError::Kind(app.kind().to_owned()));
    }
    if let Some(schedule) = app.schedule() {
        return Err(ResolveError::Schedule(schedule));
    }
    let shape = Shape::of(app);
    let mut resolved = Resolved {
        init: Vec::new(),
        services: Vec::new(),
        shape,
    };
    for service in &app.init_services {
        let kind = WorkloadKind::Job {
            parallelism: 1,
            backoff_limit: DEFAULT_BACKOFF_LIMIT,
        };
        resolved
            .init
            .push(workload(request, service, kind, 1, ports)?);
    }
    let (kind, count) = (
        kind_of(app.workload(), &app.job()),
        resolved.shape.instances,
    );
    for service in &app.services {
        let mut workload = workload(request, service, kind, count, ports)?;
        mounts::add_certificates(request, service, &mut workload);
        resolved.services.push(workload);
    }
    Ok(resolved)
}

/// Kubernetes' default.
const DEFAULT_BACKOFF_LIMIT: u32 = 6;

fn kind_of(workload: &str, job: &JobConfig) -> WorkloadKind {
    if workload != "job" {
        return WorkloadKind::Service {
            restart: RestartPolicy::Always,
        };
    }
    let count = |given: i32| u32::try_from(given).unwrap_or(0);
    // Baetyl v2 writes zeros for what an author left out; a job with nothing set is Kubernetes' default one.
    let unset = job.completions == 0 && job.parallelism == 0 && job.backoff_limit == 0;
    WorkloadKind::Job {
        parallelism: count(job.parallelism).max(1),
        backoff_limit: if unset {
            DEFAULT_BACKOFF_LIMIT
        } else {
            count(job.backoff_limit)
        },
    }
}

fn workload(
    request: &Request<'_>,
    service: &Service,
    kind: WorkloadKind,
    count: u32,
    ports: &mut AssignPorts<'_>,
) -> Result<WorkloadSpec, ResolveError> {
    let key = WorkloadKey {
        namespace: namespace_of(request.release.system),
        app: request.release.app.name.clone(),
        version: request.release.app.version.clone(),
        service: ServiceName::new(service.name.as_str())?,
    };
    let instances = (1..=count)
        .map(|index| instance(request, service, &key.instance(index), count, ports))
        .collect::<Result<_, _>>()?;
    Ok(WorkloadSpec {
        key,
        kind,
        instances,
    })
}

fn instance(
    request: &Request<'_>,
    service: &Service,
    id: &InstanceId,
    count: u32,
    ports: &mut AssignPorts<'_>,
) -> Result<InstanceSpec, ResolveError> {
    let (ports, assigned) = instance_ports(service, id, count, ports)?;
    let dir = request.place.instance_dir(id);
    let mut mounts = mounts::mounts(request, service)?;
    let mut files = vec![token_file(request, id)];
    let program = match function::runtime(request, service)? {
        Some(command) => {
            function::add_code_and_conf(request, service, &mut mounts, &mut files)?;
            Program::Command(command)
        }
        None => program(service)?,
    };
    let user = user(request, service);
    let mut env = env::environment(request, service, id, &dir, &ports);
    if user.is_some() {
        // Engine's own home is closed to it.
        env.entry("HOME".to_owned())
            .or_insert_with(|| dir.display().to_string());
    }
    env.insert(PORTS_VARIABLE.to_owned(), ports_text(&assigned));
    let (program, args) = env::expand_command(program, &service.args, &env);
    let limits = service
        .resources
        .as_ref()
        .map_or(Ok(Limits::default()), Limits::from_resources);
    Ok(InstanceSpec {
        program,
        args,
        env,
        working_dir: working_dir(service),
        mounts,
        files,
        ports,
        limits: limits.map_err(|source| ResolveError::Limits {
            service: service.name.clone(),
            source,
        })?,
        rlimits: Vec::new(),
        user,
        liveness: service.liveness_probe.clone(),
        readiness: service.readiness_probe.clone(),
        startup: service.startup_probe.clone(),
        grace: None,
    })
}

/// Services that ask for all rights keep those of engine, and so do those whose runtime nobody else can start.
fn user(request: &Request<'_>, service: &Service) -> Option<RunAs> {
    let privileged = service
        .security
        .as_ref()
        .is_some_and(|security| security.privileged);
    let private = service.function_config.as_ref().is_some_and(|config| {
        service.command.is_empty() && request.place.private_runtimes.contains(&config.runtime)
    });
    request.user.filter(|_| !privileged && !private)
}

fn program(service: &Service) -> Result<Program, ResolveError> {
    if !service.command.is_empty() {
        return Ok(Program::Command(service.command.clone()));
    }
    if service
        .mount_at(baetyl_model::resource::path::PROGRAM)
        .is_none()
    {
        return Err(ResolveError::NoProgram {
            service: service.name.clone(),
        });
    }
    Ok(Program::Package)
}

/// The instance's file with who it is, relative to its directory.
pub(crate) const TOKEN_FILE: &str = "token";

fn token_file(request: &Request<'_>, id: &InstanceId) -> FileSpec {
    let key = &id.workload;
    let token = request.tokens.issue(
        key.app.as_str(),
        key.service.as_str(),
        &id.to_string(),
        request.taken_at,
    );
    FileSpec {
        path: TOKEN_FILE.to_owned(),
        content: baetyl_runtime_native::spec::Content::Bytes(token.into_bytes().into()),
        mode: Some(0o600),
    }
}

/// A path inside a mounted volume is meant, not one of the machine.
fn working_dir(service: &Service) -> Option<PathBuf> {
    if service.working_dir.is_empty() {
        return None;
    }
    let dir = Path::new(&service.working_dir);
    let mounted = service
        .volume_mounts
        .iter()
        .any(|mount| dir.starts_with(&mount.mount_path));
    let inside = dir.strip_prefix("/").ok().filter(|_| mounted);
    Some(inside.unwrap_or(dir).to_owned())
}

fn instance_ports(
    service: &Service,
    id: &InstanceId,
    count: u32,
    assign: &mut AssignPorts<'_>,
) -> Result<(Vec<InstancePort>, Vec<u16>), ResolveError> {
    let number = |port: i32| {
        u16::try_from(port).map_err(|_| ResolveError::PortNumber {
            service: service.name.clone(),
            port,
        })
    };
    let mut ports = Vec::new();
    for port in &service.ports {
        let real = number(port.host_port)?;
        if real != 0 && count > 1 {
            return Err(ResolveError::HostPort {
                service: service.name.clone(),
                port: real,
                replicas: count,
            });
        }
        ports.push(InstancePort {
            name: String::new(),
            declared: number(port.container_port)?,
            port: real,
        });
    }
    if ports.is_empty() {
        // Programs of Baetyl v2 listen on BAETYL_SERVICE_DYNAMIC_PORT without declaring anything.
        ports.push(InstancePort::default());
    }
    let wanted = ports.iter().filter(|port| port.port == 0).count();
    let assigned = assign(id, wanted).map_err(|reason| ResolveError::Ports {
        instance: id.to_string(),
        reason,
    })?;
    let open = ports.iter_mut().filter(|port| port.port == 0);
    for (port, real) in open.zip(&assigned) {
        port.port = *real;
    }
    Ok((ports, assigned))
}

/// Ports that were handed to an instance, in the order of the service: what a running instance listens on can be read
/// from it when engine's own record is lost.
pub(crate) const PORTS_VARIABLE: &str = "BAETYL_PORTS";

/// Id of the instance, in its environment.
pub(crate) const INSTANCE_VARIABLE: &str = "BAETYL_INSTANCE_NAME";

fn ports_text(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    ports.join(",")
}

/// The ports in a value of [`PORTS_VARIABLE`].
pub(crate) fn ports_of_text(text: &str) -> Vec<u16> {
    text.split(',')
        .filter_map(|port| port.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests;
