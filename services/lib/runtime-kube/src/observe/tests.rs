//! What a real cluster (Kubernetes 1.34, containerd) said of Pods with one fault each, and what is told of them.

use baetyl_model::report::RunStatus;
use serde::de::DeserializeOwned;

use super::pod::{Around, instance};
use crate::seen::{Controller, Pod, Warning, find, holds};

fn read<T: DeserializeOwned>(text: &str) -> Vec<T> {
    serde_json::from_str(text).unwrap()
}

fn pods() -> Vec<Pod> {
    read(include_str!("golden/pods.json"))
}

fn warnings() -> Vec<Warning> {
    read(include_str!("golden/warnings.json"))
}

fn controllers() -> Vec<Controller> {
    read(include_str!("golden/controllers.json"))
}

/// Name, status, ready, hopeless, and what the cause begins with.
type Row = (&'static str, RunStatus, bool, bool, &'static str);

const ROWS: [Row; 16] = [
    ("ready", RunStatus::Running, true, false, ""),
    (
        "notready",
        RunStatus::Running,
        false,
        false,
        "Unhealthy: Readiness probe failed: not yet",
    ),
    (
        "crash",
        RunStatus::Pending,
        false,
        false,
        "container main ended: Error, exit code 3: no database; CrashLoopBackOff",
    ),
    (
        "oom",
        RunStatus::Pending,
        false,
        false,
        "container main ended: OOMKilled, exit code 137; CrashLoopBackOff",
    ),
    (
        "initfails",
        RunStatus::Pending,
        false,
        false,
        "init container prepare ended: Error, exit code 2",
    ),
    (
        "noimage",
        RunStatus::Pending,
        false,
        false,
        "container main: ErrImagePull: rpc error: code = NotFound",
    ),
    (
        "badname",
        RunStatus::Pending,
        false,
        true,
        "container main: InvalidImageName: ",
    ),
    (
        "nokey",
        RunStatus::Pending,
        false,
        true,
        "container main: CreateContainerConfigError: couldn't find key none in ConfigMap",
    ),
    (
        "noconfig",
        RunStatus::Pending,
        false,
        false,
        "container main: CreateContainerConfigError: configmap \"missing\" not found",
    ),
    (
        "nonroot",
        RunStatus::Pending,
        false,
        true,
        "container main: CreateContainerConfigError: container has runAsNonRoot",
    ),
    (
        "noprogram",
        RunStatus::Pending,
        false,
        true,
        "container main ended: StartError, exit code 128: ",
    ),
    (
        "nopath",
        RunStatus::Pending,
        false,
        true,
        "container main ended: StartError, exit code 128: ",
    ),
    (
        "nomount",
        RunStatus::Pending,
        false,
        false,
        "FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"missing\" not found",
    ),
    (
        "unscheduled",
        RunStatus::Pending,
        false,
        false,
        "Unschedulable: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector",
    ),
    ("done", RunStatus::Succeeded, false, false, ""),
    (
        "failed",
        RunStatus::Failed,
        false,
        false,
        "container main ended: Error, exit code 4",
    ),
];

#[test]
fn each_fault_of_a_pod_is_told_of_in_kubernetes_words() {
    let (pods, warnings) = (pods(), warnings());
    for (name, status, ready, hopeless, cause) in ROWS {
        let pod = pods.iter().find(|pod| pod.metadata.name == name).unwrap();
        let warning = warnings
            .iter()
            .find(|warning| &*warning.involved_object.name == name);
        let around = Around {
            warning,
            ..Around::default()
        };
        let told = instance(pod, around);
        assert_eq!(told.status.status, status, "{name}");
        assert_eq!(told.status.ready, ready, "{name}");
        assert_eq!(told.hopeless, hopeless, "{name}: {}", told.status.cause);
        assert!(
            told.status.cause.starts_with(cause)
                && told.status.cause.is_empty() == cause.is_empty(),
            "{name}: {}",
            told.status.cause
        );
    }
}

#[test]
fn a_lost_machine_makes_its_pods_unknown() {
    let pods = pods();
    let pod = pods
        .iter()
        .find(|pod| pod.metadata.name == "ready")
        .unwrap();
    let around = Around {
        lost: Some("its machine does not answer"),
        ..Around::default()
    };
    let told = instance(pod, around);
    assert_eq!(told.status.status, RunStatus::Unknown);
    assert!(!told.status.ready);
}

#[test]
fn what_decides_about_workloads_is_read_from_real_objects() {
    let all = controllers();
    let named = |name: &str, condition: &str| {
        all.iter().any(|controller| {
            controller.metadata.name == name
                && holds(&controller.status.conditions, condition).is_some()
        })
    };
    assert!(named("refused", "ReplicaFailure"));
    assert!(named("fails", "Failed"));
    assert!(all.iter().any(|controller| {
        controller.metadata.name == "late"
            && find(&controller.status.conditions, "Progressing")
                .is_some_and(|found| &*found.reason == "ProgressDeadlineExceeded")
    }));
    let refused = warnings();
    for kind in ["StatefulSet", "DaemonSet", "Job"] {
        assert!(refused.iter().any(|warning| {
            &*warning.involved_object.kind == kind
                && &*warning.reason == "FailedCreate"
                && warning.message.contains("exceeded quota")
        }));
    }
}
