//! `baetyl-shim`: the parent of one application instance.
//!
//! It outlives the runtime: own session, no pipe to it, no death signal. It is subreaper, so every process the
//! application leaves behind becomes its child; when the application ends, so do they, and only then is the end written
//! down. One process, one thread, no async runtime: it is there once per instance.
//!
//! `baetyl-shim launch <plan>` starts `baetyl-shim run <plan>` in a session of its own and ends as soon as that one has
//! started the program or failed to: what waits for it never becomes the parent of what lasts.
//!
//! Signals: TERM, INT, HUP, USR1 and USR2 go to the application. When it ends after TERM or INT, what it leaves behind
//! gets TERM and the grace of the plan; else it is killed at once. QUIT kills everything now.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{
    Pid, Rlimit, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper,
    setrlimit, setsid, wait,
};

use crate::proc;
use crate::status::Reason;

pub(crate) mod plan;
pub(crate) mod record;
mod signals;

use plan::Plan;
use record::{End, Run, unix_ms};
pub(crate) use signals::Signals;

/// Exit code of `launch` and `run`: the program runs, or why it does not is written down.
const OK: u8 = 0;
/// Exit code: wrong arguments, or a plan that cannot be read.
const USAGE: u8 = 64;
/// Exit code: something of the machine failed before anything could be written down.
const FAILED: u8 = 71;
/// Exit code: another shim holds the state directory.
pub(crate) const HELD: u8 = 75;

/// File whose lock a shim holds as long as it lives.
pub(crate) const LOCK_FILE: &str = "lock";

/// The whole program; `args` are its arguments without its own name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let code = match args.as_slice() {
        [verb, plan] if verb == "launch" => launch(plan),
        [verb, plan] if verb == "run" => run(Path::new(plan)),
        _ => {
            say(format_args!(
                "usage: baetyl-shim launch <plan file> (started by baetyl-engine, not by hand)"
            ));
            USAGE
        }
    };
    ExitCode::from(code)
}

/// The one place it speaks: to whoever waits for `launch`.
fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "baetyl-shim: {text}");
}

/// First stage: starts the second and waits until it answered.
fn launch(plan: &OsStr) -> u8 {
    // A terminal's ^C, or a supervisor killing our group, must not tear a start in two.
    let _ = setsid();
    match launch_second(plan) {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("cannot start the second stage: {error}"));
            FAILED
        }
    }
}

fn launch_second(plan: &OsStr) -> io::Result<u8> {
    let mut second = Command::new(std::env::current_exe()?)
        .arg("run")
        .arg(plan)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut answer = [0; 1];
    let read = second
        .stdout
        .take()
        .map_or(Ok(0), |mut stdout| stdout.read(&mut answer))?;
    // No answer: it ended before it could give one.
    if read == 1 { Ok(answer[0]) } else { Ok(FAILED) }
}

/// Second stage: the shim itself.
fn run(plan_file: &Path) -> u8 {
    let _ = setsid();
    let Some(dir) = plan_file.parent() else {
        return USAGE;
    };
    let code = match Shim::begin(dir, plan_file) {
        Ok(shim) => {
            answer(OK);
            shim.watch();
            return OK;
        }
        Err(code) => code,
    };
    answer(code);
    code
}

/// Tells the first stage how it went, and lets go of the pipe to it.
fn answer(code: u8) {
    let mut stdout = io::stdout();
    let _ = stdout.write_all(&[code]).and_then(|()| stdout.flush());
    if let Ok(null) = File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// A shim whose program runs.
struct Shim {
    dir: PathBuf,
    signals: Signals,
    run: Run,
    app: Pid,
    linger: Duration,
    /// Held, not read: its lock says that this state directory has a shim.
    _lock: File,
}

impl Shim {
    /// Starts the program. An error is the exit code; what is known about it has been written down then.
    fn begin(dir: &Path, plan_file: &Path) -> Result<Self, u8> {
        let lock = File::create(dir.join(LOCK_FILE)).map_err(|_| FAILED)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| HELD)?;
        let plan = fs::read(plan_file)
            .ok()
            .and_then(|bytes| Plan::decode(&bytes))
            .ok_or(USAGE)?;
        let signals = Signals::take().map_err(|_| FAILED)?;
        set_child_subreaper(Some(getpid())).map_err(|_| FAILED)?;
        let own = proc::ident(std::process::id()).ok_or(FAILED)?;
        let mut run = Run {
            boot_id: proc::boot_id().map_err(|_| FAILED)?,
            shim: own,
            app: None,
            started_at_ms: unix_ms(),
            warning: join_cgroups(&plan),
        };
        // Before the program: if we are killed between the two, the session in it tells what to clean up. What is written
        // later has its space from now on: a disk that fills up meanwhile must cost neither record.
        run.write(dir)
            .and_then(|()| record::reserve(dir))
            .map_err(|_| FAILED)?;
        let app = match start(&plan) {
            Ok(pid) => pid,
            Err((reason, message)) => {
                let end = End::NotStarted(reason.as_str(), message);
                run.write_exit(dir, &end).map_err(|_| FAILED)?;
                return Err(OK);
            }
        };
        run.app = proc::ident_of_any(app.as_raw_pid().unsigned_abs());
        // Failing here is no reason to end what runs: its parent, which is in the record already, tells which it is.
        let _ = run.write(dir);
        let _ = std::env::set_current_dir("/");
        Ok(Self {
            dir: dir.to_owned(),
            signals,
            run,
            app,
            linger: Duration::from_millis(plan.linger_ms),
            _lock: lock,
        })
    }

    /// Until the program and all it left behind have ended.
    fn watch(mut self) {
        let mut app_end = None;
        let mut stopping = false;
        let mut linger_until: Option<Instant> = None;
        loop {
            if self.reap(&mut app_end) {
                break;
            }
            for signal in self.signals.came().collect::<Vec<_>>() {
                match signal {
                    Signal::QUIT => linger_until = Some(Instant::now()),
                    signal => {
                        stopping |= matches!(signal, Signal::TERM | Signal::INT);
                        if app_end.is_none() {
                            // Not collected yet, therefore still this process.
                            let _ = kill_process(self.app, signal);
                        }
                    }
                }
            }
            if app_end.is_some() && linger_until.is_none() {
                linger_until = Some(
                    Instant::now()
                        + if stopping {
                            self.linger
                        } else {
                            Duration::ZERO
                        },
                );
                if stopping {
                    signal_children(Signal::TERM);
                }
            }
            self.signals.wait(kill_when_due(linger_until));
        }
        let end = app_end.unwrap_or(End::NotStarted(
            Reason::StartFailed.as_str(),
            "it was lost".to_owned(),
        ));
        let _ = self.run.write_exit(&self.dir, &end);
    }

    /// Collects what has ended; true when no child is left.
    fn reap(&self, app_end: &mut Option<End>) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.app => *app_end = Some(end_of(status)),
                Ok(Some(_)) => {}
                Ok(None) | Err(rustix::io::Errno::INTR) => return false,
                Err(_) => return true,
            }
        }
    }
}

