//! `type: helm`: a Job that installs or upgrades a chart.
//!
//! As in Baetyl v2 the application has one service: `image` is the file name of the chart, an object of one of its
//! configurations, and `runtime` is the key of the values, a plain item of another. The release is called as the
//! application. The Job runs among all applications, where their content is, whatever namespace the chart goes to.

use baetyl_model::Configuration;
use baetyl_model::resource::VolumeSource;
use baetyl_model::workload::WorkloadKey;
use serde_json::{Value, json};

use super::build::Build;
use super::env::own;
use super::fields::Fields;
use super::volumes::{self, Volumes};
use super::{Place, RenderError, Rendered, Workload, staging, target};
use crate::names;
use crate::object::Object;

/// Where the chart is found.
const CHART: &str = "/chart";
/// Where the values are found.
const VALUES: &str = "/values";
/// Volume for what Helm writes meanwhile.
const TEMPORARY: &str = "baetyl-tmp";
/// How long Helm waits until what it made is ready: Helm's own default.
const TIMEOUT: &str = "5m";
/// Revisions Helm remembers.
const HISTORY: &str = "3";
/// Helm keeps the release in Secrets it names itself; more characters do not fit.
const LONGEST_NAME: usize = 53;
/// Tries until the Job counts as failed: the API server may be away for a moment.
const TRIES: u32 = 2;

/// Renders a Helm application.
pub(super) fn render(mut build: Build<'_>) -> Result<Rendered, RenderError> {
    volumes::check(&build)?;
    let namespace = target::namespace(&build)?;
    if build.name.len() > LONGEST_NAME {
        return Err(RenderError::ObjectName {
            what: "application",
            name: build.name.to_owned(),
            rule: "Helm takes at most 53 characters",
        });
    }
    let [service] = build.app.services.as_slice() else {
        return Err(RenderError::Chart(
            "the application needs exactly one service, whose image is the file name of the chart"
                .to_owned(),
        ));
    };
    let mut volumes = Volumes::default();
    let (chart, values) = (service.image.trim(), service.runtime.as_str());
    let mut mounts = vec![json!({"name": TEMPORARY, "mountPath": "/tmp"})];
    volumes.add(TEMPORARY, "emptyDir", json!({}));
    mounts.push(chart_mount(&mut build, &mut volumes, chart)?);
    let mut args = upgrade(&build, namespace, chart);
    if !values.is_empty() {
        mounts.push(values_mount(&mut build, &mut volumes, values)?);
        args.push(format!("--values={VALUES}/{values}"));
    }
    let mut init = staging::containers(&build, &mut volumes)?;
    let place = build.request.place;
    let policy = build.pull_policy("");
    init.extend(clearing(&build, namespace, policy));
    let spec = pod(place, policy, &args, mounts)?
        .given("imagePullSecrets", build.pull_secrets()?)
        .given("initContainers", init)
        .given("volumes", volumes.into_list());
    let job = job(spec, &build.labels());
    let object = build.object(("batch/v1", "Job"), build.name, job);
    build.finish(Workload::Helm, None, [object])
}

/// The Job that takes away what a Helm application installed, with all versions of it; `namespace` is where the chart
/// was put. It is called as the Job that installed, which has to be removed before.
///
/// # Errors
/// When the node has no image of Helm, or the version is none Kubernetes takes as a label.
pub fn uninstall(key: &WorkloadKey, namespace: &str, place: &Place) -> Result<Object, RenderError> {
    let args = [
        "uninstall".to_owned(),
        key.app.to_string(),
        format!("--namespace={namespace}"),
        "--ignore-not-found".to_owned(),
        "--wait".to_owned(),
        format!("--timeout={TIMEOUT}"),
    ];
    let mounts = vec![json!({"name": TEMPORARY, "mountPath": "/tmp"})];
    let spec = pod(place, "IfNotPresent", &args, mounts)?
        .given(
            "imagePullSecrets",
            place
                .pull_secrets
                .iter()
                .map(|name| json!({"name": name}))
                .collect::<Vec<_>>(),
        )
        .with("volumes", json!([{"name": TEMPORARY, "emptyDir": {}}]));
    let labels = names::labels(key.app.as_str(), key.version.as_str());
    Ok(Object::new(
        ("batch/v1", "Job"),
        key.namespace.as_str(),
        key.app.as_str(),
        &labels,
        job(spec, &labels),
    ))
}

