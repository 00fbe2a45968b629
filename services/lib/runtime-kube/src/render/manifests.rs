//! `type: yaml`: objects the author wrote. They come from every item of the application's configurations whose key
//! contains `yaml` or `yml`.

use std::collections::{BTreeMap, BTreeSet};

use baetyl_model::resource::VolumeSource;
use serde_json::{Map, Value};

use super::build::Build;
use super::yaml::{self, Document};
use super::{RenderError, Rendered, Workload, kinds, target, volumes};
use crate::names;
use crate::object::Object;

/// What the API server writes; in files it comes from `kubectl get -o yaml`.
const WRITTEN_BY_SERVER: [&str; 6] = [
    "creationTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Renders a YAML application.
pub(super) fn render(mut build: Build<'_>) -> Result<Rendered, RenderError> {
    volumes::check(&build)?;
    let namespace = target::namespace(&build)?;
    let mut objects = Vec::new();
    let mut seen = BTreeSet::new();
    for document in documents(&mut build)? {
        let object = object(&mut build, namespace, document)?;
        let group = object
            .api_version
            .rsplit_once('/')
            .map_or("", |(group, _)| group);
        let id = (group.to_owned(), object.to_string());
        if !seen.insert(id) {
            return Err(RenderError::Twice {
                what: "object",
                name: object.to_string(),
            });
        }
        objects.push(object);
    }
    if objects.is_empty() {
        return Err(RenderError::NoObjects);
    }
    // Stable: what is of equal rank stays in the author's order.
    objects.sort_by_key(|object| kinds::rank(&object.kind));
    build.finish(Workload::Objects, None, objects)
}

/// All documents of all files, in the order of the volumes and of the keys.
fn documents(build: &mut Build<'_>) -> Result<Vec<Document>, RenderError> {
    let mut documents = Vec::new();
    let mut read = BTreeSet::new();
    for volume in &build.app.volumes {
        let Some(VolumeSource::Config(reference)) = volume.source() else {
            continue;
        };
        if !read.insert(&reference.name) {
            continue;
        }
        let (configuration, _) = build.configuration(&volume.name, &reference.name)?;
        for (file, text) in configuration.files() {
            if file.contains("yaml") || file.contains("yml") {
                documents.extend(yaml::documents(&configuration.name, file, text)?);
            }
        }
        for file in configuration.objects().flatten().map(|(file, _)| file) {
            if file.contains("yaml") || file.contains("yml") {
                build.warn(format!(
                    "object {file} of configuration {} is not read: a YAML application takes plain items",
                    configuration.name
                ));
            }
        }
    }
    Ok(documents)
}

/// One document as an object of ours.
fn object(
    build: &mut Build<'_>,
    namespace: &str,
    document: Document,
) -> Result<Object, RenderError> {
    let Document { place, value } = document;
    let wrong = |reason: &str| RenderError::Document {
        place: place.clone(),
        reason: reason.to_owned(),
    };
    let Value::Object(mut body) = value else {
        return Err(wrong(
            "an object with apiVersion, kind and metadata is wanted",
        ));
    };
    let api_version = text(&body, "apiVersion").ok_or_else(|| wrong("apiVersion is missing"))?;
    let kind = text(&body, "kind").ok_or_else(|| wrong("kind is missing"))?;
    body.remove("status");
    let Some(Value::Object(mut metadata)) = body.remove("metadata") else {
        return Err(wrong(&format!("{kind} has no metadata")));
    };
    let name = text(&metadata, "name").ok_or_else(|| {
        wrong(&format!(
            "{kind} has no metadata.name; generateName is not enough, because the object must be found again"
        ))
    })?;
    for field in WRITTEN_BY_SERVER {
        metadata.remove(field);
    }
    let object_namespace = if kinds::is_of_cluster(&api_version, &kind) {
        metadata.remove("namespace");
        build.warn(format!(
            "{kind} {name} belongs to the cluster as a whole: it is applied only where baetyl-apply may do that"
        ));
        ""
    } else {
        match text(&metadata, "namespace") {
            Some(found) if found != namespace => {
                return Err(RenderError::Namespace {
                    place,
                    object: format!("{kind} {name}"),
                    found,
                    wanted: namespace.to_owned(),
                });
            }
            _ => metadata.insert("namespace".to_owned(), namespace.into()),
        };
        namespace
    };
    add_labels(&mut metadata, build.labels())
        .ok_or_else(|| wrong(&format!("metadata.labels of {kind} {name} is not a map")))?;
    body.insert("metadata".to_owned(), metadata.into());
    let mut body = Value::Object(body);
    label_pods(build.name, &kind, &mut body);
    Ok(Object {
        api_version,
        kind,
        namespace: object_namespace.to_owned(),
        name,
        body,
    })
}

fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    let text = fields.get(name)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// Adds labels, over those that are there. None: labels are something else than a map.
fn add_labels(metadata: &mut Map<String, Value>, labels: BTreeMap<String, String>) -> Option<()> {
    let entry = metadata.entry("labels").or_insert(Value::Null);
    if entry.is_null() {
        *entry = Value::Object(Map::new());
    }
    let known = entry.as_object_mut()?;
    known.extend(
        labels
            .into_iter()
            .map(|(label, value)| (label, value.into())),
    );
    Some(())
}

/// Marks the Pods an object makes as those of the application, so that they are observed; not with the version, which
/// would start them anew for a change of something else.
fn label_pods(app: &str, kind: &str, body: &mut Value) {
    let template = match kind {
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => "/spec/template",
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => return,
    };
    let Some(Value::Object(template)) = body.pointer_mut(template) else {
        return;
    };
    let metadata = template
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(metadata) = metadata {
        let label = BTreeMap::from([(names::APP_NAME.to_owned(), app.to_owned())]);
        // Something else than a map is refused by the API server in its own words.
        let _ = add_labels(metadata, label);
    }
}
