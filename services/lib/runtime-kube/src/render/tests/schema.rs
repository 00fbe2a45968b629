//! What is rendered is what Kubernetes has: every object is read with Kubernetes' own types and loses nothing.

use k8s_openapi::api::{apps, autoscaling, batch, core, networking, rbac};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

/// The body after a way through the type.
fn through<T: DeserializeOwned + Serialize>(body: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(body.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

fn read_as_kubernetes(object: &crate::Object) -> Result<Value, String> {
    let body = &object.body;
    match (object.api_version.as_str(), object.kind.as_str()) {
        ("v1", "ConfigMap") => through::<core::v1::ConfigMap>(body),
        ("v1", "Secret") => through::<core::v1::Secret>(body),
        ("v1", "Service") => through::<core::v1::Service>(body),
        ("v1", "Namespace") => through::<core::v1::Namespace>(body),
        ("v1", "ServiceAccount") => through::<core::v1::ServiceAccount>(body),
        ("v1", "PersistentVolumeClaim") => through::<core::v1::PersistentVolumeClaim>(body),
        ("apps/v1", "Deployment") => through::<apps::v1::Deployment>(body),
        ("apps/v1", "StatefulSet") => through::<apps::v1::StatefulSet>(body),
        ("apps/v1", "DaemonSet") => through::<apps::v1::DaemonSet>(body),
        ("batch/v1", "Job") => through::<batch::v1::Job>(body),
        ("batch/v1", "CronJob") => through::<batch::v1::CronJob>(body),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => {
            through::<autoscaling::v2::HorizontalPodAutoscaler>(body)
        }
        ("networking.k8s.io/v1", "Ingress") => through::<networking::v1::Ingress>(body),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => through::<rbac::v1::ClusterRole>(body),
        ("example.com/v1", "Gadget") => Ok(body.clone()),
        _ => Err("no type is known for it; add it to this test".to_owned()),
    }
}

/// Paths of `left` that are not, or are otherwise, in `right`.
fn lost(left: &Value, right: &Value, path: &str, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            for (key, value) in left {
                let path = format!("{path}.{key}");
                lost(value, right.get(key).unwrap_or(&Value::Null), &path, found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (at, (left, right)) in left.iter().zip(right).enumerate() {
                lost(left, right, &format!("{path}[{at}]"), found);
            }
        }
        (left, right) if left == right => {}
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn kubernetes_types_read_every_object_and_lose_nothing() {
    let mut kinds = std::collections::BTreeSet::new();
    for (name, case) in cases() {
        for object in case.render().unwrap().objects {
            let read = read_as_kubernetes(&object)
                .unwrap_or_else(|error| panic!("{name}: {object}: {error}"));
            let mut found = Vec::new();
            lost(&object.body, &read, "", &mut found);
            assert_eq!(found, [""; 0], "{name}: {object}");
            kinds.insert(object.kind);
        }
    }
    for kind in [
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "Job",
        "CronJob",
        "HorizontalPodAutoscaler",
    ] {
        assert!(kinds.contains(kind), "no case has a {kind}");
    }
}

#[test]
fn a_field_kubernetes_does_not_know_would_be_seen() {
    let body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"},
        "spec": {"ports": [{"port": 80, "tragetPort": 80}]}});
    let mut found = Vec::new();
    lost(
        &body,
        &through::<core::v1::Service>(&body).unwrap(),
        "",
        &mut found,
    );
    assert_eq!(found, [".spec.ports[0].tragetPort"]);
}

/// SSA merges these lists by key and refuses a key that is there twice.
#[test]
fn lists_that_are_merged_by_key_have_each_key_once() {
    for (name, case) in cases() {
        for object in case.render().unwrap().objects {
            if object.kind == "Gadget" {
                continue;
            }
            walk(&object.body, &mut |field, items| {
                let keys: &[&str] = match field {
                    "env" | "containers" | "initContainers" | "volumes" | "imagePullSecrets" => {
                        &["name"]
                    }
                    "volumeMounts" => &["mountPath"],
                    "ports" if items.iter().any(|port| port.get("containerPort").is_some()) => {
                        &["containerPort", "protocol"]
                    }
                    "ports" => &["port", "protocol"],
                    _ => return,
                };
                let mut seen = std::collections::BTreeSet::new();
                for item in items {
                    let key: Vec<String> = keys.iter().map(|key| item[key].to_string()).collect();
                    assert!(
                        seen.insert(key.clone()),
                        "{name}: {object}: {field} {key:?}"
                    );
                }
            });
        }
    }
}

fn walk(value: &Value, visit: &mut dyn FnMut(&str, &[Value])) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                if let Value::Array(items) = value {
                    visit(field, items);
                }
                walk(value, visit);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        _ => {}
    }
}
