//! Starting, stopping, removing, and what an instance is given.

use std::fs;
use std::time::Duration;

use baetyl_runtime_native::spec::{
    Content, FileSpec, Instances as _, Mount, MountSource, PROGRAM_MOUNT, Program, RestartPolicy,
};
use baetyl_runtime_native::status::RunEnd;
use baetyl_runtime_native::{
    InstanceSpec, Phase, Reason, RunError, WorkloadKind, WorkloadSpec, WorkloadState,
};
use tokio::io::AsyncReadExt;

use crate::node::{Node, is_alive, key, one, script, service, with_policy};

fn file(path: &str, text: &str) -> FileSpec {
    FileSpec {
        path: path.to_owned(),
        content: Content::Bytes(text.to_owned().into()),
        mode: None,
    }
}

#[tokio::test]
async fn an_instance_starts_with_its_environment_and_stops_without_a_trace_of_processes() {
    let node = Node::new().await;
    node.runtime()
        .run(service(script(
            "echo $GREETING from $PWD; sleep 600 & exec sleep 601",
        )))
        .unwrap();
    let status = node.until_phase(Phase::Running).await;
    assert!(status.ready && !status.adopted && status.restarts == 0);
    let run = status.process.unwrap();
    let dir = node.runtime().instance_dir(&one());
    node.until_logged(&one(), &format!("hello from {}\n", dir.display()))
        .await;
    node.runtime().stop(&key("app"), None).await.unwrap();
    assert!(!is_alive(run.app) && !is_alive(run.shim));
    assert!(node.runtime().observed().instances.is_empty());
    assert_eq!(node.record("exit.json")["signal"], 15);
    assert_eq!(node.record("exit.json")["boot_id"], run.boot_id);
    assert!(dir.exists(), "stopping keeps the directory");
}

#[tokio::test]
async fn the_environment_of_the_runtime_is_not_inherited() {
    let node = Node::new().await;
    node.runtime()
        .run(with_policy(RestartPolicy::Never, script("exec env")))
        .unwrap();
    node.until_phase(Phase::Succeeded).await;
    let log = fs::read_to_string(node.runtime().log_file(&one())).unwrap();
    let names: Vec<&str> = log
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    for expected in ["GREETING", "PATH", "BAETYL_INSTANCE_DIR"] {
        assert!(names.contains(&expected), "{log}");
    }
    // The last ones are the shell's own.
    let permitted = [
        "GREETING",
        "PATH",
        "HOME",
        "LANG",
        "TZ",
        "BAETYL_INSTANCE_DIR",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
    ];
    assert!(names.iter().all(|name| permitted.contains(name)), "{log}");
}

#[tokio::test]
async fn a_package_runs_with_its_configuration_and_secret() {
    let node = Node::new().await;
    let mount = |name: &str, path: &str, source| Mount {
        name: name.to_owned(),
        path: path.to_owned(),
        sub_path: String::new(),
        source,
    };
    let program = "#!/bin/sh\necho \"$1 $2 $(cat etc/baetyl/conf.yml) $(cat secret/key)\"\n";
    let spec = InstanceSpec {
        program: Program::Package,
        args: vec!["two".to_owned()],
        mounts: vec![
            mount(
                "program",
                PROGRAM_MOUNT,
                MountSource::Config(vec![
                    file("program.yml", "entry: main\nargs: [one]"),
                    file("main", program),
                ]),
            ),
            mount(
                "conf",
                "/etc/baetyl",
                MountSource::Config(vec![file("conf.yml", "config")]),
            ),
            mount(
                "secret",
                "/secret",
                MountSource::Secret(vec![file("key", "hush")]),
            ),
        ],
        ..InstanceSpec::default()
    };
    node.runtime()
        .run(with_policy(RestartPolicy::Never, spec))
        .unwrap();
    node.until_logged(&one(), "one two config hush\n").await;
    let status = node.until_phase(Phase::Succeeded).await;
    assert_eq!(status.last_exit.unwrap().end, RunEnd::Code(0));
}

