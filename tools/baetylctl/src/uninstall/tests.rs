//! Against a program that writes down what it is asked and answers like a cluster with one node installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;

/// Answers what `$dir/<words>` holds, where the words are the first ones of what is asked; fails for what stands in
/// `$dir/fails`.
const FAKE: &str = r#"#!/bin/sh
dir=$(dirname "$0")
echo "$*" >>"$dir/asked"
if [ "$1" = create ]; then cat >>"$dir/created"; fi
if [ -f "$dir/fails" ] && echo "$*" | grep -q -f "$dir/fails"; then echo "error: no" >&2; exit 1; fi
case "$*" in
"get namespace baetyl-edge-system"*) cat "$dir/owner" ;;
"get namespace baetyl-edge --ignore"*) cat "$dir/noted" 2>/dev/null ;;
"get nodes"*) printf 'a\nb\n' ;;
*"get deployment baetyl-engine"*) cat "$dir/engine" ;;
"api-resources"*) printf 'pods\nwidgets.example.com\n' ;;
"get runtimeclasses"*) echo runtimeclass.node.k8s.io/nvidia ;;
"get secrets"*) printf 'shop/db\nshop/db\n' ;;
"create"*) echo job.batch/baetyl-purge-x ;;
esac
exit 0
"#;

struct Fake {
    dir: tempfile::TempDir,
    cluster: Kubectl,
}

fn cluster() -> Fake {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("kubectl");
    fs::write(&program, FAKE).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("owner"), "baetyl-edge-system default/n1").unwrap();
    let engine = r#"r:5000/b/baetyl-engine:0.1.0 [{"name":"pull"}]"#;
    fs::write(dir.path().join("engine"), engine).unwrap();
    Fake {
        cluster: Kubectl::at(program),
        dir,
    }
}

impl Fake {
    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path().join("asked")).unwrap();
        text.lines().map(ToOwned::to_owned).collect()
    }

    fn created(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path().join("created")).unwrap_or_default();
        let documents = serde_json::Deserializer::from_str(&text).into_iter();
        documents.map(Result::unwrap).collect()
    }
}

fn args(name: &str) -> UninstallArgs {
    UninstallArgs {
        name: name.to_owned(),
        kube_context: None,
        yes: true,
        keep_data: false,
        force: false,
        delete_node: false,
        timeout: "9s".to_owned(),
    }
}

#[test]
fn another_node_is_not_removed_unless_it_is_meant() {
    let fake = cluster();
    args("n1").check_owner(&fake.cluster).unwrap();
    let error = args("n2").check_owner(&fake.cluster).unwrap_err();
    assert!(
        error.to_string().contains("is the node default/n1"),
        "{error}"
    );
    let force = UninstallArgs {
        force: true,
        ..args("n2")
    };
    force.check_owner(&fake.cluster).unwrap();
    fs::write(fake.path().join("owner"), "baetyl-edge-system ").unwrap();
    assert!(args("n1").check_owner(&fake.cluster).is_err());
    fs::write(fake.path().join("owner"), "").unwrap();
    args("n1").check_owner(&fake.cluster).unwrap();
}

#[test]
fn the_core_goes_first_then_applications_then_data_and_what_belongs_to_the_cluster() {
    let fake = cluster();
    let machines = machines(&fake.cluster).unwrap();
    let left = args("n1").remove(&fake.cluster, &machines).unwrap();
    let asked = fake.asked();
    let steps: Vec<_> = asked
        .iter()
        .filter(|line| {
            ["delete", "create", "label", "annotate"]
                .iter()
                .any(|verb| line.starts_with(verb))
        })
        .map(|line| line.replace(" --ignore-not-found --wait=true --timeout=9s", ""))
        .collect();
    assert_eq!(
        steps,
        [
            "annotate namespace baetyl-edge --overwrite baetyl.io/init-image=r:5000/b/baetyl-init:0.1.0",
            "delete namespace baetyl-edge-system",
            "delete pods,widgets.example.com -A -l app.kubernetes.io/managed-by=baetyl",
            "create -f - -o name",
            "create -f - -o name",
            "delete namespace baetyl-edge",
            "delete clusterrolebindings,clusterroles,priorityclasses,persistentvolumes,storageclasses -l app.kubernetes.io/part-of=baetyl",
            "label nodes --all baetyl.io/core-",
        ]
    );
    assert!(
        asked.contains(
            &"-n baetyl-edge wait --for=condition=complete --timeout=9s job.batch/baetyl-purge-x"
                .to_owned()
        )
    );
    let jobs = fake.created();
    let pods: Vec<_> = jobs
        .iter()
        .map(|job| &job["spec"]["template"]["spec"])
        .collect();
    assert_eq!(
        pods.iter()
            .map(|pod| pod["nodeName"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(
        pods[0]["containers"][0]["image"],
        "r:5000/b/baetyl-init:0.1.0"
    );
    assert_eq!(pods[0]["imagePullSecrets"][0]["name"], "pull");
    assert_eq!(
        left,
        [
            "runtimeclass.node.k8s.io/nvidia: others may use it",
            "the Helm release shop/db, if it was one of this node",
        ]
    );
}

#[test]
fn data_that_shall_stay_or_cannot_be_removed_is_told() {
    let fake = cluster();
    let machines = machines(&fake.cluster).unwrap();
    let keep = UninstallArgs {
        keep_data: true,
        ..args("n1")
    };
    let left = keep.remove(&fake.cluster, &machines).unwrap();
    assert_eq!(left[0], "/var/lib/baetyl on a, b, as you wished");
    assert!(fake.created().is_empty());

    let fake = cluster();
    fs::write(fake.path().join("fails"), "wait --for").unwrap();
    let left = args("n1").remove(&fake.cluster, &machines).unwrap();
    assert!(
        left[0].starts_with("/var/lib/baetyl on a; remove it by hand"),
        "{left:?}"
    );
    assert!(
        fake.asked()
            .iter()
            .any(|line| line.starts_with("label nodes")),
        "the rest is done"
    );
}

#[test]
fn an_uninstallation_goes_on_where_it_stopped() {
    let fake = cluster();
    let machines = machines(&fake.cluster).unwrap();
    fs::write(fake.path().join("engine"), "").unwrap();
    fs::write(fake.path().join("noted"), "r/baetyl-init:0.1.0").unwrap();
    args("n1").remove(&fake.cluster, &machines).unwrap();
    let pod = &fake.created()[0]["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "r/baetyl-init:0.1.0");
    fs::remove_file(fake.path().join("noted")).unwrap();
    let left = args("n1").remove(&fake.cluster, &machines).unwrap();
    assert!(left[0].contains("no image to remove it with"), "{left:?}");
}

#[test]
fn a_step_that_fails_ends_it_in_the_words_of_the_cluster() {
    let fake = cluster();
    fs::write(
        fake.path().join("fails"),
        "delete namespace baetyl-edge-system",
    )
    .unwrap();
    let error = args("n1").remove(&fake.cluster, &[]).unwrap_err();
    assert_eq!(error.to_string(), "kubectl delete: error: no");
    assert!(
        !fake
            .asked()
            .iter()
            .any(|line| line.contains("api-resources"))
    );
}
