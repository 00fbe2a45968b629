//! Services: one for all ports of the application inside the cluster, one for its NodePorts.

use baetyl_model::resource::ContainerPort;
use serde_json::{Value, json};

use super::build::Build;
use super::container::{port_number, protocol};
use super::fields::Fields;
use super::{RenderError, Workload};
use crate::names;
use crate::object::Object;

/// The Services of an application. A StatefulSet always has one, without an address of its own: it is what its Pods'
/// names hang on.
pub(super) fn services(build: &Build<'_>, kind: Workload) -> Result<Vec<Object>, RenderError> {
    let mut services = Vec::new();
    let ports = ports(build, false)?;
    let stateful = kind == Workload::StatefulSet;
    if stateful || !ports.is_empty() {
        let name = names::service(build.name, build.system());
        let spec = Fields::new().given("clusterIP", if stateful { "None" } else { "" });
        services.push(service(build, name, spec, ports)?);
    }
    let node_ports = self::ports(build, true)?;
    if !node_ports.is_empty() {
        let name = names::node_port_service(build.name, build.system());
        let spec = Fields::new().with("type", "NodePort");
        services.push(service(build, &name, spec, node_ports)?);
    }
    Ok(services)
}

fn service(
    build: &Build<'_>,
    name: &str,
    spec: Fields,
    ports: Vec<Value>,
) -> Result<Object, RenderError> {
    if !names::is_service(name) {
        return Err(RenderError::ObjectName {
            what: "Service",
            name: name.to_owned(),
            rule: "an application with ports is called by characters of a-z, 0-9 and '-', beginning with a letter; its Service has at most 63",
        });
    }
    let spec = spec
        .with("selector", json!({names::APP_NAME: build.name}))
        .given("ports", ports);
    Ok(build.object(("v1", "Service"), name, Fields::new().with("spec", spec)))
}

fn is_node_port(port: &ContainerPort) -> bool {
    port.service_type == "NodePort"
}

/// Ports of all services, each number and protocol once.
fn ports(build: &Build<'_>, node_ports: bool) -> Result<Vec<Value>, RenderError> {
    let mut seen: Vec<(u16, String, i32)> = Vec::new();
    let mut ports = Vec::new();
    for service in &build.app.services {
        for port in &service.ports {
            if is_node_port(port) != node_ports {
                continue;
            }
            let number = port_number(service, port.container_port)?;
            let protocol = protocol(service, port)?;
            let outside = if node_ports { port.node_port } else { 0 };
            if outside != 0 {
                let outside = port_number(service, outside)?;
                let twice = seen
                    .iter()
                    .any(|(_, with, other)| *with == protocol && *other == i32::from(outside));
                if twice {
                    return Err(RenderError::PortTwice {
                        what: "node port",
                        port: outside,
                        protocol,
                    });
                }
            }
            let known = seen
                .iter()
                .find(|(other, with, _)| *other == number && *with == protocol);
            match known {
                Some((_, _, other)) if *other == outside => continue,
                Some(_) => {
                    return Err(RenderError::PortTwice {
                        what: "port",
                        port: number,
                        protocol,
                    });
                }
                None => seen.push((number, protocol.clone(), outside)),
            }
            let entry = Fields::new()
                .with("name", port_name(&service.name, number, &protocol))
                .with("port", number)
                .with("targetPort", number)
                .with("protocol", protocol)
                .given("nodePort", outside);
            ports.push(entry.into());
        }
    }
    Ok(ports)
}

/// `<service>-<port>-<protocol>` in at most 63 characters.
fn port_name(service: &str, port: u16, protocol: &str) -> String {
    let end = format!("-{port}-{}", protocol.to_ascii_lowercase());
    let room = 63 - end.len();
    // Names of services have one byte a character.
    let start = service.get(..room).unwrap_or(service);
    format!("{start}{end}")
}