fn upgrade(build: &Build<'_>, namespace: &str, chart: &str) -> Vec<String> {
    let labels = format!(
        "{}={},{}={}",
        names::APP_NAME,
        build.name,
        names::APP_VERSION,
        build.version
    );
    vec![
        "upgrade".to_owned(),
        build.name.to_owned(),
        format!("{CHART}/{chart}"),
        "--install".to_owned(),
        format!("--namespace={namespace}"),
        format!("--labels={labels}"),
        format!("--history-max={HISTORY}"),
        "--wait".to_owned(),
        format!("--timeout={TIMEOUT}"),
    ]
}

/// The configurations the application's volumes name, with the volume's name.
fn configurations<'a>(build: &Build<'a>) -> Result<Vec<(&'a str, &'a Configuration)>, RenderError> {
    let mut found = Vec::new();
    for volume in &build.app.volumes {
        if let Some(VolumeSource::Config(reference)) = volume.source() {
            let (body, _) = build.configuration(&volume.name, &reference.name)?;
            found.push((volume.name.as_str(), body));
        }
    }
    Ok(found)
}

fn chart_mount(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    chart: &str,
) -> Result<Value, RenderError> {
    let all = configurations(build)?;
    let has = |body: &Configuration| {
        body.objects()
            .flatten()
            .any(|(file, _)| !chart.is_empty() && file == chart)
    };
    let Some((volume, body)) = all.iter().find(|(_, body)| has(body)) else {
        let known: Vec<&str> = all
            .iter()
            .flat_map(|(_, body)| body.objects().flatten().map(|(file, _)| file))
            .collect();
        return Err(RenderError::Chart(format!(
            "the service's image names the chart \"{chart}\", but no configuration of the application has an object of that name (there is {})",
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        )));
    };
    volumes::mount_configuration(build, volumes, volume, &body.name, CHART)
}

fn values_mount(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    values: &str,
) -> Result<Value, RenderError> {
    let all = configurations(build)?;
    let has = |body: &Configuration| body.files().any(|(key, _)| key == values);
    let Some((volume, body)) = all.iter().find(|(_, body)| has(body)) else {
        return Err(RenderError::Chart(format!(
            "the service's runtime names the values \"{values}\", but no configuration of the application has an item of that name"
        )));
    };
    volumes::mount_configuration(build, volumes, volume, &body.name, VALUES)
}

/// Helm refuses to work on a release that another is at work on. One that was killed, by a power cut for example, is at
/// work for ever as far as Helm knows: right before Helm begins, when no other can be at work, that is cleared away.
fn clearing(build: &Build<'_>, namespace: &str, policy: &str) -> Option<Value> {
    let image = build.request.place.init_image.as_str();
    if image.is_empty() {
        return None;
    }
    let args = [
        "release".to_owned(),
        format!("--namespace={namespace}"),
        format!("--name={}", build.name),
    ];
    let container = Fields::new()
        .with("name", names::RELEASE_CONTAINER)
        .with("image", image)
        .with("imagePullPolicy", policy)
        .with("args", args)
        .with("terminationMessagePolicy", "FallbackToLogsOnError")
        .with("resources", staging::resources())
        .with("securityContext", security());
    Some(container.into())
}

fn security() -> Value {
    json!({
        "runAsNonRoot": true,
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}
    })
}

fn pod(
    place: &Place,
    policy: &str,
    args: &[String],
    mounts: Vec<Value>,
) -> Result<Fields, RenderError> {
    if place.helm_image.is_empty() {
        return Err(RenderError::OwnImage {
            what: "an application of type helm",
            image: "baetyl-helm",
        });
    }
    let container = Fields::new()
        .with("name", names::HELM_CONTAINER)
        .with("image", place.helm_image.as_str())
        .with("imagePullPolicy", policy)
        .with("args", args)
        .with("env", json!([own("HOME", "/tmp")]))
        .with("volumeMounts", mounts)
        // Helm's last words are the reason in the report.
        .with("terminationMessagePolicy", "FallbackToLogsOnError")
        .with("securityContext", security());
    Ok(Fields::new()
        .with("restartPolicy", "Never")
        .with("serviceAccountName", names::APPLY_ACCOUNT)
        .with("automountServiceAccountToken", true)
        .with("enableServiceLinks", false)
        .with("containers", json!([Value::from(container)])))
}

fn job(spec: Fields, labels: &std::collections::BTreeMap<String, String>) -> Fields {
    let template = json!({"metadata": {"labels": labels}, "spec": Value::from(spec)});
    let spec = Fields::new()
        .with("backoffLimit", TRIES)
        // Two are never at work at once.
        .with("podReplacementPolicy", "Failed")
        .with("template", template);
    Fields::new().with("spec", spec)
}
