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
                "capacity": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"},
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

fn with_kubelet(fake: &Fake) {
    says(
        fake,
        "/api/v1/nodes/edge1/proxy/stats/summary",
        json!({
            "node": {
                "nodeName": "edge1", "startTime": "2026-01-01T00:00:00Z",
                "cpu": {"time": "2026-01-01T01:00:00Z", "usageNanoCores": 2_000_000_000_u64},
                "memory": {"workingSetBytes": 3000}, "fs": {"capacityBytes": 1000, "usedBytes": 400},
                "network": {"interfaces": [
                    {"name": "eth0", "rxBytes": 100, "txBytes": 50}, {"name": "veth1", "rxBytes": 7, "txBytes": 7},
                ]},
            },
            "pods": [{"podRef": {"name": "web-1", "namespace": "baetyl-edge"}, "cpu": {"usageNanoCores": 5_000_000}, "memory": {"workingSetBytes": 42}}],
        }),
    );
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
    with_kubelet(&fake);
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
    with_kubelet(&fake);
    let runtime = fake.seeing().await;
    assert_eq!(runtime.usage().await.values().next().unwrap().memory, 42);
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
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.forget_asked();
    for _ in 0..20 {
        assert!(runtime.usage().await.is_empty());
        let machine = &runtime.machine_stats().await[0];
        assert!(machine.ready && machine.memory_total > 0);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let asked = fake.asked().into_iter().filter(|asked| !asked.is_watch());
    assert_eq!(asked.count(), 2, "each source once in five minutes");
}
