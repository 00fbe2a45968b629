//! Which program an instance starts, and whether the machine can run it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::closed_above;
use super::dir::Dir;
use crate::spec::{InstanceSpec, MountSource, PROGRAM_FILE, PROGRAM_MOUNT, Program, RunAs};
use crate::status::Reason;

/// What is started, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Absolute.
    pub(crate) program: PathBuf,
    /// All arguments.
    pub(crate) args: Vec<OsString>,
    /// Absolute.
    pub(crate) cwd: PathBuf,
}

/// Why there is nothing to start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct EntryError {
    pub(crate) reason: Reason,
    message: String,
}

fn error(reason: Reason, message: impl Into<String>) -> EntryError {
    EntryError {
        reason,
        message: message.into(),
    }
}

/// `program.yml`; what else is in it was for other versions of Baetyl.
#[derive(Debug, Deserialize)]
struct ProgramFile {
    entry: String,
    #[serde(default)]
    args: Vec<String>,
}

/// Finds the program of an instance whose directory is made. Blocks.
pub(crate) fn resolve(
    instance_dir: &Path,
    spec: &InstanceSpec,
    path_variable: &str,
) -> Result<Entry, EntryError> {
    let mount = instance_dir.join(PROGRAM_MOUNT.trim_start_matches('/'));
    let (program, mut args) = match &spec.program {
        Program::Package => from_package(&mount)?,
        Program::Command(words) => {
            from_command(words, instance_dir, &mount, path_variable, spec.user)?
        }
    };
    args.extend(spec.args.iter().map(OsString::from));
    if program.starts_with(&mount) && is_ours(spec) {
        // From the instance directory, which is ours: what is below it may have been replaced by a link.
        let place = program.strip_prefix(instance_dir).unwrap_or(&program);
        let made = Dir::open(instance_dir, spec.user).and_then(|dir| {
            let (parent, name) = dir.parent_of(place)?;
            if parent.holds(name) {
                parent.make_executable(name)
            } else {
                Ok(())
            }
        });
        made.map_err(|cause| {
            error(
                Reason::NotExecutable,
                format!("cannot make {} executable: {cause}", program.display()),
            )
        })?;
    }
    check(&program, spec.user)?;
    Ok(Entry {
        program,
        args,
        cwd: working_dir(instance_dir, spec.working_dir.as_deref())?,
    })
}

/// True when the program mount holds copies we made: only those are made executable.
fn is_ours(spec: &InstanceSpec) -> bool {
    let at_mount = |path: &str| path.trim_matches('/') == PROGRAM_MOUNT.trim_matches('/');
    spec.mounts
        .iter()
        .any(|mount| at_mount(&mount.path) && matches!(mount.source, MountSource::Config(_)))
}

fn from_package(mount: &Path) -> Result<(PathBuf, Vec<OsString>), EntryError> {
    let file = mount.join(PROGRAM_FILE);
    let text = fs::read(&file).map_err(|cause| {
        let what = format!(
            "no program: neither a command is given nor can {} be read: {cause}",
            file.display()
        );
        error(Reason::EntryMissing, what)
    })?;
    let found: ProgramFile = serde_norway::from_slice(&text).map_err(|cause| {
        error(
            Reason::EntryMissing,
            format!("{PROGRAM_FILE} must have an entry and may have args: {cause}"),
        )
    })?;
    if found.entry.is_empty() {
        return Err(error(
            Reason::EntryMissing,
            format!("the entry in {PROGRAM_FILE} is empty"),
        ));
    }
    Ok((
        mount.join(found.entry),
        found.args.into_iter().map(OsString::from).collect(),
    ))
}

fn from_command(
    words: &[String],
    instance_dir: &Path,
    mount: &Path,
    path_variable: &str,
    user: Option<RunAs>,
) -> Result<(PathBuf, Vec<OsString>), EntryError> {
    let [program, args @ ..] = words else {
        return Err(error(Reason::EntryMissing, "the command is empty"));
    };
    let args = args.iter().map(OsString::from).collect();
    if program.starts_with('/') {
        return Ok((PathBuf::from(program), args));
    }
    let mut places: Vec<PathBuf> = Vec::new();
    if !program.contains('/') {
        places.extend(
            path_variable
                .split(':')
                .filter(|dir| dir.starts_with('/'))
                .map(PathBuf::from),
        );
    } else {
        places.extend([mount.to_owned(), instance_dir.to_owned()]);
    }
    let found = || {
        let paths = places.iter().map(|dir| dir.join(program));
        paths.filter(|path| path.is_file())
    };
    // As the kernel does: what lies where the user cannot come is passed over, unless it is the only one.
    let reached = |path: &PathBuf| user.is_none_or(|user| closed_above(path, user).is_none());
    match found().find(reached).or_else(|| found().next()) {
        Some(path) => Ok((path, args)),
        None => {
            let places: Vec<String> = places
                .iter()
                .map(|place| place.display().to_string())
                .collect();
            Err(error(
                Reason::EntryMissing,
                format!("there is no program {program} in {}", places.join(", ")),
            ))
        }
    }
}

