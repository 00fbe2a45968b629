//! A machine whose programs do what a test says of their version, and a runtime over it that can be remade.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use baetyl_model::Digest;
use baetyl_model::name::{AppName, Version};
use baetyl_model::report::{MachineStats, RunMode};
use baetyl_model::workload::{InstanceId, Observed, Usage, Workload, WorkloadState};
use baetyl_runtime_native::spec::InstancePort;
use baetyl_runtime_native::status::{
    InstanceStatus, LastExit, Phase, ProcessIdent, Reason, RunEnd, RunRecord,
};
use baetyl_runtime_native::{Instances as _, WorkloadKey, WorkloadKind, WorkloadSpec};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::native::observed;
use crate::native::resolve::Place;
use crate::native::users::Users;
use crate::native::{key_of, resolve_here};
use crate::ports::{LogError, LogPosition, LogStart, Machines, Remark, Runtime, RuntimeError};
use crate::release::{Contents, Handed, Resolved};

/// What the instances of a version do once they are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Behaviour {
    /// Run and are ready.
    #[default]
    Ready,
    /// End again and again.
    Crash,
    /// Run and never pass their probe.
    NeverReady,
    /// The runtime refuses them.
    Refuse,
    /// End well.
    Succeed,
    /// End badly for good.
    Fail,
}

#[derive(Debug, Default)]
struct Machine {
    /// By workload, what is there: an instance with a pid runs.
    present: BTreeMap<WorkloadKey, Vec<Process>>,
    by_version: BTreeMap<String, Behaviour>,
    log: Vec<String>,
    pids: u32,
    ports: u16,
    users: BTreeMap<String, Option<u32>>,
    list_fails: bool,
    unknown: Option<String>,
}

#[derive(Debug, Clone)]
struct Process {
    pid: Option<u32>,
    ports: Vec<InstancePort>,
    behaviour: Behaviour,
    restarts: u32,
}

/// The runtime of one life of engine; the machine survives it.
#[derive(Debug, Clone)]
pub(crate) struct FakeRuntime {
    machine: Arc<Mutex<Machine>>,
    supervised: Arc<Mutex<BTreeSet<WorkloadKey>>>,
    observed: Arc<watch::Sender<Arc<Observed>>>,
    place: Arc<Place>,
    users: Arc<Users>,
    /// Hands out user ids of this range.
    own_users: Option<RangeInclusive<u32>>,
}

impl FakeRuntime {
    pub(crate) fn new(dir: PathBuf) -> Self {
        let place = Place {
            run_dir: dir.join("engine/run"),
            node_socket: dir.join("run/apps/node.sock"),
            function_socket: dir.join("run/apps/function-proxy.sock"),
            runtimes: BTreeMap::from([("python3".to_owned(), vec!["/bin/python".to_owned()])]),
            private_runtimes: BTreeSet::new(),
            data_dir: dir,
        };
        Self::at(Arc::new(place))
    }

    fn at(place: Arc<Place>) -> Self {
        Self {
            machine: Arc::default(),
            supervised: Arc::default(),
            observed: Arc::new(watch::Sender::default()),
            place,
            users: Arc::default(),
            own_users: None,
        }
    }

    /// Applications run as users of this range.
    pub(crate) fn with_users(mut self, range: RangeInclusive<u32>) -> Self {
        self.users = Arc::new(Users::of_range(range.clone()));
        self.own_users = Some(range);
        self
    }

    /// Users of what was started, by application.
    pub(crate) fn users_of(&self) -> BTreeMap<String, Option<u32>> {
        self.machine.lock().unwrap().users.clone()
    }

    /// The same machine after engine was killed.
    pub(crate) fn reborn(&self) -> Self {
        let new = Self {
            machine: Arc::clone(&self.machine),
            ..Self::at(Arc::clone(&self.place))
        };
        match self.own_users.clone() {
            Some(range) => new.with_users(range),
            None => new,
        }
    }

    pub(crate) fn behave(&self, version: &str, behaviour: Behaviour) {
        let mut machine = self.machine.lock().unwrap();
        machine.by_version.insert(version.to_owned(), behaviour);
        for (key, processes) in &mut machine.present {
            if key.version == *version {
                processes
                    .iter_mut()
                    .for_each(|process| process.behaviour = behaviour);
            }
        }
        drop(machine);
        self.look();
    }

    /// Whether what is on the machine can be listed.
    pub(crate) fn fail_lists(&self, fails: bool) {
        self.machine.lock().unwrap().list_fails = fails;
    }

    /// Why nobody can tell what runs; None: it can be told.
    pub(crate) fn blind(&self, why: Option<&str>) {
        self.machine.lock().unwrap().unknown = why.map(str::to_owned);
        self.look();
    }

    /// Power cut: everything is on disk and nothing runs.
    pub(crate) fn power_cut(&self) {
        let mut machine = self.machine.lock().unwrap();
        for process in machine.present.values_mut().flatten() {
            process.pid = None;
        }
    }

