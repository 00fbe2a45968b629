//! Strategies: any value of the domain.

use baetyl_model::Digest;
use baetyl_model::desire::{
    AppRef, Desire, DesiredApp, DesiredCore, Header, ObjectRef, ResourceRef, Unpack,
};
use baetyl_model::jiff::Timestamp;
use baetyl_model::name::{
    AppName, ConfigKey, Epoch, Generation, Kind, Namespace, NodeName, NodeUid, ResourceName,
    Version,
};
use baetyl_model::report::{
    AppStatus, Condition, ContainerStats, ContainerStatus, DiskStats, FailedVersion, InstancePort,
    InstanceStats, InstanceStatus, MachineStats, NetworkStats, NodeInfo, NodeStats, NodeStatus,
    Phase, ProgramInfo, ResourceStats, RunMode, RunStatus, Truth,
};
use proptest::prelude::*;

use crate::digest;

pub(super) fn any_digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_sha256)
}

pub(super) fn any_version() -> impl Strategy<Value = Version> {
    (1u64..1000).prop_map(|number| Version::new(number.to_string()).unwrap())
}

pub(super) fn any_name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,8}[a-z0-9]"
}

pub(super) fn any_time() -> impl Strategy<Value = Option<Timestamp>> {
    proptest::option::of(
        (-5_000_000_000i64..5_000_000_000, 0i32..1_000_000_000).prop_map(|(second, nano)| {
            Timestamp::new(second, if second < 0 { -nano } else { nano }).unwrap()
        }),
    )
}

pub(super) fn any_reference() -> impl Strategy<Value = ResourceRef> {
    let kind = prop_oneof![
        Just(Kind::Application),
        Just(Kind::Configuration),
        Just(Kind::Secret)
    ];
    (kind, any_name(), any_version(), any_digest(), any::<u64>()).prop_map(
        |(kind, name, version, digest, size)| {
            let name = ResourceName::new(name).unwrap();
            ResourceRef {
                kind,
                name,
                version,
                digest,
                size,
            }
        },
    )
}

pub(super) fn any_object() -> impl Strategy<Value = ObjectRef> {
    let unpack = prop_oneof![
        Just(Unpack::None),
        Just(Unpack::Zip),
        Just(Unpack::Tar),
        Just(Unpack::Tgz)
    ];
    let url = proptest::option::of("https://[a-z]{1,9}/x".prop_map(String::from));
    (
        any_digest(),
        any::<u64>(),
        url,
        any_name(),
        any_version(),
        "[a-z]{1,5}\\.zip",
        unpack,
    )
        .prop_map(
            |(digest, size, url, configuration, configuration_version, file, unpack)| ObjectRef {
                digest,
                size,
                url,
                configuration: ResourceName::new(configuration).unwrap(),
                configuration_version,
                file_name: ConfigKey::new(file).unwrap(),
                unpack,
            },
        )
}

pub(super) fn any_properties() -> impl Strategy<Value = std::collections::BTreeMap<String, String>>
{
    prop::collection::btree_map("[a-z]{1,4}", "\\PC{0,8}", 0..4)
}

pub(super) fn any_desire() -> impl Strategy<Value = Desire> {
    let app = (
        any_version(),
        any_digest(),
        prop::collection::vec(any_reference(), 0..3),
        prop::collection::vec(any_object(), 0..3),
        any::<bool>(),
    );
    let apps = prop::collection::btree_map(any_name(), app, 0..4);
    let core = prop::option::of(any_name().prop_map(|class| DesiredCore {
        version: "0.2.0".into(),
        class,
        registry: "registry:5000/baetyl".into(),
    }));
    (any::<u64>(), any::<u64>(), apps, any_properties(), core).prop_map(
        |(epoch, generation, apps, node_properties, core)| {
            let app = |(name, (version, digest, resources, objects, system))| DesiredApp {
                app: AppRef {
                    name: AppName::new(name as String).unwrap(),
                    version,
                    digest,
                    size: 1,
                },
                resources,
                objects,
                system,
            };
            digest::complete_desire(Desire {
                namespace: Namespace::new("default").unwrap(),
                node_name: NodeName::new("n1").unwrap(),
                node_uid: NodeUid::new("u1").unwrap(),
                epoch: Epoch(epoch),
                generation: Generation(generation),
                digest: Digest::from_sha256([0; 32]),
                apps: apps.into_iter().map(app).collect(),
                node_properties,
                core,
            })
        },
    )
}

pub(super) fn any_condition() -> impl Strategy<Value = Condition> {
    let truth = prop_oneof![Just(Truth::True), Just(Truth::False), Just(Truth::Unknown)];
    (
        "[A-Z][a-z]{1,5}",
        truth,
        "\\PC{0,9}",
        any::<u64>(),
        any_time(),
    )
        .prop_map(
            |(kind, status, message, generation, last_transition)| Condition {
                kind,
                status,
                reason: "Because".into(),
                message,
                observed_generation: Generation(generation),
                last_transition,
            },
        )
}

pub(super) fn any_run_status() -> impl Strategy<Value = RunStatus> {
    prop_oneof![
        Just(RunStatus::Pending),
        Just(RunStatus::Failed),
        Just(RunStatus::Running),
        Just(RunStatus::Succeeded),
        Just(RunStatus::Unknown),
    ]
}