/// Absolute paths that a volume of the instance is mounted at or above mean the place in the instance, others the
/// machine's.
pub(crate) fn working_dir(
    instance_dir: &Path,
    wanted: Option<&Path>,
) -> Result<PathBuf, EntryError> {
    let Some(wanted) = wanted else {
        return Ok(instance_dir.to_owned());
    };
    let beneath = instance_dir.join(wanted.strip_prefix("/").unwrap_or(wanted));
    let dir = if beneath.is_dir() || wanted.is_relative() {
        beneath
    } else {
        wanted.to_owned()
    };
    if dir.is_dir() {
        Ok(dir)
    } else {
        Err(error(
            Reason::WorkingDirMissing,
            format!("the working directory {} is no directory", dir.display()),
        ))
    }
}

/// What the kernel would refuse, said better; and what it would pass to a shell, refused.
fn check(program: &Path, user: Option<RunAs>) -> Result<(), EntryError> {
    let shown = program.display();
    let metadata = fs::metadata(program).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            error(Reason::EntryMissing, format!("there is no program {shown}"))
        }
        _ => error(
            Reason::NotExecutable,
            format!("{shown} cannot be looked at: {cause}"),
        ),
    })?;
    if !metadata.is_file() {
        return Err(error(Reason::NotExecutable, format!("{shown} is no file")));
    }
    let mode = metadata.permissions().mode();
    let permitted = match user {
        Some(user) if metadata.uid() == user.uid => mode & 0o100 != 0,
        Some(user) if metadata.gid() == user.gid => mode & 0o010 != 0,
        Some(_) => mode & 0o001 != 0,
        // Ours is asked of the kernel at the start; no bit at all is refused even to root.
        None => mode & 0o111 != 0,
    };
    if !permitted {
        return Err(error(
            Reason::NotExecutable,
            format!("{shown} may not be executed (mode {:o})", mode & 0o7777),
        ));
    }
    let mut head = [0; 20];
    let length = File::open(program)
        .and_then(|mut file| file.read(&mut head))
        .unwrap_or(head.len());
    check_head(&head[..length]).map_err(|why| error(Reason::BadFormat, format!("{shown} {why}")))
}

/// Machines by the number in an ELF header, with the names that Rust gives them.
const MACHINES: [(u16, &str); 6] = [
    (3, "x86"),
    (8, "mips"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
];

fn check_head(head: &[u8]) -> Result<(), String> {
    if head.is_empty() {
        return Err("is empty".to_owned());
    }
    if head.len() < 20 || !head.starts_with(b"\x7fELF") {
        // A script, or something the kernel was taught (binfmt_misc): it will say.
        return Ok(());
    }
    let pair = [head[18], head[19]];
    let machine = if head[5] == 2 {
        u16::from_be_bytes(pair)
    } else {
        u16::from_le_bytes(pair)
    };
    let name = MACHINES
        .iter()
        .find(|(number, _)| *number == machine)
        .map(|(_, name)| *name);
    let own = std::env::consts::ARCH;
    // A 64-bit kernel usually runs programs of its 32-bit ancestor; emulators announce themselves.
    let related = matches!(
        (own, name),
        ("x86_64", Some("x86")) | ("aarch64", Some("arm"))
    );
    if name == Some(own) || related || has_emulators() {
        return Ok(());
    }
    Err(format!(
        "is a program for {}, this machine is {own}",
        name.unwrap_or("another machine")
    ))
}

fn has_emulators() -> bool {
    fs::read_dir("/proc/sys/fs/binfmt_misc").is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("qemu-"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(class: u8, order: u8, machine: [u8; 2]) -> Vec<u8> {
        let mut head = vec![0x7f, b'E', b'L', b'F', class, order];
        head.resize(18, 0);
        head.extend(machine);
        head
    }

    #[test]
    fn a_program_for_another_machine_is_named_as_such() {
        let foreign = elf(2, 1, [0x16, 0]); // s390
        let why = check_head(&foreign);
        assert!(has_emulators() || why.is_err_and(|why| why.contains("this machine is")));
        let own = fs::read("/proc/self/exe").unwrap();
        assert_eq!(check_head(&own[..20]), Ok(()));
    }

    #[test]
    fn scripts_are_left_to_the_kernel_and_empty_files_are_not() {
        assert_eq!(check_head(b"#!/bin/sh\n"), Ok(()));
        assert!(check_head(b"").is_err());
    }
}
