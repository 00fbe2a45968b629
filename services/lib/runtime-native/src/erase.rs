//! Taking everything of a runtime away from a machine: for a node that is no node any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cgroup;
use crate::config::{CgroupMode, NativeConfig, SecretsDir};
use crate::instance::recorded_cgroups;
use crate::paths::{Paths, remove_tree};
use crate::record::StateDir;
use crate::recover::recover;
use crate::runtime::{NativeRuntime, OpenError, StopError};
use crate::secrets;
use crate::spec::WorkloadKey;

/// Why something of a runtime is left.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// Running processes cannot be looked for.
    #[error("cannot look for running applications: {0}")]
    Look(#[source] io::Error),
    /// The directories cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Applications are left, and with them all directories.
    #[error("not every application could be removed: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Applications(Vec<StopError>),
    /// A directory is left.
    #[error("cannot remove {path}: {source}", path = path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What of a runtime is on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// Workloads that have left something on disk, running or not.
    pub workloads: Vec<WorkloadKey>,
    /// Directories of the runtime that are there: instances, records, logs and secrets. Never the host directory.
    pub dirs: Vec<PathBuf>,
}

/// Looks at what [`erase`] would remove. Changes nothing. Blocks.
///
/// # Errors
/// When a directory cannot be read.
pub fn remains(config: &NativeConfig) -> io::Result<Remains> {
    let dirs = secrets::places(config)
        .into_iter()
        // The name of the places for secrets comes from the first of these: it goes last.
        .chain([&config.log_dir, &config.state_dir, &config.run_dir].map(Clone::clone))
        .filter(|dir| fs::symlink_metadata(dir).is_ok())
        .collect();
    Ok(Remains {
        workloads: Paths::new(config, None).workloads_on_disk()?,
        dirs,
    })
}

/// Ends and removes every application of this runtime, also those whose records are lost, then its directories and
/// cgroups. The host directory stays. Nothing else may use the runtime meanwhile; again is no error.
///
/// # Errors
/// When something is left; what it is says the error, and another try goes on from there.
pub async fn erase(config: NativeConfig) -> Result<(), EraseError> {
    let config = NativeConfig {
        // Nothing new is made: all places there may be are looked at below.
        secrets: match config.secrets {
            SecretsDir::Auto => SecretsDir::OnDisk,
            chosen => chosen,
        },
        cgroup: CgroupMode::Off,
        ..config
    };
    let lost = config.clone();
    blocking(move || recover(&lost))
        .await
        .map_err(EraseError::Look)?;
    let runtime = NativeRuntime::open(config.clone(), CancellationToken::new()).await?;
    let found = runtime.found().await.map_err(EraseError::Look)?;
    let paths = Paths::new(&config, None);
    let groups = found
        .iter()
        .flat_map(|key| paths.instances_on_disk(key).unwrap_or_default())
        .flat_map(|id| group_dirs(&paths.state(&id)))
        .collect::<Vec<_>>();
    let mut removing = JoinSet::new();
    for key in found {
        let runtime = runtime.clone();
        removing.spawn(async move { runtime.remove(&key, None).await });
    }
    let left: Vec<StopError> = removing
        .join_all()
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    runtime.close().await;
    if !left.is_empty() {
        return Err(EraseError::Applications(left));
    }
    let dirs = remains(&config).map_err(EraseError::Look)?.dirs;
    let removed = blocking(move || {
        // Empty by now, unless something else is in them.
        cgroup::remove(&groups);
        Ok(dirs.into_iter().try_for_each(|path| {
            remove_tree(&path).map_err(|source| EraseError::Disk { path, source })
        }))
    });
    removed.await.map_err(EraseError::Look)?
}

/// The directories that hold an instance's groups, each as the file by which it is entered.
fn group_dirs(state: &StateDir) -> Vec<PathBuf> {
    let above = |file: &PathBuf| {
        let dir = file.parent().and_then(Path::parent)?;
        Some(dir.join("cgroup.procs"))
    };
    let groups = recorded_cgroups(state).unwrap_or_default();
    groups.iter().filter_map(above).collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
