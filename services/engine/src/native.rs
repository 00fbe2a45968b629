//! The runtime port over [`baetyl_runtime_native`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use baetyl_kit::{CancellationToken, Kit};
use baetyl_model::Digest;
use baetyl_model::name::{AppName, ServiceName, Version};
use baetyl_model::report::{MachineStats, RunMode};
use baetyl_model::workload::{self, Observed, Usage, WorkloadKey};
use baetyl_runtime_native::config::{Backoff, CgroupMode, LogLimits, SecretsDir};
use baetyl_runtime_native::{
    self as native, InstanceId, Instances as _, NativeConfig, NativeRuntime, OpenError, PortPool,
    RunError, WorkloadSpec, put_instance_file,
};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Config;
use crate::ports::{LogError, LogPosition, LogStart, Machines, Remark, Runtime, RuntimeError};
use crate::release::{Contents, Handed, Resolved, namespace_of};

mod logs;
pub(crate) mod observed;
pub(crate) mod resolve;
pub(crate) mod users;

use observed::Translator;
use resolve::{INSTANCE_VARIABLE, PORTS_VARIABLE, Place, TOKEN_FILE, ports_of_text};
use users::Users;

/// Processes of this machine; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Native {
    runtime: NativeRuntime,
    ports: Arc<PortPool>,
    users: Arc<Users>,
    place: Arc<Place>,
    translator: Arc<Translator>,
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
        let users = Users::open(&config.native, kit.data_dir());
        Ok(Self {
            place: Arc::new(place(config, kit, &users)),
            translator: Arc::new(Translator::new(hostname())),
            runtime,
            users: Arc::new(users),
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

/// What every instance on this node has in common.
fn place(config: &Config, kit: &Kit, users: &Users) -> Place {
    let runtimes = config.runtime_commands();
    let is_private = |(_, command): &(&String, &Vec<String>)| {
        let program = command.first().map(Path::new);
        program.is_some_and(|program| program.is_absolute() && users::closed(program).is_some())
    };
    let private_runtimes = if users.are_own() {
        let private = runtimes.iter().filter(is_private);
        private.map(|(id, _)| id.clone()).collect()
    } else {
        BTreeSet::new()
    };
    for id in &private_runtimes {
        tracing::warn!(
            runtime = id,
            "the program of a function runtime is closed to other users: its functions run as the user of engine"
        );
    }
    Place {
        data_dir: kit.data_dir().to_owned(),
        run_dir: kit.data_dir().join("engine/run"),
        node_socket: kit.app_socket("node"),
        function_socket: kit.app_socket("function-proxy"),
        runtimes,
        private_runtimes,
    }
}

fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Turns a release into processes with what this machine hands out.
pub(crate) fn resolve_here(
    contents: &Contents<'_>,
    place: &Place,
    users: &Users,
    handed: &mut Handed,
    mut assign: impl FnMut(&InstanceId, usize, &[u16]) -> Result<Vec<u16>, String>,
) -> Result<Resolved<WorkloadSpec>, String> {
    let app = &contents.release.app.name;
    let user = users.assign(app, handed.user);
    let user = user.map_err(|error| error.to_string())?;
    // Kept while it is not used: the files belong to it.
    handed.user = user.map(|user| user.uid).or(handed.user);
    let namespace = namespace_of(contents.release.system);
    let mut certificates = BTreeMap::new();
    for service in &contents.bodies.app.services {
        // A name that is none is refused with all else.
        let Ok(name) = ServiceName::new(service.name.as_str()) else {
            continue;
        };
        let given = contents.authority.issue(app, &namespace, &name);
        let given = given.map_err(|error| baetyl_kit::error::chain(&error))?;
        certificates.insert(service.name.clone(), given);
    }
    let request = resolve::Request {
        release: contents.release,
        bodies: contents.bodies,
        objects: contents.objects,
        place,
        node: contents.node,
        tokens: contents.tokens,
        taken_at: contents.taken_at,
        user,
        certificates: &certificates,
    };
    let ports = &mut handed.ports;
    let resolved = resolve::resolve(&request, &mut |id, count| {
        let previous = ports.get(&id.to_string()).cloned().unwrap_or_default();
        let assigned = assign(id, count, &previous)?;
        ports.insert(id.to_string(), assigned.clone());
        Ok(assigned)
    });
    resolved.map_err(|error| baetyl_kit::error::chain(&error))
}

/// The key of a service, each of which is a workload of its own.
pub(crate) fn key_of(
    app: &AppName,
    system: bool,
    version: &Version,
    service: &str,
) -> Option<WorkloadKey> {
    Some(WorkloadKey {
        namespace: namespace_of(system),
        app: app.clone(),
        version: version.clone(),
        service: ServiceName::new(service).ok()?,
    })
}

impl Native {
    fn assign_ports(
        &self,
        id: &InstanceId,
        count: usize,
        previous: &[u16],
    ) -> Result<Vec<u16>, String> {
        let running = count > 0 && self.runtime.is_running(id);
        let told = if running && previous.is_empty() {
            ports_told(id)
        } else {
            Vec::new()
        };
        let previous = if told.is_empty() { previous } else { &told };
        self.ports
            .assign(id, count, previous, running)
            .map_err(|error| error.to_string())
    }

    /// Instances that run already have the token of the key engine had when it started them, or none when the directory
    /// was lost: they find a valid one at the path they know.
    async fn refresh_tokens(&self, spec: &WorkloadSpec) {
        let mut tokens = Vec::new();
        for (index, instance) in (1..).zip(&spec.instances) {
            let dir = self.runtime.instance_dir(&spec.key.instance(index));
            let token = instance.files.iter().find(|file| file.path == TOKEN_FILE);
            tokens.extend(token.map(|token| (dir, token.clone(), instance.user)));
        }
        let refreshed = tokio::task::spawn_blocking(move || {
            for (dir, token, user) in tokens {
                if let Err(error) = put_instance_file(&dir, &token, user) {
                    tracing::warn!(dir = %dir.display(), %error, "a token could not be renewed");
                }
            }
        });
        let _ = refreshed.await;
    }
}

impl Runtime for Native {
    type Workload = WorkloadSpec;
    type Seen = Arc<native::Observed>;

    const IN_PLACE: bool = false;
    const MODE: RunMode = RunMode::Native;
    const TAKES_OBJECTS: bool = true;

    fn key(workload: &WorkloadSpec) -> &WorkloadKey {
        &workload.key
    }

    fn key_of(
        &self,
        app: &AppName,
        system: bool,
        version: &Version,
        service: &str,
    ) -> Option<WorkloadKey> {
        key_of(app, system, version, service)
    }

    fn resolve(
        &self,
        contents: &Contents<'_>,
        handed: &mut Handed,
    ) -> Result<Resolved<WorkloadSpec>, String> {
        let (place, users) = (&self.place, &self.users);
        resolve_here(contents, place, users, handed, |id, count, previous| {
            self.assign_ports(id, count, previous)
        })
    }

    fn bring_back(&self, app: &AppName, handed: &Handed) {
        if handed.user.is_some()
            && let Err(error) = self.users.assign(app, handed.user)
        {
            tracing::error!(%error, "an application cannot keep its user");
        }
    }

    fn release(&self, app: &AppName) {
        self.users.release(app);
    }

    async fn run(&self, workload: WorkloadSpec) -> Result<(), RuntimeError> {
        self.refresh_tokens(&workload).await;
        self.runtime.run(workload).map_err(|error| match error {
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
        self.runtime.remove(key, None).await.map_err(failed)?;
        self.ports.release(key);
        Ok(())
    }

    async fn restart(&self, key: &WorkloadKey) -> Result<(), RuntimeError> {
        self.runtime.restart(key).await.map_err(failed)
    }

    fn watch(&self) -> watch::Receiver<Arc<native::Observed>> {
        self.runtime.watch()
    }

    fn observed(&self) -> Arc<Observed> {
        let seen = self.runtime.watch().borrow().clone();
        self.translator.translate(&seen)
    }

    async fn found(&self) -> Result<Vec<WorkloadKey>, RuntimeError> {
        self.runtime.found().await.map_err(failed)
    }

    fn shares_directory(&self) -> bool {
        self.users.are_own()
    }

    /// Why applications run as the user of engine, or some of them, although each should have its own.
    fn remarks(&self) -> Vec<Remark> {
        let private = &self.place.private_runtimes;
        let of_runtimes = || {
            let ids: Vec<&str> = private.iter().map(String::as_str).collect();
            format!(
                "functions run as the user of engine, because the programs of these runtimes are closed to others: {}",
                ids.join(", ")
            )
        };
        let shared = self.users.shared().map(str::to_owned);
        let why = shared.or_else(|| (!private.is_empty()).then(of_runtimes));
        let remark = why.map(|message| Remark {
            condition: "AppsShareUser",
            reason: "CannotSeparate",
            message,
        });
        remark.into_iter().collect()
    }

    fn unsupervised_logs(&self, key: &WorkloadKey) -> Vec<workload::InstanceId> {
        vec![observed::id(&key.instance(1))]
    }

    fn logs(
        &self,
        id: &workload::InstanceId,
        start: LogStart,
        follow: bool,
    ) -> BoxStream<'static, Result<(Bytes, LogPosition), LogError>> {
        logs::logs(&self.runtime, id, start, follow)
    }

    /// CPU is the mean since the last reading, or since the start at the first one of an instance.
    async fn usage(&self) -> BTreeMap<workload::InstanceId, Usage> {
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
            let usage = Usage {
                cpu,
                memory,
                ..Usage::default()
            };
            (observed::id(&id), usage)
        });
        usage.collect()
    }

    fn machines(&self) -> Option<Machines> {
        None
    }

    async fn machine_stats(&self) -> Vec<MachineStats> {
        Vec::new()
    }

    /// Files of configurations lie in the directories of instances and go with these.
    async fn sweep(&self, _: BTreeSet<Digest>) -> Result<(), RuntimeError> {
        Ok(())
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
