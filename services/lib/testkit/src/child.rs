//! Child processes that never outlive their test.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::until;

/// A child process in a process group of its own. On drop the group is killed, by the id that was noted when
/// it was started, and the child is reaped.
#[derive(Debug)]
pub struct ChildGuard {
    child: Child,
    pid: Pid,
    name: String,
}

impl ChildGuard {
    /// Starts the command. Set its output before: it is inherited otherwise.
    pub fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let pid = Pid::from_child(&child);
        Self { child, pid, name }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends SIGTERM to the child alone.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills the child alone, as a power cut would.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends a signal to the child alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// True while it has not exited.
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_none()
    }

    /// Waits for its exit; panics after `timeout`.
    pub async fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let what = format!("{} exits", self.name);
        let child = &mut self.child;
        until(timeout, &what, || {
            let status = child.try_wait().expect("a child can be waited for");
            std::future::ready(status.ok_or("it runs"))
        })
        .await
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    fn is_alive(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        !matches!(state, None | Some('Z' | 'X'))
    }

    #[tokio::test]
    async fn dropping_the_guard_kills_grandchildren_too() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 600 & echo $!; wait"])
            .stdout(Stdio::piped());
        let mut guard = ChildGuard::spawn(&mut command);
        let stdout = guard.child().stdout.take().unwrap();
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let grandchild = line.trim().to_owned();
        assert!(is_alive(&grandchild) && guard.is_running());
        drop(guard);
        eventually!(!is_alive(&grandchild));
    }

    #[tokio::test]
    async fn an_exit_is_waited_for() {
        let mut guard = ChildGuard::spawn(Command::new("sh").args(["-c", "exit 7"]));
        assert_eq!(guard.wait(crate::PATIENCE).await.code(), Some(7));
        assert!(!guard.is_running());
    }
}
