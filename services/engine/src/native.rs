//! The runtime port over [`baetyl_runtime_native`].

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use baetyl_kit::{CancellationToken, Kit};
use baetyl_runtime_native::config::{Backoff, CgroupMode, LogLimits, SecretsDir};
use baetyl_runtime_native::{
    InstanceId, LogPosition, LogStart, NativeConfig, NativeRuntime, Observed, OpenError, PortPool,
    RunError, WorkloadKey, WorkloadSpec,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Config;
use crate::ports::{Runtime, RuntimeError, Usage};
use crate::resolve::{INSTANCE_VARIABLE, PORTS_VARIABLE, ports_of_text};
use crate::users::Users;

/// Processes of this machine; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Native {
    runtime: NativeRuntime,
    ports: Arc<PortPool>,
    users: Arc<Users>,
    /// CPU time of each instance at the last reading.
    readings: Arc<Mutex<HashMap<InstanceId, (Instant, u64)>>>,
}

impl Native {
    /// Opens the runtime beneath the data directory; it ends with `shutdown` and leaves every application running.
    pub(crate) async fn open(
        config: &Config,
        kit: &Kit,
        shutdown: CancellationToken,
    ) -> Result<Self, OpenError> {
        let native = native_config(config, kit);
        let lost = native.clone();
        // What runs goes on running, also when somebody emptied the directory with its records.
        let recovered =
            tokio::task::spawn_blocking(move || baetyl_runtime_native::recover(&lost)).await;
        if let Ok(Err(error)) = recovered {
            tracing::error!(%error, "programs that run without a record cannot be looked for");
        }
        let runtime = NativeRuntime::open(native, shutdown).await?;
        Ok(Self {
            runtime,
            users: Arc::new(Users::open(&config.native, kit.data_dir())),
            ports: Arc::new(PortPool::new(
                config.native.port_min..=config.native.port_max,
            )),
            readings: Arc::default(),
        })
    }
}

fn native_config(config: &Config, kit: &Kit) -> NativeConfig {
    let native = &config.native;
    let beneath = NativeConfig::beneath(kit.data_dir(), config.shim());
    NativeConfig {
        secrets: if native.secrets_in_memory {
            SecretsDir::Auto
        } else {
            SecretsDir::OnDisk
        },
        backoff: Backoff {
            initial: native.restart_backoff,
            max: native.restart_backoff_max,
            ..Backoff::default()
        },
        logs: LogLimits {
            max_bytes: native.log_max_size.0,
            keep: native.log_keep,
            ..LogLimits::default()
        },
        cgroup: if native.cgroups {
            CgroupMode::Auto
        } else {
            CgroupMode::Off
        },
        ..beneath
    }
}

fn failed(error: impl std::error::Error) -> RuntimeError {
    RuntimeError::Failed(baetyl_kit::error::chain(&error))
}

impl Runtime for Native {
    fn run(&self, spec: WorkloadSpec) -> Result<(), RuntimeError> {
        self.runtime.run(spec).map_err(|error| match error {
            RunError::Differs(_) | RunError::Stopping(_) => {
                RuntimeError::InTheWay(error.to_string())
            }
            RunError::Closed(_) => RuntimeError::Failed(error.to_string()),
        })
    }

    async fn stop(&self, key: &WorkloadKey) -> Result<(), RuntimeError> {
        self.runtime.stop(key, None).await.map_err(failed)
    }

    async fn remove(&self, key: &WorkloadKey) -> Result<(), RuntimeError> {
        self.runtime.remove(key, None).await.map_err(failed)
    }

    async fn restart(&self, key: &WorkloadKey) -> Result<(), RuntimeError> {
        self.runtime.restart(key).await.map_err(failed)
    }

    fn watch(&self) -> watch::Receiver<Arc<Observed>> {
        self.runtime.watch()
    }

    async fn found(&self) -> Result<Vec<WorkloadKey>, RuntimeError> {
        self.runtime.found().await.map_err(failed)
    }

    fn assign_ports(
        &self,
        id: &InstanceId,
        count: usize,
        previous: &[u16],
    ) -> Result<Vec<u16>, RuntimeError> {
        let running = count > 0 && self.runtime.is_running(id);
        let told = if running && previous.is_empty() {
            ports_told(id)
        } else {
            Vec::new()
        };
        let previous = if told.is_empty() { previous } else { &told };
        self.ports
            .assign(id, count, previous, running)
            .map_err(failed)
    }

    fn release_ports(&self, key: &WorkloadKey) {
        self.ports.release(key);
    }

    fn users(&self) -> &Users {
        &self.users
    }

    fn instance_dir(&self, id: &InstanceId) -> PathBuf {
        self.runtime.instance_dir(id)
    }

    fn logs(
        &self,
        id: &InstanceId,
        start: LogStart,
        follow: bool,
    ) -> BoxStream<'static, std::io::Result<(Bytes, LogPosition)>> {
        let log = self.runtime.logs(id, start, follow);
        log.with_positions().boxed()
    }

    /// CPU is the mean since the last reading, or since the start at the first one of an instance.
    async fn usage(&self) -> BTreeMap<InstanceId, Usage> {
        let used = self.runtime.usage().await;
        let now = Instant::now();
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        readings.retain(|id, _| used.contains_key(id));
        let usage = used.into_iter().map(|(id, used)| {
            let before = readings.insert(id.clone(), (now, used.cpu_nanos));
            let cpu = before.map_or(0.0, |(then, nanos)| {
                cores(used.cpu_nanos.saturating_sub(nanos), now - then)
            });
            let memory = used.memory_bytes;
            (id, Usage { cpu, memory })
        });
        usage.collect()
    }
}

/// Ports a running instance was started with, from its environment: engine's record of them is lost.
fn ports_told(id: &InstanceId) -> Vec<u16> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let instance = format!("{INSTANCE_VARIABLE}={id}");
    let ports = format!("{PORTS_VARIABLE}=");
    for process in processes {
        let environ = std::fs::read(process.path().join("environ")).unwrap_or_default();
        let words = || environ.split(|byte| *byte == 0);
        if words().any(|word| word == instance.as_bytes()) {
            let told = words().find_map(|word| word.strip_prefix(ports.as_bytes()));
            return told
                .map(|told| ports_of_text(&String::from_utf8_lossy(told)))
                .unwrap_or_default();
        }
    }
    Vec::new()
}

/// CPU time over wall time.
fn cores(nanos: u64, passed: std::time::Duration) -> f64 {
    let passed = passed.as_secs_f64();
    if passed <= 0.0 {
        0.0
    } else {
        std::time::Duration::from_nanos(nanos).as_secs_f64() / passed
    }
}
