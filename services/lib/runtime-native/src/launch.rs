//! Starting a shim, so that it is nobody's child that matters.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::process::Command;
use tokio::time::timeout;

use crate::proc::is_shortage;
use crate::record::{RunFile, StateDir};
use crate::shim::plan::{PLAN_FILE, Plan};
use crate::shim::record::replace;
use crate::shim::{HELD, LOCK_FILE};
use crate::status::{LastExit, Reason, RunEnd};

/// How a launch went wrong without a word from the shim.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The state directory cannot be written.
    #[error("cannot write to {path}: {source}", path = path.display())]
    State { path: PathBuf, source: io::Error },
    /// The spec cannot be told to a program.
    #[error("{0}")]
    Plan(#[from] crate::shim::plan::NulError),
    /// The shim cannot be run.
    #[error("cannot run {shim}: {source} (is baetyl-shim installed beside the engine?)", shim = shim.display())]
    Shim { shim: PathBuf, source: io::Error },
    /// It did not answer.
    #[error("{shim} gave no answer within {within:?}", shim = shim.display())]
    Slow { shim: PathBuf, within: Duration },
    /// It ended with a code that says nothing of the program.
    #[error("{shim} failed with code {code}: {said}", shim = shim.display())]
    Failed {
        shim: PathBuf,
        code: i32,
        said: String,
    },
    /// Another shim is there.
    #[error("another shim already holds {path}", path = path.display())]
    Held { path: PathBuf },
    /// It answered, and what it wrote cannot be read.
    #[error("cannot read what the shim wrote in {path}: {source}", path = path.display())]
    Unread { path: PathBuf, source: io::Error },
}

/// Why there is no run to watch.
#[derive(Debug)]
pub(crate) enum Unstarted {
    /// Nothing runs; how it ended before it began.
    Over(LastExit),
    /// It may run all the same, and must be looked for before anything is said of it. The end: when nothing is found.
    Unclear(LastExit),
}

impl From<LaunchError> for Unstarted {
    fn from(error: LaunchError) -> Self {
        let exit = LastExit {
            end: RunEnd::NotStarted,
            reason: Reason::StartFailed,
            message: error.to_string(),
            at_ms: None,
        };
        match error {
            LaunchError::Slow { .. } | LaunchError::Held { .. } | LaunchError::Unread { .. } => {
                Self::Unclear(exit)
            }
            LaunchError::State { .. }
            | LaunchError::Plan(_)
            | LaunchError::Shim { .. }
            | LaunchError::Failed { .. } => Self::Over(exit),
        }
    }
}

/// Writes the plan, starts the shim and waits until it has started the program or written down why not. The records
/// of the run before must be gone.
pub(crate) async fn launch(
    shim: &Path,
    state: &StateDir,
    plan: &Plan,
    within: Duration,
) -> Result<RunFile, Unstarted> {
    try_launch(shim, state, plan, within).await?;
    let unread = |source| LaunchError::Unread {
        path: state.0.clone(),
        source,
    };
    let exit = state.exit().map_err(unread)?;
    match (state.run().map_err(unread)?, exit) {
        // It may have run and ended already; then there is a run record with a program in it.
        (Some(run), Some(_)) if run.app.is_some() => Ok(run),
        (_, Some(exit)) => Err(Unstarted::Over(exit.last_exit())),
        (Some(run), None) => Ok(run.completed()),
        (None, None) => Err(unread(io::ErrorKind::NotFound.into()).into()),
    }
}

async fn try_launch(
    shim: &Path,
    state: &StateDir,
    plan: &Plan,
    within: Duration,
) -> Result<(), LaunchError> {
    let shim = shim.to_owned();
    let bytes = plan.encode()?;
    let failed = |source| LaunchError::State {
        path: state.0.clone(),
        source,
    };
    let Some(lock) = Lock::take(state).map_err(failed)? else {
        // Its record is what it will be ended by: it must not be forgotten.
        return Err(LaunchError::Held {
            path: state.0.clone(),
        });
    };
    // Beneath the lock: one that was started earlier and comes only now must not lose the record it writes.
    state.forget_run().map_err(failed)?;
    replace(&state.0, PLAN_FILE, &bytes, false).map_err(failed)?;
    drop(lock);
    let running = Command::new(&shim)
        .arg("launch")
        .arg(state.0.join(PLAN_FILE))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| LaunchError::Shim {
            shim: shim.clone(),
            source,
        })?;
    // Dropped on a timeout, the first stage goes on by itself: killing it could tear a start in two.
    let output = match timeout(within, running.wait_with_output()).await {
        Err(_) => return Err(LaunchError::Slow { shim, within }),
        Ok(output) => output.map_err(|source| LaunchError::Shim {
            shim: shim.clone(),
            source,
        })?,
    };
    match output.status.code() {
        Some(0) => Ok(()),
        Some(code) if code == i32::from(HELD) => Err(LaunchError::Held {
            path: state.0.clone(),
        }),
        code => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(LaunchError::Failed {
                shim,
                code: code.unwrap_or(-1),
                said,
            })
        }
    }
}

/// True while a shim holds the state directory: also in the moment before it has written anything. And when nobody can
/// tell: what may run is not taken for absent.
pub(crate) fn is_held(state: &StateDir) -> bool {
    match File::open(state.0.join(LOCK_FILE)) {
        Ok(file) => Lock::of(file).is_none(),
        Err(error) => is_shortage(&error),
    }
}

/// The lock of a state directory. Given up when dropped, not merely closed: a process that is being started elsewhere
/// has a copy of the descriptor for a moment.
struct Lock(File);

impl Lock {
    /// `None`: a shim has it.
    fn take(state: &StateDir) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(state.0.join(LOCK_FILE))?;
        Ok(Self::of(file))
    }

    fn of(file: File) -> Option<Self> {
        flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = flock(self.0.as_fd(), FlockOperation::Unlock);
    }
}
