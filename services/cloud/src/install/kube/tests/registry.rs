//! A registry that wants credentials: the Secret that opens it, in each shell of this machine.

use super::script::{MANIFESTS, machine, refused, run_in};
use super::*;

/// A machine whose cloud makes manifests with a Secret that opens the registry.
fn with_pull_secret() -> Machine {
    let machine = machine();
    machine.put(
        "manifests",
        &MANIFESTS.replace(
            "# baetyl.io/cloud",
            "# baetyl.io/pull-secret: pull\n# baetyl.io/cloud",
        ),
    );
    machine.put("type", "kubernetes.io/dockerconfigjson");
    machine
}

/// Namespaces a Secret was copied to, each with where its content came from.
fn copied(machine: &Machine) -> Vec<String> {
    let copied = machine.read("copied");
    let namespaces = copied.lines().filter(|line| {
        let line = line.trim();
        line.starts_with("namespace:") || line.starts_with(".dockerconfigjson:")
    });
    namespaces.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn what_opens_the_registry_is_asked_for_and_copied_to_where_pods_look() {
    for shell in shells() {
        let machine = with_pull_secret();
        machine.put("pull-default", "");
        let ran = run_in(&shell, &machine, &["--pull-secret", "pull"]);
        assert!(ran.ok, "{shell:?}: {ran:?}");
        let asked = machine.read("asked");
        assert!(asked.contains("&pullSecret=pull&"), "{asked}");
        assert!(
            !asked.contains("of-default"),
            "its content is seen by nobody: {asked}"
        );
        let expected = [
            "namespace: baetyl-edge-system",
            ".dockerconfigjson: of-default",
            "namespace: baetyl-edge",
            ".dockerconfigjson: of-default",
        ];
        assert_eq!(copied(&machine), expected);
    }
}

#[test]
fn what_opens_the_registry_already_is_left_and_a_copy_of_ours_renewed() {
    for shell in shells() {
        let machine = with_pull_secret();
        machine.put("pull-default", "");
        machine.put("pull-baetyl-edge-system", "");
        machine.put("pull-baetyl-edge", "baetyl");
        let ran = run_in(&shell, &machine, &["--pull-secret", "pull"]);
        assert!(ran.ok, "{shell:?}: {ran:?}");
        let expected = ["namespace: baetyl-edge", ".dockerconfigjson: of-default"];
        assert_eq!(copied(&machine), expected);
        let machine = with_pull_secret();
        machine.put("pull-baetyl-edge-system", "");
        let ran = run_in(&shell, &machine, &["--pull-secret", "pull"]);
        assert!(ran.ok, "{shell:?}: {ran:?}");
        let expected = [
            "namespace: baetyl-edge",
            ".dockerconfigjson: of-baetyl-edge-system",
        ];
        assert_eq!(copied(&machine), expected);
    }
}

#[test]
fn a_secret_that_is_not_there_or_opens_no_registry_changes_nothing() {
    let args = ["--pull-secret", "pull"];
    let machine = with_pull_secret();
    refused(
        &machine,
        &args,
        "the Secret pull, which opens the registry, is not there",
    );
    machine.put("pull-default", "");
    machine.put("type", "Opaque");
    refused(&machine, &args, "the Secret pull has the type Opaque");
    refused(
        &machine,
        &["--pull-secret", "a b"],
        "characters that do not belong there",
    );
    let bundled = ["--bundle", "x", "--pull-secret", "pull"];
    refused(&machine, &bundled, "are part of a bundle");
}
