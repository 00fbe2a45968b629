//! Services: names, what they run, ports, mounts.

use std::collections::{BTreeMap, BTreeSet};

use super::super::quantity::Quantity;
use super::super::{Application, ContainerPort, Service, path};
use super::volume::stays_inside;
use super::{Findings, job_config, probe, unique};
use crate::name::{ConfigKey, ResourceName, ServiceName};

#[cfg(test)]
mod tests;

pub(super) fn services(app: &Application, findings: &mut Findings<'_>) {
    if app.services.is_empty() {
        findings.add("services", "at least one service is needed");
    }
    for (list, services) in [
        ("initServices", &app.init_services),
        ("services", &app.services),
    ] {
        for (index, service) in services.iter().enumerate() {
            one(
                app,
                service,
                list == "initServices",
                &mut findings.item(list, index),
            );
        }
    }
    let named = |list: &'static str, services: &[Service]| {
        let names = services.iter().enumerate();
        let names = names
            .map(move |(index, service)| (format!("{list}[{index}].name"), service.name.clone()));
        names.collect::<Vec<_>>()
    };
    let names = [
        named("initServices", &app.init_services),
        named("services", &app.services),
    ]
    .concat();
    unique(
        names
            .iter()
            .map(|(field, name)| (field.clone(), name.as_str())),
        findings,
    );
    if app.kind() == "function" && !app.registries.is_empty() {
        findings.add(
            "registries",
            "a function application has no image of its own and therefore no registries",
        );
    }
}

fn one(app: &Application, service: &Service, init: bool, findings: &mut Findings<'_>) {
    findings.name("name", ServiceName::new(service.name.as_str()));
    if app.kind() == "function" && !init {
        function(service, findings);
    } else {
        container(app, service, findings);
    }
    findings.one_of(
        "imagePullPolicy",
        &service.image_pull_policy,
        &["Always", "Never", "IfNotPresent"],
    );
    findings.one_of(
        "type",
        &service.kind,
        &["deployment", "statefulset", "daemonset", "job"],
    );
    if service.replica.is_some_and(|count| count < 0) {
        findings.add("replica", "must not be negative");
    }
    if let Some(job) = &service.job_config {
        job_config(job, &mut findings.at("jobConfig"));
    }
    mounts(app, service, findings);
    surroundings(service, findings);
    probe::probes(service, findings);
    for (index, port) in service.ports.iter().enumerate() {
        container_port(port, &mut findings.item("ports", index));
    }
}

fn container(app: &Application, service: &Service, findings: &mut Findings<'_>) {
    if service.function_config.is_some() || !service.functions.is_empty() {
        findings.add(
            "functionConfig",
            "functions need an application of type function",
        );
    }
    if app.mode() == "native" {
        let runs_something = !service.program_config.is_empty()
            || !service.command.is_empty()
            || service.mount_at(path::PROGRAM).is_some();
        if !runs_something {
            let message = format!(
                "is needed in native mode (or a command, or a program mounted at {})",
                path::PROGRAM
            );
            findings.add("programConfig", message);
        }
        if !service.program_config.is_empty() {
            findings.name(
                "programConfig",
                ResourceName::new(service.program_config.as_str()),
            );
        }
    } else if service.image.trim().is_empty() {
        findings.add("image", "is needed in kube mode");
    }
}

/// Longest time a function can ask for: 1 h.
const MAX_FUNCTION_TIMEOUT_MS: u32 = 60 * 60 * 1000;

fn function(service: &Service, findings: &mut Findings<'_>) {
    let access = ["token", "anonymous"];
    match &service.function_config {
        None => findings.add("functionConfig", "is needed in a function application"),
        Some(config) => {
            findings.name(
                "functionConfig.name",
                ResourceName::new(config.name.as_str()),
            );
            if config.runtime.is_empty() {
                findings.add("functionConfig.runtime", "is needed, e.g. python3");
            }
            findings.one_of("functionConfig.access", &config.access, &access);
        }
    }
    if service.functions.is_empty() {
        findings.add("functions", "at least one function is needed");
    }
    for (index, function) in service.functions.iter().enumerate() {
        let mut findings = findings.item("functions", index);
        if ConfigKey::new(function.name.as_str()).is_err() {
            findings.add(
                "name",
                "must be 1 to 253 characters of a-z, A-Z, 0-9, '-', '_' and '.'",
            );
        }
        if function
            .timeout_ms
            .is_some_and(|timeout| !(1..=MAX_FUNCTION_TIMEOUT_MS).contains(&timeout))
        {
            findings.add("timeoutMs", "must be from 1 to 3600000 (1 h)");
        }
        if function.handler.is_empty() {
            findings.add("handler", "is needed, e.g. index.handler");
        }
        if function.code_dir.starts_with('/') || !stays_inside(&function.code_dir) {
            findings.add("codedir", "must be a relative path without \"..\"");
        }
        findings.one_of("access", &function.access, &access);
    }
    let names = service.functions.iter().enumerate();
    unique(
        names.map(|(index, function)| (format!("functions[{index}].name"), function.name.as_str())),
        findings,
    );
}

