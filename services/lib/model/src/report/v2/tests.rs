use serde_json::json;

use super::*;
use crate::desire::Header;
use crate::name::{AppName, Epoch, Generation, NodeUid, Version};
use crate::report::{DiskStats, FailedVersion, NetworkStats, Phase, ProgramInfo, RunStatus, Truth};

fn machine() -> NodeInfo {
    NodeInfo {
        hostname: "h1".into(),
        address: "10.0.0.2".into(),
        arch: "amd64".into(),
        os: "linux".into(),
        kernel_version: "6".into(),
        role: "master".into(),
        system_uuid: "u".into(),
        ..NodeInfo::default()
    }
}

fn status() -> NodeStatus {
    let instance = InstanceStatus {
        name: "baetyl-edge.app1.77.svc1.1".into(),
        service: "svc1".into(),
        status: RunStatus::Running,
        ip: "127.0.0.1".into(),
        node_name: "h1".into(),
        pid: 227,
        start_time: Some("2026-11-23T19:39:30Z".parse().unwrap()),
        ready: true,
        ..InstanceStatus::default()
    };
    let app = AppStatus {
        version: Some(Version::new("77").unwrap()),
        deploy_type: "deployment".into(),
        status: RunStatus::Running,
        phase: Some(Phase::RolledBack),
        failed: Some(FailedVersion {
            version: Version::new("78").unwrap(),
            reason: "it crashes".into(),
        }),
        observed_generation: Generation(78),
        instances: [(instance.name.clone(), instance)].into(),
        ..AppStatus::unknown(AppName::new("app1").unwrap())
    };
    let system = AppStatus {
        version: Some(Version::new("3").unwrap()),
        status: RunStatus::Pending,
        cause: "its content is being fetched".into(),
        system: true,
        ..AppStatus::unknown(AppName::new("baetyl-core-x").unwrap())
    };
    NodeStatus {
        observed: Some(Header {
            node_uid: NodeUid::new("u1").unwrap(),
            epoch: Epoch(1),
            generation: Generation(78),
            digest: crate::Digest::from_sha256([0; 32]),
        }),
        conditions: vec![Condition {
            kind: "Ready".into(),
            status: Truth::True,
            ..Condition::default()
        }],
        apps: [(app.name.clone(), app), (system.name.clone(), system)].into(),
        nodes: [("h1".to_owned(), machine())].into(),
        core: ProgramInfo {
            version: "0.1.0".into(),
            ..ProgramInfo::default()
        },
        ..NodeStatus::default()
    }
}

fn stats() -> NodeStats {
    let disk = |mount: &str, used, total| DiskStats {
        mount_point: mount.into(),
        used,
        total,
    };
    NodeStats {
        time: None,
        nodes: vec![MachineStats {
            hostname: "h1".into(),
            cpu_used: 0.2,
            cpu_total: 4.0,
            memory_used: 1 << 30,
            memory_total: 8 << 30,
            disks: vec![disk("/boot", 1, 4), disk("/", 5, 5)],
            network: NetworkStats {
                bytes_sent: 1,
                bytes_received: 2,
                packets_sent: 3,
                packets_received: 4,
            },
            ready: true,
            ..MachineStats::default()
        }],
        instances: vec![InstanceStats {
            app: "app1".into(),
            instance: "baetyl-edge.app1.77.svc1.1".into(),
            cpu_used: 0.0144,
            memory_used: 1_728_512,
        }],
    }
}

fn facts(online: bool) -> ViewFacts {
    let time = Some("2026-11-23T19:59:13.631349263Z".parse().unwrap());
    ViewFacts {
        time,
        online,
        client_ip: "192.0.2.1".into(),
    }
}

#[test]
fn a_report_is_rendered_as_the_clients_of_baetyl_v2_know_it() {
    let wanted: serde_json::Value = serde_json::from_str(include_str!("golden.json")).unwrap();
    let view = render_v2_report(Some(&status()), Some(&stats()), &facts(true));
    assert_eq!(view, wanted, "{view:#}");
}

#[test]
fn a_node_that_never_reported_has_an_empty_report() {
    assert_eq!(
        render_v2_report(None, Some(&stats()), &facts(false)),
        json!({})
    );
}

#[test]
fn of_a_node_that_is_offline_no_status_of_an_application_is_shown() {
    let view = render_v2_report(Some(&status()), Some(&stats()), &facts(false));
    assert_eq!(view["appstats"][0].get("status"), None);
    assert_eq!(view["sysappstats"][0].get("status"), None);
    assert_eq!(view["appstats"][0]["version"], "77");
}

#[test]
fn a_node_without_stats_still_has_a_report() {
    let view = render_v2_report(Some(&status()), None, &facts(true));
    assert_eq!(view["nodestats"], json!({}));
    assert_eq!(view["apps"], json!([{"name": "app1", "version": "77"}]));
}

#[test]
fn fractions_are_texts_between_0_and_1() {
    assert_eq!(fraction(1, 8), "0.125");
    assert_eq!(fraction(8, 8), "1");
    assert_eq!(fraction(9, 8), "1");
    assert_eq!(fraction(1, 0), "0");
    assert_eq!(cores(1.719_44), "1.719");
}
