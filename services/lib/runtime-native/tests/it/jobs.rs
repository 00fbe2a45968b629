//! Jobs: they end, and stay ended.

use std::fs;
use std::time::Duration;

use baetyl_runtime_native::spec::{Instances as _, WorkloadKind};
use baetyl_runtime_native::{InstanceSpec, Observed, Phase, WorkloadSpec, WorkloadState};

use crate::node::{Node, ended, key, kill, script, service};

fn job(parallelism: u32, backoff_limit: u32, instances: Vec<InstanceSpec>) -> WorkloadSpec {
    WorkloadSpec {
        kind: WorkloadKind::Job {
            parallelism,
            backoff_limit,
        },
        instances,
        ..service(script(""))
    }
}

async fn until_state(node: &Node, state: WorkloadState) -> std::sync::Arc<Observed> {
    node.until(&format!("{state:?}"), |observed| {
        observed.workloads.get(&key("app")) == Some(&state)
    })
    .await
}

fn log(node: &Node, index: u32) -> String {
    fs::read_to_string(node.runtime().log_file(&key("app").instance(index))).unwrap_or_default()
}

#[tokio::test]
async fn a_job_runs_every_instance_once_and_keeps_its_parallelism() {
    let node = Node::new().await;
    // Each marks itself while it runs and counts the marks.
    let shared = node.dir.path().join("marks");
    fs::create_dir(&shared).unwrap();
    let text = format!(
        "cd {}; touch $$; ls | wc -l; sleep 0.05; rm $$",
        shared.display()
    );
    node.runtime()
        .run(job(2, 0, vec![script(&text); 5]))
        .unwrap();
    let observed = until_state(&node, WorkloadState::Succeeded).await;
    assert_eq!(
        observed
            .instances
            .values()
            .filter(|status| status.phase == Phase::Succeeded)
            .count(),
        5
    );
    for index in 1..=5 {
        let at_once: u32 = log(&node, index).trim().parse().unwrap();
        assert!((1..=2).contains(&at_once), "instance {index} saw {at_once}");
    }
}

#[tokio::test]
async fn a_job_is_tried_again_and_succeeds() {
    let node = Node::new().await;
    node.runtime().run(job(1, 2, vec![script("echo try; test -f second && exit 0; test -f first && touch second; touch first; exit 1")])).unwrap();
    let observed = until_state(&node, WorkloadState::Succeeded).await;
    assert_eq!(log(&node, 1), "try\ntry\ntry\n");
    assert_eq!(observed.instances.len(), 1);
}

#[tokio::test]
async fn a_job_that_fails_too_often_failed_and_its_others_are_ended() {
    let node = Node::new().await;
    node.runtime()
        .run(job(
            2,
            1,
            vec![script("echo try; exit 3"), script("exec sleep 600")],
        ))
        .unwrap();
    let observed = until_state(&node, WorkloadState::Failed).await;
    let phases: Vec<Phase> = observed
        .instances
        .values()
        .map(|status| status.phase)
        .collect();
    assert_eq!(phases, [Phase::Failed, Phase::Stopped]);
    assert_eq!(log(&node, 1), "try\ntry\n");
}

#[tokio::test]
async fn an_ended_job_is_not_run_again_by_a_new_runtime() {
    let mut node = Node::new().await;
    let good = job(1, 0, vec![script("echo run"), script("echo run")]);
    node.runtime().run(good.clone()).unwrap();
    until_state(&node, WorkloadState::Succeeded).await;
    node.remake().await;
    node.runtime().run(good).unwrap();
    until_state(&node, WorkloadState::Succeeded).await;
    assert_eq!(
        (log(&node, 1).as_str(), log(&node, 2).as_str()),
        ("run\n", "run\n")
    );
}

#[tokio::test]
async fn a_failed_job_stays_failed_for_a_new_runtime() {
    let mut node = Node::new().await;
    let bad = job(1, 1, vec![script("echo run; exit 1")]);
    node.runtime().run(bad.clone()).unwrap();
    until_state(&node, WorkloadState::Failed).await;
    node.remake().await;
    node.runtime().run(bad).unwrap();
    until_state(&node, WorkloadState::Failed).await;
    assert_eq!(log(&node, 1), "run\nrun\n");
}

#[tokio::test]
async fn a_job_that_was_killed_with_the_runtime_is_tried_again_at_once() {
    let mut node = Node::with(|config| {
        config.backoff.initial = Duration::from_secs(3600);
        config.backoff.max = Duration::from_secs(3600);
    })
    .await;
    let text = "test -f second && exit 0; touch second; exec sleep 600";
    let spec = job(1, 1, vec![script(text)]);
    node.runtime().run(spec.clone()).unwrap();
    let marked = node.runtime().instance_dir(&key("app").instance(1));
    let run = node.until_running().await;
    node.lose().await;
    fs::write(marked.join("second"), "").unwrap();
    kill(run.shim);
    kill(run.app);
    ended(run.shim).await;
    ended(run.app).await;
    node.open().await;
    node.runtime().run(spec).unwrap();
    until_state(&node, WorkloadState::Succeeded).await;
}

#[tokio::test]
async fn a_running_job_is_found_again_and_ends() {
    let mut node = Node::new().await;
    let spec = job(
        1,
        0,
        vec![script("echo run; while ! test -f go; do sleep 0.01; done")],
    );
    node.runtime().run(spec.clone()).unwrap();
    let before = node.until_running().await;
    node.remake().await;
    node.runtime().run(spec).unwrap();
    assert_eq!(node.until_running().await, before);
    fs::write(
        node.runtime()
            .instance_dir(&key("app").instance(1))
            .join("go"),
        "",
    )
    .unwrap();
    until_state(&node, WorkloadState::Succeeded).await;
    assert_eq!(log(&node, 1), "run\n");
}
