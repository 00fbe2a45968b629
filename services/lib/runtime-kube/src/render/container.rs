//! Containers: services of the application.

use std::collections::BTreeSet;

use baetyl_model::name::ServiceName;
use baetyl_model::resource::{ContainerPort, Service, label};
use serde_json::{Value, json};

use super::RenderError;
use super::build::Build;
use super::env::environment;
use super::fields::Fields;
use super::volumes::{Volumes, mount_device, mount_functions, mount_identity, mounts};
use super::{probe, resources};
use crate::names;

/// Checks the names of all services.
pub(super) fn check_names(build: &Build<'_>) -> Result<(), RenderError> {
    if build.app.services.is_empty() {
        return Err(RenderError::NoService);
    }
    let mut seen = BTreeSet::new();
    for service in build.app.all_services() {
        ServiceName::new(service.name.as_str())?;
        if service.name.starts_with(names::OBJECTS_CONTAINER) {
            return Err(RenderError::Reserved {
                what: "service",
                name: service.name.clone(),
            });
        }
        if !seen.insert(&service.name) {
            return Err(RenderError::Twice {
                what: "service",
                name: service.name.clone(),
            });
        }
    }
    Ok(())
}

/// An init service: it runs to its end, so there is nothing to probe.
pub(super) fn init(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    service: &Service,
) -> Result<Value, RenderError> {
    let probed = [
        &service.liveness_probe,
        &service.readiness_probe,
        &service.startup_probe,
    ];
    if probed.into_iter().any(Option::is_some) {
        build.warn(format!(
            "init service {} has probes; it runs to its end and is not probed",
            service.name
        ));
    }
    let image = service.image.trim().to_owned();
    Ok(common(build, volumes, service, image, None)?.into())
}

/// A service; `index` is its position in the application.
pub(super) fn container(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    index: usize,
    service: &Service,
) -> Result<Value, RenderError> {
    let image = image(build, service)?;
    let functions = build.app.kind() == "function" && service.command.is_empty();
    let fields = common(build, volumes, service, image, functions.then_some(index))?;
    Ok(probe::probes(service, fields)?.into())
}

/// What services and init services have in common. `functions`: it is a function service at that position.
fn common(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    service: &Service,
    image: String,
    functions: Option<usize>,
) -> Result<Fields, RenderError> {
    if image.is_empty() {
        return Err(RenderError::NoImage(service.name.clone()));
    }
    let mut mounts = mounts(build, volumes, service)?;
    if let Some(index) = functions {
        mount_functions(build, volumes, index, service, &mut mounts)?;
    }
    devices(build, volumes, service, &mut mounts);
    let identity = mount_identity(build, volumes, service, &mut mounts);
    let env = environment(build, service, identity);
    Ok(Fields::new()
        .with("name", service.name.as_str())
        .with("image", image)
        .with("imagePullPolicy", pull_policy_of(build, service))
        .given("command", service.command.as_slice())
        .given("args", service.args.as_slice())
        .given("workingDir", service.working_dir.as_str())
        .given("ports", ports(build, service)?)
        .with("env", env)
        .given("resources", resources::resources(build, service)?)
        .given("volumeMounts", mounts)
        .given("securityContext", security(build, service)))
}

/// Function services run in the image of their runtime, unless they bring one.
fn image(build: &Build<'_>, service: &Service) -> Result<String, RenderError> {
    let given = service.image.trim();
    let function = service
        .function_config
        .as_ref()
        .filter(|_| given.is_empty() && build.app.kind() == "function");
    let Some(function) = function else {
        return Ok(given.to_owned());
    };
    let runtimes = &build.request.place.runtimes;
    let known: Vec<&str> = runtimes.keys().map(String::as_str).collect();
    runtimes
        .get(&function.runtime)
        .cloned()
        .ok_or_else(|| RenderError::Runtime {
            service: service.name.clone(),
            runtime: function.runtime.clone(),
            known: if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            },
        })
}

