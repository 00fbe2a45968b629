//! Keeps the separate programs running where there is no service manager.
//!
//! Each is started from beside this program, restarted with backoff when it ends, and stopped with SIGTERM. Which processes it
//! started stands in `<data-dir>/run/supervise.json`, so that a supervisor that was killed does not leave a second set behind.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_kit::{Kit, fsio};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

/// A program that ran this long starts again without delay.
const STABLE: Duration = Duration::from_secs(30);
/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(15);

/// Configuration of the supervisor.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Programs to keep running, beside this one.
    pub programs: Vec<String>,
    /// Where each program's configuration lies as `<service>.yaml` or `<service>.toml`; absent = defaults.
    pub config_dir: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let programs = [
            "baetyl-node",
            "baetyl-sync",
            "baetyl-engine",
            "baetyl-function-proxy",
        ];
        Self {
            programs: programs.map(ToOwned::to_owned).to_vec(),
            config_dir: None,
        }
    }
}

/// Why the supervisor cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not there.
    #[error("{0} is not installed beside this program")]
    Missing(PathBuf),
    /// A file or process could not be used.
    #[error("the supervisor cannot {0}")]
    Io(&'static str, #[source] io::Error),
}

/// A process as it is recognised again: by id and start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    pid: i32,
    start_ticks: u64,
}

/// Programs that run now, on disk.
struct Record {
    path: PathBuf,
    running: Mutex<BTreeMap<String, Mark>>,
}

impl Record {
    fn set(&self, program: &str, mark: Option<Mark>) {
        let mut running = self
            .running
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match mark {
            Some(mark) => running.insert(program.to_owned(), mark),
            None => running.remove(program),
        };
        let json = serde_json::to_vec(&*running).unwrap_or_default();
        if let Err(error) = fsio::atomic_write(&self.path, &json, 0o600) {
            tracing::warn!(%error, "the list of supervised processes could not be written");
        }
    }
}

/// Keeps the programs running until shutdown, then stops them.
///
/// # Errors
/// When a program is missing or the data directory cannot be written.
pub async fn run(config: Config, kit: Kit) -> Result<(), Error> {
    let exe = std::env::current_exe().map_err(|e| Error::Io("find its own place", e))?;
    let beside = exe.parent().unwrap_or(Path::new("/")).to_path_buf();
    for program in &config.programs {
        let path = beside.join(program);
        if !path.exists() {
            return Err(Error::Missing(path));
        }
    }
    let path = kit
        .run_dir()
        .map_err(|e| Error::Io("make its directory", e))?
        .join("supervise.json");
    end_leftovers(&path).await;
    let record = std::sync::Arc::new(Record {
        path,
        running: Mutex::default(),
    });
    for program in config.programs {
        let (kit, record) = (kit.clone(), std::sync::Arc::clone(&record));
        let (binary, file) = (
            beside.join(&program),
            config_file(config.config_dir.as_deref(), &program),
        );
        let task = program.clone();
        kit.clone().tasks().spawn_required(&task, async move {
            keep(&program, &binary, file.as_deref(), &kit, &record).await;
            Ok::<(), Error>(())
        });
    }
    kit.until_shutdown().await;
    Ok(())
}

fn config_file(dir: Option<&Path>, program: &str) -> Option<PathBuf> {
    let service = program.strip_prefix("baetyl-").unwrap_or(program);
    let candidates =
        ["yaml", "toml"].map(|ending| dir.map(|dir| dir.join(format!("{service}.{ending}"))));
    candidates.into_iter().flatten().find(|path| path.exists())
}

/// Starts the program again and again.
async fn keep(program: &str, binary: &Path, file: Option<&Path>, kit: &Kit, record: &Record) {
    let mut backoff = Backoff::local();
    while !kit.shutdown().is_cancelled() {
        let started = tokio::time::Instant::now();
        match start(binary, file, kit.data_dir()) {
            Ok(child) => {
                record.set(program, child.id().and_then(mark));
                attend(program, child, kit).await;
                record.set(program, None);
            }
            Err(error) => tracing::error!(program, %error, "cannot be started"),
        }
        if started.elapsed() >= STABLE {
            backoff.reset();
        }
        let pause = tokio::time::sleep(backoff.next_delay());
        tokio::select! {
            () = pause => {}
            () = kit.shutdown().cancelled() => {}
        }
    }
}

fn start(binary: &Path, file: Option<&Path>, data_dir: &Path) -> io::Result<Child> {
    let mut command = Command::new(binary);
    command
        .arg("run")
        .arg("--data-dir")
        .arg(data_dir)
        .stdin(Stdio::null());
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    command.spawn()
}

/// Waits until the program ends, or ends it when the supervisor shall stop.
async fn attend(program: &str, mut child: Child, kit: &Kit) {
    tracing::info!(program, pid = child.id(), "started");
    tokio::select! {
        status = child.wait() => {
            match status {
                Ok(status) if status.success() => tracing::warn!(program, "ended by itself; it is started again"),
                Ok(status) => tracing::error!(program, %status, "ended; it is started again"),
                Err(error) => tracing::error!(program, %error, "cannot be waited for"),
            }
        }
        () = kit.shutdown().cancelled() => {
            if let Some(mark) = child.id().and_then(mark) {
                signal(mark, Signal::TERM);
            }
            if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                tracing::error!(program, "did not end in time and is killed");
                let _ = child.kill().await;
            }
        }
    }
}

/// Ends what a supervisor that was killed left running.
async fn end_leftovers(path: &Path) {
    let Ok(json) = std::fs::read(path) else {
        return;
    };
    let left: BTreeMap<String, Mark> = serde_json::from_slice(&json).unwrap_or_default();
    for (program, left) in left {
        for (signal_now, patience) in [(Signal::TERM, GRACE), (Signal::KILL, GRACE)] {
            if !lives(left) {
                break;
            }
            tracing::warn!(
                program,
                pid = left.pid,
                "was left running by a former supervisor and is ended"
            );
            signal(left, signal_now);
            let gone = async {
                while lives(left) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let _ = tokio::time::timeout(patience, gone).await;
        }
    }
}

fn mark(pid: u32) -> Option<Mark> {
    let pid = i32::try_from(pid).ok()?;
    Some(Mark {
        pid,
        start_ticks: start_ticks(pid)?,
    })
}

fn lives(mark: Mark) -> bool {
    start_ticks(mark.pid) == Some(mark.start_ticks)
}

/// Only a process that is still the one that was started.
fn signal(mark: Mark, signal: Signal) {
    if lives(mark)
        && let Some(pid) = Pid::from_raw(mark.pid)
    {
        let _ = kill_process(pid, signal);
    }
}

/// Field 22 of `/proc/<pid>/stat`; none for a process that is gone or a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
