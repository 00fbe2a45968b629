//! Reading a log: its last lines, then what is written, woken by inotify and carried across rotations.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::sync::{mpsc, watch};

use crate::process::watch_readable;

use super::{LogBook, Rotations, numbered, tail_start};

/// Most bytes of one piece.
const PIECE: usize = 64 << 10;

/// Pieces that wait for a slow reader; then reading waits for it too.
const AHEAD: usize = 4;

/// A place in a log, across its rotations. Means something in this process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPosition {
    /// How often the log was rotated before its bytes were written to the file of the offset.
    pub rotations: u64,
    /// Bytes from the beginning of that file.
    pub offset: u64,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStart {
    /// So many lines from the end.
    Tail(usize),
    /// After what was read already.
    After(LogPosition),
}

impl From<usize> for LogStart {
    fn from(lines: usize) -> Self {
        Self::Tail(lines)
    }
}

/// The position is of a file that was rotated away, or of another log of this name.
#[derive(Debug, thiserror::Error)]
#[error("the log was rotated beyond this position")]
struct TooOld;

/// Whether reading ended because [`LogStart::After`] names what is not there any more.
#[must_use]
pub fn is_too_old(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TooOld>())
}

/// Pieces of a log, in order. Ends after the tail, or when the log is removed. Dropping it ends the reading.
#[derive(Debug)]
pub struct LogStream(mpsc::Receiver<io::Result<Piece>>);

/// Bytes, and where the log goes on after them.
type Piece = (Bytes, LogPosition);

impl LogStream {
    /// The same with the position after each piece.
    #[must_use]
    pub fn with_positions(self) -> Positioned {
        Positioned(self.0)
    }
}

impl Stream for LogStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|piece| piece.map(|(bytes, _)| bytes)))
    }
}

/// [`LogStream`] with positions.
#[derive(Debug)]
pub struct Positioned(mpsc::Receiver<io::Result<Piece>>);

impl Stream for Positioned {
    type Item = io::Result<Piece>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Reads a log from `start`, then, with `follow`, what comes.
pub(crate) fn stream(
    book: &LogBook,
    log: &Path,
    start: LogStart,
    follow: bool,
) -> (LogStream, impl Future<Output = ()> + Send + use<>) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    // Before the first look: a rotation after this is seen.
    let rotations = book.subscribe(log);
    let log = log.to_owned();
    let reading = async move {
        let told = sender.clone();
        let read = async {
            let mut reader = Reader::open(log, start, rotations).await?;
            reader.copy(&sender).await?;
            if follow {
                reader.follow(&sender).await
            } else {
                Ok(())
            }
        };
        tokio::select! {
            result = read => if let Err(error) = result && error.kind() != io::ErrorKind::BrokenPipe {
                let _ = told.send(Err(error)).await;
            },
            () = told.closed() => {}
        }
    };
    (LogStream(receiver), reading)
}

struct Reader {
    log: PathBuf,
    file: File,
    offset: u64,
    rotations: watch::Receiver<Rotations>,
    /// Rotations that `offset` takes into account.
    seen: u64,
}

impl Reader {
    async fn open(
        log: PathBuf,
        start: LogStart,
        mut rotations: watch::Receiver<Rotations>,
    ) -> io::Result<Self> {
        loop {
            let before = at_rest(&mut rotations).await;
            let path = log.clone();
            let (file, position) = blocking(move || {
                let mut file = File::open(&path)?;
                let position = match start {
                    LogStart::Tail(lines) => LogPosition {
                        rotations: before.done,
                        offset: tail_start(&mut file, lines)?,
                    },
                    LogStart::After(position) => {
                        check(&path, &file, before.done, position)?;
                        position
                    }
                };
                Ok((file, position))
            })
            .await?;
            if *rotations.borrow() == before {
                return Ok(Self {
                    log,
                    file,
                    offset: position.offset,
                    rotations,
                    seen: position.rotations,
                });
            }
        }
    }

