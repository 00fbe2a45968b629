//! The runtime is lost and made again.

use std::fs;
use std::process::Command;

use baetyl_runtime_native::spec::RestartPolicy;
use baetyl_runtime_native::status::RunEnd;
use baetyl_runtime_native::{Phase, PortPool, Reason, WorkloadState};
use serde_json::json;

use crate::node::{Node, ended, ident, is_alive, key, kill, one, script, service, with_policy};

#[tokio::test]
async fn a_running_instance_is_found_again_and_not_restarted() {
    let mut node = Node::new().await;
    let spec = service(script("echo start; exec sleep 600"));
    node.runtime().run(spec.clone()).unwrap();
    node.until_logged(&one(), "start\n").await;
    let before = node.until_running().await;
    node.remake().await;
    assert!(is_alive(before.app) && is_alive(before.shim));
    assert!(node.runtime().is_running(&one()));
    node.runtime().run(spec).unwrap();
    let status = node.until_phase(Phase::Running).await;
    assert_eq!(status.process.unwrap(), before);
    assert!(status.adopted && status.ready && status.restarts == 0);
    assert_eq!(
        fs::read_to_string(node.runtime().log_file(&one())).unwrap(),
        "start\n"
    );
    node.runtime().stop(&key("app"), None).await.unwrap();
    assert!(!is_alive(before.app));
}

#[tokio::test]
async fn an_adopted_instance_is_watched() {
    let mut node = Node::new().await;
    let spec = service(script("exec sleep 600"));
    node.runtime().run(spec.clone()).unwrap();
    let before = node.until_running().await;
    node.remake().await;
    node.runtime().run(spec).unwrap();
    node.until_running().await;
    kill(before.app);
    let status = node
        .until_one("a restart", |status| {
            status.restarts == 1 && status.phase == Phase::Running
        })
        .await;
    assert_eq!(status.last_exit.unwrap().end, RunEnd::Signal(9));
    assert!(!status.adopted);
}

#[tokio::test]
async fn dropping_the_runtime_kills_nothing() {
    let node = Node::new().await;
    let (config, spec) = (node.config.clone(), service(script("exec sleep 600")));
    let runtime = baetyl_runtime_native::NativeRuntime::open(
        config,
        tokio_util::sync::CancellationToken::new(),
    )
    .await
    .unwrap();
    runtime.run(spec.clone()).unwrap();
    let mut table = runtime.watch();
    let running = |observed: &std::sync::Arc<baetyl_runtime_native::Observed>| {
        observed.instances.values().any(|status| status.ready)
    };
    let before = table.wait_for(running).await.unwrap().instances[&one()]
        .process
        .clone()
        .unwrap();
    drop(runtime);
    // The senders are in the tasks: when all have ended, nobody is left who could have killed it.
    while table.changed().await.is_ok() {}
    node.runtime().run(spec).unwrap();
    assert_eq!(node.until_running().await, before);
}

#[tokio::test]
async fn an_end_nobody_watched_is_known_from_its_record() {
    let mut node = Node::new().await;
    let spec = with_policy(
        RestartPolicy::OnFailure,
        script(
            "test -f gone && exec sleep 600; while ! test -f go; do sleep 0.01; done; touch gone; exit 9",
        ),
    );
    node.runtime().run(spec.clone()).unwrap();
    let before = node.until_running().await;
    node.lose().await;
    fs::write(node.config.run_dir.join("baetyl-edge/app/1/main/1/go"), "").unwrap();
    ended(before.shim).await;
    node.open().await;
    node.runtime().run(spec).unwrap();
    let status = node
        .until_one("a restart", |status| status.phase == Phase::Running)
        .await;
    assert_eq!(
        (status.last_exit.unwrap().end, status.restarts),
        (RunEnd::Code(9), 1)
    );
}

#[tokio::test]
async fn an_end_for_good_stays_one_and_is_counted_once() {
    let mut node = Node::new().await;
    let spec = with_policy(RestartPolicy::Never, script("echo run; exit 4"));
    for _ in 0..3 {
        node.runtime().run(spec.clone()).unwrap();
        let status = node.until_phase(Phase::Failed).await;
        assert_eq!(status.last_exit.unwrap().end, RunEnd::Code(4));
        node.until("failed", |observed| {
            observed.workloads.get(&key("app")) == Some(&WorkloadState::Failed)
        })
        .await;
        node.remake().await;
    }
    assert_eq!(node.record("history.json")["failures"], 1);
    assert_eq!(
        fs::read_to_string(node.runtime().log_file(&one())).unwrap(),
        "run\n"
    );
}

