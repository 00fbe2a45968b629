//! Process supervisor of native mode: runs applications as processes, sees how they do, and finds them again.
//!
//! Owns instance directories, their logs and their processes; decides *when* a process is started again, never *which*
//! version should run: that is the engine's. Nothing here reads an application or talks to another service.
//!
//! Every instance runs beneath `baetyl-shim`, a tiny program in a session of its own: the runtime can be killed,
//! replaced or dropped at any moment and the applications go on. It finds them again by (boot id, pid, start ticks)
//! through a pidfd, and knows how they ended from what the shim wrote. What has no such record is *unknown*, never well.
//!
//! Start reading at [`spec`] (what an instance is), [`status`] (what is seen of it), then [`NativeRuntime`].
//!
//! # API
//!
//! ```text
//! // Clone is cheap. Dropping the last clone, or cancelling, ends all tasks and leaves every application running.
//! NativeRuntime::open(config: NativeConfig, shutdown: CancellationToken) -> Result<NativeRuntime, OpenError>   (async)
//!
//! // Takes a workload under supervision. What runs is adopted, what does not is prepared and started; ended jobs stay
//! // ended. Returns at once; how it goes is in the observations. The same spec again is Ok and changes nothing; another
//! // spec under the same key is RunError::Differs.
//! fn run(&self, spec: WorkloadSpec) -> Result<(), RunError>
//!
//! // Makes the instance directories without starting anything (optional: run does it too). Does nothing for instances
//! // that are running.
//! async fn prepare(&self, spec: &WorkloadSpec) -> Result<Vec<Warning>, PrepareError>
//!
//! // Stops all instances (SIGTERM, grace, SIGKILL of everything) and forgets the workload; directories and logs stay.
//! // Works for workloads that are not supervised too (found on disk). grace None: the spec's (else DEFAULT_GRACE).
//! async fn stop(&self, key: &WorkloadKey, grace: Option<Duration>) -> Result<(), StopError>
//!
//! // stop, then removes instance directories, secrets, records, logs, cgroups.
//! async fn remove(&self, key: &WorkloadKey, grace: Option<Duration>) -> Result<(), StopError>
//!
//! // Ends and starts all instances of a supervised workload again, without backoff, spec unchanged.
//! async fn restart(&self, key: &WorkloadKey) -> Result<(), RestartError>
//!
//! // The whole table; changed() wakes at every change, changes are merged (latest wins).
//! fn watch(&self) -> tokio::sync::watch::Receiver<Arc<Observed>>
//! fn observed(&self) -> Arc<Observed>
//!
//! // Workloads that have something on disk, supervised or not: what is not in the ledger is removed by the engine.
//! async fn found(&self) -> Result<Vec<WorkloadKey>, io::Error>
//!
//! // Where things are (the engine writes token paths etc. from it).
//! fn instance_dir(&self, id: &InstanceId) -> PathBuf
//! fn log_file(&self, id: &InstanceId) -> PathBuf
//!
//! // Ports: previous ones are kept when they are free or held by the instance itself (adopt = true skips the bind test).
//! fn ports(&self) -> &PortPool      // PortPool::{new(range), assign(&id, count, previous: &[u16], adopt: bool) -> Result<Vec<u16>, PortsExhausted>, release(&WorkloadKey)}
//! // UidPool::{new(range), assign(&AppName, previous: Option<u32>) -> Result<RunAs, UidsExhausted>, release(&AppName)}
//!
//! // Logs: the last `tail` lines, then (follow) what is written until the stream is dropped, across rotations.
//! fn logs(&self, id: &InstanceId, tail: usize, follow: bool) -> LogStream      // impl Stream<Item = io::Result<Bytes>>
//!
//! // A command in the instance's environment, directory and user; ends with the handle.
//! fn exec(&self, id: &InstanceId, command: &[String]) -> Result<ExecSession, ExecError>   // {stdin, stdout, stderr, wait()}
//!
//! // CPU and memory of every running instance, read now.
//! async fn usage(&self) -> BTreeMap<InstanceId, InstanceUsage>
//! ```

pub mod config;
mod end;
mod launch;
mod materialise;
mod paths;
mod proc;
mod process;
mod record;
pub mod shim;
pub mod spec;
pub mod status;

pub use config::NativeConfig;
pub use spec::{InstanceId, InstanceSpec, WorkloadKey, WorkloadKind, WorkloadSpec};
pub use status::{InstanceStatus, Observed, Phase, Reason, WorkloadState};
