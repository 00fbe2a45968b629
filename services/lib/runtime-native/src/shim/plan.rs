//! What the runtime tells the shim: a file of NUL-terminated words, because the shim has no use for a JSON reader and
//! paths and environment may hold any other byte.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::process::Resource;

/// First word of the file; another one is another format.
const MAGIC: &str = "baetyl-shim-plan-1";

/// File name of the plan in the state directory of an instance.
pub(crate) const PLAN_FILE: &str = "plan";

/// What the shim is to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// Name for `ps`.
    pub(crate) name: OsString,
    /// Program, absolute.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<OsString>,
    /// Its whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub(crate) cwd: PathBuf,
    /// File its output is appended to.
    pub(crate) log: PathBuf,
    /// Files (`cgroup.procs`) the shim writes its pid to before it starts the program.
    pub(crate) cgroups: Vec<PathBuf>,
    /// Limits (`RLIMIT_*`): resource, soft, hard.
    pub(crate) rlimits: Vec<(LimitOf, u64, u64)>,
    /// User and group of the program.
    pub(crate) user: Option<(u32, u32)>,
    /// Milliseconds that children left behind by a stopped program have to end by themselves.
    pub(crate) linger_ms: u64,
}

/// What is limited, as a word of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitOf {
    Files,
    Processes,
    Core,
    FileSize,
}

impl LimitOf {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Files, "nofile"),
        (Self::Processes, "nproc"),
        (Self::Core, "core"),
        (Self::FileSize, "fsize"),
    ];

    fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(of, _)| *of == self)
            .map_or("", |(_, word)| word)
    }

    fn parse(word: &[u8]) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, name)| name.as_bytes() == word)
            .map(|(of, _)| *of)
    }

    /// The kernel's name of it.
    pub(crate) fn resource(self) -> Resource {
        match self {
            Self::Files => Resource::Nofile,
            Self::Processes => Resource::Nproc,
            Self::Core => Resource::Core,
            Self::FileSize => Resource::Fsize,
        }
    }
}

/// A word with a NUL in it cannot be written (nor passed to a program).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} holds a NUL byte, which no program can be given: {shown}")]
pub(crate) struct NulError {
    what: &'static str,
    shown: String,
}

impl Plan {
    /// The bytes of the file.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, NulError> {
        let mut out = Words(Vec::with_capacity(1024));
        out.put("format", OsStr::new(MAGIC))?;
        out.pair("name", &self.name)?;
        out.pair("program", self.program.as_os_str())?;
        for arg in &self.args {
            out.pair("arg", arg)?;
        }
        for (name, value) in &self.env {
            out.pair("env", name)?;
            out.put("env", value)?;
        }
        out.pair("cwd", self.cwd.as_os_str())?;
        out.pair("log", self.log.as_os_str())?;
        for cgroup in &self.cgroups {
            out.pair("cgroup", cgroup.as_os_str())?;
        }
        for (of, soft, hard) in &self.rlimits {
            out.pair("rlimit", OsStr::new(of.word()))?;
            out.number(*soft)?;
            out.number(*hard)?;
        }
        if let Some((uid, gid)) = self.user {
            out.put("user", OsStr::new("user"))?;
            out.number(uid.into())?;
            out.number(gid.into())?;
        }
        out.put("linger", OsStr::new("linger"))?;
        out.number(self.linger_ms)?;
        out.put("end", OsStr::new("end"))?;
        Ok(out.0)
    }

    /// Reads the bytes of the file. `None`: another format, or cut short.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes.split(|byte| *byte == 0);
        if words.next()? != MAGIC.as_bytes() {
            return None;
        }
        let mut plan = Self::default();
        loop {
            match words.next()? {
                b"name" => plan.name = text(words.next()?),
                b"program" => plan.program = text(words.next()?).into(),
                b"arg" => plan.args.push(text(words.next()?)),
                b"env" => plan.env.push((text(words.next()?), text(words.next()?))),
                b"cwd" => plan.cwd = text(words.next()?).into(),
                b"log" => plan.log = text(words.next()?).into(),
                b"cgroup" => plan.cgroups.push(text(words.next()?).into()),
                b"rlimit" => {
                    let of = LimitOf::parse(words.next()?)?;
                    plan.rlimits
                        .push((of, number(words.next()?)?, number(words.next()?)?));
                }
                b"user" => {
                    let uid = u32::try_from(number(words.next()?)?).ok()?;
                    plan.user = Some((uid, u32::try_from(number(words.next()?)?).ok()?));
                }
                b"linger" => plan.linger_ms = number(words.next()?)?,
                b"end" => return Some(plan),
                _ => return None,
            }
        }
    }
}

struct Words(Vec<u8>);

impl Words {
    fn put(&mut self, what: &'static str, word: &OsStr) -> Result<(), NulError> {
        if word.as_bytes().contains(&0) {
            return Err(NulError {
                what,
                shown: word.to_string_lossy().escape_debug().to_string(),
            });
        }
        self.0.extend_from_slice(word.as_bytes());
        self.0.push(0);
        Ok(())
    }

    fn pair(&mut self, key: &'static str, word: &OsStr) -> Result<(), NulError> {
        self.put(key, OsStr::new(key))?;
        self.put(key, word)
    }

    fn number(&mut self, number: u64) -> Result<(), NulError> {
        self.put("number", OsStr::new(&number.to_string()))
    }
}

fn text(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Plan {
        Plan {
            name: "ns.app.1.svc.1".into(),
            program: "/bin/sh".into(),
            args: vec![
                "-c".into(),
                "".into(),
                OsString::from_vec(vec![0xff, b'\n', b'=']),
            ],
            env: vec![("A".into(), "b=c".into()), ("EMPTY".into(), "".into())],
            cwd: "/tmp".into(),
            log: "/tmp/x.log".into(),
            cgroups: vec!["/sys/fs/cgroup/x/cgroup.procs".into()],
            rlimits: vec![(LimitOf::Files, 10, u64::MAX), (LimitOf::FileSize, 0, 1)],
            user: Some((1000, 1001)),
            linger_ms: 30_000,
        }
    }

    #[test]
    fn a_plan_is_read_back_as_it_was_written() {
        for plan in [full(), Plan::default()] {
            assert_eq!(Plan::decode(&plan.encode().unwrap()), Some(plan));
        }
    }

    #[test]
    fn a_plan_cut_short_at_any_byte_is_refused() {
        let bytes = full().encode().unwrap();
        // Without its last NUL the last word is still whole.
        for cut in 0..bytes.len() - 1 {
            assert_eq!(Plan::decode(&bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_nul_in_an_argument_is_refused_and_named() {
        let plan = Plan {
            args: vec!["a\0b".into()],
            ..full()
        };
        assert!(
            plan.encode()
                .unwrap_err()
                .to_string()
                .starts_with("arg holds a NUL byte")
        );
    }
}