#[tokio::test]
async fn a_pid_that_is_another_process_by_now_is_neither_adopted_nor_touched() {
    let mut node = Node::new().await;
    let spec = service(script("exec sleep 600"));
    node.runtime().run(spec.clone()).unwrap();
    node.until_running().await;
    node.runtime().stop(&key("app"), None).await.unwrap();
    node.lose().await;
    // As if both pids had been given to somebody else since.
    let mut foreign = Command::new("sleep").arg("600").spawn().unwrap();
    let stranger = ident(foreign.id());
    // Ticks are 10 ms: on a fast machine all three may have started in one.
    let reused = json!({"pid": stranger.pid, "start_ticks": stranger.start_ticks - 1});
    node.rewrite("run.json", |run| {
        run["shim"] = reused.clone();
        run["app"] = reused;
    });
    node.open().await;
    assert!(!node.runtime().is_running(&one()));
    node.runtime().run(spec).unwrap();
    let status = node.until_phase(Phase::Running).await;
    assert!(!status.adopted);
    assert_eq!(
        status.last_exit.unwrap().end,
        RunEnd::Unknown,
        "the record of the end is of another run"
    );
    node.runtime().remove(&key("app"), None).await.unwrap();
    assert!(is_alive(stranger));
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}

#[tokio::test]
async fn after_a_reboot_it_is_started_again_and_that_is_no_failure() {
    let mut node = Node::new().await;
    let spec = service(script("exec sleep 600"));
    node.runtime().run(spec.clone()).unwrap();
    let before = node.until_running().await;
    node.runtime().stop(&key("app"), None).await.unwrap();
    node.lose().await;
    fs::remove_file(
        node.config
            .state_dir
            .join("baetyl-edge/app/1/main/1/exit.json"),
    )
    .unwrap();
    // The same pids in another boot: a process of now is not to be taken for them.
    node.rewrite("run.json", |run| {
        run["boot_id"] = json!("another-boot");
        run["shim"] = json!(ident(std::process::id()));
    });
    node.open().await;
    node.runtime().run(spec).unwrap();
    let status = node.until_phase(Phase::Running).await;
    let exit = status.last_exit.unwrap();
    assert_eq!((exit.end, exit.reason), (RunEnd::Unknown, Reason::Rebooted));
    assert_ne!(status.process.unwrap().app, before.app);
    assert_eq!(node.record("history.json")["failures"], 0);
}

#[tokio::test]
async fn with_all_records_lost_there_are_still_never_two() {
    let mut node = Node::new().await;
    let spec = service(script("exec sleep 600"));
    node.runtime().run(spec.clone()).unwrap();
    let before = node.until_running().await;
    node.lose().await;
    fs::remove_dir_all(&node.config.state_dir).unwrap();
    node.open().await;
    node.runtime().run(spec).unwrap();
    let after = node.until_running().await;
    assert_ne!(after.app, before.app);
    assert!(!is_alive(before.app), "the first copy is found by its mark");
}

#[tokio::test]
async fn what_is_not_supervised_can_be_stopped_and_removed() {
    let mut node = Node::new().await;
    node.runtime()
        .run(service(script("exec sleep 600")))
        .unwrap();
    let before = node.until_running().await;
    node.remake().await;
    node.runtime().remove(&key("app"), None).await.unwrap();
    assert!(!is_alive(before.app) && !is_alive(before.shim));
    assert!(node.runtime().found().await.unwrap().is_empty());
}

#[tokio::test]
async fn ports_stay_with_a_running_instance() {
    let mut node = Node::new().await;
    let port = baetyl_testkit::free_port();
    let pool = PortPool::new(port..=port);
    let ports = pool.assign(&one(), 1, &[], false).unwrap();
    let mut spec = service(script(
        "exec python3 -c 'import socket,time; s=socket.create_server((\"127.0.0.1\", PORT)); print(\"up\", flush=True); time.sleep(600)'"
            .replace("PORT", &ports[0].to_string())
            .as_str(),
    ));
    spec.instances[0].ports = vec![baetyl_runtime_native::spec::InstancePort {
        name: "web".to_owned(),
        declared: 80,
        port: ports[0],
    }];
    node.runtime().run(spec.clone()).unwrap();
    node.until_logged(&one(), "up\n").await;
    node.remake().await;
    // A new engine brings back what it remembers.
    let pool = PortPool::new(port..=port);
    let running = node.runtime().is_running(&one());
    assert_eq!(pool.assign(&one(), 1, &ports, running).unwrap(), ports);
    node.runtime().run(spec).unwrap();
    assert_eq!(
        node.until_phase(Phase::Running).await.ports[0].port,
        ports[0]
    );
}