impl Build<'_> {
    /// A node that is started offline has nobody to ask for an image it holds: `Always` needs the label that says the
    /// application wants it so.
    pub(super) fn pull_policy(&self, given: &str) -> &'static str {
        let online = self
            .app
            .labels
            .get(label::IMAGE_PULL)
            .is_some_and(|value| value == "online");
        match given {
            "Never" => "Never",
            "" | "Always" if online => "Always",
            _ => "IfNotPresent",
        }
    }
}

fn pull_policy_of(build: &mut Build<'_>, service: &Service) -> &'static str {
    let given = service.image_pull_policy.as_str();
    let policy = build.pull_policy(given);
    if given == "Always" && policy != given {
        build.warn(format!(
            "service {}: images are pulled when they are absent, not always, so that the node starts without its registry; label the application {}=online to have it otherwise",
            service.name,
            label::IMAGE_PULL
        ));
    }
    policy
}

/// A device is a resource of a plugin where the node knows one for it, else a file of the machine.
fn devices(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    service: &Service,
    mounts: &mut Vec<Value>,
) {
    for device in &service.devices {
        if build
            .request
            .place
            .devices
            .contains_key(&device.device_path)
        {
            continue;
        }
        mount_device(build, volumes, device, mounts);
        if !privileged(service) {
            build.warn(format!(
                "service {} wants {}: Kubernetes gives a container no right to a device unless it is privileged or a device plugin offers it",
                service.name, device.device_path
            ));
        }
    }
}

/// True when a service has all rights on the machine.
pub(super) fn privileged(service: &Service) -> bool {
    service
        .security
        .as_ref()
        .is_some_and(|security| security.privileged)
}

/// The system's namespace takes only what renounces everything; elsewhere images decide for themselves, but for the
/// system calls nobody needs.
fn security(build: &Build<'_>, service: &Service) -> Value {
    if privileged(service) {
        return json!({"privileged": true});
    }
    let fields = Fields::new().with("seccompProfile", json!({"type": "RuntimeDefault"}));
    if build.system() {
        fields
            .with("allowPrivilegeEscalation", false)
            .with("capabilities", json!({"drop": ["ALL"]}))
            .with("runAsNonRoot", true)
            .into()
    } else {
        fields.into()
    }
}

/// A number that is a port.
pub(super) fn port_number(service: &Service, port: i32) -> Result<u16, RenderError> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| RenderError::PortNumber {
            service: service.name.clone(),
            port,
        })
}

/// TCP, UDP or SCTP.
pub(super) fn protocol(service: &Service, port: &ContainerPort) -> Result<String, RenderError> {
    let protocol = port.protocol();
    if matches!(protocol.as_str(), "TCP" | "UDP" | "SCTP") {
        return Ok(protocol);
    }
    Err(RenderError::Protocol {
        service: service.name.clone(),
        protocol: port.protocol.clone(),
    })
}

/// Ports of one container: each number and protocol once, as applying wants it.
fn ports(build: &Build<'_>, service: &Service) -> Result<Vec<Value>, RenderError> {
    let mut seen: Vec<(u16, String, Option<u16>)> = Vec::new();
    let mut ports = Vec::new();
    for port in &service.ports {
        let number = port_number(service, port.container_port)?;
        let protocol = protocol(service, port)?;
        let host = match port.host_port {
            0 => None,
            host => Some(port_number(service, host)?),
        };
        if let Some(host) = host.filter(|host| build.app.host_network() && *host != number) {
            return Err(RenderError::HostNetworkPort {
                service: service.name.clone(),
                port: number,
                host,
            });
        }
        let known = seen
            .iter()
            .find(|(other, with, _)| *other == number && *with == protocol);
        match known {
            // Once for the cluster, once for the machine: one port of the container.
            Some((_, _, other)) if *other == host => continue,
            Some(_) => {
                return Err(RenderError::PortTwice {
                    what: "port",
                    port: number,
                    protocol,
                });
            }
            None => seen.push((number, protocol.clone(), host)),
        }
        let entry = Fields::new()
            .with("containerPort", number)
            .with("protocol", protocol)
            .given("hostPort", json!(host))
            .given("hostIP", port.host_ip.as_str());
        ports.push(entry.into());
    }
    Ok(ports)
}
