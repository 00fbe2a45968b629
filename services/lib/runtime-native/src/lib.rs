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

mod cgroup;
pub mod config;
mod end;
mod erase;
mod exec;
mod instance;
mod launch;
mod logs;
mod materialise;
mod paths;
mod policy;
mod ports;
mod probe;
mod proc;
mod process;
pub mod reaper;
mod record;
mod recover;
mod runtime;
mod secrets;
mod shared;
pub mod shim;
pub mod spec;
pub mod status;
mod usage;
mod workload;

pub use config::NativeConfig;
pub use erase::{EraseError, Remains, erase, remains};
pub use exec::{ExecError, ExecSession};
pub use logs::{LogPosition, LogStart, LogStream, Positioned, is_too_old};
pub use materialise::{PrepareError, put_instance_file};
pub use ports::{PortPool, PortsExhausted, UidPool, UidsExhausted};
pub use recover::recover;
pub use runtime::{NativeRuntime, OpenError, RestartError, RunError, StopError};
pub use spec::{InstanceId, InstanceSpec, Instances, WorkloadKey, WorkloadKind, WorkloadSpec};
pub use status::{InstanceStatus, Observed, Phase, Reason, WorkloadState};
