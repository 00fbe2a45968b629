//! Processes that are not our children: held by pidfd, so that a reused pid is never waited for or signalled.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::proc::{self, Stat};
use crate::status::ProcessIdent;

/// A process that ran when it was opened.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) ident: ProcessIdent,
    fd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Opens the process of that identity. `None`: it has ended (a zombie has), or its pid is another process by now.
    pub(crate) fn open(ident: ProcessIdent) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(ident.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // After the open: from here on the fd means the process that is looked at now, or one that has ended.
        match Stat::read(ident.pid) {
            Ok(stat) if stat.start_ticks == ident.start_ticks && !stat.is_dead() => {
                Ok(Some(Self {
                    ident,
                    fd: watch_readable(fd)?,
                }))
            }
            Err(error) if proc::is_shortage(&error) => Err(error),
            _ => Ok(None),
        }
    }

    /// Until it has ended.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        // The readiness is never cleared: an ended process stays ended.
        self.fd.readable().await.map(|_| ())
    }

    /// Signals it. Having ended already is no error.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.fd.get_ref(), signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A descriptor whose readiness can be awaited.
pub(crate) fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "deprecated for types that may close or change their descriptor; OwnedFd does neither, and the replacement is unsafe"
    )]
    AsyncFd::with_interest(fd, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::{ident, ident_of_any};

    fn sleeper() -> tokio::process::Child {
        tokio::process::Command::new("sleep")
            .arg("600")
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    #[tokio::test]
    async fn a_process_is_held_until_it_ends() {
        let mut child = sleeper();
        let process = Process::open(ident(child.id().unwrap()).unwrap())
            .unwrap()
            .unwrap();
        process.signal(Signal::KILL).unwrap();
        process.ended().await.unwrap();
        child.wait().await.unwrap();
        process.signal(Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_pid_that_is_another_process_by_now_is_not_opened() {
        let child = sleeper();
        let mut ident = ident(child.id().unwrap()).unwrap();
        ident.start_ticks += 1;
        assert!(Process::open(ident).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_zombie_counts_as_ended() {
        // std's child is not collected behind our back, as tokio's is.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ident = ident_of_any(child.id()).unwrap();
        if let Some(process) = Process::open(ident).unwrap() {
            process.ended().await.unwrap();
        }
        assert!(crate::proc::ident(ident.pid).is_none());
        assert!(Process::open(ident).unwrap().is_none());
        child.wait().unwrap();
    }
}