/// Kills all children when their time is up. Returns how long to wait for the next event: children of the killed come
/// to us one generation at a time, each with its SIGCHLD.
fn kill_when_due(linger_until: Option<Instant>) -> Option<Duration> {
    let left = linger_until?.saturating_duration_since(Instant::now());
    if left.is_zero() {
        signal_children(Signal::KILL);
        // One that was born between the listing and the kill has no event of its own.
        return Some(Duration::from_millis(100));
    }
    Some(left)
}

/// Signals every child. They are not collected meanwhile, therefore no pid can be another process.
fn signal_children(signal: Signal) {
    for pid in proc::children(std::process::id()).unwrap_or_default() {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

fn end_of(status: WaitStatus) -> End {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => End::Code(code),
        (None, Some(signal)) => End::Signal(signal),
        (None, None) => End::Code(-1),
    }
}

/// Enters the cgroups of the plan. Not being let in is no reason not to run.
fn join_cgroups(plan: &Plan) -> Option<String> {
    plan.cgroups.iter().find_map(|file| {
        // "0" is whoever writes it.
        let error = fs::write(file, "0").err()?;
        Some(format!(
            "cannot enter the cgroup {}: {error}",
            file.display()
        ))
    })
}

/// Starts the program.
fn start(plan: &Plan) -> Result<Pid, (Reason, String)> {
    let log = OpenOptions::new().create(true).append(true).open(&plan.log);
    let (out, err) = log
        .and_then(|log| Ok((log.try_clone()?, log)))
        .map_err(|error| {
            (
                Reason::StartFailed,
                format!("cannot open the log {}: {error}", plan.log.display()),
            )
        })?;
    for (of, soft, hard) in &plan.rlimits {
        limit(*of, *soft, *hard).map_err(|error| {
            (
                Reason::StartFailed,
                format!("cannot set the limit {of:?}: {error}"),
            )
        })?;
    }
    let mut command = Command::new(&plan.program);
    command
        .args(&plan.args)
        .env_clear()
        .envs(plan.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&plan.cwd)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0);
    if let Some((uid, gid)) = plan.user {
        command.uid(uid).gid(gid);
    }
    let started = command.spawn();
    for (of, _, hard) in &plan.rlimits {
        // Ours again as far as we may: an exit record must be writable.
        let _ = limit(*of, *hard, *hard);
    }
    let child = started.map_err(|error| explain(plan, &error))?;
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| {
            (
                Reason::StartFailed,
                "the kernel gave no process id".to_owned(),
            )
        })
}

fn limit(of: plan::LimitOf, soft: u64, hard: u64) -> rustix::io::Result<()> {
    let finite = |value: u64| (value != u64::MAX).then_some(value);
    setrlimit(
        of.resource(),
        Rlimit {
            current: finite(soft),
            maximum: finite(hard),
        },
    )
}

/// Why it could not be started: the kernel's error is the same for several causes.
fn explain(plan: &Plan, error: &io::Error) -> (Reason, String) {
    let (program, cwd) = (plan.program.display(), plan.cwd.display());
    let errno = error.raw_os_error();
    let is = |expected: rustix::io::Errno| errno == Some(expected.raw_os_error());
    if !plan.cwd.is_dir() {
        (
            Reason::WorkingDirMissing,
            format!("the working directory {cwd} is no directory"),
        )
    } else if is(rustix::io::Errno::NOENT) && plan.program.exists() {
        (
            Reason::EntryMissing,
            format!("the interpreter that {program} names in its first line or header is missing"),
        )
    } else if is(rustix::io::Errno::NOENT) {
        (
            Reason::EntryMissing,
            format!("there is no program {program}"),
        )
    } else if is(rustix::io::Errno::ACCESS) {
        (
            Reason::NotExecutable,
            format!("{program} may not be executed in {cwd}: {error}"),
        )
    } else if is(rustix::io::Errno::NOEXEC) {
        (
            Reason::BadFormat,
            format!(
                "{program} is no program this machine can run: a script needs a first line with #!"
            ),
        )
    } else {
        (
            Reason::StartFailed,
            format!("{program} cannot be started: {error}"),
        )
    }
}
