//! The state directory of an instance: what the shim wrote about a run and its end, and what the runtime counts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::proc::{is_shortage, program_of};
use crate::shim::record::{EXIT_FILE, RUN_FILE, replace};
use crate::status::{LastExit, ProcessIdent, Reason, RunEnd, RunRecord};

/// File name of the counters.
const HISTORY_FILE: &str = "history.json";

/// What the shim wrote at a start. `app` is absent when the shim was killed before the program ran.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RunFile {
    pub(crate) boot_id: String,
    pub(crate) shim: ProcessIdent,
    pub(crate) app: Option<ProcessIdent>,
    pub(crate) started_at_ms: i64,
    pub(crate) warning: Option<String>,
}

impl RunFile {
    /// The record of a run whose program was started.
    pub(crate) fn record(&self) -> Option<RunRecord> {
        Some(RunRecord {
            boot_id: self.boot_id.clone(),
            shim: self.shim,
            app: self.app?,
            started_at_ms: self.started_at_ms,
        })
    }

    /// The record of a living shim, with its program: which one that is could not be written when the disk was full.
    pub(crate) fn completed(mut self) -> Self {
        self.app = self.app.or_else(|| program_of(self.shim.pid));
        self
    }

    /// Which run this is.
    pub(crate) fn run_id(&self) -> RunId {
        RunId {
            boot_id: self.boot_id.clone(),
            shim: self.shim,
        }
    }
}

/// What the shim wrote at the end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ExitFile {
    pub(crate) boot_id: String,
    pub(crate) shim: ProcessIdent,
    code: Option<i32>,
    signal: Option<i32>,
    error: Option<Reason>,
    #[serde(default)]
    message: String,
    at_ms: i64,
}

impl ExitFile {
    /// Which run ended.
    pub(crate) fn run_id(&self) -> RunId {
        RunId {
            boot_id: self.boot_id.clone(),
            shim: self.shim,
        }
    }

    /// How it ended, by itself.
    pub(crate) fn last_exit(&self) -> LastExit {
        let at_ms = Some(self.at_ms);
        match (self.error, self.code, self.signal) {
            (Some(reason), ..) => LastExit {
                end: RunEnd::NotStarted,
                reason,
                message: self.message.clone(),
                at_ms,
            },
            (None, Some(code), _) => LastExit {
                end: RunEnd::Code(code),
                reason: Reason::Exited,
                message: format!("it ended with exit code {code}"),
                at_ms,
            },
            (None, None, Some(signal)) => LastExit {
                end: RunEnd::Signal(signal),
                reason: Reason::Killed,
                message: format!("it was ended by signal {signal}"),
                at_ms,
            },
            (None, None, None) => LastExit {
                end: RunEnd::Unknown,
                reason: Reason::ShimLost,
                message: "its record says nothing".to_owned(),
                at_ms,
            },
        }
    }
}

/// One run of an instance: its shim, in its boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunId {
    pub(crate) boot_id: String,
    pub(crate) shim: ProcessIdent,
}

/// What the runtime counts of one instance. Survives the runtime, so that a crash loop does not begin anew with it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct History {
    /// Starts after the first.
    pub(crate) restarts: u32,
    /// Runs that ended badly.
    pub(crate) failures: u32,
    /// Ends in a row after which the waiting time doubled.
    pub(crate) streak: u32,
    /// The run whose end is in these numbers.
    pub(crate) counted: Option<RunId>,
    /// How that run ended, for the report of a later runtime.
    pub(crate) reason: Option<Reason>,
}

/// The state directory of one instance. Files that cannot be read count as absent: they are torn by a power cut, and
/// then nothing of that boot runs any more. An error: they cannot be read just now, and nobody knows what they say.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(pub(crate) PathBuf);

impl StateDir {
    fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> io::Result<Option<T>> {
        let path = self.0.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if is_shortage(&error) => return Err(error),
            Err(_) => return Ok(None),
        };
        Ok(serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "unreadable record is taken as absent"))
            .ok())
    }

    /// The record of the last start.
    pub(crate) fn run(&self) -> io::Result<Option<RunFile>> {
        self.read(RUN_FILE)
    }

    /// The record of the last end, whichever run it was.
    pub(crate) fn exit(&self) -> io::Result<Option<ExitFile>> {
        self.read(EXIT_FILE)
    }

    /// The record of how this run ended.
    pub(crate) fn exit_of(&self, run: &RunId) -> io::Result<Option<ExitFile>> {
        Ok(self.exit()?.filter(|exit| exit.run_id() == *run))
    }

    /// The counters.
    pub(crate) fn history(&self) -> History {
        self.read(HISTORY_FILE).ok().flatten().unwrap_or_default()
    }

    /// Writes the counters. Not synced: losing the last one makes a crash loop one round longer.
    pub(crate) fn write_history(&self, history: &History) -> io::Result<()> {
        let bytes = serde_json::to_vec(history).map_err(io::Error::other)?;
        replace(&self.0, HISTORY_FILE, &bytes, false)
    }

    /// Forgets the last run, before another begins.
    pub(crate) fn forget_run(&self) -> io::Result<()> {
        for name in [RUN_FILE, EXIT_FILE] {
            remove_if_there(&self.0.join(name))?;
        }
        Ok(())
    }
}