pub(super) fn any_instance() -> impl Strategy<Value = InstanceStatus> {
    let port = (any::<u16>(), any::<u16>()).prop_map(|(container_port, port)| InstancePort {
        name: "http".into(),
        container_port,
        port,
        protocol: "TCP".into(),
    });
    let container = || {
        (any_name(), any::<u32>()).prop_map(|(name, restarts)| ContainerStatus {
            name,
            state: "Running".into(),
            reason: String::new(),
            restarts,
        })
    };
    let parts = (
        prop::collection::vec(port, 0..3),
        prop::collection::vec(container(), 0..2),
        prop::collection::vec(container(), 0..2),
    );
    (
        any_name(),
        any_run_status(),
        any::<u64>(),
        any_time(),
        any::<u32>(),
        parts,
        any::<bool>(),
    )
        .prop_map(
            |(name, status, pid, start_time, restarts, parts, ready)| InstanceStatus {
                service: format!("{name}-s"),
                name,
                status,
                cause: "c".into(),
                ip: "127.0.0.1".into(),
                node_name: "h1".into(),
                pid,
                start_time,
                restarts,
                ports: parts.0,
                containers: parts.1,
                init_containers: parts.2,
                ready,
            },
        )
}

pub(super) fn any_app_status() -> impl Strategy<Value = AppStatus> {
    let phase = prop_oneof![
        Just(Phase::Staging),
        Just(Phase::Applying),
        Just(Phase::Probing),
        Just(Phase::Healthy),
        Just(Phase::RolledBack),
        Just(Phase::Failed),
    ];
    let failed = (any_version(), "\\PC{1,9}")
        .prop_map(|(version, reason)| FailedVersion { version, reason });
    (
        any_name(),
        proptest::option::of(any_version()),
        any_run_status(),
        proptest::option::of(phase),
        proptest::option::of(failed),
        prop::collection::vec(any_condition(), 0..3),
        prop::collection::vec(any_instance(), 0..3),
        any::<bool>(),
    )
        .prop_map(
            |(name, version, status, phase, failed, conditions, instances, system)| AppStatus {
                name: AppName::new(name).unwrap(),
                version,
                deploy_type: "deployment".into(),
                status,
                cause: "c".into(),
                observed_generation: Generation(3),
                phase,
                failed,
                conditions,
                instances: instances
                    .into_iter()
                    .map(|it| (it.name.clone(), it))
                    .collect(),
                system,
            },
        )
}

pub(super) fn any_status() -> impl Strategy<Value = NodeStatus> {
    let observed =
        (any::<u64>(), any::<u64>(), any_digest()).prop_map(|(epoch, generation, digest)| Header {
            node_uid: NodeUid::new("u1").unwrap(),
            epoch: Epoch(epoch),
            generation: Generation(generation),
            digest,
        });
    let info = any_name().prop_map(|hostname| NodeInfo {
        hostname,
        address: "10.0.0.1,10.0.0.2".into(),
        arch: "arm".into(),
        variant: "v7".into(),
        os: "linux".into(),
        kernel_version: "6".into(),
        os_image: "o".into(),
        container_runtime: "c".into(),
        machine_id: "m".into(),
        boot_id: "b".into(),
        system_uuid: "s".into(),
        role: "master".into(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        host_id: "h".into(),
    });
    (
        proptest::option::of(observed),
        prop::collection::vec(any_condition(), 0..3),
        prop::collection::vec(any_app_status(), 0..3),
        any_properties(),
        prop::collection::vec(info, 0..2),
        any::<bool>(),
    )
        .prop_map(
            |(observed, conditions, apps, properties, nodes, kube)| NodeStatus {
                observed,
                conditions,
                apps: apps
                    .into_iter()
                    .map(|app| (app.name.clone(), app))
                    .collect(),
                properties,
                nodes: nodes
                    .into_iter()
                    .map(|node| (node.hostname.clone(), node))
                    .collect(),
                core: ProgramInfo {
                    name: "baetyl-engine".into(),
                    version: "0.1.0".into(),
                    arch: "amd64".into(),
                    os: "linux".into(),
                    variant: "v3".into(),
                },
                mode_info: "v1.34".into(),
                run_mode: if kube { RunMode::Kube } else { RunMode::Native },
            },
        )
}

fn any_machine() -> impl Strategy<Value = MachineStats> {
    let disk =
        (any_name(), any::<u64>(), any::<u64>()).prop_map(|(mount_point, used, total)| DiskStats {
            mount_point,
            used,
            total,
        });
    (
        0.0..64.0f64,
        any::<u64>(),
        prop::collection::vec(disk, 0..3),
        any::<bool>(),
    )
        .prop_map(|(cpu_used, memory_used, disks, flag)| MachineStats {
            hostname: "h1".into(),
            cpu_used,
            cpu_total: 4.0,
            memory_used,
            memory_total: 9,
            disks,
            network: NetworkStats {
                bytes_sent: 1,
                bytes_received: 2,
                packets_sent: 3,
                packets_received: 4,
            },
            disk_pressure: flag,
            memory_pressure: !flag,
            pid_pressure: flag,
            ready: !flag,
            uptime_seconds: 7,
            network_unavailable: flag,
            resources: vec![ResourceStats {
                name: "nvidia.com/gpu".into(),
                used: 1,
                total: memory_used,
            }],
            usage_unknown: !flag,
        })
}

pub(super) fn any_stats() -> impl Strategy<Value = NodeStats> {
    let instance =
        (any_name(), 0.0..64.0f64, any::<u64>()).prop_map(|(instance, cpu_used, memory_used)| {
            InstanceStats {
                app: "web".into(),
                instance,
                cpu_used,
                memory_used,
                containers: vec![ContainerStats {
                    name: "web".into(),
                    cpu_used,
                    memory_used,
                }],
            }
        });
    (
        any_time(),
        prop::collection::vec(any_machine(), 0..2),
        prop::collection::vec(instance, 0..3),
    )
        .prop_map(|(time, nodes, instances)| NodeStats {
            time,
            nodes,
            instances,
        })
}
