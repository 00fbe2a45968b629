//! What is kept of the objects that are watched: the few fields that are used. All else is skipped while reading; of
//! `managedFields` one number stays.

use std::collections::BTreeMap;

use baetyl_model::jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use crate::names;

mod fields;
mod machine;

pub(crate) use fields::Fields;
pub(crate) use machine::Machine;

/// Annotation of what we applied: sha256 of the body.
pub(crate) const APPLIED: &str = "baetyl.io/applied";
/// Label of the ConfigMap that says what a YAML application consists of.
pub(crate) const INVENTORY: &str = "baetyl.io/inventory";

/// Metadata.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) generation: i64,
    pub(crate) creation_timestamp: Option<Timestamp>,
    pub(crate) deletion_timestamp: Option<Timestamp>,
    pub(crate) labels: Labels,
    pub(crate) annotations: Annotations,
    pub(crate) owner_references: Vec<Owner>,
    pub(crate) managed_fields: Fields,
}

impl Meta {
    pub(crate) fn is_ending(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// Who controls it: kind and name.
    pub(crate) fn controller(&self) -> Option<&Owner> {
        self.owner_references.iter().find(|owner| owner.controller)
    }

    /// Whether it is one of ours.
    pub(crate) fn is_managed(&self) -> bool {
        self.labels.managed_by.as_deref() == Some(names::MANAGER)
    }
}

/// The labels that mean something here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Labels {
    #[serde(rename = "app.kubernetes.io/managed-by")]
    pub(crate) managed_by: Option<Box<str>>,
    #[serde(rename = "app.kubernetes.io/part-of")]
    pub(crate) part_of: Option<Box<str>>,
    #[serde(rename = "baetyl-app-name")]
    pub(crate) app: Option<Box<str>>,
    #[serde(rename = "baetyl-app-version")]
    pub(crate) version: Option<Box<str>>,
    #[serde(rename = "baetyl.io/digest")]
    pub(crate) digest: Option<Box<str>>,
    /// Charts name their release so.
    #[serde(rename = "app.kubernetes.io/instance")]
    pub(crate) instance: Option<Box<str>>,
    #[serde(rename = "baetyl.io/helm-namespace")]
    pub(crate) helm_namespace: Option<Box<str>>,
    /// Of the Secret of a release: `deployed`, `failed`, …
    pub(crate) status: Option<Box<str>>,
}

/// The annotations that mean something here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Annotations {
    #[serde(rename = "baetyl.io/applied")]
    pub(crate) applied: Option<Box<str>>,
}

/// Who an object belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Owner {
    pub(crate) kind: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) controller: bool,
}

/// What `/status` says holds or does not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: Box<str>,
    pub(crate) status: Box<str>,
    pub(crate) reason: Box<str>,
    pub(crate) message: Box<str>,
}

/// A condition that holds.
pub(crate) fn holds<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    find(conditions, kind).filter(|condition| &*condition.status == "True")
}

/// A condition, whether it holds or not.
pub(crate) fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| &*condition.kind == kind)
}

/// A Pod.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Meta,
    pub(crate) spec: PodSpec,
    pub(crate) status: PodStatus,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub(crate) node_name: Box<str>,
    pub(crate) restart_policy: Box<str>,
    pub(crate) host_network: bool,
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Vec<Container>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Container {
    pub(crate) name: Box<str>,
    pub(crate) ports: Vec<Port>,
    /// `Always`: an init container that goes on beside the others.
    pub(crate) restart_policy: Option<Box<str>>,
    pub(crate) resources: Requests,
}

/// What a container asks of its machine: of CPU and memory nobody here wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Requests {
    #[serde(deserialize_with = "offered_by_plugins")]
    pub(crate) requests: BTreeMap<Box<str>, Box<str>>,
}

