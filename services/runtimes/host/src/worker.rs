//! One worker process: started, told what to load, given one invocation at a time, killed when it must be.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::call::{Answer, Call, Kind};
use crate::frame::{FailureKind, FrameError, FromWorker, Ready, decode, encode_invoke};

/// How long a dying worker may take to be gone after its socket closed, before it is killed.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How to start a worker of one language.
#[derive(Debug)]
pub struct Program {
    /// Interpreter and its arguments.
    pub command: Vec<String>,
    /// What is written to the worker's standard input before the first frame: the script, in the form in which the
    /// arguments of `command` expect it. Keeps long scripts out of the process list.
    pub preamble: Bytes,
    /// Where standard output and standard error go; None = to those of this process, which are the log.
    pub log: Option<File>,
}

/// Why a worker did not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("cannot start {program}: {source}; install it or name another one")]
    Spawn { program: String, source: io::Error },
    #[error("the worker ended while loading ({0}); the log says why")]
    Ended(String),
    #[error("the worker did not finish loading within {0:?}")]
    TooLong(Duration),
    #[error(transparent)]
    Garbage(#[from] FrameError),
}

/// Why a worker can take no more invocations.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It was killed because an invocation had to end.
    Killed(&'static str),
    /// It ended or spoke nonsense by itself.
    Crashed(String),
}

/// A worker that has loaded its functions. Dropping it kills it with all it started in its process group.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    group: Option<Pid>,
    stream: UnixStream,
    buffer: BytesMut,
}

/// How an exchange with a worker ended without an answer.
enum Lost {
    Closed,
    Frame(FrameError),
}

/// An invocation that had to end before its answer, and what that means for the worker.
struct Overdue {
    kind: Kind,
    why: &'static str,
}

impl From<io::Error> for Lost {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

impl Worker {
    /// Starts the program and waits until it has loaded the functions, well or badly.
    pub(crate) async fn start(
        program: &Program,
        setup: &[u8],
        limit: Duration,
    ) -> Result<(Self, Ready), StartError> {
        let failed = |source| StartError::Spawn {
            program: program.command.first().cloned().unwrap_or_default(),
            source,
        };
        let mut worker = Self::spawn(program).map_err(failed)?;
        let loading = async {
            worker.stream.write_all(&program.preamble).await?;
            worker.stream.write_all(setup).await?;
            worker.read().await
        };
        match timeout(limit, loading).await {
            Ok(Ok(FromWorker::Ready(ready))) => Ok((worker, ready)),
            Ok(Ok(_)) => Err(FrameError::Unexpected.into()),
            Ok(Err(Lost::Frame(error))) => Err(error.into()),
            Ok(Err(Lost::Closed)) => Err(StartError::Ended(worker.end().await)),
            Err(_) => Err(StartError::TooLong(limit)),
        }
    }

