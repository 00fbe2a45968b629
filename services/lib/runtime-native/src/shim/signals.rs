//! Signals as something to wait for.
//!
//! Handlers, not a blocked mask: a handler ends at `execve`, a blocked signal would stay blocked in the application.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/// The signals the shim takes.
pub(crate) struct Signals {
    wake: UnixStream,
    raised: Vec<(Signal, Arc<AtomicBool>)>,
}

impl Signals {
    /// Takes them from now on.
    pub(crate) fn take() -> io::Result<Self> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        // Nobody asks whether a child ended: whoever wakes looks.
        signal_hook::low_level::pipe::register(SIGCHLD, waker.try_clone()?)?;
        let mut raised = Vec::with_capacity(6);
        for number in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT] {
            let flag = Arc::new(AtomicBool::new(false));
            // The flag first: whoever is woken must find it set.
            signal_hook::flag::register(number, Arc::clone(&flag))?;
            signal_hook::low_level::pipe::register(number, waker.try_clone()?)?;
            if let Some(signal) = Signal::from_named_raw(number) {
                raised.push((signal, flag));
            }
        }
        Ok(Self { wake, raised })
    }

    /// Waits until one came, at most `timeout`.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        // An interrupted wait is a signal that came; the flags tell which.
        let _ = poll(&mut fds, timeout.as_ref());
        let mut sink = [0; 64];
        while matches!(self.wake.read(&mut sink), Ok(n) if n == sink.len()) {}
    }

    /// Those that came since the last call. The end of a child wakes and is not among them.
    pub(crate) fn came(&self) -> impl Iterator<Item = Signal> + '_ {
        self.raised
            .iter()
            .filter(|(_, flag)| flag.swap(false, Ordering::AcqRel))
            .map(|(signal, _)| *signal)
    }
}
