//! Applications.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{RegistryRef, Service, Volume, is_default, time};
use crate::labels::{Selector, SelectorError};
use crate::name::{AppName, NameError};

/// What shall run, on which nodes, with what. The REST body and the body of a `ResourceRef` of kind application.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Application {
    /// Name inside the namespace ([`AppName`]).
    pub name: String,
    /// `container` (default), `function`, `helm`, `yaml`.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: String,
    /// `kube` (default) or `native`.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: String,
    /// Free labels and those of [`super::label`].
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Written by the cloud.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// Written by the cloud.
    #[serde(with = "time", skip_serializing_if = "is_default")]
    pub create_time: Option<Timestamp>,
    /// Written by the cloud.
    #[serde(with = "time", skip_serializing_if = "is_default")]
    pub update_time: Option<Timestamp>,
    /// Written by the cloud; opaque.
    #[serde(skip_serializing_if = "is_default")]
    pub version: String,
    /// Which nodes run it, by node labels. Empty: none.
    #[serde(skip_serializing_if = "is_default")]
    pub selector: String,
    /// Which machines inside an edge cluster run it.
    #[serde(skip_serializing_if = "is_default")]
    pub node_selector: String,
    /// For people.
    #[serde(skip_serializing_if = "is_default")]
    pub description: String,
    /// True for applications of the system.
    #[serde(skip_serializing_if = "is_default")]
    pub system: bool,
    /// Deferred deployment: 0 not set, 1 waiting for `cron_time`, 2 done. Always written.
    pub cron_status: i32,
    /// When a waiting application is deployed.
    #[serde(with = "time", skip_serializing_if = "is_default")]
    pub cron_time: Option<Timestamp>,
    /// Number of instances; see [`Application::replicas`].
    #[serde(skip_serializing_if = "is_default")]
    pub replica: Option<i32>,
    /// `deployment` (default), `statefulset`, `daemonset`, `job`.
    #[serde(skip_serializing_if = "is_default")]
    pub workload: String,
    /// How a job ends.
    #[serde(skip_serializing_if = "is_default")]
    pub job_config: Option<JobConfig>,
    /// Android packages of Baetyl v2; carried, never acted on.
    #[serde(skip_serializing_if = "is_default")]
    pub ota: Option<serde_json::Value>,
    /// Horizontal scaling (kube).
    #[serde(rename = "autoScaleCfg", skip_serializing_if = "is_default")]
    pub auto_scale: Option<AutoScale>,
    /// Services that run to their end, in order, before the others start.
    #[serde(skip_serializing_if = "is_default")]
    pub init_services: Vec<Service>,
    /// What runs.
    #[serde(skip_serializing_if = "is_default")]
    pub services: Vec<Service>,
    /// What services mount.
    #[serde(skip_serializing_if = "is_default")]
    pub volumes: Vec<Volume>,
    /// REST only: image registries; stored as one secret volume each.
    #[serde(skip_serializing_if = "is_default")]
    pub registries: Vec<RegistryRef>,
    /// Kube: use the machine's network.
    #[serde(skip_serializing_if = "is_default")]
    pub host_network: bool,
    /// Kube: `ClusterFirst` (default), `ClusterFirstWithHostNet`, `Default`, `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_policy: String,
    /// Kube: keep changes others made to the objects.
    #[serde(skip_serializing_if = "is_default")]
    pub preserve_updates: bool,
}

/// How a job ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobConfig {
    /// Successful ends wanted. Always written, as v2 does.
    pub completions: i32,
    /// Instances at a time.
    #[serde(skip_serializing_if = "is_default")]
    pub parallelism: i32,
    /// Failures until the job counts as failed.
    #[serde(skip_serializing_if = "is_default")]
    pub backoff_limit: i32,
    /// `Never` (default) or `OnFailure`.
    #[serde(skip_serializing_if = "is_default")]
    pub restart_policy: String,
    /// Kube: when it runs, again and again, as five fields of cron (`*/5 * * * *`); empty: once, at once. Baetyl v2 has
    /// no such thing.
    #[serde(skip_serializing_if = "is_default")]
    pub schedule: String,
}

/// Horizontal scaling.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AutoScale {
    /// At least this many instances.
    #[serde(skip_serializing_if = "is_default")]
    pub min_replicas: i32,
    /// At most this many instances.
    #[serde(skip_serializing_if = "is_default")]
    pub max_replicas: i32,
    /// By what.
    #[serde(skip_serializing_if = "is_default")]
    pub metrics: Vec<Metric>,
}

