//! Every object is one that Kubernetes 1.34 knows, field by field.

use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::sets;

/// What is wrong with one object. The type leaves out what it does not know and writes out what it misses, so that both
/// show when its text is not what was read.
fn faults_of<T: Resource + Serialize + DeserializeOwned>(document: &Value) -> Vec<String> {
    let typed: T = match serde_json::from_value(document.clone()) {
        Ok(typed) => typed,
        Err(error) => return vec![error.to_string()],
    };
    let mut faults = Vec::new();
    differences(
        "",
        document,
        &serde_json::to_value(typed).unwrap(),
        &mut faults,
    );
    faults
}

fn differences(at: &str, ours: &Value, typed: &Value, faults: &mut Vec<String>) {
    match (ours, typed) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                match b.get(key) {
                    Some(other) => differences(&format!("{at}.{key}"), value, other, faults),
                    None => faults.push(format!("{at}.{key} is unknown")),
                }
            }
            let missing = b.keys().filter(|key| !a.contains_key(*key));
            faults.extend(missing.map(|key| format!("{at}.{key} is missing")));
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (one, other)) in a.iter().zip(b).enumerate() {
                differences(&format!("{at}[{i}]"), one, other, faults);
            }
        }
        (a, b) if a == b => {}
        (a, b) => faults.push(format!("{at} is {a} and was read as {b}")),
    }
}

/// The faults of one object of any kind there is in the manifests.
fn faults(document: &Value) -> Vec<String> {
    macro_rules! by_kind {
        ($($kind:ty),+ $(,)?) => {
            $(if document["kind"] == <$kind>::KIND && document["apiVersion"] == <$kind>::API_VERSION {
                return faults_of::<$kind>(document);
            })+
        };
    }
    by_kind!(
        ClusterRole,
        ClusterRoleBinding,
        ConfigMap,
        Deployment,
        Job,
        Namespace,
        NetworkPolicy,
        PersistentVolume,
        PersistentVolumeClaim,
        PriorityClass,
        Role,
        RoleBinding,
        RuntimeClass,
        Service,
        ServiceAccount,
        StorageClass,
    );
    let (version, kind) = (&document["apiVersion"], &document["kind"]);
    vec![format!("{version} {kind} is not in the list of this test")]
}

#[test]
fn every_object_of_every_set_is_as_its_schema_says() {
    let mut all = Vec::new();
    for set in sets() {
        for document in &set.documents {
            let who = format!(
                "{}: {} {}",
                set.name, document["kind"], document["metadata"]["name"]
            );
            all.extend(
                faults(document)
                    .into_iter()
                    .map(|fault| format!("{who}: {fault}")),
            );
        }
    }
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn an_unknown_field_a_missing_one_and_a_wrong_type_are_found() {
    let container = |extra: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        container
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {"selector": {}, "template": {"spec": {"containers": [container]}}},
        })
    };
    assert_eq!(faults(&container(json!({}))), [""; 0]);
    let unknown = faults(&container(json!({"imagePolicy": "Always"})));
    assert_eq!(
        unknown,
        [".spec.template.spec.containers[0].imagePolicy is unknown"]
    );
    let wrong = faults(&container(json!({"args": "run"})));
    assert!(wrong[0].contains("expected"), "{wrong:?}");
    let mut nameless = container(json!({}));
    let containers = &mut nameless["spec"]["template"]["spec"]["containers"];
    containers[0].as_object_mut().unwrap().remove("name");
    assert_eq!(
        faults(&nameless),
        [".spec.template.spec.containers[0].name is missing"]
    );
    let foreign = json!({"apiVersion": "v2", "kind": "Pod"});
    assert!(faults(&foreign)[0].contains("not in the list"));
}
