//! Starts that do not go as usual: slow ones, ones that somebody else was faster with, ones on a full disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use baetyl_runtime_native::spec::RestartPolicy;
use baetyl_runtime_native::status::RunEnd;
use baetyl_runtime_native::{Phase, recover};
use serde_json::Value;

use crate::node::{Node, ended, is_alive, key, kill, one, script, service, with_policy};

const SHIM: &str = env!("CARGO_BIN_EXE_baetyl-shim");

/// A shim that does what it should and then does not answer until `go` is there.
fn slow_shim(dir: &Path, go: &Path) -> PathBuf {
    let shim = dir.join("slow-shim");
    let text = format!(
        "#!/bin/sh\n'{SHIM}' \"$@\"; while ! test -f '{}'; do sleep 0.01; done\n",
        go.display()
    );
    fs::write(&shim, text).unwrap();
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o700)).unwrap();
    shim
}

#[tokio::test]
async fn a_start_that_takes_too_long_to_answer_is_found_and_no_failure() {
    let place = tempfile::tempdir().unwrap();
    let go = place.path().join("go");
    let node = Node::with(|config| {
        config.shim = slow_shim(place.path(), &go);
        config.launch_time = Duration::from_millis(300);
        config.backoff.initial = Duration::from_secs(3600);
        config.backoff.max = Duration::from_secs(3600);
    })
    .await;
    node.runtime()
        .run(service(script("echo start; exec sleep 600")))
        .unwrap();
    // On a slow machine it is not found the first time either: ordered again, it must be.
    let status = loop {
        let status = node
            .until_one("an end of the start", |status| {
                matches!(status.phase, Phase::Running | Phase::Backoff)
            })
            .await;
        if status.phase == Phase::Running {
            break status;
        }
        node.runtime().restart(&key("app")).await.unwrap();
        node.until_one("another start", |status| status.phase != Phase::Backoff)
            .await;
    };
    assert!(status.adopted && status.ready);
    assert_eq!(
        fs::read_to_string(node.runtime().log_file(&one())).unwrap(),
        "start\n"
    );
    fs::write(go, "").unwrap();
}

#[tokio::test]
async fn what_another_shim_started_meanwhile_is_adopted() {
    let node = Node::with(|config| {
        config.backoff.initial = Duration::from_secs(3600);
        config.backoff.max = Duration::from_secs(3600);
    })
    .await;
    let text = "test -f second && exec sleep 600; touch second; exit 1";
    node.runtime().run(service(script(text))).unwrap();
    node.until_phase(Phase::Backoff).await;
    let state = node.config.state_dir.join("baetyl-edge/app/1/main/1");
    // As a first stage that nobody waited for any more and that comes only now.
    fs::remove_file(state.join("exit.json")).unwrap();
    let launched = Command::new(SHIM)
        .arg("launch")
        .arg(state.join("plan"))
        .status()
        .unwrap();
    assert!(launched.success());
    let shim = node.record("run.json")["shim"]["pid"].clone();
    node.runtime().restart(&key("app")).await.unwrap();
    let status = node.until_phase(Phase::Running).await;
    assert_eq!(Value::from(status.process.unwrap().shim.pid), shim);
    assert_eq!(status.restarts, 1, "finding it is no failure");
}

#[tokio::test]
async fn half_a_record_does_not_cost_the_application_its_life() {
    let mut node = Node::new().await;
    let spec = service(script("exec sleep 600"));
    node.runtime().run(spec.clone()).unwrap();
    let before = node.until_running().await;
    node.lose().await;
    let halve = |record: &mut Value| {
        record.as_object_mut().unwrap().remove("app");
    };
    node.rewrite("run.json", halve);
    node.open().await;
    node.runtime().run(spec).unwrap();
    assert_eq!(node.until_running().await, before);
    // Written down again for whoever comes next.
    assert_eq!(recover(&node.config).unwrap().len(), 1);
    assert_eq!(node.record("run.json")["app"]["pid"], before.app.pid);
    assert!(recover(&node.config).unwrap().is_empty());
}

#[tokio::test]
async fn a_lost_record_names_the_program_and_not_what_it_left_behind() {
    let mut node = Node::new().await;
    // An orphan in a group of its own: a child of the shim, as the program is.
    let text = "sh -c 'setsid sleep 600 & :'; echo up; exec sleep 600";
    node.runtime().run(service(script(text))).unwrap();
    node.until_logged(&one(), "up\n").await;
    let before = node.until_running().await;
    node.lose().await;
    fs::remove_dir_all(&node.config.state_dir).unwrap();
    recover(&node.config).unwrap();
    node.open().await;
    assert_eq!(node.record("run.json")["app"]["pid"], before.app.pid);
    node.runtime().remove(&key("app"), None).await.unwrap();
    assert!(!is_alive(before.app));
}

#[tokio::test]
async fn after_everything_was_killed_each_first_start_comes_at_once() {
    let mut node = Node::with(|config| {
        config.backoff.initial = Duration::from_secs(3600);
        config.backoff.max = Duration::from_secs(3600);
    })
    .await;
    let spec = service(script("exec sleep 600"));
    for cold_starts in 0..3 {
        node.runtime().run(spec.clone()).unwrap();
        let status = node.until_phase(Phase::Running).await;
        assert_eq!(status.restarts, cold_starts);
        let run = status.process.unwrap();
        node.lose().await;
        kill(run.shim);
        kill(run.app);
        ended(run.shim).await;
        ended(run.app).await;
        node.open().await;
    }
}

/// A small filesystem in memory, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "baetyl-test"])
            .arg(dir)
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(dir.to_owned()))
    }

    fn fill(&self) {
        let full = fs::write(self.0.join("filler"), vec![b'x'; 1 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test]
async fn the_end_is_recorded_also_when_the_disk_is_full_by_then() {
    let node = Node::new().await;
    let Some(disk) = SmallDisk::mount(&node.config.state_dir) else {
        baetyl_testkit::skipped("the right to mount");
        return;
    };
    node.runtime()
        .run(with_policy(
            RestartPolicy::Never,
            script("while ! test -f go; do sleep 0.01; done; exit 9"),
        ))
        .unwrap();
    node.until_running().await;
    disk.fill();
    fs::write(node.runtime().instance_dir(&one()).join("go"), "").unwrap();
    let status = node.until_phase(Phase::Failed).await;
    assert_eq!(status.last_exit.unwrap().end, RunEnd::Code(9));
}
