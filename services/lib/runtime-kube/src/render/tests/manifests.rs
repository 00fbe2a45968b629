//! YAML and Helm applications.

use super::*;

fn yaml(text: &str) -> Case {
    Case::app(json!({"type": "yaml", "volumes": [{"name": "v1", "config": {"name": "app"}}]}))
        .configuration("app", json!({"app.yaml": text}))
}

/// The error with its causes.
fn refused(case: &Case) -> String {
    let error = case.render().unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn a_file_that_is_no_yaml_is_named_with_document_and_line() {
    let first = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n";
    let cases = [
        (
            format!("{first}apiVersion: v1\nmetadata:\n\tname: b\n"),
            "configuration \"app\", file app.yaml, document 2, line 7 cannot be read as YAML; the line is indented with a tab",
        ),
        (format!("{first}a: [1, 2\nb: 3\n"), "document 2, line 6"),
        ("a: 1\na: 2\n".to_owned(), "document 1, line"),
        (
            format!("{first}a: !secret b\n"),
            "document 2: the tag !secret",
        ),
        (format!("{first}a: .nan\n"), "document 2: .nan is no number"),
        (
            format!("{first}? [a]\n: b\n"),
            "document 2: a key is neither",
        ),
    ];
    for (text, part) in cases {
        let found = refused(&yaml(&text));
        assert!(found.contains(part), "{text}: {found}");
    }
}

#[test]
fn a_document_that_is_no_object_is_named() {
    let object = |metadata: &str| format!("apiVersion: v1\nkind: ConfigMap\n{metadata}");
    let cases = [
        (
            "just text".to_owned(),
            "document 1: an object with apiVersion",
        ),
        ("kind: ConfigMap".to_owned(), "apiVersion is missing"),
        ("apiVersion: v1".to_owned(), "kind is missing"),
        (object(""), "ConfigMap has no metadata"),
        (object("metadata: {}"), "ConfigMap has no metadata.name"),
        (
            object("metadata: {generateName: x-}"),
            "generateName is not enough",
        ),
        (
            object("metadata: {name: a, labels: [x]}"),
            "metadata.labels of ConfigMap a is not a map",
        ),
        (
            object("metadata: {name: a, namespace: kube-system}"),
            "ConfigMap a names namespace \"kube-system\", but the application is put into \"baetyl-edge\"",
        ),
        (
            format!("{0}\n---\n{0}", object("metadata: {name: a}")),
            "object \"ConfigMap baetyl-edge/a\" is there twice",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: [{kind: X}]".to_owned(),
            "document 1, item 1: apiVersion is missing",
        ),
        (
            "# nothing\n---\n".to_owned(),
            "the application has no objects",
        ),
    ];
    for (text, part) in cases {
        let found = refused(&yaml(&text));
        assert!(found.contains(part), "{text}: {found}");
    }
}

#[test]
fn a_yaml_application_goes_where_its_label_says_and_not_into_our_own_namespace() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}";
    let namespace = |label: &str| {
        let case = yaml(text).with(json!({"labels": {"baetyl-custom-namespace": label}}));
        case.render()
            .map(|rendered| rendered.objects[0].namespace.clone())
    };
    assert_eq!(namespace("shop").unwrap(), "shop");
    assert_eq!(namespace("baetyl-edge").unwrap(), "baetyl-edge");
    let error = namespace("baetyl-edge-system").unwrap_err().to_string();
    assert!(error.contains("one of Baetyl's own"), "{error}");
    let error = namespace("Shop").unwrap_err().to_string();
    assert!(error.contains("a namespace has"), "{error}");
}

#[test]
fn only_files_called_yaml_are_read() {
    let case =
        Case::app(json!({"type": "yaml", "volumes": [{"name": "v1", "config": {"name": "app"}}]}))
            .configuration(
                "app",
                json!({"notes.txt": "\t{", "_object_big.yaml": "{}",
                "a.yml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}"}),
            );
    let rendered = case.render().unwrap();
    assert_eq!(rendered.objects.len(), 1);
    assert!(
        rendered.warnings[0].contains("object big.yaml"),
        "{:?}",
        rendered.warnings
    );
}

