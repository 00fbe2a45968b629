//! Horizontal scaling.

use baetyl_model::Application;
use baetyl_model::resource::{AutoScale, MetricResource};
use serde_json::{Value, json};

use super::build::Build;
use super::fields::Fields;
use super::resources::quantity;
use super::{RenderError, Workload};
use crate::object::Object;

fn settings(app: &Application) -> Option<&AutoScale> {
    app.auto_scale
        .as_ref()
        .filter(|scale| **scale != AutoScale::default())
}

/// True when an autoscaler says how many Pods there are.
pub(super) fn is_scaled(app: &Application) -> bool {
    settings(app).is_some()
}

/// The HorizontalPodAutoscaler of an application, when it has one.
pub(super) fn scaler(build: &mut Build<'_>, kind: Workload) -> Result<Option<Object>, RenderError> {
    let Some(scale) = settings(build.app) else {
        return Ok(None);
    };
    let target = match kind {
        Workload::Deployment => "Deployment",
        Workload::StatefulSet => "StatefulSet",
        _ => {
            return Err(RenderError::Scale(format!(
                "a {} cannot be scaled",
                build.app.workload()
            )));
        }
    };
    if scale.min_replicas < 1 || scale.max_replicas < scale.min_replicas {
        return Err(RenderError::Scale(
            "minReplicas must be at least 1 and maxReplicas not less than minReplicas".to_owned(),
        ));
    }
    let metrics = scale
        .metrics
        .iter()
        .map(|metric| match &metric.resource {
            Some(resource) if matches!(metric.kind.as_str(), "" | "Resource") => {
                self::metric(build, resource).map_err(RenderError::Scale)
            }
            _ => Err(RenderError::Scale(
                "a metric is of type Resource and names one".to_owned(),
            )),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if metrics.is_empty() {
        return Err(RenderError::Scale(
            "at least one metric is needed".to_owned(),
        ));
    }
    let reference = json!({"apiVersion": "apps/v1", "kind": target, "name": build.name});
    let spec = Fields::new()
        .with("scaleTargetRef", reference)
        .with("minReplicas", scale.min_replicas)
        .with("maxReplicas", scale.max_replicas)
        .with("metrics", metrics);
    Ok(Some(build.object(
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        build.name,
        Fields::new().with("spec", spec),
    )))
}

fn metric(build: &mut Build<'_>, resource: &MetricResource) -> Result<Value, String> {
    let name = resource.name.as_str();
    if !matches!(name, "cpu" | "memory") {
        return Err(format!("metric \"{name}\" is not one of cpu, memory"));
    }
    let target = match resource.target_type.as_str() {
        "Utilization" if resource.average_utilization < 1 => {
            return Err("averageUtilization must be at least 1".to_owned());
        }
        "Utilization" => {
            warn_of_missing_requests(build, name);
            json!({"type": "Utilization", "averageUtilization": resource.average_utilization})
        }
        "AverageValue" => {
            quantity(&resource.average_value)?;
            json!({"type": "AverageValue", "averageValue": resource.average_value})
        }
        "Value" => {
            return Err(format!(
                "Kubernetes scales by the {name} of one Pod, not of all; use targetType AverageValue"
            ));
        }
        other => {
            return Err(format!(
                "targetType \"{other}\" is not one of Utilization, AverageValue"
            ));
        }
    };
    Ok(json!({"type": "Resource", "resource": {"name": name, "target": target}}))
}

/// A percentage is one of the request; without a request there is none. A limit is a request where none is given.
fn warn_of_missing_requests(build: &mut Build<'_>, name: &str) {
    let lacks = |service: &&baetyl_model::resource::Service| {
        let given = |amounts: &std::collections::BTreeMap<String, String>| {
            amounts.get(name).is_some_and(|amount| !amount.is_empty())
        };
        !service
            .resources
            .as_ref()
            .is_some_and(|resources| given(&resources.requests) || given(&resources.limits))
    };
    let found = build.app.services.iter().find(lacks);
    if let Some(service) = found.map(|service| service.name.clone()) {
        build.warn(format!(
            "the application is scaled by a percentage of {name}, but service {service} requests none: Kubernetes will not scale it"
        ));
    }
}