/// Removes a file that may be absent.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::record::{End, Run, tests::texts};

    fn run() -> Run {
        Run {
            boot_id: "b\"oot".to_owned(),
            shim: ProcessIdent {
                pid: 7,
                start_ticks: 8,
            },
            app: Some(ProcessIdent {
                pid: 9,
                start_ticks: 10,
            }),
            started_at_ms: 11,
            warning: Some("no\ncgroup".to_owned()),
        }
    }

    #[test]
    fn what_the_shim_writes_is_what_the_runtime_reads() {
        let (text, exit) = texts(&run(), &End::Code(3));
        let read: RunFile = serde_json::from_str(&text).unwrap();
        assert_eq!(
            read.record().unwrap().app,
            ProcessIdent {
                pid: 9,
                start_ticks: 10
            }
        );
        assert_eq!(
            (read.started_at_ms, read.warning.as_deref()),
            (11, Some("no\ncgroup"))
        );
        let exit: ExitFile = serde_json::from_str(&exit).unwrap();
        assert_eq!(exit.run_id(), read.run_id());
        assert_eq!(
            (exit.last_exit().end, exit.last_exit().at_ms),
            (RunEnd::Code(3), Some(77))
        );
    }

    #[test]
    fn every_end_of_the_shim_has_its_meaning() {
        let end = |end| {
            serde_json::from_str::<ExitFile>(&texts(&run(), &end).1)
                .unwrap()
                .last_exit()
        };
        assert!(end(End::Code(0)).end.is_success());
        assert_eq!(end(End::Signal(9)).end, RunEnd::Signal(9));
        let failed = end(End::NotStarted(
            Reason::BadFormat.as_str(),
            "why".to_owned(),
        ));
        assert_eq!(
            (failed.end, failed.reason, failed.message.as_str()),
            (RunEnd::NotStarted, Reason::BadFormat, "why")
        );
    }

    #[test]
    fn every_reason_is_read_back_from_its_word() {
        for reason in [
            Reason::EntryMissing,
            Reason::NotExecutable,
            Reason::BadFormat,
            Reason::WorkingDirMissing,
            Reason::StartFailed,
        ] {
            let word = format!("\"{}\"", reason.as_str());
            assert_eq!(serde_json::from_str::<Reason>(&word).unwrap(), reason);
        }
    }

    #[test]
    fn a_torn_record_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir(dir.path().to_owned());
        let (text, _) = texts(&run(), &End::Code(0));
        for cut in [0, 1, text.len() / 2] {
            fs::write(dir.path().join(RUN_FILE), &text[..cut]).unwrap();
            assert_eq!(state.run().unwrap(), None);
        }
    }

    #[test]
    fn the_end_of_another_run_is_not_taken_for_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir(dir.path().to_owned());
        fs::write(dir.path().join(EXIT_FILE), texts(&run(), &End::Code(0)).1).unwrap();
        let same = RunId {
            boot_id: "b\"oot".to_owned(),
            shim: ProcessIdent {
                pid: 7,
                start_ticks: 8,
            },
        };
        assert!(state.exit_of(&same).unwrap().is_some());
        let reused = RunId {
            shim: ProcessIdent {
                pid: 7,
                start_ticks: 9,
            },
            ..same.clone()
        };
        assert_eq!(state.exit_of(&reused).unwrap(), None);
        let rebooted = RunId {
            boot_id: "other".to_owned(),
            ..same
        };
        assert_eq!(state.exit_of(&rebooted).unwrap(), None);
    }

    #[test]
    fn counters_survive() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir(dir.path().to_owned());
        assert_eq!(state.history(), History::default());
        let history = History {
            restarts: 3,
            failures: 2,
            streak: 1,
            counted: None,
            reason: Some(Reason::Killed),
        };
        state.write_history(&history).unwrap();
        assert_eq!(state.history(), history);
    }
}
