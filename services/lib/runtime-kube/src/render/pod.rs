//! The Pod of an application: its services side by side, its init services before them.
//!
//! The template is the same for the same version, whenever and wherever it is rendered: what differs between two
//! renderings would restart every Pod.

use std::collections::{BTreeMap, BTreeSet};

use baetyl_model::labels::{Operator, validate_key, validate_value};
use baetyl_model::resource::Service;
use serde_json::{Value, json};

use super::build::Build;
use super::fields::Fields;
use super::volumes::{self, Volumes};
use super::{RenderError, container, staging};
use crate::names;

/// The Pod template; `restart` is what happens to containers that end.
pub(super) fn template(build: &mut Build<'_>, restart: &str) -> Result<Value, RenderError> {
    container::check_names(build)?;
    volumes::check(build)?;
    host_ports(build)?;
    let app = build.app;
    let mut volumes = Volumes::default();
    let mut own_init = Vec::new();
    for service in &app.init_services {
        own_init.push(container::init(build, &mut volumes, service)?);
    }
    let mut containers = Vec::new();
    for (index, service) in app.services.iter().enumerate() {
        containers.push(container::container(build, &mut volumes, index, service)?);
    }
    // Init services find their objects, too.
    let mut init = staging::containers(build, &mut volumes)?;
    init.append(&mut own_init);
    let spec = Fields::new()
        .with("restartPolicy", restart)
        .with("automountServiceAccountToken", false)
        .with("enableServiceLinks", false)
        .given("hostNetwork", app.host_network())
        .given("dnsPolicy", dns_policy(build)?)
        .given(
            "hostname",
            agreed(app, "host name", |service| &service.hostname)?,
        )
        .given(
            "runtimeClassName",
            agreed(app, "runtime", |service| &service.runtime)?,
        )
        .given("imagePullSecrets", build.pull_secrets()?)
        .given("initContainers", init)
        .with("containers", containers)
        .given("volumes", volumes.into_list());
    let spec = place(build, spec)?;
    let labels = pod_labels(build);
    Ok(json!({"metadata": {"labels": labels}, "spec": Value::from(spec)}))
}

/// Those of the application, and those its services carry as far as they are free.
fn pod_labels(build: &mut Build<'_>) -> BTreeMap<String, String> {
    let mut labels = build.labels();
    for service in &build.app.services {
        for (label, value) in &service.labels {
            let fine = validate_key(label).is_ok() && validate_value(label, value).is_ok();
            if fine && !labels.contains_key(label) {
                labels.insert(label.clone(), value.clone());
            } else if labels.get(label) != Some(value) {
                build.warn(format!(
                    "label {label} of service {} is left out: it is taken, or none Kubernetes has",
                    service.name
                ));
            }
        }
    }
    labels
}

/// Names of the cluster are found in the machine's network, too.
fn dns_policy(build: &Build<'_>) -> Result<&'static str, RenderError> {
    match build.app.dns_policy.as_str() {
        "" | "ClusterFirst" | "ClusterFirstWithHostNet" if build.app.host_network() => {
            Ok("ClusterFirstWithHostNet")
        }
        "" => Ok(""),
        "ClusterFirst" => Ok("ClusterFirst"),
        "ClusterFirstWithHostNet" => Ok("ClusterFirstWithHostNet"),
        "Default" => Ok("Default"),
        "None" => Err(RenderError::DnsNone),
        other => Err(RenderError::DnsPolicy(other.to_owned())),
    }
}

/// What services say that a Pod has once. Empty: none of them says anything.
fn agreed<'a>(
    app: &'a baetyl_model::Application,
    what: &'static str,
    field: impl Fn(&'a Service) -> &'a String,
) -> Result<&'a str, RenderError> {
    let mut said = app
        .all_services()
        .map(field)
        .filter(|text| !text.is_empty());
    let Some(one) = said.next() else {
        return Ok("");
    };
    if let Some(other) = said.find(|other| *other != one) {
        return Err(RenderError::Disagree {
            what,
            one: one.clone(),
            other: other.clone(),
        });
    }
    let label = names::is_label(one);
    if what == "host name" && !label {
        return Err(RenderError::ObjectName {
            what,
            name: one.clone(),
            rule: "a host name has 1 to 63 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit",
        });
    }
    Ok(one)
}

/// Which machines of the cluster it may run on.
fn place(build: &Build<'_>, spec: Fields) -> Result<Fields, RenderError> {
    let selector: baetyl_model::labels::Selector = build
        .app
        .node_selector
        .parse()
        .map_err(RenderError::NodeSelector)?;
    let mut equal = BTreeMap::new();
    let mut expressions = Vec::new();
    for requirement in selector.requirements() {
        let (operator, values): (_, Vec<&String>) = match &requirement.operator {
            Operator::Equals(value) if !equal.contains_key(&requirement.key) => {
                equal.insert(requirement.key.clone(), value.clone());
                continue;
            }
            Operator::Equals(value) => ("In", vec![value]),
            Operator::NotEquals(value) => ("NotIn", vec![value]),
            Operator::In(values) => ("In", values.iter().collect()),
            Operator::NotIn(values) => ("NotIn", values.iter().collect()),
            Operator::Exists => ("Exists", Vec::new()),
            Operator::Absent => ("DoesNotExist", Vec::new()),
        };
        let expression = Fields::new()
            .with("key", requirement.key.as_str())
            .with("operator", operator)
            .given("values", json!(values));
        expressions.push(Value::from(expression));
    }
    let spec = spec.given("nodeSelector", json!(equal));
    if expressions.is_empty() {
        return Ok(spec);
    }
    let terms = json!({"nodeSelectorTerms": [{"matchExpressions": expressions}]});
    Ok(spec.with(
        "affinity",
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}),
    ))
}

/// A port of the machine belongs to one Pod.
fn host_ports(build: &Build<'_>) -> Result<(), RenderError> {
    let app = build.app;
    let most = app
        .auto_scale
        .as_ref()
        .and_then(|scale| u32::try_from(scale.max_replicas).ok())
        .unwrap_or(0);
    let replicas = match app.workload() {
        "daemonset" => 1,
        "job" => u32::try_from(app.job().parallelism).unwrap_or(0),
        _ => app.replicas().max(most),
    };
    let mut seen = BTreeSet::new();
    for service in app.all_services() {
        for port in &service.ports {
            let host = match port.host_port {
                0 if app.host_network() => port.container_port,
                host => host,
            };
            if host == 0 {
                continue;
            }
            let host = container::port_number(service, host)?;
            if port.host_port != 0 && replicas > 1 {
                return Err(RenderError::HostPort {
                    service: service.name.clone(),
                    port: host,
                    replicas,
                });
            }
            let protocol = container::protocol(service, port)?;
            let container = (service.name.as_str(), port.container_port);
            let taken = seen
                .iter()
                .any(|(other, with, by)| *other == host && *with == protocol && *by != container);
            if taken {
                return Err(RenderError::PortTwice {
                    what: "host port",
                    port: host,
                    protocol,
                });
            }
            seen.insert((host, protocol, container));
        }
    }
    Ok(())
}
