//! Ctrl-C and SIGTERM while a bed stands: what runs is ended, and the bed taken down as after any failure.

use std::cell::Cell;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

enum Event {
    Interrupted,
    Ended,
}

/// From now on those signals no longer end this program.
pub(super) struct Interrupts {
    events: Receiver<Event>,
    sender: Sender<Event>,
    came: Cell<bool>,
}

impl Interrupts {
    /// # Errors
    /// When the system refuses.
    pub(super) fn catch() -> Result<Self> {
        let (mut read, write) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        let (sender, events) = channel();
        let told = sender.clone();
        thread::spawn(move || {
            while read.read_exact(&mut [0]).is_ok() && told.send(Event::Interrupted).is_ok() {}
        });
        Ok(Self {
            events,
            sender,
            came: Cell::new(false),
        })
    }

    /// Whether one of them has cut a command short.
    pub(super) fn came(&self) -> bool {
        self.came.get()
    }

    /// Runs a command in a process group of its own, and ends the group when a signal comes.
    ///
    /// # Errors
    /// When it cannot be started or was cut short.
    pub(super) fn run(&self, command: &mut Command) -> Result<ExitStatus> {
        let told = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {told}"))?;
        let pid = Pid::from_child(&child);
        let ended = self.sender.clone();
        // It is only seen to end there and reaped here: the group's number stays its own for as long as we may kill it.
        let watch = thread::spawn(move || {
            while waitid(
                WaitId::Pid(pid),
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            )
            .is_err()
            {}
            let _ = ended.send(Event::Ended);
        });
        for event in &self.events {
            match event {
                Event::Ended => break,
                Event::Interrupted => {
                    self.came.set(true);
                    println!("\ninterrupted: ending {told}");
                    let _ = kill_process_group(pid, Signal::TERM);
                }
            }
        }
        let _ = watch.join();
        let status = child.wait()?;
        if self.came() {
            bail!("interrupted");
        }
        Ok(status)
    }
}
