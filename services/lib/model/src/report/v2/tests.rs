use serde_json::json;

use super::*;
use crate::desire::Header;
use crate::name::{AppName, Epoch, Generation, NodeUid, Version};
use crate::report::{
    ContainerStats, DiskStats, FailedVersion, NetworkStats, Phase, ProgramInfo, RunMode, RunStatus,
    Truth,
};

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
            ..InstanceStats::default()
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

/// Two machines of a cluster: a master with pressures, and a worker with GPUs about whose usage nobody knows.
fn cluster() -> (NodeStatus, NodeStats) {
    let machine = |hostname: &str, role: &str| NodeInfo {
        hostname: hostname.into(),
        role: role.into(),
        container_runtime: "containerd://2.0.5".into(),
        labels: [("zone".to_owned(), hostname.to_owned())].into(),
        ..machine()
    };
    let pod = |name: &str, node: &str| InstanceStatus {
        name: name.into(),
        node_name: node.into(),
        status: RunStatus::Running,
        containers: vec![ContainerStatus {
            name: "web".into(),
            state: "Running".into(),
            ..ContainerStatus::default()
        }],
        init_containers: vec![ContainerStatus {
            name: "pre".into(),
            state: "Terminated".into(),
            reason: "Completed".into(),
            restarts: 2,
        }],
        ..InstanceStatus::default()
    };
    let app = AppStatus {
        deploy_type: "daemonset".into(),
        instances: [pod("web-1", "h1"), pod("web-2", "h2"), pod("web-3", "h2")]
            .map(|pod| (pod.name.clone(), pod))
            .into(),
        ..AppStatus::unknown(AppName::new("web").unwrap())
    };
    let status = NodeStatus {
        apps: [(app.name.clone(), app)].into(),
        nodes: [("h1", "master"), ("h2", "worker")]
            .map(|(host, role)| (host.to_owned(), machine(host, role)))
            .into(),
        mode_info: "v1.34.4".into(),
        run_mode: RunMode::Kube,
        ..NodeStatus::default()
    };
    (status, cluster_stats())
}

fn cluster_stats() -> NodeStats {
    let gpu = |name: &str, used, total| ResourceStats {
        name: name.into(),
        used,
        total,
    };
    NodeStats {
        time: None,
        nodes: vec![
            MachineStats {
                hostname: "h1".into(),
                cpu_used: 1.0,
                cpu_total: 4.0,
                memory_pressure: true,
                pid_pressure: true,
                disk_pressure: true,
                network_unavailable: true,
                ..MachineStats::default()
            },
            MachineStats {
                hostname: "h2".into(),
                cpu_total: 8.0,
                memory_total: 1 << 30,
                usage_unknown: true,
                ready: true,
                resources: vec![
                    gpu("gpu.intel.com/i915", 1, 1),
                    gpu("nvidia.com/gpu", 1, 3),
                    gpu("smarter-devices/video", 0, 2),
                ],
                ..MachineStats::default()
            },
        ],
        instances: vec![InstanceStats {
            app: "web".into(),
            instance: "web-2".into(),
            cpu_used: 0.25,
            memory_used: 3 << 20,
            containers: vec![ContainerStats {
                name: "web".into(),
                cpu_used: 0.25,
                memory_used: 3 << 20,
            }],
        }],
    }
}

#[test]
fn of_a_cluster_every_machine_has_facts_figures_and_a_number_of_instances() {
    let (status, stats) = cluster();
    let view = render_v2_report(Some(&status), Some(&stats), &facts(true));
    let node = &view["node"];
    assert_eq!(
        (&node["h1"]["role"], &node["h2"]["role"]),
        (&json!("master"), &json!("worker"))
    );
    assert_eq!(node["h2"]["labels"], json!({"zone": "h2"}));
    assert_eq!(
        node["h2"]["clientIP"], "192.0.2.1",
        "every machine has the address of the link"
    );
    assert_eq!(view["nodeinsnum"], json!({"h1": 1, "h2": 2}));
    assert_eq!(view["modeinfo"], "v1.34.4");
    let pressed = &view["nodestats"]["h1"];
    for word in [
        "memoryPressure",
        "pidPressure",
        "diskPressure",
        "NetworkUnavailable",
    ] {
        assert_eq!(pressed[word], true, "{word}");
        assert_eq!(view["nodestats"]["h2"].get(word), None, "{word}");
    }
    assert_eq!(
        (pressed.get("ready"), &view["nodestats"]["h2"]["ready"]),
        (None, &json!(true))
    );
}

#[test]
fn devices_are_shown_as_kubernetes_names_them_and_gpus_under_the_word_of_v2() {
    let (status, stats) = cluster();
    let view = render_v2_report(Some(&status), Some(&stats), &facts(true));
    let machine = &view["nodestats"]["h2"];
    assert_eq!(
        machine["usage"],
        json!({"gpu": "2", "gpu.intel.com/i915": "1", "nvidia.com/gpu": "1", "smarter-devices/video": "0"}),
        "what nobody knows is not shown as nothing"
    );
    assert_eq!(machine["capacity"]["gpu"], "4");
    assert_eq!(machine["capacity"]["memory"], "1073741824");
    let percent = &machine["percent"];
    assert_eq!(
        (&percent["gpu"], &percent["cpu"]),
        (&json!("0.5"), &json!("0"))
    );
    assert_eq!(view["nodestats"]["h1"]["usage"].get("gpu"), None);
}

#[test]
fn a_container_of_a_pod_has_its_own_state_and_figures() {
    let (status, stats) = cluster();
    let view = render_v2_report(Some(&status), Some(&stats), &facts(true));
    let pods = &view["appstats"][0]["instances"];
    let usage = json!({"cpu": "0.25", "memory": "3145728"});
    assert_eq!(
        pods["web-2"]["containers"],
        json!([{"name": "web", "usage": usage, "state": "Running"}])
    );
    assert_eq!(
        pods["web-2"]["initContainers"],
        json!([{"name": "pre", "state": "Terminated", "reason": "Completed", "restarts": 2}])
    );
    assert_eq!(
        pods["web-1"]["containers"],
        json!([{"name": "web", "state": "Running"}])
    );
}
