//! Deployments, StatefulSets, DaemonSets, Jobs and CronJobs.

use baetyl_model::resource::Strategy;
use baetyl_model::resource::validate::schedule;
use serde_json::{Value, json};

use super::build::Build;
use super::fields::Fields;
use super::{RenderError, Rendered, Workload, pod, scale, service};
use crate::names;
use crate::object::Object;

/// Kubernetes' own default.
const BACKOFF_LIMIT: i32 = 6;

/// Versions Kubernetes itself remembers. Going back is applying the version before, so one is plenty.
const HISTORY: u32 = 1;

/// Kubernetes adds at most eleven characters to the name where it makes a label or a Job of it.
const SHORT_NAME: usize = 52;

/// Seconds a missed time of a CronJob is made up for. Without an end Kubernetes counts all times that were missed, and
/// gives up on a node whose clock was set from 1970 to today.
const LATE: u32 = 600;

/// Renders a container or function application.
pub(super) fn render(mut build: Build<'_>) -> Result<Rendered, RenderError> {
    let kind = kind(&build)?;
    check_name(&build, kind)?;
    let services = service::services(&build, kind)?;
    let workload = match kind {
        Workload::Deployment => deployment(&mut build)?,
        Workload::StatefulSet => stateful_set(&mut build)?,
        Workload::DaemonSet => daemon_set(&mut build)?,
        Workload::CronJob => cron_job(&mut build)?,
        _ => job(&mut build)?,
    };
    let scaler = scale::scaler(&mut build, kind)?;
    let app = build.app;
    let wanted = match kind {
        _ if scaler.is_some() => None,
        Workload::Deployment | Workload::StatefulSet => Some(app.replicas()),
        Workload::Job => Some(u32::try_from(app.job().completions).unwrap_or(0).max(1)),
        _ => None,
    };
    let objects = services.into_iter().chain([workload]).chain(scaler);
    build.finish(kind, wanted, objects)
}

fn kind(build: &Build<'_>) -> Result<Workload, RenderError> {
    Ok(match build.app.workload() {
        "deployment" => Workload::Deployment,
        "statefulset" => Workload::StatefulSet,
        "daemonset" => Workload::DaemonSet,
        "job" if build.app.schedule().is_some() => Workload::CronJob,
        "job" => Workload::Job,
        other => return Err(RenderError::Workload(other.to_owned())),
    })
}

fn check_name(build: &Build<'_>, kind: Workload) -> Result<(), RenderError> {
    let name = build.name;
    let (fits, rule) = match kind {
        Workload::StatefulSet => (
            names::is_service(name) && name.len() <= SHORT_NAME,
            "a statefulset is called by at most 52 characters of a-z, 0-9 and '-', beginning with a letter",
        ),
        Workload::CronJob => (
            name.len() <= SHORT_NAME,
            "a scheduled job is called by at most 52 characters",
        ),
        _ => (true, ""),
    };
    if fits {
        return Ok(());
    }
    Err(RenderError::ObjectName {
        what: "application",
        name: name.to_owned(),
        rule,
    })
}

fn selector(build: &Build<'_>) -> Value {
    json!({"matchLabels": {names::APP_NAME: build.name}})
}

/// A scaled application has as many Pods as its autoscaler says.
fn replicas(build: &Build<'_>, spec: Fields) -> Fields {
    if scale::is_scaled(build.app) {
        spec
    } else {
        spec.with("replicas", build.app.replicas())
    }
}

/// Kubernetes' word for none: how long a version may take is engine's decision.
const NO_DEADLINE: i32 = i32::MAX;

fn deployment(build: &mut Build<'_>) -> Result<Object, RenderError> {
    let strategy = match build.app.strategy() {
        Strategy::Rolling => json!({
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}
        }),
        Strategy::Recreate => json!({"type": "Recreate"}),
    };
    let spec = replicas(build, Fields::new())
        .with("revisionHistoryLimit", HISTORY)
        .with("progressDeadlineSeconds", NO_DEADLINE)
        .with("strategy", strategy)
        .with("selector", selector(build))
        .with("template", pod::template(build, "Always")?);
    Ok(object(build, ("apps/v1", "Deployment"), spec))
}

/// Its Pods start and end side by side. In order, one Pod of a version that never gets ready would keep Kubernetes from
/// putting the version before back.
fn stateful_set(build: &mut Build<'_>) -> Result<Object, RenderError> {
    let spec = replicas(build, Fields::new())
        .with("serviceName", names::service(build.name, build.system()))
        .with("podManagementPolicy", "Parallel")
        .with("revisionHistoryLimit", HISTORY)
        .with("updateStrategy", json!({"type": "RollingUpdate"}))
        .with("selector", selector(build))
        .with("template", pod::template(build, "Always")?);
    Ok(object(build, ("apps/v1", "StatefulSet"), spec))
}

fn daemon_set(build: &mut Build<'_>) -> Result<Object, RenderError> {
    let (unavailable, surge) = match build.app.strategy() {
        Strategy::Rolling => (0, 1),
        Strategy::Recreate => (1, 0),
    };
    let strategy = json!({
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}
    });
    let spec = Fields::new()
        .with("revisionHistoryLimit", HISTORY)
        .with("updateStrategy", strategy)
        .with("selector", selector(build))
        .with("template", pod::template(build, "Always")?);
    Ok(object(build, ("apps/v1", "DaemonSet"), spec))
}

fn job(build: &mut Build<'_>) -> Result<Object, RenderError> {
    let spec = job_spec(build)?;
    Ok(object(build, ("batch/v1", "Job"), spec))
}

fn job_spec(build: &mut Build<'_>) -> Result<Fields, RenderError> {
    let job = build.app.job();
    // Baetyl v2 writes zeros for what an author left out; a job with nothing set is Kubernetes' default one.
    let unset = job.completions == 0 && job.parallelism == 0 && job.backoff_limit == 0;
    let backoff = if unset {
        BACKOFF_LIMIT
    } else {
        job.backoff_limit.max(0)
    };
    let restart = match job.restart_policy.as_str() {
        "OnFailure" => "OnFailure",
        _ => "Never",
    };
    Ok(Fields::new()
        .with("completions", job.completions.max(1))
        .with("parallelism", job.parallelism.max(1))
        .with("backoffLimit", backoff)
        .with("template", pod::template(build, restart)?))
}

/// One run at a time; Kubernetes remembers the last one that did well and the last one that did not.
fn cron_job(build: &mut Build<'_>) -> Result<Object, RenderError> {
    let timetable = build.app.schedule().unwrap_or_default();
    schedule::check(&timetable).map_err(RenderError::Schedule)?;
    let template = Fields::new()
        .with("metadata", json!({"labels": build.labels()}))
        .with("spec", job_spec(build)?);
    let spec = Fields::new()
        .with("schedule", timetable)
        .with("concurrencyPolicy", "Forbid")
        .with("startingDeadlineSeconds", LATE)
        .with("successfulJobsHistoryLimit", 1)
        .with("failedJobsHistoryLimit", 1)
        .with("jobTemplate", template);
    Ok(object(build, ("batch/v1", "CronJob"), spec))
}

fn object(build: &Build<'_>, kind: (&str, &str), spec: Fields) -> Object {
    build.object(kind, build.name, Fields::new().with("spec", spec))
}