/// One measure of horizontal scaling.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metric {
    /// `Resource`.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: String,
    /// Which resource, and the target.
    #[serde(skip_serializing_if = "is_default")]
    pub resource: Option<MetricResource>,
}

/// Target of one measure.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricResource {
    /// `cpu` or `memory`.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// `Utilization`, `Value` or `AverageValue`.
    #[serde(skip_serializing_if = "is_default")]
    pub target_type: String,
    /// Quantity, for `Value`.
    #[serde(skip_serializing_if = "is_default")]
    pub value: String,
    /// Quantity, for `AverageValue`.
    #[serde(skip_serializing_if = "is_default")]
    pub average_value: String,
    /// Percent of the request, for `Utilization`.
    #[serde(skip_serializing_if = "is_default")]
    pub average_utilization: i32,
}

impl Application {
    /// `container`, `function`, `helm` or `yaml`, with the default filled in.
    pub fn kind(&self) -> &str {
        or_default(&self.kind, "container")
    }

    /// `kube` or `native`, with the default filled in.
    pub fn mode(&self) -> &str {
        or_default(&self.mode, "kube")
    }

    /// `deployment`, `statefulset`, `daemonset` or `job`. Falls back to the deprecated field of the first service.
    pub fn workload(&self) -> &str {
        let deprecated = self
            .services
            .first()
            .map_or("", |service| service.kind.as_str());
        or_default(&self.workload, or_default(deprecated, "deployment"))
    }

    /// How many instances are wanted: what is given, else the deprecated field of the first service, else 1. A 0 that
    /// is given stays 0.
    pub fn replicas(&self) -> u32 {
        let given = self
            .replica
            .or_else(|| self.services.first().and_then(|service| service.replica));
        given.map_or(1, |count| u32::try_from(count).unwrap_or(0))
    }

    /// Job settings: of the application, else the deprecated ones of the first service.
    pub fn job(&self) -> JobConfig {
        let deprecated = || {
            self.services
                .first()
                .and_then(|service| service.job_config.clone())
        };
        self.job_config
            .clone()
            .or_else(deprecated)
            .unwrap_or_default()
    }

    /// The times of a scheduled job; None: it is none.
    pub fn schedule(&self) -> Option<String> {
        let schedule = self.job().schedule;
        (self.workload() == "job" && !schedule.is_empty()).then_some(schedule)
    }

    /// Whether it uses the machine's network; also when the first service says so (deprecated).
    pub fn host_network(&self) -> bool {
        self.host_network
            || self
                .services
                .first()
                .is_some_and(|service| service.host_network)
    }

    /// The name, checked.
    pub fn app_name(&self) -> Result<AppName, NameError> {
        AppName::new(self.name.as_str())
    }

    /// The node selector of the application, parsed. Use [`Selector::matches_app_node`] with it.
    pub fn node_labels(&self) -> Result<Selector, SelectorError> {
        self.selector.parse()
    }

    /// Init services and services, in start order.
    pub fn all_services(&self) -> impl Iterator<Item = &Service> {
        self.init_services.iter().chain(&self.services)
    }

    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// Fills in what an author may leave out, so that what is stored says what will happen: type, mode, workload,
    /// replica, DNS policy, restart policy, protocols. Idempotent.
    pub fn fill_defaults(&mut self) {
        self.kind = self.kind().to_owned();
        self.mode = self.mode().to_owned();
        self.workload = self.workload().to_owned();
        if self.replica.is_none() {
            self.replica = Some(i32::try_from(self.replicas()).unwrap_or(i32::MAX));
        }
        let mut job = self.job();
        if job.restart_policy.is_empty() {
            "Never".clone_into(&mut job.restart_policy);
        }
        self.job_config = Some(job);
        if self.dns_policy.is_empty() {
            "ClusterFirst".clone_into(&mut self.dns_policy);
        }
        for port in self
            .init_services
            .iter_mut()
            .chain(&mut self.services)
            .flat_map(|service| &mut service.ports)
        {
            port.fill_defaults();
        }
    }
}

fn or_default<'a>(given: &'a str, default: &'a str) -> &'a str {
    if given.is_empty() { default } else { given }
}
