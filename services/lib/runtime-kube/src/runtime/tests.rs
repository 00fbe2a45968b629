use baetyl_testkit::eventually;
use std::time::Duration;

use baetyl_model::workload::Observed;
use serde_json::json;
use tokio::time::Instant;

use crate::testing::{Fake, Reply, labels, list};

/// Thirteen in each namespace of ours, and the machines.
const WATCHES: usize = 2 * 13 + 1;

async fn until(
    observed: &mut tokio::sync::watch::Receiver<std::sync::Arc<Observed>>,
    holds: impl FnMut(&std::sync::Arc<Observed>) -> bool,
) {
    let seen = tokio::time::timeout(Duration::from_secs(3600), observed.wait_for(holds)).await;
    assert!(seen.is_ok_and(|seen| seen.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn nobody_can_tell_until_everything_was_listed() {
    let fake = Fake::default();
    fake.rule(3, |asked| {
        asked.path.ends_with("/jobs").then_some(Reply::Break)
    });
    fake.set(
        &list("Pod"),
        json!({"metadata": {"name": "web-1", "namespace": "baetyl-edge", "labels": labels("web", "1")}, "status": {"phase": "Pending"}}),
    );
    let runtime = fake.runtime();
    let mut observed = runtime.watch();
    assert!(observed.borrow().unknown.is_some());
    until(&mut observed, |seen| !seen.workloads.is_empty()).await;
    let unknown = observed.borrow().unknown.clone().unwrap();
    assert!(
        unknown.contains("connection reset by peer") || unknown.contains("which jobs there are"),
        "{unknown}"
    );
    until(&mut observed, |seen| seen.unknown.is_none()).await;
    assert_eq!(observed.borrow().workloads.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_answering_makes_everything_unknown_and_keeps_what_was_seen() {
    let fake = Fake::default();
    fake.set(
        &list("Deployment"),
        json!({"metadata": {"name": "web", "namespace": "baetyl-edge", "labels": labels("web", "1")}, "spec": {"replicas": 1}}),
    );
    let runtime = fake.seeing().await;
    let mut observed = runtime.watch();
    let began = Instant::now();
    fake.freeze(true);
    until(&mut observed, |seen| seen.unknown.is_some()).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(observed.borrow().workloads.len(), 1);
    fake.freeze(false);
    until(&mut observed, |seen| seen.unknown.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_short_break_is_not_told_of() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    let mut observed = runtime.watch();
    observed.mark_unchanged();
    fake.rule(WATCHES - 1, |asked| {
        asked.is_watch().then_some(Reply::Break)
    });
    fake.end_watches();
    let watches = || fake.asked().iter().filter(|asked| asked.is_watch()).count();
    // Each of them broke and stands again.
    eventually!(watches() >= 2 * WATCHES && fake.watches() == WATCHES);
    assert!(!observed.has_changed().unwrap());
    assert_eq!(fake.watches(), WATCHES);
}

#[tokio::test(start_paused = true)]
async fn an_idle_cluster_costs_fewer_than_six_requests_a_minute() {
    let fake = Fake::default();
    let _runtime = fake.seeing().await;
    eventually!(fake.watches() == WATCHES);
    fake.forget_asked();
    let began = Instant::now();
    let twice = async || fake.asked().len() >= 2 * WATCHES;
    baetyl_testkit::eventually(Duration::from_secs(3600), "each is asked for twice", twice).await;
    let minutes = began.elapsed().as_secs() / 60;
    let asked = fake.asked();
    let times: Vec<u64> = asked
        .iter()
        .filter(|asked| asked.is_watch())
        .map(|asked| asked.query["timeoutSeconds"].parse().unwrap())
        .collect();
    assert!(
        times.iter().all(|time| (300..=486).contains(time)),
        "{times:?}"
    );
    assert!(asked.iter().all(crate::testing::Asked::is_watch));
    // The more watches there are, the longer each lasts.
    let most = usize::try_from(minutes * 6).unwrap();
    assert!(
        asked.len() <= most,
        "{} requests in {minutes} minutes",
        asked.len()
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_any_more_once_the_last_clone_is_gone() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    let other = runtime.clone();
    drop(runtime);
    fake.set(
        &list("Deployment"),
        json!({"metadata": {"name": "web", "namespace": "baetyl-edge", "labels": labels("web", "1")}, "spec": {"replicas": 1}}),
    );
    // The other one still sees what happens.
    until(&mut other.watch(), |seen| seen.workloads.len() == 1).await;
    assert_eq!(fake.watches(), WATCHES);
    drop(other);
    eventually!(fake.watches() == 0);
}

#[tokio::test(start_paused = true)]
async fn the_version_is_asked_for_again_after_the_server_was_away() {
    let fake = Fake::default();
    fake.rule(1, |asked| {
        let version = json!({"gitVersion": "v1.34.4"});
        (asked.path == "/version").then_some(Reply::Say(200, version))
    });
    fake.rule(1, |asked| {
        let version = json!({"gitVersion": "v1.35.0"});
        (asked.path == "/version").then_some(Reply::Say(200, version))
    });
    let runtime = fake.seeing().await;
    let mut version = runtime.version();
    version
        .wait_for(|version| &**version == "v1.34.4")
        .await
        .unwrap();
    let mut observed = runtime.watch();
    fake.freeze(true);
    until(&mut observed, |seen| seen.unknown.is_some()).await;
    fake.freeze(false);
    version
        .wait_for(|version| &**version == "v1.35.0")
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_yaml_application_is_not_ready_while_pods_of_its_older_template_serve() {
    let fake = Fake::default();
    let inventory = json!({"metadata": {
        "name": "baetyl-inventory-shop", "namespace": "baetyl-edge",
        "labels": {"app.kubernetes.io/managed-by": "baetyl", "baetyl-app-name": "shop", "baetyl-app-version": "2", "baetyl.io/inventory": "true"},
    }, "data": {"2": "apps/v1 Deployment baetyl-edge\nv1 Service baetyl-edge\n"}});
    fake.set(&list("ConfigMap"), inventory);
    let pod = json!({"metadata": {
        "name": "shop-old-1", "namespace": "baetyl-edge", "labels": {"baetyl-app-name": "shop"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "shop-old", "controller": true}],
    }, "spec": {"containers": [{"name": "main"}]},
    "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    fake.set(&list("Pod"), pod);
    let deployment = |updated: u32, replicas: u32| {
        json!({
            "metadata": {"name": "shop", "namespace": "baetyl-edge", "generation": 2, "labels": labels("shop", "2")},
            "spec": {"replicas": 1},
            "status": {"observedGeneration": 2, "updatedReplicas": updated, "replicas": replicas},
        })
    };
    let runtime = fake.seeing().await;
    let mut observed = runtime.watch();
    let lacks = |seen: &baetyl_model::workload::Observed| -> Option<bool> {
        let (_, workload) = seen
            .workloads
            .iter()
            .find(|(key, _)| key.app.as_str() == "shop")?;
        let ready = workload
            .instances
            .iter()
            .filter(|one| one.status.ready)
            .count();
        Some(ready < usize::try_from(workload.wanted?).ok()?)
    };
    // Applied, and the Deployment not seen yet.
    until(&mut observed, |seen| lacks(seen) == Some(true)).await;
    fake.set(&list("Deployment"), deployment(1, 2));
    until(&mut observed, |seen| {
        seen.workloads.values().any(|one| one.wanted == Some(2))
    })
    .await;
    fake.set(&list("Deployment"), deployment(1, 1));
    until(&mut observed, |seen| lacks(seen) == Some(false)).await;
}