#[test]
fn the_text_of_a_mode_is_octal_and_other_text_stays_text() {
    let text = "apiVersion: v1\nkind: Gadget\nmetadata: {name: a}\ndata: {defaultMode: '0644'}\nspec: {defaultMode: 0755, mode: 0644, items: [{path: p, mode: 0400}]}";
    let rendered = yaml(text).render().unwrap();
    let body = &rendered.objects[0].body;
    assert_eq!(
        body["spec"],
        json!({"defaultMode": 493, "mode": "0644", "items": [{"path": "p", "mode": 256}]})
    );
    assert_eq!(body["data"], json!({"defaultMode": "0644"}));
}

#[test]
fn merge_keys_and_anchors_are_followed() {
    let text =
        "apiVersion: v1\nkind: Gadget\nmetadata: {name: a}\nbase: &b {x: 1}\nspec: {<<: *b, y: 2}";
    let rendered = yaml(text).render().unwrap();
    assert_eq!(rendered.objects[0].body["spec"], json!({"x": 1, "y": 2}));
}

#[test]
fn a_chart_that_is_not_there_is_named() {
    let helm = |services: Value, data: Value| {
        Case::app(json!({"type": "helm", "services": services,
            "volumes": [{"name": "v1", "config": {"name": "chart"}}]}))
        .configuration("chart", data)
    };
    let chart = json!([{"name": "chart", "image": "a.tgz"}]);
    let cases = [
        (helm(json!([]), json!({})), "exactly one service"),
        (
            helm(chart.clone(), json!({"_object_b.tgz": "{}"})),
            "names the chart \"a.tgz\", but no configuration of the application has an object of that name (there is b.tgz)",
        ),
        (
            helm(chart.clone(), json!({"a.tgz": "x"})),
            "(there is none)",
        ),
        (
            helm(
                json!([{"name": "chart", "image": "a.tgz", "runtime": "values.yaml"}]),
                json!({"_object_a.tgz": "{}"}),
            ),
            "names the values \"values.yaml\"",
        ),
        (
            helm(chart, json!({"_object_a.tgz": "{}"})).with(json!({"name": "a".repeat(54)})),
            "Helm takes at most 53 characters",
        ),
    ];
    for (case, part) in cases {
        let found = refused(&case);
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn a_chart_is_taken_away_by_a_job_of_the_same_name() {
    let installed = cases()["helm"].render().unwrap();
    let job = uninstall(&installed.key, "shop-ns", &place()).unwrap();
    let mut lost = installed
        .objects
        .iter()
        .filter(|object| object.kind == "Job");
    assert_eq!(lost.next().unwrap().to_string(), job.to_string());
    let container = &job.body["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        container["args"],
        json!([
            "uninstall",
            "shop",
            "--namespace=shop-ns",
            "--ignore-not-found",
            "--wait",
            "--timeout=5m"
        ])
    );
    assert!(uninstall(&installed.key, "shop-ns", &Place::default()).is_err());
}

#[test]
fn what_a_killed_helm_left_is_cleared_away_right_before_helm_begins() {
    let job = |place: &Place| {
        let rendered = cases()["helm"].render_at(place).unwrap();
        let mut objects = rendered.objects.iter();
        let job = objects.find(|object| object.kind == "Job").unwrap();
        job.body["spec"].clone()
    };
    let spec = job(&place());
    assert_eq!(spec["podReplacementPolicy"], "Failed");
    let pod = &spec["template"]["spec"];
    let last = pod["initContainers"].as_array().unwrap().last().unwrap();
    assert_eq!(last["name"], "baetyl-release");
    assert_eq!(last["image"], "registry.example/baetyl-init:1.0");
    let namespace = &pod["containers"][0]["args"][4];
    assert_eq!(last["args"], json!(["release", namespace, "--name=shop"]));
    let without = Place {
        init_image: String::new(),
        ..place()
    };
    let spec = job(&without).to_string();
    assert!(!spec.contains("baetyl-release"), "{spec}");
}