    fn spawn(program: &Program) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (name, arguments) = program
            .command
            .split_first()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(name);
        // Its own group: what the function starts is killed with it, and a signal to the runtime is not one to it.
        command
            .args(arguments)
            .stdin(OwnedFd::from(theirs))
            .process_group(0)
            .kill_on_drop(true);
        if let Some(log) = &program.log {
            command
                .stdout(Stdio::from(log.try_clone()?))
                .stderr(Stdio::from(log.try_clone()?));
        }
        let child = command.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self {
            child,
            group,
            stream: UnixStream::from_std(ours)?,
            buffer: BytesMut::new(),
        })
    }

    /// Returns when the worker ends, or says something, while nobody asked it. Cancel-safe.
    pub(crate) async fn broken(&mut self) -> Broken {
        let lost = match self.read().await {
            Ok(_) => Lost::Frame(FrameError::Unexpected),
            Err(lost) => lost,
        };
        self.explain(lost).await
    }

    /// Gives it one invocation and passes on the answer. An error means that this worker must be replaced.
    pub(crate) async fn invoke(&mut self, call: Call, grace: Duration) -> Result<(), Broken> {
        let Call {
            function,
            payload,
            metadata,
            deadline,
            cancelled,
            answer,
        } = call;
        let pid = self.group;
        let exchange = self.exchange(&function, &metadata, &payload, &answer);
        let lost = match supervise(exchange, pid, deadline, &cancelled, grace).await {
            Ok(Ok(FromWorker::Output { metadata, payload })) => {
                answer.result(payload, metadata).await;
                return Ok(());
            }
            Ok(Ok(FromWorker::Failure(failure))) => {
                answer.failure(kind_of(failure.kind), failure.message).await;
                return Ok(());
            }
            Ok(Ok(FromWorker::Ready(_) | FromWorker::Chunk(_))) => {
                Lost::Frame(FrameError::Unexpected)
            }
            Ok(Err(lost)) => lost,
            Err(Overdue { kind, why }) => {
                answer.failure(kind, why).await;
                return Err(Broken::Killed(why));
            }
        };
        let broken = self.explain(lost).await;
        answer.failure(Kind::Worker, broken.text()).await;
        Err(broken)
    }

    /// Asks and waits for what ends the invocation; chunks go to the proxy as they come.
    async fn exchange(
        &mut self,
        function: &str,
        metadata: &BTreeMap<String, String>,
        payload: &Bytes,
        answer: &Answer,
    ) -> Result<FromWorker, Lost> {
        let head = encode_invoke(function, metadata, payload.len())
            .map_err(|error| Lost::Frame(error.into()))?;
        self.write(head, payload).await?;
        loop {
            match self.read().await? {
                // Without a proxy nobody takes it; the invocation is being cancelled then.
                FromWorker::Chunk(chunk) => drop(answer.chunk(chunk).await),
                other => return Ok(other),
            }
        }
    }

    async fn write(&mut self, mut head: Vec<u8>, payload: &[u8]) -> io::Result<()> {
        // One system call for what is small; a large payload is not copied.
        if payload.len() <= 64 * 1024 {
            head.extend_from_slice(payload);
            return self.stream.write_all(&head).await;
        }
        self.stream.write_all(&head).await?;
        self.stream.write_all(payload).await
    }

    async fn read(&mut self) -> Result<FromWorker, Lost> {
        loop {
            if let Some(frame) = decode(&mut self.buffer).map_err(Lost::Frame)? {
                return Ok(frame);
            }
            if self.buffer.capacity() == self.buffer.len() {
                self.buffer.reserve(8 * 1024);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Lost::Closed);
            }
        }
    }

    async fn explain(&mut self, lost: Lost) -> Broken {
        match lost {
            Lost::Closed => Broken::Crashed(format!("the worker ended ({})", self.end().await)),
            Lost::Frame(error) => Broken::Crashed(error.to_string()),
        }
    }

    /// How it ended, after making sure that it did.
    async fn end(&mut self) -> String {
        let status = match timeout(LAST_WORDS, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                signal_group(self.group, Signal::KILL);
                self.child.wait().await
            }
        };
        // What it started is killed with it. Its id is free from here on and must not be signalled again.
        signal_group(self.group.take(), Signal::KILL);
        status.map_or_else(|_| "status unknown".to_owned(), describe)
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        signal_group(self.group.take(), Signal::KILL);
        // Cannot fail in a way that could be mended: it is killed and waited for again when dropped.
        let _ = self.child.wait().await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        signal_group(self.group, Signal::KILL);
    }
}

impl Broken {
    /// For the caller and the log.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Killed(why) => why,
            Self::Crashed(why) => why,
        }
    }
}

fn kind_of(kind: FailureKind) -> Kind {
    match kind {
        FailureKind::Function => Kind::Function,
        FailureKind::Return => Kind::Return,
        FailureKind::NotFound => Kind::NotFound,
        FailureKind::Cancelled => Kind::Cancelled,
    }
}

/// Waits for the exchange, but not beyond the deadline, nor for long once the invocation is cancelled.
async fn supervise(
    exchange: impl Future<Output = Result<FromWorker, Lost>>,
    pid: Option<Pid>,
    deadline: Option<Instant>,
    cancelled: &CancellationToken,
    grace: Duration,
) -> Result<Result<FromWorker, Lost>, Overdue> {
    let late = Overdue {
        kind: Kind::Deadline,
        why: "its deadline passed",
    };
    let deaf = Overdue {
        kind: Kind::Cancelled,
        why: "it did not stop when cancelled",
    };
    let out_of_time = sleep_until(deadline);
    tokio::pin!(exchange, out_of_time);
    tokio::select! {
        biased;
        ended = &mut exchange => return Ok(ended),
        () = &mut out_of_time => return Err(late),
        () = cancelled.cancelled() => {}
    }
    // The function may tidy up and the worker keeps what it has loaded; only one that does not listen is killed.
    signal(pid, Signal::INT);
    tokio::select! {
        biased;
        ended = &mut exchange => Ok(ended),
        () = &mut out_of_time => Err(late),
        () = tokio::time::sleep(grace) => Err(deaf),
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The process may be gone already, which is as good.
fn signal(pid: Option<Pid>, signal: Signal) {
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

fn signal_group(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _ = kill_process_group(group, signal);
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "status unknown".to_owned(),
    }
}