#[tokio::test]
async fn stopping_waits_for_a_graceful_end() {
    let node = Node::new().await;
    node.runtime()
        .run(service(script(
            "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done",
        )))
        .unwrap();
    node.until_logged(&one(), "up\n").await;
    node.runtime().stop(&key("app"), None).await.unwrap();
    assert_eq!(node.record("exit.json")["code"], 3);
    assert!(
        fs::read_to_string(node.runtime().log_file(&one()))
            .unwrap()
            .ends_with("bye\n")
    );
}

#[tokio::test]
async fn what_ignores_the_request_is_killed_with_all_its_children() {
    let node = Node::new().await;
    // The grandchild is in a session of its own and has left its parent.
    let text = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo child $$; while :; do sleep 1; done' &) ; echo up; while :; do sleep 1; done";
    node.runtime().run(service(script(text))).unwrap();
    let run = node.until_running().await;
    let log = node.until_logged(&one(), "child ").await;
    let log = if log.contains("up") {
        log
    } else {
        node.until_logged(&one(), "up\n").await
    };
    let child = log
        .split("child ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let child = crate::node::ident(child);
    node.runtime()
        .stop(&key("app"), Some(Duration::from_millis(50)))
        .await
        .unwrap();
    assert!(!is_alive(run.app) && !is_alive(run.shim) && !is_alive(child));
    assert_eq!(node.record("exit.json")["signal"], 9);
}

#[tokio::test]
async fn the_orphans_of_a_shell_get_the_request_too() {
    let node = Node::new().await;
    // The shell dies of TERM at once; its child has something to say first.
    let text =
        "(trap 'echo child said bye; exit' TERM; echo up; while :; do sleep 0.01; done) & wait";
    node.runtime().run(service(script(text))).unwrap();
    node.until_logged(&one(), "up\n").await;
    node.runtime().stop(&key("app"), None).await.unwrap();
    let log = fs::read_to_string(node.runtime().log_file(&one())).unwrap();
    assert!(log.contains("child said bye"), "{log}");
}

#[tokio::test]
async fn removing_leaves_nothing_on_disk() {
    let node = Node::new().await;
    node.runtime()
        .run(service(script("echo up; exec sleep 600")))
        .unwrap();
    let run = node.until_running().await;
    assert_eq!(node.runtime().found().await.unwrap(), [key("app")]);
    node.runtime().remove(&key("app"), None).await.unwrap();
    assert!(!is_alive(run.app));
    assert!(node.runtime().found().await.unwrap().is_empty());
    for dir in [
        &node.config.run_dir,
        &node.config.state_dir,
        &node.config.log_dir,
    ] {
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "{}", dir.display());
    }
    node.runtime().remove(&key("app"), None).await.unwrap();
}

#[tokio::test]
async fn replicas_are_instances_of_their_own() {
    let node = Node::new().await;
    let spec = WorkloadSpec {
        instances: vec![
            script("echo one; exec sleep 600"),
            script("echo two; exec sleep 600"),
        ],
        ..service(script(""))
    };
    node.runtime().run(spec).unwrap();
    let observed = node
        .until("both", |observed| {
            observed
                .of(&key("app"))
                .filter(|(_, status)| status.ready)
                .count()
                == 2
        })
        .await;
    let apps: Vec<_> = observed
        .instances
        .values()
        .map(|status| status.process.as_ref().unwrap().app)
        .collect();
    assert_ne!(apps[0], apps[1]);
    node.until_logged(&key("app").instance(2), "two\n").await;
    node.runtime().stop(&key("app"), None).await.unwrap();
    assert!(!is_alive(apps[0]) && !is_alive(apps[1]));
}

#[tokio::test]
async fn the_same_spec_again_changes_nothing_and_another_is_refused() {
    let node = Node::new().await;
    let spec = service(script("exec sleep 600"));
    node.runtime().run(spec.clone()).unwrap();
    let before = node.until_running().await;
    node.runtime().run(spec).unwrap();
    assert_eq!(
        node.runtime().run(service(script("exec sleep 601"))),
        Err(RunError::Differs(key("app")))
    );
    assert_eq!(node.until_running().await, before);
}

