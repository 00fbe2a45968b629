//! What the script does, in each shell of this machine.

use super::*;

pub(super) const MANIFESTS: &str = "# For one node.
# baetyl.io/node: default/edge-1
# baetyl.io/node-uid: uid-1
# baetyl.io/class: node-standard
# baetyl.io/version: 0.1.0
# baetyl.io/registry: r:5000/b
# baetyl.io/cloud: https://cloud:9003
# baetyl.io/min-memory-mib: 1800
apiVersion: v1
kind: Namespace
metadata: {name: baetyl-edge-system}
";

const TOKEN: (&str, &str) = ("BAETYL_INIT__TOKEN", "bi1.secret.x");

/// A machine with a cluster, a cloud that sees the node at once, and the script.
pub(super) fn machine() -> Machine {
    let machine = Machine::with_cluster();
    machine.fake("curl", include_str!("curl.sh"));
    machine.put("manifests", MANIFESTS);
    machine.put("online", "online");
    machine.put("ca.pem", "pem");
    machine.put("install.sh", SCRIPT);
    machine
}

pub(super) fn run_in(shell: &[String], machine: &Machine, args: &[&str]) -> Ran {
    let script = machine.path("install.sh").display().to_string();
    let ca = machine.path("ca.pem").display().to_string();
    let shell: Vec<_> = shell.iter().map(String::as_str).collect();
    let mut all = vec![script.as_str()];
    if !args.contains(&"--bundle") {
        all.extend(["--cloud", "https://cloud:9003", "--ca", &ca]);
    }
    all.extend(args);
    machine.run(&shell, &all, &[TOKEN])
}

/// Runs in the first shell.
fn run(machine: &Machine, args: &[&str]) -> Ran {
    run_in(&shells()[0], machine, args)
}

/// What the cluster was asked that changes something.
fn changes(machine: &Machine) -> Vec<String> {
    let verbs = [
        "create ",
        "annotate ",
        "label ",
        "apply --server-side",
        "delete ",
    ];
    let asked = machine.read("asked");
    let changes = asked
        .lines()
        .filter(|line| verbs.iter().any(|verb| line.contains(verb)) && !line.contains("auth can-i"))
        .filter(|line| !line.contains("--dry-run"));
    changes.map(ToOwned::to_owned).collect()
}

/// Refused, in these words, and nothing was changed.
pub(super) fn refused(machine: &Machine, args: &[&str], words: &str) {
    for shell in shells() {
        let ran = run_in(&shell, machine, args);
        assert!(
            !ran.ok && ran.err.contains(words),
            "{shell:?} {words}: {ran:?}"
        );
        assert_eq!(changes(machine), [""; 0], "{words}");
    }
}

#[test]
fn a_cluster_becomes_a_node_and_the_token_is_seen_by_nobody() {
    for shell in shells() {
        let machine = machine();
        let ran = run_in(&shell, &machine, &[]);
        assert!(ran.ok, "{shell:?}: {ran:?}");
        for words in [
            "node default/edge-1, version 0.1.0, class node-standard, on box-1 (amd64) of Kubernetes v1.34.4",
            "waiting for the Job baetyl-init",
            "the core services are ready",
            "node default/edge-1 is installed",
        ] {
            assert!(ran.out.contains(words), "{words}: {ran:?}");
        }
        assert_eq!(machine.read("applied"), MANIFESTS);
        assert_eq!(machine.read("cores").trim(), "box-1");
        assert_eq!(machine.read("owner").trim(), "uid-1 default/edge-1");
        assert!(machine.read("token").contains("\n  token: bi1.secret.x\n"));
        assert!(
            machine
                .read("headers")
                .contains("authorization: Bearer bi1.secret.x")
        );
        let asked = machine.read("asked");
        assert!(!asked.contains("secret.x"), "{asked}");
        assert!(asked.contains(&format!("--cacert {}", machine.path("ca.pem").display())));
        assert!(
            asked.contains("delete secret baetyl-init-token"),
            "of no use any more"
        );
    }
}

