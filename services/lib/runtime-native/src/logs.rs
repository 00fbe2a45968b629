//! Logs: rotation by copy and truncate (the writer keeps its file and never knows), and reading across it.
//!
//! `x.log` is the current file, `x.log.1` the newest rotated one. What is written between the last look of the copy and
//! the truncation is lost: that is the price of a log that needs neither a pipe nor the writer's help.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::LogLimits;

mod follow;
#[cfg(test)]
mod tests;

pub(crate) use follow::stream;
pub use follow::{LogPosition, LogStart, LogStream, Positioned, is_too_old};

/// How often a log was rotated, and whether it is being rotated now: until then nobody can say what an offset means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Rotations {
    done: u64,
    busy: bool,
}

/// The logs of all instances on disk, supervised or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogBook(
    Arc<Mutex<HashMap<PathBuf, watch::Sender<Rotations>>>>,
    Arc<AtomicU64>,
);

/// Between the first counts of two logs: a position in a log that was forgotten means nothing in one that was added
/// later under the same name.
const GENERATION: u64 = 1 << 32;

impl LogBook {
    /// From now on this log is rotated. Creates it when absent, so that it can be followed before its instance starts.
    pub(crate) fn add(&self, log: &Path) -> io::Result<()> {
        if let Some(dir) = log.parent() {
            fs::create_dir_all(dir)?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(log)?;
        self.lock().entry(log.to_owned()).or_insert_with(|| {
            let done = self.1.fetch_add(GENERATION, Ordering::Relaxed);
            watch::Sender::new(Rotations { done, busy: false })
        });
        Ok(())
    }

    /// From now on this log is rotated when there is one. For instances nobody supervises: they write too.
    pub(crate) fn cover(&self, log: &Path) {
        self.lock().entry(log.to_owned()).or_default();
    }

    /// From now on it is not.
    pub(crate) fn forget(&self, log: &Path) {
        self.lock().remove(log);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, watch::Sender<Rotations>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every rotation, and (by an error) when the log is forgotten: one that is not rotated is that already.
    fn subscribe(&self, log: &Path) -> watch::Receiver<Rotations> {
        self.lock().get(log).map_or_else(
            || watch::Sender::default().subscribe(),
            watch::Sender::subscribe,
        )
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.lock().keys().cloned().collect()
    }

    fn tell(&self, log: &Path, change: impl FnOnce(&mut Rotations)) {
        if let Some(rotations) = self.lock().get(log) {
            rotations.send_modify(change);
        }
    }

    /// Rotates what is too large, until cancelled.
    pub(crate) async fn rotate(self, limits: LogLimits, cancel: CancellationToken) {
        let mut ticks =
            tokio::time::interval(limits.check_every.max(std::time::Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let due: Vec<PathBuf> = self
                .paths()
                .into_iter()
                .filter(|log| {
                    fs::metadata(log).is_ok_and(|metadata| metadata.len() > limits.max_bytes)
                })
                .collect();
            for log in due {
                let book = self.clone();
                // Copying megabytes blocks.
                let rotated =
                    tokio::task::spawn_blocking(move || book.rotate_one(&log, limits)).await;
                if let Err(error) = rotated {
                    tracing::error!(%error, "log rotation ended");
                }
            }
        }
    }

    fn rotate_one(&self, log: &Path, limits: LogLimits) {
        self.tell(log, |rotations| rotations.busy = true);
        let rotated = rotate(log, limits);
        self.tell(log, |rotations| {
            rotations.busy = false;
            rotations.done += u64::from(rotated.is_ok());
        });
        if let Err(error) = rotated {
            tracing::warn!(path = %log.display(), %error, "log cannot be rotated");
        }
    }
}

/// `x.log` → `x.log.<n>`.
fn numbered(log: &Path, n: u64) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

/// Moves what is in a log to `.1`, after the older ones moved up. When that fails (disk full), the log is emptied all
/// the same: a log must not fill the disk.
fn rotate(log: &Path, limits: LogLimits) -> io::Result<()> {
    let keep = u64::from(limits.keep);
    for n in (1..keep).rev() {
        match fs::rename(numbered(log, n), numbered(log, n + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let mut current = OpenOptions::new().read(true).write(true).open(log)?;
    let copied = if keep > 0 {
        copy_newest(&mut current, &numbered(log, 1), limits.max_bytes)
    } else {
        Ok(())
    };
    current.set_len(0)?;
    copied
}

/// Copies the newest part of a log, at most twice the cap, until nothing was written meanwhile. What a writer without
/// end has written before that is dropped: the cap is kept, not the beginning.
fn copy_newest(current: &mut File, to: &Path, max_bytes: u64) -> io::Result<()> {
    let cap = max_bytes.saturating_mul(2);
    let length = current.metadata()?.len();
    current.seek(SeekFrom::Start(length.saturating_sub(cap)))?;
    let mut copy = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o640)
        .open(to)?;
    let mut left = cap;
    loop {
        let copied = io::copy(&mut Read::by_ref(current).take(left), &mut copy)?;
        left -= copied;
        if copied == 0 || left == 0 {
            return Ok(());
        }
    }
}

/// Where the last `lines` lines of a file begin.
fn tail_start(file: &mut File, lines: usize) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let length = file.metadata()?.len();
    let mut wanted = lines;
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 && lines > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::by_ref(file)
            .take(end - start)
            .read_to_end(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            // The newline that ends the last line begins none.
            if *byte == b'\n' && start + index as u64 + 1 < length {
                wanted -= 1;
                if wanted == 0 {
                    return Ok(start + index as u64 + 1);
                }
            }
        }
        end = start;
    }
    Ok(if lines == 0 { length } else { 0 })
}
