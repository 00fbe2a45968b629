//! What the shim writes: `run.json` when the program runs, `exit.json` when it has ended. Written whole or not at all.
//!
//! The texts are made by hand (the shim carries no JSON library); the runtime reads them with one, and tests hold the
//! two together.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::status::ProcessIdent;

/// File name of the record of a run.
pub(crate) const RUN_FILE: &str = "run.json";

/// File name of the record of its end.
pub(crate) const EXIT_FILE: &str = "exit.json";

/// Bytes a record has for sure: more than any of them needs, and one block of the usual filesystems.
const RESERVED: usize = 4096;

/// The run this shim is for.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) boot_id: String,
    pub(crate) shim: ProcessIdent,
    pub(crate) app: Option<ProcessIdent>,
    pub(crate) started_at_ms: i64,
    /// What could not be done though the program was started.
    pub(crate) warning: Option<String>,
}

/// How it ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
    /// It could not be started: word of [`crate::status::Reason`] and a sentence.
    NotStarted(&'static str, String),
}

impl Run {
    /// Text of `run.json`.
    fn json(&self) -> String {
        let mut out = String::with_capacity(320);
        out.push_str("{\"format\":1,");
        self.fields(&mut out);
        let _ = write!(out, ",\"started_at_ms\":{}", self.started_at_ms);
        if let Some(warning) = &self.warning {
            out.push_str(",\"warning\":");
            quote(&mut out, warning);
        }
        out.push_str("}\n");
        out
    }

    /// Text of `exit.json`.
    fn exit_json(&self, end: &End, at_ms: i64) -> String {
        let mut out = String::with_capacity(320);
        out.push_str("{\"format\":1,");
        self.fields(&mut out);
        match end {
            End::Code(code) => {
                let _ = write!(out, ",\"code\":{code}");
            }
            End::Signal(signal) => {
                let _ = write!(out, ",\"signal\":{signal}");
            }
            End::NotStarted(reason, message) => {
                out.push_str(",\"error\":");
                quote(&mut out, reason);
                out.push_str(",\"message\":");
                quote(&mut out, message);
            }
        }
        let _ = write!(out, ",\"at_ms\":{at_ms}}}");
        out.push('\n');
        out
    }

    fn fields(&self, out: &mut String) {
        out.push_str("\"boot_id\":");
        quote(out, &self.boot_id);
        let mut process = |key: &str, ident: ProcessIdent| {
            let _ = write!(
                out,
                ",\"{key}\":{{\"pid\":{},\"start_ticks\":{}}}",
                ident.pid, ident.start_ticks
            );
        };
        process("shim", self.shim);
        if let Some(app) = self.app {
            process("app", app);
        }
    }

    /// Writes `run.json`. Not synced: it means nothing after this boot.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        replace(dir, RUN_FILE, self.json().as_bytes(), false)
    }

    /// Writes `exit.json`, synced: a job that ended well must not run again after a power cut.
    pub(crate) fn write_exit(&self, dir: &Path, end: &End) -> io::Result<()> {
        replace(
            dir,
            EXIT_FILE,
            self.exit_json(end, unix_ms()).as_bytes(),
            true,
        )
    }
}

/// Unix time in milliseconds by the wall clock; reported, never decided by.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Replaces a file in one step. `sync`: it is there after a power cut.
pub(crate) fn replace(dir: &Path, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
    let temporary = temporary(dir, name);
    // In place, and cut afterwards: its space may have been reserved.
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    if sync {
        file.sync_data()?;
    }
    fs::rename(&temporary, dir.join(name))?;
    if sync {
        // The name too, not only what it names.
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Sees to it that the next records of a run and of its end find space, whatever becomes of the disk until then.
pub(crate) fn reserve(dir: &Path) -> io::Result<()> {
    for name in [RUN_FILE, EXIT_FILE] {
        // Written, not merely allocated: some filesystems take the space only then.
        fs::write(temporary(dir, name), [b' '; RESERVED])?;
    }
    Ok(())
}

fn temporary(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}.tmp"))
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// Both texts of a run, for the tests of the reader.
    pub(crate) fn texts(run: &Run, end: &End) -> (String, String) {
        (run.json(), run.exit_json(end, 77))
    }

    #[test]
    fn text_is_quoted_so_that_json_reads_it_back() {
        for text in ["plain", "a\"b\\c", "line\nfeed\ttab\u{1}", "ü€😀", ""] {
            let mut out = String::new();
            quote(&mut out, text);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn a_record_goes_into_the_space_that_was_reserved_for_it() {
        let dir = tempfile::tempdir().unwrap();
        reserve(dir.path()).unwrap();
        for name in [RUN_FILE, EXIT_FILE] {
            let reserved = fs::metadata(temporary(dir.path(), name)).unwrap();
            assert_eq!(reserved.len(), 4096);
            replace(dir.path(), name, b"record", true).unwrap();
            let record = fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!((record.ino(), record.len()), (reserved.ino(), 6));
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), "x", b"long content", false).unwrap();
        replace(dir.path(), "x", b"short", true).unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"short");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
