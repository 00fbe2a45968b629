//! Limits and users: what the machine permits is enforced, what it does not is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baetyl_runtime_native::config::{CgroupMode, SecretsDir};
use baetyl_runtime_native::spec::{
    Content, FileSpec, Limits, Mount, MountSource, RestartPolicy, Rlimit, RlimitResource, RunAs,
};
use baetyl_runtime_native::{InstanceSpec, Phase, PrepareError, Reason, WorkloadSpec};

use crate::node::{Node, key, one, script, service, with_policy};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn limits_that_cannot_be_enforced_are_a_warning() {
    let node = Node::new().await;
    let limits = Limits {
        memory: Some(64 << 20),
        cpu_millis: None,
    };
    node.runtime()
        .run(service(InstanceSpec {
            limits,
            ..script("exec sleep 600")
        }))
        .unwrap();
    let status = node.until_phase(Phase::Running).await;
    assert_eq!(status.warnings[0].kind, "LimitsNotEnforced");
    assert!(
        status.warnings[0].message.contains("switched off"),
        "{:?}",
        status.warnings
    );
}

#[tokio::test]
async fn limits_of_the_process_are_set() {
    let node = Node::new().await;
    let rlimits = vec![
        Rlimit {
            resource: RlimitResource::Files,
            soft: 77,
            hard: 88,
        },
        Rlimit {
            resource: RlimitResource::Core,
            soft: 0,
            hard: 0,
        },
    ];
    node.runtime()
        .run(with_policy(
            RestartPolicy::Never,
            InstanceSpec {
                rlimits,
                ..script("ulimit -Sn; ulimit -Hn; ulimit -c; echo END")
            },
        ))
        .unwrap();
    assert_eq!(node.until_logged(&one(), "END").await, "77\n88\n0\nEND\n");
}

/// A directory of this test in the tree of a version 1 controller, removed at the end.
struct Tree(PathBuf);

impl Tree {
    fn new(controller: &str) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup").join(controller);
        let dir = root.join(format!("baetyl-test-{}", std::process::id()));
        (is_root() && root.join("cgroup.procs").exists() && fs::create_dir_all(&dir).is_ok())
            .then_some(Self(dir))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let groups = fs::read_dir(&self.0)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()));
        for group in groups.filter(|path| path.is_dir()).collect::<Vec<_>>() {
            let _ = fs::remove_dir(group);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn memory_beyond_the_limit_ends_it_and_the_reason_is_known() {
    let (Some(memory), Some(cpu)) = (Tree::new("memory"), Tree::new("cpu")) else {
        baetyl_testkit::skipped("root and cgroup version 1");
        return;
    };
    let mut node = Node::with(|config| {
        config.cgroup = CgroupMode::DelegatedV1 {
            memory: memory.0.clone(),
            cpu: cpu.0.clone(),
        };
        config.backoff.initial = Duration::from_secs(3600);
    })
    .await;
    let limits = Limits {
        memory: Some(24 << 20),
        cpu_millis: Some(900),
    };
    let eater = "exec python3 -c 'a=[]\nwhile True: a.append(bytearray(1<<20))'";
    node.runtime()
        .run(service(InstanceSpec {
            limits,
            ..script(eater)
        }))
        .unwrap();
    let status = node.until_phase(Phase::Backoff).await;
    assert_eq!(
        status.reason,
        Some(Reason::OutOfMemory),
        "{}",
        status.message
    );
    assert_eq!(status.warnings, []);
    let group = cpu.0.join(one().to_string());
    assert_eq!(
        fs::read_to_string(group.join("cpu.cfs_quota_us")).unwrap(),
        "90000\n"
    );
    // Also by a runtime that did not make the groups.
    node.remake().await;
    node.runtime().remove(&key("app"), None).await.unwrap();
    assert!(!group.exists());
}

#[tokio::test]
async fn an_application_runs_as_its_own_user() {
    if !is_root() {
        baetyl_testkit::skipped("root");
        return;
    }
    let node = Node::new().await;
    // A data directory that is closed to other users: nothing is started, and it says what to do.
    set_mode(node.dir.path(), 0o700);
    let user = Some(RunAs {
        uid: 61_234,
        gid: 61_235,
    });
    let spec = WorkloadSpec {
        instances: vec![InstanceSpec { user, ..script("") }],
        ..service(script(""))
    };
    let error = node.runtime().prepare(&spec).await.unwrap_err();
    assert!(matches!(error, PrepareError::Closed { .. }), "{error}");
    set_mode(node.dir.path(), 0o711);
    let file = |path: &str| FileSpec {
        path: path.to_owned(),
        content: Content::Bytes("hush".into()),
        mode: None,
    };
    let mounts = vec![
        Mount {
            name: "s".to_owned(),
            path: "/secret".to_owned(),
            sub_path: String::new(),
            source: MountSource::Secret(vec![file("key")]),
        },
        Mount {
            name: "d".to_owned(),
            path: "/data".to_owned(),
            sub_path: String::new(),
            source: MountSource::EmptyDir,
        },
    ];
    let text = "id -u; id -g; id -G; cat secret/key; echo; touch data/mine && echo written; ls \"$STATE\" || echo closed; cat \"$BAETYL_INSTANCE_DIR/token\"; echo END";
    let mut spec = InstanceSpec {
        mounts,
        user,
        files: vec![file("token")],
        ..script(text)
    };
    spec.env.insert(
        "STATE".to_owned(),
        node.config.state_dir.display().to_string(),
    );
    node.runtime()
        .run(with_policy(RestartPolicy::Never, spec))
        .unwrap();
    let log = node.until_logged(&one(), "END").await;
    assert!(
        log.starts_with("61234\n61235\n61235\nhush\nwritten\n"),
        "{log}"
    );
    assert!(log.contains("closed\nhushEND"), "{log}");
}

fn set_mode(dir: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn secrets_lie_in_memory_where_there_is_such_a_directory() {
    let memory = Path::new("/dev/shm");
    let Ok(place) = tempfile::Builder::new()
        .prefix("baetyl-test-")
        .tempdir_in(memory)
    else {
        baetyl_testkit::skipped("/dev/shm");
        return;
    };
    let node =
        Node::with(|config| config.secrets = SecretsDir::Memory(place.path().to_owned())).await;
    let file = FileSpec {
        path: "key".to_owned(),
        content: Content::Bytes("hush".into()),
        mode: None,
    };
    let mount = Mount {
        name: "s".to_owned(),
        path: "/secret".to_owned(),
        sub_path: String::new(),
        source: MountSource::Secret(vec![file]),
    };
    let spec = InstanceSpec {
        mounts: vec![mount],
        ..script("cat secret/key; echo; exec sleep 600")
    };
    node.runtime().run(service(spec)).unwrap();
    node.until_logged(&one(), "hush\n").await;
    let link = fs::read_link(node.runtime().instance_dir(&one()).join("secret")).unwrap();
    assert!(link.starts_with(place.path()), "{}", link.display());
    assert_eq!(node.until_phase(Phase::Running).await.warnings, []);
    node.runtime().remove(&key("app"), None).await.unwrap();
    assert!(!link.exists());
}
