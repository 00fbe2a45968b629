use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::*;

fn fill() -> Fill {
    Fill {
        registry: "registry.example.com:5000/baetyl".to_owned(),
        version: "0.1.0-rc.1".to_owned(),
        activate_url: "https://cloud.example.com:9003".to_owned(),
        ca_pin: format!("sha256:{}", "0a".repeat(32)),
        kubernetes_node: None,
        pull_secret: None,
    }
}

fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(list) => list.iter().for_each(|one| strings(one, found)),
        Value::Object(map) => map.values().for_each(|one| strings(one, found)),
        _ => {}
    }
}

fn pods(documents: &[Document]) -> Vec<(&str, &Value)> {
    let pod = |document| -> Option<(&str, &Value)> {
        let document: &Document = document;
        let spec = document.as_value().pointer("/spec/template/spec")?;
        Some((document.name(), spec))
    };
    documents.iter().filter_map(pod).collect()
}

#[test]
fn every_overlay_is_a_class_and_every_class_is_found_by_its_name() {
    let overlays = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../manifests/overlays");
    let there: BTreeSet<String> = std::fs::read_dir(overlays)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, Class::ALL.map(|class| class.to_string()).into());
    for class in Class::ALL {
        assert_eq!(class.as_str().parse(), Ok(class));
    }
    let error = "node-2gb".parse::<Class>().unwrap_err().to_string();
    assert!(error.contains("node-1gb, node-standard"), "{error}");
}

#[test]
fn a_class_has_a_function_proxy_when_it_says_so() {
    for class in Class::ALL {
        let documents = render(class, &fill()).unwrap();
        let there = documents.iter().any(|one| one.name() == "baetyl-function");
        assert_eq!(there, class.has_function_proxy(), "{class}");
    }
}

#[test]
fn no_placeholder_is_left_and_every_image_has_registry_and_version() {
    for class in Class::ALL {
        let documents = render(class, &fill()).unwrap();
        let mut all = Vec::new();
        documents
            .iter()
            .for_each(|one| strings(one.as_value(), &mut all));
        for word in ["REGISTRY", "VERSION", "ACTIVATE_URL", "CA_PIN"] {
            assert!(
                !all.iter()
                    .any(|text| *text == word || text.contains(&format!("{word}/")))
            );
        }
        for (name, pod) in pods(&documents) {
            for container in pod["containers"].as_array().unwrap() {
                let image = container["image"].as_str().unwrap();
                assert!(
                    image.starts_with("registry.example.com:5000/baetyl/baetyl-")
                        && image.ends_with(":0.1.0-rc.1"),
                    "{class} {name}: {image}"
                );
            }
        }
        let cloud = documents
            .iter()
            .find(|one| one.kind() == "ConfigMap")
            .unwrap();
        let data = &cloud.as_value()["data"];
        assert_eq!(data["activate-url"], "https://cloud.example.com:9003");
        assert_eq!(data["ca-pin"], fill().ca_pin);
        assert_eq!(data.as_object().unwrap().len(), 2);
    }
}

#[test]
fn every_object_says_what_it_is_and_to_whom_it_belongs() {
    for class in Class::ALL {
        for document in render(class, &fill()).unwrap() {
            let who = format!("{class}: {} {}", document.kind(), document.name());
            assert!(
                !document.api_version().is_empty() && !document.name().is_empty(),
                "{who}"
            );
            assert_eq!(
                document.namespace().is_none(),
                document.is_cluster_scoped(),
                "{who}"
            );
            let labels = &document.as_value()["metadata"]["labels"];
            assert_eq!(labels[PART_OF_LABEL], "baetyl", "{who}");
        }
    }
}

#[test]
fn namespaces_come_first_and_jobs_last() {
    for class in Class::ALL {
        let documents = render(class, &fill()).unwrap();
        let kinds: Vec<&str> = documents.iter().map(Document::kind).collect();
        assert_eq!(kinds[..2], ["Namespace", "Namespace"], "{class}");
        let first = documents.iter().position(Document::is_replaced).unwrap();
        assert!(
            documents[first..].iter().all(Document::is_replaced),
            "{class}"
        );
    }
}

#[test]
fn a_secret_for_the_registry_and_a_machine_reach_every_pod() {
    let fill = Fill {
        kubernetes_node: Some("box-1.local".to_owned()),
        pull_secret: Some("registry".to_owned()),
        ..fill()
    };
    let documents = render(Class::Cluster, &fill).unwrap();
    let pods = pods(&documents);
    assert_eq!(pods.len(), 6, "four services, prepare and init");
    for (name, pod) in pods {
        assert_eq!(pod["imagePullSecrets"][0]["name"], "registry", "{name}");
        let terms = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        let named = &pod.pointer(terms).unwrap()[0]["matchFields"][0];
        assert_eq!(named["values"][0], "box-1.local", "{name}");
        assert_eq!(pod["nodeSelector"][CORE_LABEL], "true", "{name}");
    }
    assert_eq!(
        told_to_engine(&documents, "BAETYL_ENGINE__KUBE__PULL_SECRETS"),
        Some(r#"["registry"]"#)
    );
}

/// A variable of engine.
fn told_to_engine<'a>(documents: &'a [Document], variable: &str) -> Option<&'a str> {
    let engine = |document: &&Document| {
        document.kind() == "Deployment" && document.name() == "baetyl-engine"
    };
    let engine = documents.iter().find(engine)?.as_value();
    let env = engine.pointer("/spec/template/spec/containers/0/env")?;
    let named = |entry: &&Value| entry["name"] == variable;
    env.as_array()?.iter().find(named)?["value"].as_str()
}

