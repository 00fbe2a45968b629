//! Reading `/proc`: small parsers, used by the runtime and by the shim.

use std::fs;
use std::io;
use std::path::Path;

use crate::status::ProcessIdent;

/// Where the kernel tells the id of this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What `/proc/<pid>/stat` tells that we need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// State letter; `Z` and `X` are dead.
    pub(crate) state: u8,
    /// Parent.
    pub(crate) parent: u32,
    /// Process group.
    pub(crate) group: u32,
    /// Session.
    pub(crate) session: u32,
    /// User and system time in clock ticks.
    pub(crate) cpu_ticks: u64,
    /// The same of children that have ended and were collected.
    pub(crate) ended_children_ticks: u64,
    /// Start after boot in clock ticks.
    pub(crate) start_ticks: u64,
}

impl Stat {
    /// Reads it for one process. An error: there is no such process (or it is not ours to see).
    pub(crate) fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// The name (field 2) may hold spaces and parentheses: what counts begins after the last `)`.
    fn parse(text: &[u8]) -> Option<Self> {
        let after_name = text.iter().rposition(|byte| *byte == b')')? + 1;
        let fields: Vec<&str> = std::str::from_utf8(text.get(after_name..)?)
            .ok()?
            .split_ascii_whitespace()
            .collect();
        // `fields[0]` is field 3 of proc(5).
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let pid = |field: usize| u32::try_from(number(field)?).ok();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            parent: pid(4)?,
            group: pid(5)?,
            session: pid(6)?,
            cpu_ticks: number(14)? + number(15)?,
            ended_children_ticks: number(16)? + number(17)?,
            start_ticks: number(22)?,
        })
    }

    /// True for a process that has ended and was not collected yet.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The identity of a process that runs now; `None` when there is none or it is a zombie.
pub(crate) fn ident(pid: u32) -> Option<ProcessIdent> {
    let stat = Stat::read(pid).ok().filter(|stat| !stat.is_dead())?;
    Some(ProcessIdent {
        pid,
        start_ticks: stat.start_ticks,
    })
}

/// The identity of a process that may be a zombie already.
pub(crate) fn ident_of_any(pid: u32) -> Option<ProcessIdent> {
    let stat = Stat::read(pid).ok()?;
    Some(ProcessIdent {
        pid,
        start_ticks: stat.start_ticks,
    })
}

/// Id of this boot.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

/// Ids of all processes we can see.
pub(crate) fn pids() -> io::Result<impl Iterator<Item = u32>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// Children of a process with one thread, as a shim is. Needs no CONFIG_PROC_CHILDREN: then all of `/proc` is read.
pub(crate) fn children(of: u32) -> io::Result<Vec<u32>> {
    let path = format!("/proc/{of}/task/{of}/children");
    if let Ok(text) = fs::read_to_string(Path::new(&path)) {
        return Ok(text
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect());
    }
    Ok(pids()?
        .filter(|pid| Stat::read(*pid).is_ok_and(|stat| stat.parent == of))
        .collect())
}

/// The program a shim runs, seen from outside: the child that leads its own process group. What the program left to the
/// shim may lead one too, and is younger.
pub(crate) fn program_of(shim: u32) -> Option<ProcessIdent> {
    children(shim)
        .ok()?
        .into_iter()
        .filter_map(|pid| Some((pid, Stat::read(pid).ok()?)))
        .filter(|(pid, stat)| stat.parent == shim && stat.group == *pid && !stat.is_dead())
        .map(|(pid, stat)| ProcessIdent {
            pid,
            start_ticks: stat.start_ticks,
        })
        .min_by_key(|ident| (ident.start_ticks, ident.pid))
}

/// True when the process was started with this environment variable. False when it is not ours to read; an error when
/// it cannot be read just now.
pub(crate) fn has_env(pid: u32, name: &str, value: &[u8]) -> io::Result<bool> {
    let environ = match fs::read(format!("/proc/{pid}/environ")) {
        Ok(environ) => environ,
        Err(error) if is_shortage(&error) => return Err(error),
        Err(_) => return Ok(false),
    };
    Ok(environ.split(|byte| *byte == 0).any(|entry| {
        entry
            .strip_prefix(name.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
            == Some(value)
    }))
}

/// True for an error that tells of this moment (no descriptor or memory left), and nothing of what was looked for: that
/// must not be taken as absent.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] =
        b"42 (a) b (c)) S 7 41 40 0 -1 4194560 1 0 0 0 5 6 7 8 20 0 1 0 12345 1 2 3";

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = Stat::parse(LINE).unwrap();
        assert_eq!(
            stat,
            Stat {
                state: b'S',
                parent: 7,
                group: 41,
                session: 40,
                cpu_ticks: 11,
                ended_children_ticks: 15,
                start_ticks: 12345
            }
        );
        assert!(!stat.is_dead());
    }

    #[test]
    fn a_line_cut_short_is_no_stat() {
        assert_eq!(Stat::parse(b""), None);
        assert_eq!(Stat::parse(&LINE[..40]), None);
    }

    #[test]
    fn this_process_has_an_identity_that_stays() {
        let own = std::process::id();
        assert_eq!(ident(own).unwrap(), ident(own).unwrap());
        assert_eq!(ident(0), None);
    }

    #[test]
    fn the_environment_of_a_process_is_matched_whole() {
        let own = std::process::id();
        let path = std::env::var("PATH").unwrap();
        assert!(has_env(own, "PATH", path.as_bytes()).unwrap());
        assert!(!has_env(own, "PAT", path.as_bytes()).unwrap());
        assert!(!has_env(own, "PATH", &path.as_bytes()[1..]).unwrap());
    }

    #[test]
    fn an_error_of_this_moment_is_told_from_an_absent_process() {
        let of = |errno: rustix::io::Errno| io::Error::from(errno);
        assert!(is_shortage(&of(rustix::io::Errno::MFILE)));
        assert!(!is_shortage(&of(rustix::io::Errno::NOENT)));
        assert!(!is_shortage(&of(rustix::io::Errno::SRCH)));
    }
}
