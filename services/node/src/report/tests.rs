use baetyl_proto::shadow::{AppStatus, InstanceStats};

use super::*;
use crate::ledger::Ledger;

fn shadow() -> (tempfile::TempDir, Shadow) {
    let dir = tempfile::tempdir().unwrap();
    let machine = NodeInfo {
        hostname: "box".into(),
        ..NodeInfo::default()
    };
    let shadow = Shadow::load(Ledger::open(dir.path()).unwrap(), vec![machine]).unwrap();
    (dir, shadow)
}

fn status(version: &str) -> NodeStatus {
    let app = AppStatus {
        name: "web".into(),
        version: version.into(),
        ..AppStatus::default()
    };
    NodeStatus {
        apps: vec![app],
        run_mode: "native".into(),
        ..NodeStatus::default()
    }
}

#[test]
fn a_changed_status_is_persisted_and_an_equal_one_wakes_nobody() {
    let (dir, shadow) = shadow();
    accept_report(&shadow, Some(status("1")), None).unwrap();
    let watch = shadow.report.subscribe();
    accept_report(&shadow, Some(status("1")), None).unwrap();
    assert!(!watch.has_changed().unwrap());
    accept_report(&shadow, Some(status("2")), None).unwrap();
    assert!(watch.has_changed().unwrap());
    let digest = shadow.report.borrow().digest.clone();
    drop(shadow);
    let again = Shadow::load(Ledger::open(dir.path()).unwrap(), Vec::new()).unwrap();
    assert_eq!(again.report.borrow().digest, digest);
}

#[test]
fn properties_and_machines_are_part_of_the_status() {
    let (_dir, shadow) = shadow();
    accept_report(&shadow, Some(status("1")), None).unwrap();
    let before = shadow.report.borrow().digest.clone();
    accept_properties(
        &shadow,
        &BTreeMap::from([("door".to_owned(), Some("open".to_owned()))]),
    )
    .unwrap();
    let report = shadow.report.borrow().clone();
    assert_ne!(report.digest, before);
    let status = report.status.unwrap();
    assert_eq!(status.properties.first().unwrap().value, "open");
    assert_eq!(status.nodes.first().unwrap().hostname, "box");
    accept_properties(&shadow, &BTreeMap::from([("door".to_owned(), None)])).unwrap();
    assert_eq!(shadow.report.borrow().digest, before);
}

#[test]
fn stats_of_engine_and_of_the_machine_do_not_overwrite_each_other_and_never_touch_the_digest() {
    let (_dir, shadow) = shadow();
    accept_report(&shadow, Some(status("1")), None).unwrap();
    let digest = shadow.report.borrow().digest.clone();
    let machine = shadow.machines().remove(0);
    accept_machine(
        &shadow,
        machine,
        MachineStats {
            memory_used: 7,
            ..MachineStats::default()
        },
    )
    .unwrap();
    let instance = InstanceStats {
        app: "web".into(),
        memory_used: 9,
        ..InstanceStats::default()
    };
    let stats = NodeStats {
        instances: vec![instance],
        ..NodeStats::default()
    };
    accept_report(&shadow, None, Some(stats)).unwrap();
    let report = shadow.report.borrow().clone();
    let stats = report.stats.unwrap();
    assert_eq!(stats.nodes.first().unwrap().memory_used, 7);
    assert_eq!(stats.instances.first().unwrap().memory_used, 9);
    assert_eq!(report.digest, digest);
}

#[test]
fn machines_of_a_cluster_are_those_engine_tells_of() {
    let (_dir, shadow) = shadow();
    let pod = || MachineStats {
        hostname: "baetyl-node-1".into(),
        ..MachineStats::default()
    };
    let machine = shadow.machines().remove(0);
    accept_machine(&shadow, machine.clone(), pod()).unwrap();
    let status = NodeStatus {
        run_mode: "kube".into(),
        ..status("1")
    };
    accept_report(&shadow, Some(status), None).unwrap();
    assert!(
        shadow.report.borrow().stats.is_none(),
        "the Pod is no machine"
    );
    let names = |shadow: &Shadow| -> Vec<String> {
        let stats = shadow.report.borrow().stats.clone().unwrap_or_default();
        stats
            .nodes
            .iter()
            .map(|node| node.hostname.clone())
            .collect()
    };
    let told = NodeStats {
        nodes: vec![MachineStats {
            hostname: "edge0".into(),
            ..MachineStats::default()
        }],
        ..NodeStats::default()
    };
    accept_report(&shadow, None, Some(told)).unwrap();
    accept_machine(&shadow, machine, pod()).unwrap();
    assert_eq!(names(&shadow), ["edge0"]);
    accept_report(&shadow, None, Some(NodeStats::default())).unwrap();
    assert!(names(&shadow).is_empty(), "nobody measures them any more");
}

#[test]
fn before_engine_reported_there_is_no_status() {
    let (_dir, shadow) = shadow();
    accept_properties(
        &shadow,
        &BTreeMap::from([("a".to_owned(), Some("1".to_owned()))]),
    )
    .unwrap();
    assert!(shadow.report.borrow().status.is_none());
}