    /// Sends everything there is from the offset on.
    async fn copy(&mut self, sender: &mpsc::Sender<io::Result<Piece>>) -> io::Result<()> {
        loop {
            let before = self.catch_up(sender).await?;
            let piece = read_at(&self.file, self.offset).await?;
            let length = self.file.metadata()?.len();
            // A rotation meanwhile: the offset means the rotated file, and the piece may be of the new one.
            if *self.rotations.borrow() != before {
                continue;
            }
            if piece.is_empty() {
                // Emptied by somebody else.
                if length < self.offset {
                    self.offset = 0;
                    continue;
                }
                return Ok(());
            }
            self.offset += piece.len() as u64;
            let position = LogPosition {
                rotations: before.done,
                offset: self.offset,
            };
            send(sender, (piece, position)).await?;
        }
    }

    /// Sends what was moved to rotated files since the last look. Answers what it took into account.
    async fn catch_up(
        &mut self,
        sender: &mpsc::Sender<io::Result<Piece>>,
    ) -> io::Result<Rotations> {
        let now = at_rest(&mut self.rotations).await;
        for behind in (1..=now.done - self.seen).rev() {
            let mut offset = std::mem::take(&mut self.offset);
            // One that is gone already was rotated away before we came to it.
            let Ok(file) = File::open(numbered(&self.log, behind)) else {
                continue;
            };
            loop {
                let piece = read_at(&file, offset).await?;
                if piece.is_empty() {
                    break;
                }
                offset += piece.len() as u64;
                let position = LogPosition {
                    rotations: now.done - behind,
                    offset,
                };
                send(sender, (piece, position)).await?;
            }
        }
        self.seen = now.done;
        Ok(now)
    }

    /// Sends what is written, until the log is removed.
    async fn follow(&mut self, sender: &mpsc::Sender<io::Result<Piece>>) -> io::Result<()> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let flags = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::MOVE_SELF
            | inotify::WatchFlags::ATTRIB;
        match inotify::add_watch(&fd, &self.log, flags) {
            // Removed before we came to watch it.
            Err(Errno::NOENT) => return self.copy(sender).await,
            watched => watched?,
        };
        let events = watch_readable(fd)?;
        loop {
            // After the watch was added and after each event: nothing is missed.
            self.copy(sender).await?;
            if !self.log.exists() {
                return Ok(());
            }
            let mut rotations = self.rotations.clone();
            tokio::select! {
                ready = events.readable() => {
                    let mut ready = ready?;
                    drain(events.get_ref());
                    ready.clear_ready();
                }
                changed = rotations.changed() => if changed.is_err() {
                    // Forgotten with its instance.
                    return self.copy(sender).await;
                },
            }
        }
    }
}

/// Whether what follows the position is there completely: its file is the current one or a rotated one that is kept.
fn check(log: &Path, current: &File, done: u64, position: LogPosition) -> io::Result<()> {
    let length = match done.checked_sub(position.rotations) {
        None => None,
        Some(0) => Some(current.metadata()?.len()),
        Some(behind) => fs::metadata(numbered(log, behind))
            .ok()
            .map(|metadata| metadata.len()),
    };
    match length {
        Some(length) if position.offset <= length => Ok(()),
        _ => Err(io::Error::other(TooOld)),
    }
}

/// The rotations, when none is going on.
async fn at_rest(rotations: &mut watch::Receiver<Rotations>) -> Rotations {
    // An error: the log was forgotten, and there will be no other rotation.
    if let Ok(rotations) = rotations.wait_for(|rotations| !rotations.busy).await {
        return *rotations;
    }
    *rotations.borrow()
}

/// Takes all waiting events: that there were some is all we want to know.
fn drain(fd: &OwnedFd) {
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(fd, &mut space);
    while events.next().is_ok() {}
}

async fn send(sender: &mpsc::Sender<io::Result<Piece>>, piece: Piece) -> io::Result<()> {
    sender
        .send(Ok(piece))
        .await
        .map_err(|_| io::ErrorKind::BrokenPipe.into())
}

async fn read_at(file: &File, offset: u64) -> io::Result<Bytes> {
    let mut file = file.try_clone()?;
    blocking(move || {
        file.seek(SeekFrom::Start(offset))?;
        let mut piece = Vec::with_capacity(PIECE);
        file.take(PIECE as u64).read_to_end(&mut piece)?;
        Ok(piece.into())
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