#[tokio::test]
async fn a_requested_restart_gives_a_new_process_at_once() {
    let node = Node::with(|config| config.backoff.initial = Duration::from_secs(3600)).await;
    node.runtime()
        .run(service(script("exec sleep 600")))
        .unwrap();
    let before = node.until_running().await;
    node.runtime().restart(&key("app")).await.unwrap();
    let after = node
        .until_one("another process", |status| {
            status
                .process
                .as_ref()
                .is_some_and(|run| run.app != before.app && status.ready)
        })
        .await;
    assert_eq!(
        (after.restarts, after.last_exit.unwrap().reason),
        (1, Reason::Requested)
    );
    assert!(!is_alive(before.app));
    node.runtime().restart(&key("other")).await.unwrap_err();
}

#[tokio::test]
async fn what_had_ended_for_good_can_be_restarted() {
    let node = Node::new().await;
    node.runtime()
        .run(with_policy(
            RestartPolicy::Never,
            script("test -f again && exec sleep 600; touch again; exit 4"),
        ))
        .unwrap();
    node.until_phase(Phase::Failed).await;
    node.until("the workload failed", |observed| {
        observed.workloads[&key("app")] == WorkloadState::Failed
    })
    .await;
    node.runtime().restart(&key("app")).await.unwrap();
    node.until_phase(Phase::Running).await;
    assert_eq!(
        node.runtime().observed().workloads[&key("app")],
        WorkloadState::Active
    );
}

#[tokio::test]
async fn a_command_runs_in_the_environment_of_an_instance() {
    let node = Node::new().await;
    node.runtime()
        .run(service(script("exec sleep 600")))
        .unwrap();
    node.until_running().await;
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let mut session = node
        .runtime()
        .exec(
            &one(),
            &words(&["sh", "-c", "echo $GREETING $PWD; cat; exit 5"]),
        )
        .unwrap();
    drop(session.stdin.take());
    let mut out = String::new();
    session
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .await
        .unwrap();
    assert_eq!(session.wait().await.unwrap().code(), Some(5));
    assert_eq!(
        out,
        format!("hello {}\n", node.runtime().instance_dir(&one()).display())
    );
    node.runtime()
        .exec(&one(), &words(&["no-such-program"]))
        .unwrap_err();
    node.runtime().exec(&one(), &[]).unwrap_err();
    node.runtime()
        .exec(&key("other").instance(1), &words(&["true"]))
        .unwrap_err();
}

#[tokio::test]
async fn usage_counts_the_whole_session() {
    let node = Node::new().await;
    node.runtime().run(service(script("sleep 600 & sleep 600 & i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; wait"))).unwrap();
    node.until_logged(&one(), "done\n").await;
    let usage = node.runtime().usage().await[&one()];
    assert_eq!(usage.processes, 3, "{usage:?}");
    assert!(
        usage.cpu_nanos > 0 && usage.memory_bytes > usage.shim_bytes && usage.shim_bytes > 0,
        "{usage:?}"
    );
}

#[tokio::test]
async fn preparing_tells_of_faults_and_starts_nothing() {
    let node = Node::new().await;
    let mut spec = WorkloadSpec {
        kind: WorkloadKind::Service {
            restart: RestartPolicy::Always,
        },
        ..service(script("exec sleep 600"))
    };
    spec.instances[0].files = vec![file("token", "t")];
    assert_eq!(node.runtime().prepare(&spec).await.unwrap(), []);
    assert!(node.runtime().instance_dir(&one()).join("token").exists());
    assert!(node.runtime().observed().instances.is_empty() && !node.runtime().is_running(&one()));
    spec.instances[0].files = vec![file("../token", "t")];
    node.runtime().prepare(&spec).await.unwrap_err();
}
