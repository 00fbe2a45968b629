//! Ending what runs: politely through the shim, then whatever is left, by identity and never by number alone.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;

use crate::proc::{self, Stat};
use crate::process::Process;
use crate::record::{RunFile, StateDir};
use crate::status::ProcessIdent;

/// Environment variable that every process of an instance inherits; its value is the instance directory.
pub(crate) const MARK: &str = "BAETYL_INSTANCE_DIR";

/// How long a killed process may take to be gone before we say that it cannot be ended (it hangs in the kernel).
const KILL_TIME: Duration = Duration::from_secs(10);

/// How long a shim may take to kill everything and write the record.
const QUIT_TIME: Duration = Duration::from_secs(5);

/// Rounds of looking for leftovers: each kills what it sees, and one that forks meanwhile is seen in the next.
const ROUNDS: usize = 50;

/// Processes that do not end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndError {
    /// They were killed and are still there.
    #[error(
        "processes {0:?} were killed and do not end; they hang in the kernel (look at their state with ps)"
    )]
    Stuck(Vec<u32>),
    /// `/proc` or a pidfd cannot be used.
    #[error("cannot see or signal processes: {0}")]
    Io(#[from] io::Error),
}

/// Ends the shim of a run and with it the instance: TERM, `grace`, QUIT (the shim kills all), KILL. Returns when the
/// shim has ended; what it could not clean up is for [`end_leftovers`].
pub(crate) async fn end_shim(shim: &Process, grace: Duration) -> Result<(), EndError> {
    shim.signal(Signal::TERM)?;
    if timeout(grace, shim.ended()).await.is_ok() {
        return Ok(());
    }
    kill_shim(shim).await
}

/// Ends the shim of a run and with it the instance, without grace.
pub(crate) async fn kill_shim(shim: &Process) -> Result<(), EndError> {
    shim.signal(Signal::QUIT)?;
    if timeout(QUIT_TIME, shim.ended()).await.is_ok() {
        return Ok(());
    }
    // It is stopped, or its children hang.
    shim.signal(Signal::KILL)?;
    match timeout(KILL_TIME, shim.ended()).await {
        Ok(ended) => Ok(ended?),
        Err(_) => Err(EndError::Stuck(vec![shim.ident.pid])),
    }
}

/// Kills every process of an instance whose shim is gone. Returns when none is left, with the number that were killed.
pub(crate) async fn end_leftovers(
    instance_dir: &Path,
    run: Option<&RunFile>,
) -> Result<usize, EndError> {
    let boot_id = proc::boot_id()?;
    let run = run.filter(|run| run.boot_id == boot_id);
    let mut killed = 0;
    for _ in 0..ROUNDS {
        let found = look_for_leftovers(instance_dir, run).await?;
        if found.is_empty() {
            return Ok(killed);
        }
        let mut stuck = Vec::new();
        let open: Vec<Process> = found
            .into_iter()
            .filter_map(|ident| Process::open(ident).transpose())
            .collect::<Result<_, _>>()?;
        for process in &open {
            process.signal(Signal::KILL)?;
        }
        for process in &open {
            match timeout(KILL_TIME, process.ended()).await {
                Ok(ended) => ended?,
                Err(_) => stuck.push(process.ident.pid),
            }
        }
        if !stuck.is_empty() {
            return Err(EndError::Stuck(stuck));
        }
        killed += open.len();
    }
    let left = look_for_leftovers(instance_dir, run).await?;
    if left.is_empty() {
        Ok(killed)
    } else {
        Err(EndError::Stuck(
            left.iter().map(|ident| ident.pid).collect(),
        ))
    }
}

/// All of `/proc` is read: not on a thread that others wait for.
async fn look_for_leftovers(
    instance_dir: &Path,
    run: Option<&RunFile>,
) -> io::Result<Vec<ProcessIdent>> {
    let (instance_dir, run) = (instance_dir.to_owned(), run.cloned());
    tokio::task::spawn_blocking(move || leftovers(&instance_dir, run.as_ref()))
        .await
        .map_err(io::Error::other)?
}

/// Processes of an instance without a shim. One is ours when it was started with our mark; or when it is in the session
/// of the shim or the group of the program and that session is certainly still ours: the program itself, by its
/// identity, is in it.
fn leftovers(instance_dir: &Path, run: Option<&RunFile>) -> io::Result<Vec<ProcessIdent>> {
    let app = run.and_then(|run| run.app);
    let sure = app.is_some_and(|app| proc::ident(app.pid) == Some(app));
    let own = std::process::id();
    let mut found = Vec::new();
    for pid in proc::pids()?.filter(|pid| *pid != own) {
        let stat = match Stat::read(pid) {
            Ok(stat) => stat,
            // Not to see it is not the same as its being gone.
            Err(error) if proc::is_shortage(&error) => return Err(error),
            Err(_) => continue,
        };
        if stat.is_dead() {
            continue;
        }
        let in_session = sure && run.is_some_and(|run| stat.session == run.shim.pid);
        let in_group = sure && app.is_some_and(|app| stat.group == app.pid);
        if in_session || in_group || proc::has_env(pid, MARK, instance_dir.as_os_str().as_bytes())?
        {
            found.push(ProcessIdent {
                pid,
                start_ticks: stat.start_ticks,
            });
        }
    }
    Ok(found)
}

/// The shim of the recorded run, when it lives.
pub(crate) fn living_shim(state: &StateDir) -> io::Result<Option<(RunFile, Process)>> {
    let Some(run) = state.run()? else {
        return Ok(None);
    };
    if run.boot_id != proc::boot_id()? {
        return Ok(None);
    }
    Ok(Process::open(run.shim)?.map(|shim| (run, shim)))
}

/// Ends whatever of an instance runs, supervised or not.
pub(crate) async fn end_instance(
    state: &StateDir,
    instance_dir: &Path,
    grace: Duration,
) -> Result<(), EndError> {
    if let Some((_, shim)) = living_shim(state)? {
        end_shim(&shim, grace).await?;
    }
    let run = state.run()?;
    if let Some(run) = &run
        && state.exit_of(&run.run_id())?.is_some()
    {
        // Written when no child was left, and a subreaper's children are all there are.
        return Ok(());
    }
    end_leftovers(instance_dir, run.as_ref()).await.map(|_| ())
}
