//! How instances end, and what follows.

use std::fs;
use std::time::Duration;

use baetyl_runtime_native::spec::{Content, FileSpec, Program, RestartPolicy};
use baetyl_runtime_native::status::RunEnd;
use baetyl_runtime_native::{InstanceSpec, Phase, Reason, WorkloadState};

use crate::node::{Node, ident, is_alive, key, kill, one, script, service, with_policy};

#[tokio::test]
async fn a_killed_application_is_started_again_after_a_waiting_time() {
    let node = Node::new().await;
    node.runtime()
        .run(service(script("exec sleep 600")))
        .unwrap();
    let before = node.until_running().await;
    kill(before.app);
    let status = node
        .until_one("a restart", |status| {
            status.restarts == 1 && status.phase == Phase::Running
        })
        .await;
    let exit = status.last_exit.unwrap();
    assert_eq!((exit.end, exit.reason), (RunEnd::Signal(9), Reason::Killed));
    assert!(exit.at_ms.is_some());
    assert_ne!(status.process.unwrap().app, before.app);
}

#[tokio::test]
async fn while_it_waits_it_says_so_and_can_be_stopped() {
    let node = Node::with(|config| config.backoff.initial = Duration::from_secs(3600)).await;
    node.runtime().run(service(script("exit 6"))).unwrap();
    let status = node.until_phase(Phase::Backoff).await;
    assert_eq!(
        (status.reason, status.message.as_str()),
        (Some(Reason::Exited), "it ended with exit code 6")
    );
    assert_eq!((status.process, status.ready), (None, false));
    node.runtime().stop(&key("app"), None).await.unwrap();
}

#[tokio::test]
async fn a_killed_shim_makes_the_end_unknown_and_never_two_copies() {
    let node = Node::new().await;
    // Its child leaves the group and the session, as a daemon does.
    let text = "setsid sleep 600 & echo child $!; exec sleep 601";
    node.runtime().run(service(script(text))).unwrap();
    let before = node.until_running().await;
    let log = node.until_logged(&one(), "child ").await;
    let child = ident(log.split_whitespace().nth(1).unwrap().parse().unwrap());
    kill(before.shim);
    let status = node
        .until_one("a restart", |status| {
            status.restarts == 1 && status.phase == Phase::Running
        })
        .await;
    let exit = status.last_exit.unwrap();
    assert_eq!((exit.end, exit.reason), (RunEnd::Unknown, Reason::ShimLost));
    assert!(!is_alive(before.app) && !is_alive(child));
    assert_ne!(status.process.unwrap().app, before.app);
}

#[tokio::test]
async fn a_killed_shim_is_never_a_success() {
    let node = Node::new().await;
    node.runtime()
        .run(with_policy(RestartPolicy::Never, script("exec sleep 600")))
        .unwrap();
    let run = node.until_running().await;
    kill(run.shim);
    let status = node.until_phase(Phase::Failed).await;
    assert_eq!(status.reason, Some(Reason::ShimLost));
    assert!(!is_alive(run.app));
}

#[tokio::test]
async fn what_an_application_leaves_behind_ends_with_it() {
    let node = Node::new().await;
    let text = "setsid sleep 600 & echo child $!; exit 0";
    node.runtime()
        .run(with_policy(RestartPolicy::Never, script(text)))
        .unwrap();
    node.until_phase(Phase::Succeeded).await;
    let log = fs::read_to_string(node.runtime().log_file(&one())).unwrap();
    let child: u32 = log.split_whitespace().nth(1).unwrap().parse().unwrap();
    let environ = fs::read(format!("/proc/{child}/environ")).unwrap_or_default();
    assert!(
        !String::from_utf8_lossy(&environ).contains("BAETYL_INSTANCE_DIR"),
        "{child} lives"
    );
}

#[tokio::test]
async fn the_record_of_an_end_tells_how_and_when_and_in_which_boot() {
    let node = Node::new().await;
    node.runtime()
        .run(with_policy(RestartPolicy::Never, script("exit 7")))
        .unwrap();
    let status = node.until_phase(Phase::Failed).await;
    let exit = status.last_exit.unwrap();
    assert_eq!(
        (exit.end, exit.message.as_str()),
        (RunEnd::Code(7), "it ended with exit code 7")
    );
    let record = node.record("exit.json");
    assert_eq!(record["code"], 7);
    assert_eq!(
        record["boot_id"],
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap()
            .trim()
    );
    assert_eq!(record["at_ms"].as_i64(), exit.at_ms);
    assert_eq!(record["app"], node.record("run.json")["app"]);
}

