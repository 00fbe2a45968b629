//! Makes this machine no node any more: ends its applications and removes what the services keep.
//!
//! What applications wrote to `<data-dir>/host` stays: it belongs to whoever runs the machine.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use baetyl_runtime_native::{EraseError, NativeConfig, Remains, erase, remains};

/// What the services keep beneath the data directory. The runtime's own directories go before it, with its applications.
const DIRS: [&str; 6] = ["engine", "node", "sync", "init", "log", "run"];

/// Why the machine is still a node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Services run, and would make anew what is removed.
    #[error(
        "{0} still answers: stop the services first (systemctl stop 'baetyl-*', or the process of baetyl-edge)"
    )]
    Running(PathBuf),
    /// It was not confirmed.
    #[error("nothing was removed; with --yes it would be:\n{0}")]
    NotConfirmed(Inventory),
    /// Applications or their directories are left.
    #[error(transparent)]
    Runtime(#[from] EraseError),
    /// A directory cannot be looked at or removed.
    #[error("cannot use {path}: {source}", path = path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What of a node is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Applications, running or not.
    pub applications: Vec<String>,
    /// Directories that are there.
    pub dirs: Vec<PathBuf>,
}

impl std::fmt::Display for Inventory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for application in &self.applications {
            writeln!(f, "  application {application}")?;
        }
        for dir in &self.dirs {
            writeln!(f, "  {}", dir.display())?;
        }
        if self.applications.is_empty() && self.dirs.is_empty() {
            writeln!(f, "  (nothing is there)")?;
        }
        Ok(())
    }
}

/// Ends all applications of this data directory and removes everything but `host`. Gives what was there. Doing it again
/// is no error.
///
/// # Errors
/// When services run, `confirmed` is false, or something cannot be removed.
pub async fn run(data_dir: &Path, confirmed: bool) -> Result<Inventory, Error> {
    let data_dir = std::path::absolute(data_dir).map_err(disk(data_dir))?;
    if let Some(socket) = answering(&data_dir.join("run/core"))? {
        return Err(Error::Running(socket));
    }
    // The program is not needed: nothing is started.
    let config = NativeConfig::beneath(&data_dir, PathBuf::from("baetyl-shim"));
    let inventory = look(&data_dir, &config)?;
    if !confirmed {
        return Err(Error::NotConfirmed(inventory));
    }
    // Also when nothing is there: applications may run whose directories somebody removed.
    erase(config).await?;
    for dir in DIRS.map(|name| data_dir.join(name)) {
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk(&dir)(error)),
            _ => {}
        }
    }
    Ok(inventory)
}

fn look(data_dir: &Path, config: &NativeConfig) -> Result<Inventory, Error> {
    let Remains {
        workloads,
        dirs: of_runtime,
    } = remains(config).map_err(disk(data_dir))?;
    let mut applications: Vec<String> = workloads
        .iter()
        .map(|key| format!("{} ({})", key.app, key.version))
        .collect();
    applications.dedup();
    let outside = of_runtime
        .into_iter()
        .filter(|dir| !dir.starts_with(data_dir));
    let dirs = DIRS
        .iter()
        .map(|name| data_dir.join(name))
        .filter(|dir| dir.exists())
        .chain(outside)
        .collect();
    Ok(Inventory { applications, dirs })
}

/// A core socket behind which somebody listens, or of which that cannot be told.
fn answering(dir: &Path) -> Result<Option<PathBuf>, Error> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk(dir)(error)),
    };
    let dead = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    Ok(entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "sock"))
        .find(|path| {
            UnixStream::connect(path).map_or_else(|error| !dead.contains(&error.kind()), |_| true)
        }))
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Disk { path, source }
}