#[test]
fn run_again_it_leaves_everything_as_it_is() {
    for shell in shells() {
        let machine = machine();
        machine.put("identity", "");
        machine.put("owner", "uid-1 default/edge-1\n");
        machine.put("cores", "box-1\n");
        machine.put("namespace-baetyl-edge", "");
        machine.put("namespace-baetyl-edge-system", "");
        let ran = run_in(&shell, &machine, &[]);
        assert!(
            ran.ok && ran.out.contains("is installed"),
            "{shell:?}: {ran:?}"
        );
        assert_eq!(machine.read("token"), "", "an activated node needs none");
        let changes = changes(&machine);
        assert!(
            !changes
                .iter()
                .any(|line| line.contains("create") || line.contains("delete job"))
        );
        assert_eq!(machine.read("applied"), MANIFESTS);
    }
}

#[test]
fn a_cluster_that_is_another_node_is_refused() {
    let machine = machine();
    machine.put("owner", "uid-9 default/north-9\n");
    refused(
        &machine,
        &[],
        "this cluster is the node default/north-9 (uid-9), not default/edge-1 (uid-1)",
    );
    let ran = run(&machine, &[]);
    assert!(
        ran.err.contains("baetylctl node uninstall north-9"),
        "{ran:?}"
    );
}

#[test]
fn what_is_missing_is_told_before_anything_is_changed() {
    let with = |name: &str, text: &str| {
        let machine = machine();
        machine.put(name, text);
        machine
    };
    refused(
        &with("version", "v1.29.7"),
        &[],
        "Kubernetes 1.30 or newer is needed; this cluster has v1.29.7",
    );
    refused(&with("version", "main"), &[], "which is none");
    refused(&with("cannot", ""), &[], "rights of an administrator");
    refused(
        &with("nodes", "box-1 riscv64 2048000Ki\n"),
        &[],
        "architecture riscv64; there are programs for amd64",
    );
    refused(
        &with("nodes", "box-1 arm 1000000Ki\n"),
        &[],
        "box-1 has 976 MiB of memory; class node-standard needs 1800 MiB",
    );
    let two = "box-1 amd64 4Gi\nbox-2 amd64 4Gi\n";
    refused(
        &with("nodes", two),
        &[],
        "say with --kube-node which machine the core services belong to; there are: box-1 box-2",
    );
    refused(
        &with("nodes", two),
        &["--kube-node", "box-3"],
        "the cluster has no node box-3",
    );
    refused(
        &with("cores", "box-1\n"),
        &["--kube-node", "box-2"],
        "the core services belong to box-1",
    );
    refused(
        &with("manifests", "nothing"),
        &[],
        "does not say for which node it is",
    );
    refused(
        &with("denied", ""),
        &[],
        "gives no manifests: the install token of node edge-1 expired",
    );
}

#[test]
fn programs_and_servers_that_are_not_there_are_told_before_anything_is_changed() {
    let gone = machine();
    fs::remove_file(gone.path("online")).unwrap();
    refused(
        &gone,
        &[],
        "gives no manifests: curl: (7) Failed to connect",
    );
    let dead = machine();
    fs::remove_file(dead.path("version")).unwrap();
    refused(&dead, &[], "127.0.0.1:6443 was refused");
    let bare = machine();
    fs::remove_file(bare.path("kubectl")).unwrap();
    refused(&bare, &[], "neither kubectl nor k3s is installed here");
    let deaf = machine();
    fs::remove_file(deaf.path("curl")).unwrap();
    refused(
        &deaf,
        &[],
        "neither curl nor a wget that checks certificates",
    );
}

#[test]
fn options_that_are_none_are_told() {
    let machine = machine();
    for (args, words) in [
        (&["--klass", "x"][..], "unknown option --klass"),
        (&["--class"][..], "--class needs a value"),
        (
            &["--class", "a b"][..],
            "characters that do not belong there",
        ),
        (&["--timeout", "1m"][..], "is a number of seconds"),
        (
            &["--bundle", "x", "--class", "k3s"][..],
            "are part of a bundle",
        ),
        (
            &["--context", "elsewhere"][..],
            "context \"elsewhere\" does not exist",
        ),
    ] {
        refused(&machine, args, words);
    }
}