/// Whether a resource is one that device plugins offer: those of Kubernetes itself have no domain in front.
pub(crate) fn is_offered_by_plugin(resource: &str) -> bool {
    let domain = resource.split_once('/').map(|(domain, _)| domain);
    domain.is_some_and(|domain| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

fn offered_by_plugins<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Box<str>, Box<str>>, D::Error> {
    let all: BTreeMap<Box<str>, Box<str>> = BTreeMap::deserialize(deserializer)?;
    let offered = all.into_iter();
    Ok(offered
        .filter(|(resource, _)| is_offered_by_plugin(resource))
        .collect())
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Port {
    pub(crate) name: Box<str>,
    pub(crate) container_port: u16,
    pub(crate) host_port: u16,
    pub(crate) protocol: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodStatus {
    pub(crate) phase: Box<str>,
    pub(crate) reason: Box<str>,
    pub(crate) message: Box<str>,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Box<str>,
    pub(crate) start_time: Option<Timestamp>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) container_statuses: Vec<ContainerSeen>,
    pub(crate) init_container_statuses: Vec<ContainerSeen>,
}

/// How a container does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerSeen {
    pub(crate) name: Box<str>,
    pub(crate) ready: bool,
    pub(crate) restart_count: u32,
    pub(crate) state: State,
    pub(crate) last_state: State,
}

/// One of the three.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) waiting: Option<Waiting>,
    pub(crate) running: Option<Running>,
    pub(crate) terminated: Option<Terminated>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Waiting {
    pub(crate) reason: Box<str>,
    pub(crate) message: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Running {}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Terminated {
    pub(crate) reason: Box<str>,
    pub(crate) message: Box<str>,
    pub(crate) exit_code: i32,
    pub(crate) signal: i32,
}

/// A Deployment, StatefulSet, DaemonSet, Job or CronJob: the fields of all of them.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Controller {
    pub(crate) metadata: Meta,
    pub(crate) spec: ControllerSpec,
    pub(crate) status: ControllerStatus,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ControllerSpec {
    pub(crate) replicas: Option<u32>,
    pub(crate) completions: Option<u32>,
    pub(crate) parallelism: Option<u32>,
    pub(crate) suspend: bool,
    pub(crate) template: Template,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Template {
    pub(crate) spec: TemplateSpec,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TemplateSpec {
    pub(crate) containers: Vec<TemplateContainer>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TemplateContainer {
    pub(crate) name: Box<str>,
    #[serde(deserialize_with = "target_of_helm")]
    pub(crate) args: Option<Box<str>>,
}

/// Keeps of the arguments the one that names a namespace.
fn target_of_helm<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<str>>, D::Error> {
    let args: Vec<std::borrow::Cow<'de, str>> = Vec::deserialize(deserializer)?;
    Ok(args
        .iter()
        .find_map(|arg| arg.strip_prefix("--namespace="))
        .map(Box::from))
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ControllerStatus {
    pub(crate) observed_generation: i64,
    pub(crate) replicas: u32,
    pub(crate) updated_replicas: u32,
    pub(crate) desired_number_scheduled: u32,
    pub(crate) updated_number_scheduled: u32,
    pub(crate) conditions: Vec<Condition>,
}

impl Controller {
    /// The namespace a Helm application is put into, if this Job does that.
    pub(crate) fn helm_target(&self) -> Option<&str> {
        let mut containers = self.spec.template.spec.containers.iter();
        let helm = containers.find(|container| &*container.name == names::HELM_CONTAINER)?;
        helm.args.as_deref()
    }
}

/// Something that did not go well, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Warning {
    pub(crate) metadata: Meta,
    pub(crate) involved_object: Involved,
    pub(crate) reason: Box<str>,
    pub(crate) message: Box<str>,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Involved {
    pub(crate) kind: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) uid: Box<str>,
}

/// A ConfigMap or Secret of which the metadata and, of inventories, the content is read.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) metadata: Meta,
    /// Never read of a Secret: only metadata is asked for.
    pub(crate) data: BTreeMap<String, String>,
}

/// An object of which nothing matters but that it is there, and which fields of it are ours.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Thing {
    pub(crate) metadata: ThingMeta,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ThingMeta {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) resource_version: String,
    pub(crate) managed_fields: Fields,
}

/// A page of a list.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(crate) struct Page<T> {
    #[serde(default)]
    pub(crate) metadata: PageMeta,
    #[serde(default = "Vec::new", deserialize_with = "or_none")]
    pub(crate) items: Vec<T>,
}

/// A list; the API server writes an empty one as `null`, too.
pub(crate) fn or_none<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PageMeta {
    pub(crate) resource_version: String,
    #[serde(rename = "continue")]
    pub(crate) next: String,
}

/// Metadata alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Bare {
    pub(crate) metadata: Meta,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_is_read_however_it_is_written() {
        for items in [r#","items":null"#, r#","items":[]"#, ""] {
            let page = format!(r#"{{"metadata":{{"resourceVersion":"7"}}{items}}}"#);
            let page: Page<Bare> = serde_json::from_str(&page).unwrap();
            assert_eq!(
                (page.items.len(), &*page.metadata.resource_version),
                (0, "7")
            );
        }
    }
}