    /// Pids of what runs, by `<app>.<version>.<service>`.
    pub(crate) fn running(&self) -> BTreeMap<String, Vec<u32>> {
        let machine = self.machine.lock().unwrap();
        let name = |key: &WorkloadKey| format!("{}.{}.{}", key.app, key.version, key.service);
        let pids = |processes: &[Process]| {
            processes
                .iter()
                .filter_map(|process| process.pid)
                .collect::<Vec<_>>()
        };
        let all = machine
            .present
            .iter()
            .map(|(key, processes)| (name(key), pids(processes)));
        all.filter(|(_, pids)| !pids.is_empty()).collect()
    }

    /// Names of what runs.
    pub(crate) fn names(&self) -> Vec<String> {
        self.running().into_keys().collect()
    }

    /// What is there, running or not.
    pub(crate) fn present(&self) -> Vec<String> {
        self.machine
            .lock()
            .unwrap()
            .present
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    /// What was done, in order: `start shop.1.web`, `stop …`, `remove …`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.machine.lock().unwrap().log.clone()
    }

    pub(crate) fn forget_log(&self) {
        self.machine.lock().unwrap().log.clear();
    }

    fn note(machine: &mut Machine, what: &str, key: &WorkloadKey) {
        machine.log.push(format!(
            "{what} {}.{}.{}",
            key.app, key.version, key.service
        ));
    }

    /// An instance that is on its feet for a moment and then ends, is started again, ends …
    fn crash_later(&self, key: WorkloadKey) {
        let runtime = self.clone();
        tokio::spawn(async move {
            for _ in 0..3 {
                tokio::task::yield_now().await;
                for process in runtime
                    .machine
                    .lock()
                    .unwrap()
                    .present
                    .get_mut(&key)
                    .into_iter()
                    .flatten()
                {
                    process.restarts += 1;
                }
                runtime.look();
            }
        });
    }

    /// Puts what is seen of supervised workloads up.
    fn look(&self) {
        let machine = self.machine.lock().unwrap();
        let mut observed = Observed {
            unknown: machine.unknown.clone(),
            ..Observed::default()
        };
        for key in self.supervised.lock().unwrap().iter() {
            let Some(processes) = machine.present.get(key) else {
                continue;
            };
            let mut workload = Workload::default();
            for (index, process) in (1..).zip(processes) {
                let status = status(process);
                workload.state = match status.phase {
                    Phase::Succeeded => WorkloadState::Succeeded,
                    Phase::Failed => WorkloadState::Failed,
                    _ => workload.state,
                };
                let instance = observed::instance(&key.instance(index), &status, "machine");
                workload.instances.push(Arc::new(instance));
            }
            observed.workloads.insert(key.clone(), workload);
        }
        self.observed.send_replace(Arc::new(observed));
    }
}

fn status(process: &Process) -> InstanceStatus {
    let running = process.pid.is_some();
    let (phase, ready, reason) = match process.behaviour {
        _ if !running => (Phase::Stopped, false, None),
        Behaviour::Ready => (Phase::Running, true, None),
        Behaviour::NeverReady => (Phase::Running, false, Some(Reason::NotReady)),
        Behaviour::Crash => (Phase::Backoff, false, Some(Reason::Exited)),
        Behaviour::Succeed => (Phase::Succeeded, false, None),
        Behaviour::Fail | Behaviour::Refuse => (Phase::Failed, false, Some(Reason::Exited)),
    };
    let message = if phase == Phase::Backoff {
        "exited with code 1"
    } else {
        ""
    };
    InstanceStatus {
        phase,
        ready,
        reason,
        message: message.to_owned(),
        process: process
            .pid
            .filter(|_| phase == Phase::Running)
            .map(|pid| RunRecord {
                boot_id: "boot".to_owned(),
                shim: ProcessIdent {
                    pid: pid + 1_000_000,
                    start_ticks: 1,
                },
                app: ProcessIdent {
                    pid,
                    start_ticks: 1,
                },
                started_at_ms: 1_000,
            }),
        adopted: false,
        restarts: process.restarts,
        last_exit: (phase == Phase::Backoff).then(|| LastExit {
            end: RunEnd::Code(1),
            reason: Reason::Exited,
            message: message.to_owned(),
            at_ms: None,
        }),
        ports: process.ports.clone(),
        warnings: Vec::new(),
    }
}

