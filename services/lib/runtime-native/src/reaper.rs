//! Being the first process of a container.
//!
//! Whatever loses its parent becomes a child of process 1, which must collect it when it ends: shims among others, which
//! are nobody's child on purpose. A service cannot do that itself, because the children it started are waited for
//! elsewhere in it; so it runs as the child of a process that does nothing else.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, WaitOptions, kill_process, wait};

use crate::shim::Signals;

/// Exit code when the program cannot be run.
const FAILED: u8 = 71;

/// To be called first in `main`: in process 1 it runs this program again as its child, and gives what to exit with when
/// that has ended. `None` everywhere else.
pub fn as_first_process() -> Option<ExitCode> {
    if std::process::id() != 1 {
        return None;
    }
    let ended = std::env::current_exe()
        .and_then(|exe| attend(Command::new(exe).args(std::env::args_os().skip(1))));
    Some(ExitCode::from(ended.unwrap_or(FAILED)))
}

/// Starts a program, passes signals on to it and collects every child of this process until that program has ended.
/// Gives its exit code (128 and the number of a signal that ended it, as shells do). Only for a process that waits for
/// no other child.
///
/// # Errors
/// When the program cannot be started or signals not be taken.
pub fn attend(command: &mut Command) -> io::Result<u8> {
    let mut signals = Signals::take()?;
    // In a group of its own: a terminal's ^C reaches it through us, and not a second time.
    let child = command.process_group(0).spawn()?;
    let program = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidData)?;
    loop {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == program {
                let code = status
                    .exit_status()
                    .or_else(|| Some(128 + status.terminating_signal()?));
                return Ok(code
                    .and_then(|code| u8::try_from(code).ok())
                    .unwrap_or(u8::MAX));
            }
        }
        for signal in signals.came() {
            // Not collected yet, therefore still this process.
            let _ = kill_process(program, signal);
        }
        signals.wait(None);
    }
}
