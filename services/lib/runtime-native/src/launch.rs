//! Starting a shim, so that it is nobody's child that matters.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::process::Command;
use tokio::time::timeout;

use crate::record::{RunFile, StateDir};
use crate::shim::plan::{PLAN_FILE, Plan};
use crate::shim::record::replace;
use crate::shim::{HELD, LOCK_FILE};
use crate::status::{LastExit, Reason, RunEnd};

/// How long a shim may take to start its program. Long: a machine that boots everything at once is slow.
const LAUNCH_TIME: Duration = Duration::from_secs(30);

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
    #[error("{shim} gave no answer within {LAUNCH_TIME:?}", shim = shim.display())]
    Slow { shim: PathBuf },
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
}

impl LaunchError {
    /// As the end of a run that never began.
    pub(crate) fn last_exit(&self) -> LastExit {
        LastExit {
            end: RunEnd::NotStarted,
            reason: Reason::StartFailed,
            message: self.to_string(),
            at_ms: None,
        }
    }
}

/// Writes the plan, starts the shim and waits until it has started the program or written down why not. The records
/// of the run before must be gone.
pub(crate) async fn launch(
    shim: &Path,
    state: &StateDir,
    plan: &Plan,
) -> Result<RunFile, Box<LastExit>> {
    try_launch(shim, state, plan)
        .await
        .map_err(|error| Box::new(error.last_exit()))?;
    if let Some(exit) = state.exit() {
        // It may have run and ended already; then there is a run record with a program in it.
        if let Some(run) = state.run().filter(|run| run.app.is_some()) {
            return Ok(run);
        }
        return Err(Box::new(exit.last_exit()));
    }
    state.run().ok_or_else(|| {
        let error = LaunchError::State {
            path: state.0.clone(),
            source: io::ErrorKind::NotFound.into(),
        };
        Box::new(error.last_exit())
    })
}

async fn try_launch(shim: &Path, state: &StateDir, plan: &Plan) -> Result<(), LaunchError> {
    let shim = shim.to_owned();
    let bytes = plan.encode()?;
    let failed = |source| LaunchError::State {
        path: state.0.clone(),
        source,
    };
    if is_held(state) {
        // Its record is what it will be ended by: it must not be forgotten.
        return Err(LaunchError::Held {
            path: state.0.clone(),
        });
    }
    state.forget_run().map_err(failed)?;
    replace(&state.0, PLAN_FILE, &bytes, false).map_err(failed)?;
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
    let output = match timeout(LAUNCH_TIME, running.wait_with_output()).await {
        Err(_) => return Err(LaunchError::Slow { shim }),
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

/// True while a shim holds the state directory: also in the moment before it has written anything.
pub(crate) fn is_held(state: &StateDir) -> bool {
    let Ok(lock) = fs::File::open(state.0.join(LOCK_FILE)) else {
        return false;
    };
    // Given back at once when the file is closed.
    flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err()
}
