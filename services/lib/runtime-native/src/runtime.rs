//! The runtime as the engine sees it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cgroup::{self, Cgroups};
use crate::config::NativeConfig;
use crate::end::{end_instance, living_shim};
use crate::exec::{ExecError, ExecSession};
use crate::instance::recorded_cgroups;
use crate::logs::{self, LogStart, LogStream};
use crate::materialise::{PrepareError, materialise};
use crate::paths::Paths;
use crate::secrets;
use crate::shared::Shared;
use crate::spec::{DEFAULT_GRACE, InstanceId, Instances as _, WorkloadKey, WorkloadSpec};
use crate::status::{InstanceUsage, Observed, Warning};
use crate::usage;
use crate::workload::{Command, Workload};

/// Why the runtime cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory cannot be made or used.
    #[error("cannot use the directory {path}: {source}", path = path.display())]
    Dir {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The directory for secrets is not in memory.
    #[error("{path} is not in memory (tmpfs): secrets must not lie there; choose another directory or allow them on disk", path = path.display())]
    SecretsNotInMemory {
        /// Which.
        path: PathBuf,
    },
}

/// Why a workload is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Another spec runs under this key.
    #[error("{0} is run already, with another spec: stop it first")]
    Differs(WorkloadKey),
    /// It is being stopped.
    #[error("{0} is being stopped: run it when that is done")]
    Stopping(WorkloadKey),
    /// The runtime is shutting down.
    #[error("the runtime is shutting down, {0} is not run")]
    Closed(WorkloadKey),
}

/// Why a workload is not stopped or removed.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Processes are left.
    #[error("not all of {key} ended: {left}")]
    Left {
        /// The workload.
        key: WorkloadKey,
        /// Which instances, and why.
        left: String,
    },
    /// The runtime is shutting down.
    #[error("the runtime is shutting down, {0} is left as it is")]
    Closed(WorkloadKey),
    /// What is on disk cannot be looked at or removed.
    #[error("cannot clean up the directories of {key}: {source}")]
    Disk {
        /// The workload.
        key: WorkloadKey,
        /// Why not.
        source: io::Error,
    },
}

/// Why a workload is not restarted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestartError {
    /// It is not supervised.
    #[error("{0} is not run by this node")]
    NotFound(WorkloadKey),
}

/// Runs applications as processes. Cheap to clone. When the last clone is dropped, or the token it was opened with is
/// cancelled, its tasks end and every application goes on running.
#[derive(Debug, Clone)]
pub struct NativeRuntime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    workloads: Mutex<HashMap<WorkloadKey, Entry>>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Entry {
    spec: Arc<WorkloadSpec>,
    commands: mpsc::Sender<Command>,
    stopping: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
    }
}

