use std::time::Duration;

use serde_json::{Value, json};

use crate::testing::{Fake, Reply, labels, list};

fn cluster() -> Fake {
    let fake = Fake::default();
    fake.set(
        "/api/v1/nodes",
        json!({
            "metadata": {"name": "edge1"},
            "status": {
                "addresses": [{"type": "Hostname", "address": "edge1"}, {"type": "InternalIP", "address": "10.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                "capacity": {
                    "cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "2", "example.com/tpu": "4", "hugepages-2Mi": "0",
                    "attachable-volumes.kubernetes.io/x": "5",
                },
                "allocatable": {"cpu": "4", "memory": "7Gi", "nvidia.com/gpu": "1", "example.com/tpu": "4"},
                "conditions": [
                    {"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"},
                    {"type": "MemoryPressure", "status": "False"}, {"type": "PIDPressure", "status": "False"},
                ],
            },
        }),
    );
    fake.set(
        &list("Pod"),
        json!({"metadata": {"name": "web-1", "namespace": "baetyl-edge", "labels": labels("web", "1")}, "status": {"phase": "Running"}}),
    );
    fake
}

fn says(fake: &Fake, path: &'static str, value: Value) {
    fake.rule(usize::MAX, move |asked| {
        (asked.path == path).then(|| Reply::Say(200, value.clone()))
    });
}

fn with_metrics(fake: &Fake) {
    says(
        fake,
        "/apis/metrics.k8s.io/v1beta1/nodes",
        json!({"items": [{"metadata": {"name": "edge1"}, "usage": {"cpu": "1500m", "memory": "1Gi"}}]}),
    );
    says(
        fake,
        "/apis/metrics.k8s.io/v1beta1/namespaces/baetyl-edge/pods",
        json!({"items": [
            {"metadata": {"name": "web-1", "namespace": "baetyl-edge"}, "containers": [
                {"name": "a", "usage": {"cpu": "3241918n", "memory": "1526Ki"}},
                {"name": "b", "usage": {"cpu": "10m", "memory": "1Mi"}},
            ]},
            {"metadata": {"name": "foreign", "namespace": "baetyl-edge"}, "containers": []},
        ]}),
    );
    says(
        fake,
        "/apis/metrics.k8s.io/v1beta1/namespaces/baetyl-edge-system/pods",
        json!({"items": []}),
    );
}

const KUBELET: &str = "https://10.0.0.1:10250/stats/summary";
const PROXY: &str = "/api/v1/nodes/edge1/proxy/stats/summary";

fn with_kubelet(fake: &Fake, at: &'static str) {
    says(fake, at, summary(100, 50));
}

fn summary(received: u64, sent: u64) -> Value {
    json!({
        "node": {
            "nodeName": "edge1", "startTime": "2026-01-01T00:00:00Z",
            "cpu": {"time": "2026-01-01T01:00:00Z", "usageNanoCores": 2_000_000_000_u64},
            "memory": {"workingSetBytes": 3000}, "fs": {"capacityBytes": 1000, "usedBytes": 400},
            "network": {"interfaces": [
                {"name": "eth0", "rxBytes": received, "txBytes": sent}, {"name": "veth1", "rxBytes": 7, "txBytes": 7},
            ]},
        },
        "pods": [{
            "podRef": {"name": "web-1", "namespace": "baetyl-edge"}, "cpu": {"usageNanoCores": 5_000_000}, "memory": {"workingSetBytes": 42},
            "containers": [
                {"name": "b", "cpu": {"usageNanoCores": 1_000_000}, "memory": {"workingSetBytes": 30}},
                {"name": "a", "cpu": {"usageNanoCores": 4_000_000}, "memory": {"workingSetBytes": 10}},
            ],
        }],
    })
}

#[tokio::test(start_paused = true)]
async fn the_metrics_api_tells_of_pods_and_machines() {
    let fake = cluster();
    with_metrics(&fake);
    let runtime = fake.seeing().await;
    let usage = runtime.usage().await;
    assert_eq!(usage.len(), 1);
    let (id, usage) = usage.first_key_value().unwrap();
    assert_eq!(id.name, "web-1");
    assert!((usage.cpu - 0.013_241_918).abs() < 1e-9, "{}", usage.cpu);
    assert_eq!(usage.memory, 1526 * 1024 + 1024 * 1024);
    let containers = usage.containers.iter();
    let containers: Vec<_> = containers
        .map(|one| (&*one.name, one.memory_used))
        .collect();
    assert_eq!(containers, [("a", 1526 * 1024), ("b", 1024 * 1024)]);
    let machine = &runtime.machine_stats().await[0];
    assert_eq!(machine.hostname, "edge1");
    assert!((machine.cpu_used - 1.5).abs() < 1e-9);
    assert!((machine.cpu_total - 4.0).abs() < 1e-9);
    assert_eq!(
        (machine.memory_used, machine.memory_total),
        (1 << 30, 8 << 30)
    );
    assert!(
        machine.ready && machine.disk_pressure && !machine.memory_pressure && !machine.pid_pressure
    );
    assert!(machine.disks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_kubelet_tells_what_the_metrics_api_does_not() {
    let fake = cluster();
    with_metrics(&fake);
    with_kubelet(&fake, KUBELET);
    let runtime = fake.seeing().await;
    let machine = &runtime.machine_stats().await[0];
    assert!((machine.cpu_used - 1.5).abs() < 1e-9, "of the metrics API");
    assert_eq!((machine.disks[0].used, machine.disks[0].total), (400, 1000));
    assert_eq!(machine.uptime_seconds, 3600);
    assert_eq!(
        machine.network.bytes_received, 0,
        "nothing to compare with yet"
    );
    let usage = runtime.usage().await;
    assert_eq!(
        usage.values().next().unwrap().memory,
        1526 * 1024 + 1024 * 1024
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_metrics_api_the_kubelet_tells_all() {
    let fake = cluster();
    with_kubelet(&fake, KUBELET);
    let runtime = fake.seeing().await;
    let usage = runtime.usage().await.into_values().next().unwrap();
    assert_eq!(usage.memory, 42);
    assert_eq!(
        (&*usage.containers[0].name, usage.containers[0].memory_used),
        ("a", 10)
    );
    let machine = &runtime.machine_stats().await[0];
    assert!((machine.cpu_used - 2.0).abs() < 1e-9);
    assert_eq!(machine.memory_used, 3000);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_not_asked_for_all_the_time() {
    let fake = cluster();
    fake.rule(usize::MAX, |asked| {
        let message = "nodes \"edge1\" is forbidden: User cannot get resource nodes/proxy";
        asked
            .path
            .contains("/proxy/")
            .then_some(Reply::Refuse(403, message, None))
    });
    let runtime = fake.seeing().await;
    // On a paused clock: what is asked for at the beginning is over then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.forget_asked();
    for _ in 0..20 {
        assert!(runtime.usage().await.is_empty());
        let machine = &runtime.machine_stats().await[0];
        assert!(machine.ready && machine.memory_total > 0);
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    let asked = fake.asked().into_iter().filter(|asked| !asked.is_watch());
    assert_eq!(asked.count(), 3, "each source once in five minutes");
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_nobody_vouches_for_is_asked_through_the_api_server() {
    let fake = cluster();
    with_kubelet(&fake, PROXY);
    fake.rule(usize::MAX, |asked| {
        asked.path.starts_with("https://").then_some(Reply::Break)
    });
    let runtime = fake.seeing().await;
    for _ in 0..10 {
        let machine = &runtime.machine_stats().await[0];
        assert_eq!((machine.disks[0].used, machine.uptime_seconds), (400, 3600));
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    let asked = fake.asked().into_iter();
    let asked = asked.filter(|asked| asked.path.starts_with("https://"));
    assert_eq!(asked.count(), 2, "once a minute");
}

#[tokio::test(start_paused = true)]
async fn the_network_of_a_machine_is_told_as_what_it_carried_since_the_last_figures() {
    let fake = cluster();
    let readings = [(100, 50), (160, 70), (10, 5)];
    for (received, sent) in readings {
        fake.rule(1, move |asked| {
            (asked.path == KUBELET).then(|| Reply::Say(200, summary(received, sent)))
        });
    }
    let runtime = fake.seeing().await;
    // What came before the first reading is nobody's; after the last but one the machine was started anew.
    for (received, sent) in [(0, 0), (60, 20), (10, 5)] {
        let network = runtime.machine_stats().await[0].network;
        assert_eq!(
            (network.bytes_received, network.bytes_sent),
            (received, sent)
        );
        tokio::time::advance(Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_device_plugins_offer_is_told_with_what_pods_have_of_it() {
    let fake = cluster();
    let pod = |name: &str, phase: &str, containers: Value, init: Value| {
        json!({
            "metadata": {"name": name, "namespace": "baetyl-edge", "labels": labels("web", "1")},
            "spec": {"nodeName": "edge1", "containers": containers, "initContainers": init},
            "status": {"phase": phase},
        })
    };
    let asks = |tpus: &str| json!({"name": "c", "resources": {"requests": {"cpu": "1", "example.com/tpu": tpus}}});
    for pod in [
        pod(
            "one",
            "Running",
            json!([asks("1"), asks("1")]),
            json!([asks("1")]),
        ),
        pod("two", "Pending", json!([{"name": "c"}]), json!([asks("1")])),
        pod("three", "Succeeded", json!([asks("4")]), json!([])),
    ] {
        fake.set(&list("Pod"), pod);
    }
    let runtime = fake.seeing().await;
    let machine = &runtime.machine_stats().await[0];
    let resources = machine.resources.iter();
    let resources: Vec<_> = resources
        .map(|one| (&*one.name, one.used, one.total))
        .collect();
    assert_eq!(
        resources,
        [("example.com/tpu", 3, 4), ("nvidia.com/gpu", 0, 1)],
        "one of the two GPUs is broken"
    );
}
