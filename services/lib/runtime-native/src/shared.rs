//! What the tasks of the runtime share: settings, places, and the table of what is observed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cgroup::Cgroups;
use crate::config::NativeConfig;
use crate::end::MARK;
use crate::exec::Environment;
use crate::logs::LogBook;
use crate::materialise::program;
use crate::paths::Paths;
use crate::spec::{InstanceId, InstanceSpec, WorkloadKey};
use crate::status::{InstanceStatus, Observed, ProcessIdent, WorkloadState};

/// Clock ticks per second in `/proc`: fixed by the kernel's interface on every machine we build for.
pub(crate) const TICKS_PER_SECOND: u64 = 100;

/// Variables an instance has from us when its spec does not set them.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// PATH when we have none ourselves.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the tasks of the runtime share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: NativeConfig,
    pub(crate) paths: Paths,
    pub(crate) cgroups: Cgroups,
    pub(crate) logs: LogBook,
    pub(crate) cancel: CancellationToken,
    pub(crate) observed: watch::Sender<Arc<Observed>>,
    /// How to run something in each supervised instance.
    environments: Mutex<BTreeMap<InstanceId, Arc<Environment>>>,
}

impl Shared {
    pub(crate) fn new(
        config: NativeConfig,
        paths: Paths,
        cgroups: Cgroups,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            config,
            paths,
            cgroups,
            logs: LogBook::default(),
            cancel,
            observed: watch::Sender::default(),
            environments: Mutex::default(),
        }
    }

    /// Puts an instance into the table; wakes nobody when nothing changed.
    pub(crate) fn publish(&self, id: &InstanceId, status: &InstanceStatus) {
        self.observed.send_if_modified(|observed| {
            if observed
                .instances
                .get(id)
                .is_some_and(|known| **known == *status)
            {
                return false;
            }
            Arc::make_mut(observed)
                .instances
                .insert(id.clone(), Arc::new(status.clone()));
            true
        });
    }

    /// Puts a workload into the table.
    pub(crate) fn publish_workload(&self, key: &WorkloadKey, state: WorkloadState) {
        self.observed.send_if_modified(|observed| {
            if observed.workloads.get(key) == Some(&state) {
                return false;
            }
            Arc::make_mut(observed).workloads.insert(key.clone(), state);
            true
        });
    }

    /// Takes a workload and its instances out of the table.
    pub(crate) fn forget(&self, key: &WorkloadKey) {
        self.observed.send_modify(|observed| {
            let observed = Arc::make_mut(observed);
            observed.workloads.remove(key);
            observed.instances.retain(|id, _| id.workload != *key);
        });
        self.environments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| id.workload != *key);
    }

    /// The environment of an instance, by its spec; remembered for `exec`.
    pub(crate) fn environment(&self, id: &InstanceId, spec: &InstanceSpec) -> Arc<Environment> {
        let dir = self.paths.instance(id);
        let mut env: BTreeMap<OsString, OsString> = INHERITED
            .iter()
            .filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)))
            .chain(
                spec.env
                    .iter()
                    .map(|(name, value)| (name.into(), value.into())),
            )
            .collect();
        env.entry("PATH".into())
            .or_insert_with(|| DEFAULT_PATH.into());
        env.insert(MARK.into(), dir.clone().into_os_string());
        let cwd = program::working_dir(&dir, spec.working_dir.as_deref()).unwrap_or(dir);
        let environment = Arc::new(Environment {
            env: env.into_iter().collect(),
            cwd,
            user: spec.user,
        });
        self.environments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.clone(), Arc::clone(&environment));
        environment
    }

    /// The environment of a supervised instance.
    pub(crate) fn environment_of(&self, id: &InstanceId) -> Option<Arc<Environment>> {
        self.environments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }
}

/// How long ago a process of this boot started. Independent of the wall clock, and right for processes that were
/// adopted too.
pub(crate) fn age(process: ProcessIdent) -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let now = Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    );
    let started =
        Duration::from_millis(process.start_ticks.saturating_mul(1000 / TICKS_PER_SECOND));
    now.saturating_sub(started)
}