impl NativeRuntime {
    /// Makes the directories and looks at what the machine permits. Nothing is started, adopted or ended.
    pub async fn open(
        config: NativeConfig,
        shutdown: CancellationToken,
    ) -> Result<Self, OpenError> {
        let cancel = shutdown.child_token();
        let shared = tokio::task::spawn_blocking(move || open(config, cancel))
            .await
            .map_err(|error| OpenError::Dir {
                path: PathBuf::new(),
                source: io::Error::other(error),
            })??;
        let shared = Arc::new(shared);
        let tasks = TaskTracker::new();
        tasks.spawn(
            shared
                .logs
                .clone()
                .rotate(shared.config.logs, shared.cancel.clone()),
        );
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                workloads: Mutex::default(),
                tasks,
            }),
        })
    }

    fn workloads(&self) -> MutexGuard<'_, HashMap<WorkloadKey, Entry>> {
        self.inner
            .workloads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Takes a workload under supervision and returns at once. What runs is adopted; what does not is prepared and
    /// started; instances that ended for good stay ended. The same spec again changes nothing.
    pub fn run(&self, spec: WorkloadSpec) -> Result<(), RunError> {
        let key = spec.key.clone();
        if self.shared().cancel.is_cancelled() {
            return Err(RunError::Closed(key));
        }
        let mut workloads = self.workloads();
        if let Some(entry) = workloads.get(&key) {
            return match entry {
                Entry { stopping: true, .. } => Err(RunError::Stopping(key)),
                entry if *entry.spec == spec => Ok(()),
                _ => Err(RunError::Differs(key)),
            };
        }
        for index in (1..).take(spec.instances.len()) {
            // Here, so that it can be followed from now on. When it cannot be made, the start says so.
            let _ = self
                .shared()
                .logs
                .add(&self.shared().paths.log(&key.instance(index)));
        }
        let spec = Arc::new(spec);
        let (commands, receiver) = mpsc::channel(4);
        let workload = Workload::new(Arc::clone(&self.inner.shared), Arc::clone(&spec));
        self.inner.tasks.spawn(workload.run(receiver));
        workloads.insert(
            key,
            Entry {
                spec,
                commands,
                stopping: false,
            },
        );
        Ok(())
    }

    /// Makes the directories of all instances that do not run, without starting anything. `run` does the same; this
    /// tells beforehand whether it can be done.
    pub async fn prepare(&self, spec: &WorkloadSpec) -> Result<Vec<Warning>, PrepareError> {
        let (paths, spec) = (self.shared().paths.clone(), spec.clone());
        let made = tokio::task::spawn_blocking(move || {
            let mut warnings = Vec::new();
            for (id, instance) in (1..)
                .map(|index| spec.key.instance(index))
                .zip(&spec.instances)
            {
                // What runs has its files.
                if living_shim(&paths.state(&id)).is_ok_and(|shim| shim.is_none()) {
                    warnings.extend(materialise(&paths, &id, instance)?);
                }
            }
            warnings.dedup();
            Ok(warnings)
        });
        made.await.unwrap_or_else(|error| {
            Err(PrepareError::Io {
                what: "make the directories below",
                path: self.shared().paths.run.clone(),
                source: io::Error::other(error),
            })
        })
    }

    /// Ends all instances (TERM, grace, KILL of everything) and ends the supervision; directories, counters and logs
    /// stay. Works for workloads that are not supervised too. `grace`: instead of the spec's.
    pub async fn stop(&self, key: &WorkloadKey, grace: Option<Duration>) -> Result<(), StopError> {
        let commands = self.workloads().get_mut(key).map(|entry| {
            entry.stopping = true;
            entry.commands.clone()
        });
        let mut left = Vec::new();
        if let Some(commands) = commands {
            let (done, answer) = oneshot::channel();
            // An error: it was stopped meanwhile, or the runtime is shutting down.
            let _ = commands.send(Command::Stop { grace, done }).await;
            left = answer.await.unwrap_or_default();
            if self.shared().cancel.is_cancelled() {
                return Err(StopError::Closed(key.clone()));
            }
        }
        // Also after a supervised stop: more instances may be on disk than the spec has.
        left.extend(
            self.end_on_disk(key, grace.unwrap_or(DEFAULT_GRACE))
                .await?,
        );
        if !left.is_empty() {
            // Still in the table, and not supervised: the next stop tries again.
            self.workloads().remove(key);
            return Err(StopError::Left {
                key: key.clone(),
                left: left.join("; "),
            });
        }
        for id in self.on_disk(key)? {
            self.shared().logs.forget(&self.shared().paths.log(&id));
        }
        self.workloads().remove(key);
        self.shared().forget(key);
        Ok(())
    }

    /// Stops a workload and removes its directories, secrets, counters, logs and cgroups.
    pub async fn remove(
        &self,
        key: &WorkloadKey,
        grace: Option<Duration>,
    ) -> Result<(), StopError> {
        self.stop(key, grace).await?;
        let (paths, owned) = (self.shared().paths.clone(), key.clone());
        let removed = tokio::task::spawn_blocking(move || {
            for id in paths.instances_on_disk(&owned)? {
                cgroup::remove(&recorded_cgroups(&paths.state(&id)).unwrap_or_default());
                paths.remove_instance(&id)?;
            }
            Ok(())
        });
        let removed = removed
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        removed.map_err(|source| StopError::Disk {
            key: key.clone(),
            source,
        })
    }

    fn on_disk(&self, key: &WorkloadKey) -> Result<Vec<InstanceId>, StopError> {
        self.shared()
            .paths
            .instances_on_disk(key)
            .map_err(|source| StopError::Disk {
                key: key.clone(),
                source,
            })
    }

    async fn end_on_disk(
        &self,
        key: &WorkloadKey,
        grace: Duration,
    ) -> Result<Vec<String>, StopError> {
        let mut ending = JoinSet::new();
        for id in self.on_disk(key)? {
            let (state, dir) = (
                self.shared().paths.state(&id),
                self.shared().paths.instance(&id),
            );
            ending.spawn(async move {
                end_instance(&state, &dir, grace)
                    .await
                    .map_err(|error| format!("{id}: {error}"))
            });
        }
        Ok(ending
            .join_all()
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect())
    }

    /// Ends and starts all instances of a supervised workload, without waiting time, its spec unchanged. Instances of a
    /// service that had ended for good are started again; those of a job are not. Returns when it is ordered.
    pub async fn restart(&self, key: &WorkloadKey) -> Result<(), RestartError> {
        let commands = self
            .workloads()
            .get(key)
            .filter(|entry| !entry.stopping)
            .map(|entry| entry.commands.clone());
        let commands = commands.ok_or_else(|| RestartError::NotFound(key.clone()))?;
        commands
            .send(Command::Restart)
            .await
            .map_err(|_| RestartError::NotFound(key.clone()))
    }

    /// The table of what is observed. `changed` wakes at every change; changes that come together are one.
    pub fn watch(&self) -> watch::Receiver<Arc<Observed>> {
        self.shared().observed.subscribe()
    }

    /// The table as it is now.
    pub fn observed(&self) -> Arc<Observed> {
        Arc::clone(&self.shared().observed.borrow())
    }

    /// Workloads that have something on disk or are supervised.
    pub async fn found(&self) -> io::Result<Vec<WorkloadKey>> {
        let paths = self.shared().paths.clone();
        let mut found = tokio::task::spawn_blocking(move || paths.workloads_on_disk())
            .await
            .map_err(io::Error::other)??;
        found.extend(self.workloads().keys().cloned());
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// True when a process of this instance runs, supervised or not: its ports are its own then.
    pub fn is_running(&self, id: &InstanceId) -> bool {
        // What cannot be looked at just now counts as running.
        !matches!(living_shim(&self.shared().paths.state(id)), Ok(None))
    }

    /// The directory of an instance, whether or not it exists.
    pub fn instance_dir(&self, id: &InstanceId) -> PathBuf {
        self.shared().paths.instance(id)
    }

    /// The log of an instance, whether or not it exists.
    pub fn log_file(&self, id: &InstanceId) -> PathBuf {
        self.shared().paths.log(id)
    }

    /// An instance's log from `start` (a number: that many lines from its end), then, with `follow`, what is written, across rotations, until the
    /// stream is dropped or the instance removed. Instances that are not supervised have a log to read, not to follow.
    pub fn logs(&self, id: &InstanceId, start: impl Into<LogStart>, follow: bool) -> LogStream {
        let (stream, reading) = logs::stream(
            &self.shared().logs,
            &self.shared().paths.log(id),
            start.into(),
            follow,
        );
        let cancel = self.shared().cancel.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = reading => {}
                () = cancel.cancelled() => {}
            }
        });
        stream
    }

    /// Starts a command in a supervised instance's environment, directory and user.
    pub fn exec(&self, id: &InstanceId, command: &[String]) -> Result<ExecSession, ExecError> {
        self.shared()
            .environment_of(id)
            .ok_or_else(|| ExecError::NotFound(id.to_string()))?
            .session(command)
    }

    /// CPU and memory of every running instance, read now.
    pub async fn usage(&self) -> BTreeMap<InstanceId, InstanceUsage> {
        let observed = self.observed();
        tokio::task::spawn_blocking(move || usage::read(&observed))
            .await
            .unwrap_or_default()
    }

    /// Ends all tasks and waits for them. Applications go on running.
    pub async fn close(&self) {
        self.shared().cancel.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

fn open(config: NativeConfig, cancel: CancellationToken) -> Result<Shared, OpenError> {
    for (dir, mode) in [
        (&config.run_dir, None),
        (&config.state_dir, Some(0o700)),
        (&config.log_dir, Some(0o750)),
    ] {
        make_dir(dir, mode).map_err(|source| OpenError::Dir {
            path: dir.clone(),
            source,
        })?;
    }
    let secrets = secrets::place(&config)?;
    let tag = secrets::tag(&config.run_dir);
    let cgroups = Cgroups::detect(&config.cgroup, &tag);
    tracing::info!(run_dir = %config.run_dir.display(), secrets = ?secrets, cgroups = ?cgroups, "native runtime");
    let paths = Paths::new(&config, secrets);
    let shared = Shared::new(config, paths, cgroups, cancel);
    // Whether or not they will be supervised: what runs writes, and a log must not fill the disk.
    for log in shared
        .paths
        .logs_on_disk()
        .map_err(|source| OpenError::Dir {
            path: shared.paths.state.clone(),
            source,
        })?
    {
        shared.logs.cover(&log);
    }
    Ok(shared)
}

/// Makes a directory of ours. One that was there keeps its permissions, unless these are what protects it.
fn make_dir(dir: &Path, mode: Option<u32>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(dir)?;
    if !std::fs::metadata(dir)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    match mode {
        Some(mode) => std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)),
        None => Ok(()),
    }
}