#[test]
fn engine_knows_the_images_that_applications_need_of_us() {
    let documents = render(Class::NodeStandard, &fill()).unwrap();
    for (variable, image) in [
        ("BAETYL_ENGINE__KUBE__SYNC_IMAGE", "baetyl-sync"),
        ("BAETYL_ENGINE__KUBE__HELM_IMAGE", "baetyl-helm"),
        ("BAETYL_ENGINE__KUBE__INIT_IMAGE", "baetyl-init"),
        (
            "BAETYL_ENGINE__RUNTIMES__PYTHON3__IMAGE",
            "baetyl-runtime-python",
        ),
    ] {
        let whole = format!("{}/{image}:{}", fill().registry, fill().version);
        assert_eq!(told_to_engine(&documents, variable), Some(whole.as_str()));
    }
    assert_eq!(
        told_to_engine(&documents, "BAETYL_ENGINE__KUBE__PULL_SECRETS"),
        None
    );
}

#[test]
fn what_is_not_asked_for_is_not_there() {
    for (name, pod) in pods(&render(Class::Cluster, &fill()).unwrap()) {
        assert!(
            pod.get("imagePullSecrets").is_none() && pod.get("affinity").is_none(),
            "{name}"
        );
    }
}

#[test]
fn the_text_holds_the_same_objects() {
    let documents = render(Class::NodeGpu, &fill()).unwrap();
    assert_eq!(document::parse(&text(&documents)), documents);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let fill = Fill {
        registry: "https://registry".to_owned(),
        version: "latest".to_owned(),
        activate_url: "http://cloud:9003".to_owned(),
        ca_pin: "sha256:00".to_owned(),
        kubernetes_node: Some("Box".to_owned()),
        pull_secret: Some("a b".to_owned()),
    };
    let error = render(Class::K3s, &fill).unwrap_err();
    assert_eq!(error.mistakes.len(), 6, "{error}");
    assert_eq!(
        error.mistakes[0],
        Mistake::Registry("https://registry".to_owned())
    );
    assert!(error.to_string().contains("no fixed tag"), "{error}");
}

/// Whether a fill with one value changed is taken.
fn takes(change: impl FnOnce(&mut Fill)) -> bool {
    let mut fill = fill();
    change(&mut fill);
    render(Class::K3s, &fill).is_ok()
}

#[test]
fn values_that_could_break_out_of_their_place_are_refused() {
    for registry in ["localhost:5000", "10.0.0.1:5000/a/b_c", REGISTRY] {
        assert!(
            takes(|fill| fill.registry = registry.to_owned()),
            "{registry}"
        );
    }
    for registry in [
        "", "/a", "r/", "r//a", "r:0", "r:x/a", "R/a", "r/A", "r/a:1", "r/a@b", "r/a\nb", "r a",
    ] {
        assert!(
            !takes(|fill| fill.registry = registry.to_owned()),
            "{registry:?}"
        );
    }
    for version in ["", "latest", "VERSION", "1 2", "1:2", "1\n", "-1", "1+b"] {
        assert!(
            !takes(|fill| fill.version = version.to_owned()),
            "{version:?}"
        );
    }
    for url in [
        "https://10.0.0.1:9003",
        "https://[fd00::1]:9003",
        "https://[fd00::1]",
        "https://Cloud",
    ] {
        assert!(takes(|fill| fill.activate_url = url.to_owned()), "{url}");
    }
    for url in [
        "",
        "cloud:9003",
        "https://",
        "https://c:0",
        "https://c/x",
        "https://c:9003 x",
        "https://c\"",
        "https://[x]:1",
    ] {
        assert!(!takes(|fill| fill.activate_url = url.to_owned()), "{url:?}");
    }
    for pin in [
        format!("sha256:{}", "0A".repeat(32)),
        "0a".repeat(32),
        format!("sha256:{}\n", "0a".repeat(32)),
    ] {
        assert!(!takes(|fill| fill.ca_pin.clone_from(&pin)), "{pin:?}");
    }
}

#[test]
fn the_examples_name_images_where_they_are_published() {
    let demo = include_str!("../../../../docs/examples/demo/demo-kube.yaml");
    let images: Vec<_> = demo.lines().filter(|l| l.contains("image:")).collect();
    assert!(!images.is_empty());
    for line in images {
        assert!(line.contains(&format!(" {REGISTRY}/baetyl-")), "{line}");
    }
}