#[test]
fn of_several_machines_the_one_that_was_named_or_the_control_plane_is_taken() {
    let machine = machine();
    machine.put("nodes", "box-1 amd64 4Gi\nbox-2 arm64 4Gi\n");
    machine.put("planes", "box-2\n");
    let ran = run(&machine, &["--context", "there"]);
    assert!(ran.ok && ran.out.contains("on box-2 (arm64)"), "{ran:?}");
    assert!(
        machine
            .read("asked")
            .contains("--context there label node box-2")
    );
    let machine = self::machine();
    machine.put("nodes", "box-1 amd64 4Gi\nbox-2 arm64 4Gi\n");
    let ran = run(&machine, &["--kube-node", "box-1"]);
    assert!(ran.ok && ran.out.contains("on box-1 (amd64)"), "{ran:?}");
}

#[test]
fn with_dry_run_nothing_is_changed() {
    let machine = machine();
    for shell in shells() {
        let ran = run_in(&shell, &machine, &["--dry-run"]);
        assert!(ran.ok && ran.out.contains("nothing was changed"), "{ran:?}");
        assert!(ran.out.contains("deployment.apps/baetyl-engine"), "{ran:?}");
        assert_eq!(changes(&machine), [""; 0]);
    }
}

#[test]
fn k3s_has_a_kubectl_of_its_own_and_a_class_of_its_own() {
    let machine = machine();
    fs::rename(machine.path("kubectl"), machine.path("fakectl")).unwrap();
    machine.fake(
        "k3s",
        "#!/bin/sh\n[ \"$1\" = kubectl ] || exit 2\nshift\nexec \"$(dirname \"$0\")/fakectl\" \"$@\"\n",
    );
    machine.put("version", "v1.33.1+k3s1");
    let ran = run(&machine, &["--registry", "r:5000/b"]);
    assert!(ran.ok, "{ran:?}");
    let asked = machine.read("asked");
    assert!(
        asked.contains("manifests?class=&registry=r:5000/b&pullSecret=&"),
        "{asked}"
    );
    assert!(asked.contains("&distribution=k3s"), "{asked}");
}

#[test]
fn what_the_cluster_does_not_take_changes_nothing() {
    let machine = machine();
    machine.put(
        "refusal",
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\"\n",
    );
    let ran = run(&machine, &[]);
    assert!(
        !ran.ok && ran.err.contains("somebody else manages these fields"),
        "{ran:?}"
    );
    assert!(
        ran.err.contains("conflict with \"kubectl-edit\""),
        "{ran:?}"
    );
    assert_eq!(machine.read("applied"), "");
    machine.put("refusal", "admission webhook \"x\" denied the request\n");
    let ran = run(&machine, &[]);
    assert!(!ran.ok && ran.err.contains("denied the request"), "{ran:?}");
    assert_eq!(machine.read("applied"), "");
}

#[test]
fn jobs_of_another_version_are_made_anew() {
    let machine = machine();
    machine.put(
        "refusal",
        "The Job \"baetyl-init\" is invalid: spec.template: field is immutable\n\n",
    );
    let ran = run(&machine, &[]);
    assert!(ran.ok, "{ran:?}");
    let changes = changes(&machine);
    assert!(
        changes
            .iter()
            .any(|line| line.contains("delete job baetyl-init")),
        "{changes:?}"
    );
    assert_eq!(machine.read("applied"), MANIFESTS);
}

#[test]
fn an_upgrade_under_way_is_ended_and_one_that_begins_meanwhile_is_undone() {
    for shell in shells() {
        let machine = machine();
        machine.put("upgrade", "");
        machine.put("begins", "");
        let ran = run_in(&shell, &machine, &[]);
        assert!(ran.ok, "{shell:?}: {ran:?}");
        let changes = changes(&machine);
        let steps: Vec<_> = changes
            .iter()
            .filter(|line| line.contains("baetyl-upgrade") || line.contains("manifests.yaml"))
            .map(|line| line.contains("delete"))
            .collect();
        assert_eq!(steps, [true, false, true, false], "{changes:?}");
    }
}