impl Runtime for FakeRuntime {
    type Workload = WorkloadSpec;
    type Seen = Arc<Observed>;

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
        resolve_here(
            contents,
            &self.place,
            &self.users,
            handed,
            |_, count, previous| {
                let mut machine = self.machine.lock().unwrap();
                let mut ports = previous.to_vec();
                while ports.len() < count {
                    machine.ports += 1;
                    ports.push(50199 + machine.ports);
                }
                ports.truncate(count);
                Ok(ports)
            },
        )
    }

    fn bring_back(&self, app: &AppName, handed: &Handed) {
        if handed.user.is_some() {
            self.users.assign(app, handed.user).unwrap();
        }
    }

    fn release(&self, app: &AppName) {
        self.users.release(app);
    }

    async fn run(&self, spec: WorkloadSpec) -> Result<(), RuntimeError> {
        let mut machine = self.machine.lock().unwrap();
        let behaviour = machine
            .by_version
            .get(spec.key.version.as_str())
            .copied()
            .unwrap_or_default();
        if behaviour == Behaviour::Refuse {
            return Err(RuntimeError::Failed("the runtime refuses it".to_owned()));
        }
        let job = matches!(spec.kind, WorkloadKind::Job { .. });
        let behaviour = if job && behaviour == Behaviour::Ready {
            Behaviour::Succeed
        } else {
            behaviour
        };
        let user = spec.instances.first().and_then(|instance| instance.user);
        machine
            .users
            .insert(spec.key.app.to_string(), user.map(|user| user.uid));
        let mut processes = machine.present.remove(&spec.key).unwrap_or_default();
        processes.resize(
            spec.instances.len(),
            Process {
                pid: None,
                ports: Vec::new(),
                behaviour,
                restarts: 0,
            },
        );
        let mut started = false;
        for (process, instance) in processes.iter_mut().zip(&spec.instances) {
            process.ports.clone_from(&instance.ports);
            if process.pid.is_none() {
                machine.pids += 1;
                process.pid = Some(machine.pids);
                process.behaviour = behaviour;
                started = true;
            }
        }
        if started {
            Self::note(&mut machine, "start", &spec.key);
        }
        machine.present.insert(spec.key.clone(), processes);
        drop(machine);
        self.supervised.lock().unwrap().insert(spec.key.clone());
        self.look();
        if behaviour == Behaviour::Crash {
            self.crash_later(spec.key);
        }
        Ok(())
    }

    async fn stop(&self, key: &WorkloadKey) -> Result<(), RuntimeError> {
        let mut machine = self.machine.lock().unwrap();
        let mut ran = false;
        for process in machine.present.get_mut(key).into_iter().flatten() {
            ran |= process.pid.take().is_some();
        }
        if ran {
            Self::note(&mut machine, "stop", key);
        }
        drop(machine);
        self.supervised.lock().unwrap().remove(key);
        self.look();
        Ok(())
    }

    async fn remove(&self, key: &WorkloadKey) -> Result<(), RuntimeError> {
        let mut machine = self.machine.lock().unwrap();
        if machine.present.remove(key).is_some() {
            Self::note(&mut machine, "remove", key);
        }
        drop(machine);
        self.supervised.lock().unwrap().remove(key);
        self.look();
        Ok(())
    }

    async fn restart(&self, key: &WorkloadKey) -> Result<(), RuntimeError> {
        let mut machine = self.machine.lock().unwrap();
        let mut pids = machine.pids;
        for process in machine.present.get_mut(key).into_iter().flatten() {
            pids += 1;
            process.pid = Some(pids);
            process.restarts += 1;
        }
        machine.pids = pids;
        Self::note(&mut machine, "restart", key);
        drop(machine);
        self.look();
        Ok(())
    }

    fn watch(&self) -> watch::Receiver<Arc<Observed>> {
        self.observed.subscribe()
    }

    fn observed(&self) -> Arc<Observed> {
        self.observed.borrow().clone()
    }

    async fn found(&self) -> Result<Vec<WorkloadKey>, RuntimeError> {
        let machine = self.machine.lock().unwrap();
        if machine.list_fails {
            return Err(RuntimeError::Failed(
                "the run directory cannot be listed".to_owned(),
            ));
        }
        Ok(machine.present.keys().cloned().collect())
    }

    fn shares_directory(&self) -> bool {
        self.users.are_own()
    }

    fn remarks(&self) -> Vec<Remark> {
        Vec::new()
    }

    fn unsupervised_logs(&self, key: &WorkloadKey) -> Vec<InstanceId> {
        vec![observed::id(&key.instance(1))]
    }

    fn logs(
        &self,
        id: &InstanceId,
        start: LogStart,
        _: bool,
    ) -> BoxStream<'static, Result<(Bytes, LogPosition), LogError>> {
        let lines = format!("{start:?} of {id}\n");
        let position = LogPosition(format!("0:{}", lines.len()));
        futures_util::stream::iter([Ok((Bytes::from(lines), position))]).boxed()
    }

    async fn usage(&self) -> BTreeMap<InstanceId, Usage> {
        let observed = self.observed.borrow().clone();
        let mut usage = BTreeMap::new();
        for (key, workload) in &observed.workloads {
            for instance in &workload.instances {
                let id = InstanceId {
                    workload: key.clone(),
                    name: instance.status.name.clone(),
                };
                let used = Usage {
                    cpu: 0.5,
                    memory: 1 << 20,
                    ..Usage::default()
                };
                usage.insert(id, used);
            }
        }
        usage
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
