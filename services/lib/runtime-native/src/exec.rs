//! Running a command as a part of an instance: for people (`exec`) and for probes.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::spec::RunAs;

/// Where and as whom the processes of an instance run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) cwd: PathBuf,
    pub(crate) user: Option<RunAs>,
}

/// Why a command could not be run in an instance.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no such instance here.
    #[error("instance {0} is not run by this node")]
    NotFound(String),
    /// Nothing was to be run.
    #[error("the command is empty")]
    Empty,
    /// It could not be started.
    #[error("cannot start {command}: {source}")]
    Start {
        /// Its first word.
        command: String,
        /// Why not.
        source: io::Error,
    },
}

/// A command that runs in an instance's environment, directory and user, with pipes. Dropping it kills the command and
/// what it started.
#[derive(Debug)]
pub struct ExecSession {
    /// Input of the command; drop it to end the input.
    pub stdin: Option<ChildStdin>,
    /// Output.
    pub stdout: Option<ChildStdout>,
    /// Error output.
    pub stderr: Option<ChildStderr>,
    // Before the child: killed while its leader is not collected, so the number is still this group.
    group: Group,
    child: Child,
}

impl ExecSession {
    /// Waits for the command's end. What it left behind is killed.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.group.end();
        Ok(status)
    }
}

/// The process group of a command; killed when dropped.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(
            child
                .id()
                .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)),
        )
    }

    fn end(&mut self) {
        if let Some(group) = self.0.take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

impl Environment {
    fn command(&self, words: &[String]) -> Result<Command, ExecError> {
        let [program, args @ ..] = words else {
            return Err(ExecError::Empty);
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.cwd);
        command.process_group(0).kill_on_drop(true);
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        Ok(command)
    }

    /// Starts a command with pipes.
    pub(crate) fn session(&self, words: &[String]) -> Result<ExecSession, ExecError> {
        let mut command = self.command(words)?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(&mut command, words)?;
        Ok(ExecSession {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            group: Group::of(&child),
            child,
        })
    }

    /// Runs a command without input and output. Dropping the future kills it.
    pub(crate) async fn run_quietly(&self, words: &[String]) -> Result<ExitStatus, ExecError> {
        let mut command = self.command(words)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = spawn(&mut command, words)?;
        let _group = Group::of(&child);
        child.wait().await.map_err(|source| ExecError::Start {
            command: words.join(" "),
            source,
        })
    }
}

fn spawn(command: &mut Command, words: &[String]) -> Result<Child, ExecError> {
    command.spawn().map_err(|source| ExecError::Start {
        command: words.first().cloned().unwrap_or_default(),
        source,
    })
}