#[tokio::test]
async fn success_ends_it_only_where_the_policy_says_so() {
    for policy in [RestartPolicy::Never, RestartPolicy::OnFailure] {
        let node = Node::new().await;
        node.runtime()
            .run(with_policy(policy, script("exit 0")))
            .unwrap();
        node.until_phase(Phase::Succeeded).await;
        node.until("success", |observed| {
            observed.workloads[&key("app")] == WorkloadState::Succeeded
        })
        .await;
    }
    let node = Node::new().await;
    node.runtime().run(service(script("exit 0"))).unwrap();
    let status = node
        .until_one("restarts", |status| status.restarts >= 2)
        .await;
    assert_eq!(status.last_exit.unwrap().end, RunEnd::Code(0));
}

#[tokio::test]
async fn a_crash_loop_is_counted_also_across_runtimes() {
    let mut node = Node::new().await;
    let spec = service(script("exit 1"));
    node.runtime().run(spec.clone()).unwrap();
    node.until_one("a crash loop", |status| status.restarts >= 4)
        .await;
    node.lose().await;
    let history = node.record("history.json");
    assert!(
        history["streak"].as_u64().unwrap() >= 4
            && history["failures"].as_u64() >= history["streak"].as_u64(),
        "{history}"
    );
    node.open().await;
    node.runtime().run(spec).unwrap();
    let first = node.until_one("it again", |_| true).await;
    assert!(u64::from(first.restarts) >= history["restarts"].as_u64().unwrap());
}

#[tokio::test]
async fn what_cannot_start_is_an_observation_with_its_reason() {
    let text = |path: &str, text: &str, mode| FileSpec {
        path: path.to_owned(),
        content: Content::Bytes(text.to_owned().into()),
        mode: Some(mode),
    };
    let command = |word: &str| Program::Command(vec![word.to_owned()]);
    let cases = [
        (command("/no/such/program"), None, Reason::EntryMissing),
        (Program::Package, None, Reason::EntryMissing),
        (command("./plain"), None, Reason::NotExecutable),
        (command("./noise"), None, Reason::BadFormat),
        (command("./orphan"), None, Reason::EntryMissing),
        (
            command("/bin/sh"),
            Some("/no/such/dir"),
            Reason::WorkingDirMissing,
        ),
    ];
    for (program, working_dir, reason) in cases {
        let node = Node::with(|config| config.backoff.initial = Duration::from_secs(3600)).await;
        let spec = InstanceSpec {
            program: program.clone(),
            working_dir: working_dir.map(Into::into),
            files: vec![
                text("plain", "#!/bin/sh", 0o644),
                text("noise", "\u{1}\u{2}\u{3} no program", 0o755),
                text("orphan", "#!/no/such/interpreter\n", 0o755),
            ],
            ..InstanceSpec::default()
        };
        node.runtime().run(service(spec)).unwrap();
        let status = node.until_phase(Phase::Backoff).await;
        assert_eq!(
            status.reason,
            Some(reason),
            "{program:?}: {}",
            status.message
        );
        assert_eq!(status.last_exit.unwrap().end, RunEnd::NotStarted);
        assert!(!status.message.is_empty());
    }
}

#[tokio::test]
async fn a_missing_shim_is_an_observation_too() {
    let node = Node::with(|config| {
        config.shim = "/no/such/shim".into();
        config.backoff.initial = Duration::from_secs(3600);
    })
    .await;
    node.runtime().run(service(script("exit 0"))).unwrap();
    let status = node.until_phase(Phase::Backoff).await;
    assert_eq!(status.reason, Some(Reason::StartFailed));
    assert!(
        status.message.contains("/no/such/shim"),
        "{}",
        status.message
    );
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_an_observation_and_mends_itself() {
    let node = Node::with(|config| config.backoff.max = Duration::from_millis(20)).await;
    let in_the_way = node.config.run_dir.join("baetyl-edge");
    fs::write(&in_the_way, "").unwrap();
    node.runtime()
        .run(service(script("exec sleep 600")))
        .unwrap();
    let status = node.until_phase(Phase::Backoff).await;
    assert_eq!(status.reason, Some(Reason::PrepareFailed));
    assert!(
        status.message.contains(&in_the_way.display().to_string()),
        "{}",
        status.message
    );
    fs::remove_file(in_the_way).unwrap();
    node.until_phase(Phase::Running).await;
}

#[tokio::test]
async fn a_runtime_without_directories_does_not_open() {
    let mut node = Node::new().await;
    let mut config = node.config.clone();
    node.lose().await;
    fs::write(node.dir.path().join("file"), "").unwrap();
    config.state_dir = node.dir.path().join("file/state");
    let error = baetyl_runtime_native::NativeRuntime::open(
        config,
        tokio_util::sync::CancellationToken::new(),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("file/state"), "{error}");
}
