//! The rendered manifests against everything they have to agree with: the schemas of Kubernetes, the configuration of the
//! programs, the table of callers, the Pod Security Standards, and each other.
//!
//! `cargo xtask manifests --check` says whether they are what their sources say; here it is whether that is right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

mod config;
mod example;
mod network;
mod pods;
mod restricted;
mod rights;
mod schema;

const SYSTEM: &str = "baetyl-edge-system";
const EDGE: &str = "baetyl-edge";
const CLOUD: &str = "baetyl-cloud";

/// One rendered file.
struct Set {
    name: String,
    documents: Vec<Value>,
}

/// Something that makes Pods.
struct Workload<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    labels: BTreeMap<String, String>,
    pod: &'a Value,
}

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// Every rendered file.
fn sets() -> Vec<Set> {
    let rendered = manifests().join("rendered");
    let mut sets: Vec<Set> = std::fs::read_dir(rendered)
        .unwrap()
        .map(|entry| Set::read(&entry.unwrap().path()))
        .collect();
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(sets.len() > baetyl_manifests::Class::ALL.len());
    sets
}

/// The node classes.
fn classes() -> Vec<Set> {
    let mut sets = sets();
    sets.retain(|set| set.name.parse::<baetyl_manifests::Class>().is_ok());
    assert_eq!(sets.len(), baetyl_manifests::Class::ALL.len());
    sets
}

/// The one of that name.
fn set(name: &str) -> Set {
    Set::read(&manifests().join(format!("rendered/{name}.yaml")))
}

impl Set {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        // What an operator writes over it.
        let text = text.replace("PUBLIC_HOST", "cloud.example.com");
        Self {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            documents: serde_norway::Deserializer::from_str(&text)
                .map(|document| Value::deserialize(document).unwrap())
                .collect(),
        }
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.documents
            .iter()
            .filter(move |document| document["kind"] == kind)
    }

    fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.of_kind(kind)
            .find(|one| namespace_of(one) == namespace && one["metadata"]["name"] == name)
    }

    fn workloads(&self) -> Vec<Workload<'_>> {
        let workload = |document| -> Option<Workload<'_>> {
            let document: &Value = document;
            let template = document.pointer("/spec/template")?;
            Some(Workload {
                kind: document["kind"].as_str().unwrap(),
                namespace: namespace_of(document),
                name: document["metadata"]["name"].as_str().unwrap(),
                labels: labels(&template["metadata"]["labels"]),
                pod: &template["spec"],
            })
        };
        self.documents.iter().filter_map(workload).collect()
    }
}

impl Workload<'_> {
    /// Its container; none of ours has a second one.
    fn container(&self) -> &Value {
        assert!(self.pod.get("initContainers").is_none(), "{}", self.name);
        let containers = self.pod["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1, "{}", self.name);
        &containers[0]
    }

    fn image(&self) -> &str {
        self.container()["image"].as_str().unwrap()
    }

    /// The program in its image, without `baetyl-`: the last part of the image's name.
    fn service(&self) -> &str {
        let name = self.image().rsplit('/').next().unwrap();
        let name = name.rsplit_once(':').unwrap().0;
        name.strip_prefix("baetyl-").unwrap()
    }

    /// Name and number of its ports.
    fn ports(&self) -> BTreeMap<&str, u64> {
        let ports = list(&self.container()["ports"]);
        ports
            .map(|port| {
                let number = port["containerPort"].as_u64().unwrap();
                (port["name"].as_str().unwrap(), number)
            })
            .collect()
    }
}

fn namespace_of(document: &Value) -> &str {
    let namespace = document.pointer("/metadata/namespace");
    namespace.and_then(Value::as_str).unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn words(value: &Value) -> Vec<&str> {
    list(value).map(|word| word.as_str().unwrap()).collect()
}

fn labels(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}