#[test]
fn what_does_not_come_up_is_told_with_the_reasons_of_the_cluster() {
    for shell in shells() {
        let machine = machine();
        machine.put("deployments", "baetyl-node 1\nbaetyl-sync \n");
        machine.put("pods", "baetyl-sync-1: Pending ImagePullBackOff\n");
        let ran = run_in(&shell, &machine, &["--timeout", "3"]);
        assert!(
            !ran.ok && ran.out.contains("waiting for baetyl-sync"),
            "{ran:?}"
        );
        for words in [
            "baetyl-sync-1: Pending ImagePullBackOff",
            "FailedScheduling: 0/1 nodes are available",
            "the cloud does not answer",
            "the core services are not ready within 3 seconds",
        ] {
            assert!(ran.err.contains(words), "{words}: {ran:?}");
        }
        machine.put("job", "Failed=True \n");
        let ran = run_in(&shell, &machine, &[]);
        assert!(
            !ran.ok && ran.err.contains("the Job baetyl-init gave up"),
            "{ran:?}"
        );
    }
}

#[test]
fn a_node_the_cloud_does_not_see_is_not_installed() {
    let machine = machine();
    machine.put("online", "uninstalled");
    let ran = run(&machine, &["--timeout", "3"]);
    assert!(
        !ran.ok && ran.err.contains("the node is not online within 3 seconds"),
        "{ran:?}"
    );
    assert!(
        ran.out
            .contains("waiting for the cloud to see the node (uninstalled)"),
        "{ran:?}"
    );
    let ran = run(&machine, &["--no-wait"]);
    assert!(
        ran.ok && ran.out.ends_with("everything is applied\n"),
        "{ran:?}"
    );
}

/// A directory as `baetylctl node bundle` packs it.
fn bundle(machine: &Machine) -> PathBuf {
    let dir = machine.path("baetyl-edge-1");
    fs::create_dir_all(dir.join("images")).unwrap();
    for (name, text) in [
        ("manifests.yaml", MANIFESTS),
        ("ca.pem", "pem"),
        ("token", "bi1.from.bundle"),
        ("install.sh", SCRIPT),
        ("images/00-core.tar", "core"),
        ("images/01-more.tar", "more"),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    machine.fake(
        "ctr",
        "#!/bin/sh\necho \"ctr $*\" >>\"$(dirname \"$0\")/asked\"\n",
    );
    dir
}

#[test]
fn from_a_bundle_images_are_imported_and_nothing_is_fetched() {
    for shell in shells() {
        for packed in [false, true] {
            let machine = machine();
            let mut path = bundle(&machine).display().to_string();
            if packed {
                let file = machine.path("edge-1.bundle").display().to_string();
                let parent = machine.path("").display().to_string();
                let tar = ["-cf", &file, "-C", &parent, "baetyl-edge-1"];
                let made = Command::new("tar").args(tar).status().unwrap();
                assert!(made.success());
                fs::remove_dir_all(&path).unwrap();
                path = file;
            }
            let shell: Vec<_> = shell.iter().map(String::as_str).collect();
            let script = machine.path("install.sh").display().to_string();
            let ran = machine.run(&shell, &[&script, "--bundle", &path], &[]);
            assert!(
                ran.ok && ran.out.contains("is installed"),
                "{packed} {ran:?}"
            );
            let asked = machine.read("asked");
            for image in ["images/00-core.tar", "images/01-more.tar"] {
                let found = asked.lines().any(|line| {
                    line.starts_with("ctr -n k8s.io images import") && line.ends_with(image)
                });
                assert!(found, "{asked}");
            }
            assert!(!asked.contains("/v1/init/kube/manifests"), "{asked}");
            assert!(machine.read("token").contains("token: bi1.from.bundle"));
            assert_eq!(machine.read("applied"), MANIFESTS);
        }
    }
}

#[test]
fn a_bundle_that_cannot_be_used_changes_nothing() {
    let machine = machine();
    refused(
        &machine,
        &["--bundle", "/nowhere"],
        "is no bundle: it has no manifests.yaml",
    );
    let path = bundle(&machine).display().to_string();
    fs::remove_file(machine.path("ctr")).unwrap();
    refused(&machine, &["--bundle", &path], "no ctr and no k3s here");
    machine.fake("ctr", "#!/bin/sh\necho 'permission denied' >&2\nexit 1\n");
    refused(&machine, &["--bundle", &path], "permission denied");
}
