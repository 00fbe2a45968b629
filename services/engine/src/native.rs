//! The runtime port over [`baetyl_runtime_native`].

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use baetyl_kit::{CancellationToken, Kit};
use baetyl_runtime_native::config::{Backoff, CgroupMode, LogLimits, SecretsDir};
use baetyl_runtime_native::{
    InstanceId, NativeConfig, NativeRuntime, Observed, OpenError, PortPool, RunError, WorkloadKey, WorkloadSpec,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Config;
use crate::ports::{Runtime, RuntimeError, Usage};

/// Processes of this machine; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Native {
    runtime: NativeRuntime,
    ports: Arc<PortPool>,
    /// CPU time of each instance at the last reading.
    readings: Arc<Mutex<HashMap<InstanceId, (Instant, u64)>>>,
}

impl Native {
    /// Opens the runtime beneath the data directory; it ends with `shutdown` and leaves every application running.
    pub(crate) async fn open(config: &Config, kit: &Kit, shutdown: CancellationToken) -> Result<Self, OpenError> {
        let runtime = NativeRuntime::open(native_config(config, kit), shutdown).await?;
        Ok(Self {
            runtime,
            ports: Arc::new(PortPool::new(config.native.port_min..=config.native.port_max)),
            readings: Arc::default(),
        })
    }
}

fn native_config(config: &Config, kit: &Kit) -> NativeConfig {
    let native = &config.native;
    let beneath = NativeConfig::beneath(kit.data_dir(), config.shim());
    NativeConfig {
        secrets: if native.secrets_in_memory { SecretsDir::Auto } else { SecretsDir::OnDisk },
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
        cgroup: if native.cgroups { CgroupMode::Auto } else { CgroupMode::Off },
        ..beneath
    }
}

fn failed(error: impl std::error::Error) -> RuntimeError {
    RuntimeError::Failed(baetyl_kit::error::chain(&error))
}

impl Runtime for Native {
    fn run(&self, spec: WorkloadSpec) -> Result<(), RuntimeError> {
        self.runtime.run(spec).map_err(|error| match error {
            RunError::Differs(_) | RunError::Stopping(_) => RuntimeError::InTheWay(error.to_string()),
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

    fn assign_ports(&self, id: &InstanceId, count: usize, previous: &[u16]) -> Result<Vec<u16>, RuntimeError> {
        let adopt = !previous.is_empty() && self.runtime.is_running(id);
        self.ports.assign(id, count, previous, adopt).map_err(failed)
    }

    fn release_ports(&self, key: &WorkloadKey) {
        self.ports.release(key);
    }

    fn instance_dir(&self, id: &InstanceId) -> PathBuf {
        self.runtime.instance_dir(id)
    }

    fn logs(&self, id: &InstanceId, tail: usize, follow: bool) -> BoxStream<'static, std::io::Result<Bytes>> {
        self.runtime.logs(id, tail, follow).boxed()
    }

    /// CPU is the mean since the last reading, or since the start at the first one of an instance.
    async fn usage(&self) -> BTreeMap<InstanceId, Usage> {
        let used = self.runtime.usage().await;
        let now = Instant::now();
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        readings.retain(|id, _| used.contains_key(id));
        let usage = used.into_iter().map(|(id, used)| {
            let before = readings.insert(id.clone(), (now, used.cpu_nanos));
            let cpu = before.map_or(0.0, |(then, nanos)| cores(used.cpu_nanos.saturating_sub(nanos), now - then));
            let memory = used.memory_bytes;
            (id, Usage { cpu, memory })
        });
        usage.collect()
    }
}

/// CPU time over wall time.
fn cores(nanos: u64, passed: std::time::Duration) -> f64 {
    let passed = passed.as_secs_f64();
    if passed <= 0.0 { 0.0 } else { std::time::Duration::from_nanos(nanos).as_secs_f64() / passed }
}