fn mounts(app: &Application, service: &Service, findings: &mut Findings<'_>) {
    let mut paths = BTreeSet::new();
    for (index, mount) in service.volume_mounts.iter().enumerate() {
        let mut findings = findings.item("volumeMounts", index);
        if app.volume(&mount.name).is_none() {
            findings.add(
                "name",
                format!("the application has no volume \"{}\"", mount.name),
            );
        }
        if !mount.mount_path.starts_with('/') || !stays_inside(&mount.mount_path) {
            findings.add("mountPath", "must be an absolute path without \"..\"");
        } else if !paths.insert((
            mount.mount_path.trim_end_matches('/'),
            mount.sub_path.as_str(),
        )) {
            findings.add(
                "mountPath",
                format!("\"{}\" is used twice", mount.mount_path),
            );
        }
        if mount.sub_path.starts_with('/') || !stays_inside(&mount.sub_path) {
            findings.add("subPath", "must be a relative path without \"..\"");
        }
    }
}

/// Environment, devices, limits.
fn surroundings(service: &Service, findings: &mut Findings<'_>) {
    for (index, env) in service.env.iter().enumerate() {
        if env.name.is_empty() || env.name.contains(['=', '\0']) {
            findings
                .item("env", index)
                .add("name", "must not be empty and must not contain '='");
        }
        if env.value.contains('\0') {
            findings
                .item("env", index)
                .add("value", "must not contain a zero byte");
        }
    }
    for (index, device) in service.devices.iter().enumerate() {
        let mut findings = findings.item("devices", index);
        if !device.device_path.starts_with('/') || !stays_inside(&device.device_path) {
            findings.add("devicePath", "must be an absolute path without \"..\"");
        }
        if device
            .policy
            .contains(|letter| !matches!(letter, 'r' | 'w' | 'm'))
        {
            findings.add("policy", "must consist of the letters r, w and m");
        }
    }
    if let Some(resources) = &service.resources {
        for (list, amounts) in [
            ("limits", &resources.limits),
            ("requests", &resources.requests),
        ] {
            for (resource, amount) in amounts.iter().filter(|(_, amount)| !amount.is_empty()) {
                quantity(&format!("resources.{list}.{resource}"), amount, findings);
            }
        }
    }
}

pub(super) fn quantity(field: &str, text: &str, findings: &mut Findings<'_>) {
    match text.parse::<Quantity>() {
        Err(error) => findings.add(field, error.to_string()),
        Ok(amount) if amount.is_negative() => findings.add(field, "must not be negative"),
        Ok(_) => {}
    }
}

fn is_port(number: i32) -> bool {
    (1..=65535).contains(&number)
}

fn container_port(port: &ContainerPort, findings: &mut Findings<'_>) {
    if !is_port(port.container_port) {
        findings.add("containerPort", "must be a number from 1 to 65535");
    }
    if port.host_port != 0 && !is_port(port.host_port) {
        findings.add("hostPort", "must be a number from 1 to 65535, or left out");
    }
    if !matches!(port.protocol().as_str(), "TCP" | "UDP" | "SCTP") {
        findings.add(
            "protocol",
            format!("\"{}\" is not one of TCP, UDP, SCTP", port.protocol),
        );
    }
    findings.one_of(
        "serviceType",
        &port.service_type,
        &["ClusterIP", "NodePort"],
    );
    if port.service_type == "NodePort" && !is_port(port.node_port) {
        findings.add(
            "nodePort",
            "must be a number from 1 to 65535 with serviceType NodePort",
        );
    }
    if !port.host_ip.is_empty() && port.host_ip.parse::<std::net::IpAddr>().is_err() {
        findings.add("hostIP", format!("\"{}\" is not an address", port.host_ip));
    }
}

/// Ports of the machine belong to one instance of one service.
pub(super) fn host_ports(app: &Application, findings: &mut Findings<'_>) {
    let most = app
        .auto_scale
        .as_ref()
        .map_or(0, |scale| scale.max_replicas);
    let several = app.replicas() > 1 || most > 1;
    let mut seen: BTreeMap<(&str, String, i32), String> = BTreeMap::new();
    for (index, service) in app.services.iter().enumerate() {
        for (at, port) in service.ports.iter().enumerate() {
            for (field, number) in [("hostPort", port.host_port), ("nodePort", port.node_port)] {
                if number == 0 {
                    continue;
                }
                let place = format!("services[{index}].ports[{at}].{field}");
                if field == "hostPort" && several && app.workload() != "daemonset" {
                    findings.add(
                        &place,
                        "needs replica 1: a port of the machine belongs to one instance",
                    );
                }
                match seen.get(&(field, port.protocol(), number)) {
                    Some(first) => {
                        findings.add(
                            place,
                            format!("{number}/{} is used by {first} already", port.protocol()),
                        );
                    }
                    None => {
                        seen.insert((field, port.protocol(), number), place);
                    }
                }
            }
        }
    }
}
