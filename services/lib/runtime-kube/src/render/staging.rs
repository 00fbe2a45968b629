//! Objects: the init containers that put them into directories of the machine before the application starts, one for
//! each configuration that has objects. `baetyl-sync stage` is their program.

use std::collections::BTreeMap;
use std::path::Path;

use baetyl_model::desire::ObjectRef;
use baetyl_model::objects::{StagePlan, directory_name};
use baetyl_model::resource::configuration::OBJECT_PREFIX;
use baetyl_model::{Configuration, Digest};
use serde_json::{Value, json};

use super::RenderError;
use super::build::Build;
use super::fields::Fields;
use super::volumes::{IDENTITY, IDENTITY_PATH, OBJECTS, Volumes, add_identity};
use crate::names;

/// Where an init container finds the plain items of its configuration.
const ITEMS: &str = "/etc/baetyl/items";
/// Where it finds its plan.
const PLAN: &str = "/etc/baetyl/plan";
/// Key and file name of the plan.
const PLAN_FILE: &str = "plan.json";
/// Where it finds the machine's directory of objects.
const TARGET: &str = "/var/lib/baetyl/objects";

/// The configurations with objects that a Pod mounts, by name.
#[derive(Default)]
pub(super) struct Staging(BTreeMap<String, Entry>);

struct Entry {
    digest: Digest,
    /// ConfigMap with the plain items; None: it has none.
    items: Option<String>,
    /// ConfigMap with the plan.
    plan: String,
}

/// Takes in a configuration with objects; `items` is the ConfigMap with its plain items. Gives the volume, and the
/// directory inside it.
pub(super) fn add(
    build: &mut Build<'_>,
    volumes: &mut Volumes,
    configuration: &Configuration,
    digest: &Digest,
    items: Option<String>,
) -> Result<(&'static str, String), RenderError> {
    let entry = Entry {
        digest: *digest,
        items,
        plan: plan(build, configuration, digest)?,
    };
    volumes.staging.0.insert(configuration.name.clone(), entry);
    let directory = Path::new(&build.request.place.host_path_lib).join("objects");
    let source = json!({"path": directory.display().to_string(), "type": "DirectoryOrCreate"});
    volumes.add(OBJECTS, "hostPath", source);
    Ok((OBJECTS, directory_name(digest)))
}

/// The ConfigMap with the plan. It is the application's own, and not immutable: the most an archive may hold is a setting
/// of the node.
fn plan(
    build: &mut Build<'_>,
    configuration: &Configuration,
    digest: &Digest,
) -> Result<String, RenderError> {
    let release = build.request.release;
    let mut objects: Vec<&ObjectRef> = Vec::new();
    let files = configuration.data.keys();
    for file in files.filter_map(|key| key.strip_prefix(OBJECT_PREFIX)) {
        let found = release.objects.iter().find(|object| {
            object.configuration == *configuration.name && object.file_name == *file
        });
        objects.push(found.ok_or_else(|| RenderError::Object {
            configuration: configuration.name.clone(),
            file: file.to_owned(),
        })?);
    }
    let plan = StagePlan::of(objects, build.request.place.max_unpacked);
    // Texts and numbers always serialise.
    let text = serde_json::to_string(&plan).unwrap_or_default();
    let name = names::plan(build.name, digest);
    let rest = Fields::new().with("data", json!({PLAN_FILE: text}));
    let object = build.object(("v1", "ConfigMap"), &name, rest);
    Ok(build.keep(object))
}

/// The init containers; none when the Pod mounts no configuration with objects.
pub(super) fn containers(
    build: &Build<'_>,
    volumes: &mut Volumes,
) -> Result<Vec<Value>, RenderError> {
    let staging = std::mem::take(&mut volumes.staging);
    if staging.0.is_empty() {
        return Ok(Vec::new());
    }
    if build.request.place.sync_image.is_empty() {
        return Err(RenderError::OwnImage {
            what: "a configuration with objects",
            image: "baetyl-sync",
        });
    }
    add_identity(build, volumes);
    let entries = staging.0.values().enumerate();
    Ok(entries
        .map(|(index, entry)| container(build, volumes, index, entry))
        .collect())
}

fn container(build: &Build<'_>, volumes: &mut Volumes, index: usize, entry: &Entry) -> Value {
    let place = build.request.place;
    let name = match index {
        0 => names::OBJECTS_CONTAINER.to_owned(),
        _ => format!("{}-{}", names::OBJECTS_CONTAINER, index + 1),
    };
    let mut mounts = vec![
        json!({"name": OBJECTS, "mountPath": TARGET}),
        json!({"name": IDENTITY, "mountPath": IDENTITY_PATH, "readOnly": true}),
    ];
    let mut args = vec![
        "stage".to_owned(),
        format!("--dir={TARGET}/{}", directory_name(&entry.digest)),
        format!("--plan={PLAN}/{PLAN_FILE}"),
        format!("--server={}", place.sync_address),
        format!("--ca={IDENTITY_PATH}/ca.pem"),
        format!("--ticket={IDENTITY_PATH}/ticket"),
    ];
    let mut map = |volume: String, map: &str, path: &str| {
        volumes.add(&volume, "configMap", json!({"name": map}));
        mounts.push(json!({"name": volume, "mountPath": path, "readOnly": true}));
    };
    map(format!("baetyl-plan-{index}"), &entry.plan, PLAN);
    if let Some(items) = &entry.items {
        map(format!("baetyl-items-{index}"), items, ITEMS);
        args.push(format!("--items={ITEMS}"));
    }
    Fields::new()
        .with("name", name)
        .with("image", place.sync_image.as_str())
        .with("imagePullPolicy", build.pull_policy(""))
        .with("args", args)
        .with("volumeMounts", mounts)
        // Its last words are the reason in the report.
        .with("terminationMessagePolicy", "FallbackToLogsOnError")
        .with("resources", resources())
        // Root owns the directory on the machine; nothing else of root is needed.
        .with(
            "securityContext",
            json!({
                "runAsUser": 0,
                "runAsNonRoot": false,
                "readOnlyRootFilesystem": true,
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE"]},
                "seccompProfile": {"type": "RuntimeDefault"}
            }),
        )
        .into()
}

/// What a container of ours needs that prepares a Pod.
pub(super) fn resources() -> Value {
    json!({
        "requests": {"cpu": "10m", "memory": "16Mi"},
        "limits": {"memory": "64Mi"}
    })
}
