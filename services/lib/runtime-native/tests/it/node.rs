//! A node to test on: directories, a runtime, and the promise that nothing is left running.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baetyl_runtime_native::config::{Backoff, CgroupMode, LogLimits, SecretsDir};
use baetyl_runtime_native::spec::{Instances as _, Program, RestartPolicy};
use baetyl_runtime_native::status::{ProcessIdent, RunRecord};
use baetyl_runtime_native::{
    InstanceId, InstanceSpec, InstanceStatus, NativeConfig, NativeRuntime, Observed, Phase,
    WorkloadKey, WorkloadKind, WorkloadSpec,
};
use futures_util::StreamExt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Far beyond what anything here takes, also on a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: NativeConfig,
    runtime: Option<NativeRuntime>,
}

impl Node {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut NativeConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config =
            NativeConfig::beneath(dir.path(), PathBuf::from(env!("CARGO_BIN_EXE_baetyl-shim")));
        config.secrets = SecretsDir::OnDisk;
        config.cgroup = CgroupMode::Off;
        config.backoff = Backoff {
            initial: Duration::from_millis(1),
            max: Duration::from_millis(50),
            reset_after: Duration::from_secs(600),
        };
        config.logs = LogLimits {
            check_every: Duration::from_millis(10),
            ..LogLimits::default()
        };
        change(&mut config);
        let mut node = Self {
            dir,
            config,
            runtime: None,
        };
        node.open().await;
        node
    }

    pub(crate) async fn open(&mut self) {
        let runtime = NativeRuntime::open(self.config.clone(), CancellationToken::new())
            .await
            .unwrap();
        self.runtime = Some(runtime);
    }

    pub(crate) fn runtime(&self) -> &NativeRuntime {
        self.runtime.as_ref().unwrap()
    }

    /// As an engine that is killed and started again: the tasks end, nothing else does.
    pub(crate) async fn remake(&mut self) {
        self.lose().await;
        self.open().await;
    }

    /// As an engine that is killed.
    pub(crate) async fn lose(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.close().await;
        }
    }

    /// Waits until the table satisfies this.
    pub(crate) async fn until(
        &self,
        what: &str,
        mut satisfied: impl FnMut(&Observed) -> bool,
    ) -> Arc<Observed> {
        let mut table = self.runtime().watch();
        let waiting = table.wait_for(|observed| satisfied(observed));
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(observed) => Arc::clone(&observed.unwrap()),
            Err(_) => panic!(
                "{what} never came; observed: {:#?}\nlogs: {:#?}",
                self.runtime().observed(),
                self.all_logs()
            ),
        }
    }

    /// Waits until the first instance satisfies this.
    pub(crate) async fn until_one(
        &self,
        what: &str,
        mut satisfied: impl FnMut(&InstanceStatus) -> bool,
    ) -> InstanceStatus {
        let observed = self
            .until(what, |observed| {
                observed
                    .instances
                    .values()
                    .next()
                    .is_some_and(|status| satisfied(status))
            })
            .await;
        observed.instances.values().next().unwrap().as_ref().clone()
    }

    pub(crate) async fn until_running(&self) -> RunRecord {
        self.until_one("running", |status| status.phase == Phase::Running)
            .await
            .process
            .unwrap()
    }

    pub(crate) async fn until_phase(&self, phase: Phase) -> InstanceStatus {
        self.until_one(&format!("{phase:?}"), |status| status.phase == phase)
            .await
    }

    /// Waits for a piece of text in the log of an instance; answers with all of the log up to then.
    pub(crate) async fn until_logged(&self, id: &InstanceId, text: &str) -> String {
        let mut seen = String::new();
        let mut stream = self.runtime().logs(id, usize::MAX, true);
        let waiting = async {
            while !seen.contains(text) {
                let piece = stream
                    .next()
                    .await
                    .expect("the log goes on")
                    .expect("the log can be read");
                seen.push_str(&String::from_utf8_lossy(&piece));
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        assert!(in_time, "\"{text}\" was never logged, but: {seen}");
        seen
    }

    fn all_logs(&self) -> Vec<String> {
        files(&self.config.log_dir)
            .iter()
            .map(|path| fs::read_to_string(path).unwrap_or_default())
            .collect()
    }

    /// What a record of the first instance says.
    pub(crate) fn record(&self, name: &str) -> Value {
        let path = files(&self.config.state_dir)
            .into_iter()
            .find(|path| path.ends_with(name))
            .unwrap();
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// Changes a record of the first instance.
    pub(crate) fn rewrite(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let path = files(&self.config.state_dir)
            .into_iter()
            .find(|path| path.ends_with(name))
            .unwrap();
        let mut record = self.record(name);
        change(&mut record);
        fs::write(path, record.to_string()).unwrap();
    }
}

impl Drop for Node {
    /// By identity: what the records name, if it is still what they name.
    fn drop(&mut self) {
        self.runtime = None;
        for path in files(&self.config.state_dir)
            .iter()
            .filter(|path| path.ends_with("run.json"))
        {
            let Ok(record) = fs::read(path)
                .map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap_or_default())
            else {
                continue;
            };
            for key in ["shim", "app"] {
                let Ok(ident) = serde_json::from_value::<ProcessIdent>(record[key].clone()) else {
                    continue;
                };
                if is_alive(ident) {
                    let pid = pid(ident);
                    let _ = if key == "app" {
                        kill_process_group(pid, Signal::KILL)
                    } else {
                        kill_process(pid, Signal::KILL)
                    };
                }
            }
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

pub(crate) fn pid(ident: ProcessIdent) -> Pid {
    Pid::from_raw(i32::try_from(ident.pid).unwrap()).unwrap()
}

pub(crate) fn kill(ident: ProcessIdent) {
    kill_process(pid(ident), Signal::KILL).unwrap();
}

/// Waits until a process that is not ours has ended.
pub(crate) async fn ended(ident: ProcessIdent) {
    let Ok(fd) = pidfd_open(pid(ident), PidfdFlags::empty()) else {
        return;
    };
    if !is_alive(ident) {
        return;
    }
    let waited = tokio::task::spawn_blocking(move || {
        let timeout = Timespec::try_from(PATIENCE).unwrap();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap()
    });
    assert_eq!(waited.await.unwrap(), 1, "{ident:?} never ended");
}

/// State letter and start of a process.
fn stat(pid: u32) -> Option<(String, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some((fields[0].to_owned(), fields[19].parse().ok()?))
}

pub(crate) fn ident(pid: u32) -> ProcessIdent {
    ProcessIdent {
        pid,
        start_ticks: stat(pid).unwrap().1,
    }
}

/// That very process runs and is no zombie.
pub(crate) fn is_alive(ident: ProcessIdent) -> bool {
    stat(ident.pid)
        .is_some_and(|(state, start)| start == ident.start_ticks && state != "Z" && state != "X")
}

pub(crate) fn key(app: &str) -> WorkloadKey {
    WorkloadKey {
        namespace: "baetyl-edge".try_into().unwrap(),
        app: app.try_into().unwrap(),
        version: "1".try_into().unwrap(),
        service: "main".try_into().unwrap(),
    }
}

/// A shell script as an instance.
pub(crate) fn script(text: &str) -> InstanceSpec {
    InstanceSpec {
        program: Program::Command(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()]),
        env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        grace: Some(Duration::from_secs(5)),
        ..InstanceSpec::default()
    }
}

/// One instance that is always started again.
pub(crate) fn service(instance: InstanceSpec) -> WorkloadSpec {
    with_policy(RestartPolicy::Always, instance)
}

pub(crate) fn with_policy(restart: RestartPolicy, instance: InstanceSpec) -> WorkloadSpec {
    WorkloadSpec {
        key: key("app"),
        kind: WorkloadKind::Service { restart },
        instances: vec![instance],
    }
}

/// The only instance of [`service`].
pub(crate) fn one() -> InstanceId {
    key("app").instance(1)
}
