//! The example of `manifests/README.md`: a node class made by an overlay, which does what is said of it there.

use serde_json::Value;

use super::{EDGE, SYSTEM, list, manifests, set};

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let readme = std::fs::read_to_string(manifests().join("README.md")).unwrap();
    for file in ["kustomization.yaml", "sync.yaml"] {
        let path = manifests().join("examples/workshop").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(
            readme.contains(&text),
            "{file} stands otherwise in the README"
        );
    }
}

#[test]
fn the_readme_names_every_component_and_every_class() {
    let readme = std::fs::read_to_string(manifests().join("README.md")).unwrap();
    for dir in ["components", "overlays"] {
        for entry in std::fs::read_dir(manifests().join(dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                readme.contains(&format!("| `{name}` |")),
                "{dir}/{name} is missing"
            );
        }
    }
}

#[test]
fn every_component_is_used_by_a_class_or_by_the_example() {
    let mut used = String::new();
    for dir in ["overlays", "examples"] {
        for entry in std::fs::read_dir(manifests().join(dir)).unwrap() {
            let path = entry.unwrap().path().join("kustomization.yaml");
            used.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    for entry in std::fs::read_dir(manifests().join("components")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            used.contains(&format!("components/{name}\n")),
            "nothing renders {name}"
        );
    }
}

#[test]
fn the_example_does_what_is_said_of_it() {
    let set = set("example-workshop");
    for workload in set.workloads() {
        let image = workload.image();
        let registry = "registry.workshop.example:5000/baetyl/baetyl-";
        assert!(
            image.starts_with(registry) && image.ends_with(":0.1.0"),
            "{image}"
        );
        let on_host = matches!(workload.name, "baetyl-sync" | "baetyl-function");
        assert_eq!(
            workload.pod["hostNetwork"] == true,
            on_host,
            "{}",
            workload.name
        );
    }
    let sync = set.get("Deployment", SYSTEM, "baetyl-sync").unwrap();
    let env = &sync["spec"]["template"]["spec"]["containers"][0]["env"];
    let bandwidth = list(env).find(|one| one["name"] == "BAETYL_SYNC__STORE__BANDWIDTH");
    assert_eq!(
        bandwidth.map(|one| &one["value"]),
        Some(&Value::from("256KiB"))
    );
    assert!(
        set.get("ConfigMap", SYSTEM, "baetyl-images").is_none(),
        "only read"
    );
    assert_eq!(set.of_kind("ConfigMap").count(), 1);
    let edge = set.get("Namespace", "", EDGE).unwrap();
    let enforced = &edge["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
    assert_eq!(enforced, "baseline");
    assert!(
        set.get("Job", EDGE, "baetyl-prepare").is_none(),
        "K3s has volumes of its own"
    );
    let claim = set
        .get("PersistentVolumeClaim", SYSTEM, "baetyl-sync-data")
        .unwrap();
    assert_eq!(claim["spec"]["storageClassName"], "local-path");
}
