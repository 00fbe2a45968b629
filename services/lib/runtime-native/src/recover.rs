//! Finding again what runs when its records were lost: a shim says on its command line which instance it is for.
//!
//! Opt-in, before [`crate::NativeRuntime::open`]: without it a copy without records counts as a leftover and is ended
//! when its workload is run again.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::NativeConfig;
use crate::proc::{self, Stat};
use crate::record::StateDir;
use crate::shared::age;
use crate::shim::plan::PLAN_FILE;
use crate::shim::record::{Run, unix_ms};
use crate::status::ProcessIdent;

/// Writes the record of every living run of this node that has none or half of one, so that it is adopted like any other. Gives the
/// state directories whose record was written again. What it counted (restarts) is lost. Blocks.
///
/// # Errors
/// When `/proc` cannot be read or a record not be written.
pub fn recover(config: &NativeConfig) -> io::Result<Vec<PathBuf>> {
    let boot_id = proc::boot_id()?;
    let (mut recovered, mut failed) = (Vec::new(), None);
    let living = proc::pids()?
        .filter_map(|pid| Some((pid, Stat::read(pid).ok()?)))
        .filter(|(_, stat)| !stat.is_dead());
    for (pid, stat) in living {
        let Some(dir) = state_dir_of(pid, &config.state_dir) else {
            continue;
        };
        let shim = ProcessIdent {
            pid,
            start_ticks: stat.start_ticks,
        };
        let known = StateDir(dir.clone()).run()?;
        let complete = known.as_ref().is_some_and(|run| run.app.is_some());
        // Half a record counts only when it is this shim's: then its disk was full while the program was started.
        let ours = known.is_none_or(|run| run.shim == shim);
        let (Some(app), false, true) = (proc::program_of(pid), complete, ours) else {
            continue;
        };
        let run = Run {
            boot_id: boot_id.clone(),
            shim,
            app: Some(app),
            started_at_ms: unix_ms() - i64::try_from(age(shim).as_millis()).unwrap_or(0),
            warning: None,
        };
        match fs::create_dir_all(&dir).and_then(|()| run.write(&dir)) {
            Ok(()) => {
                tracing::warn!(state = %dir.display(), pid = app.pid, "found running without a record; it has one again");
                recovered.push(dir);
            }
            // The others have theirs.
            Err(error) => {
                tracing::error!(state = %dir.display(), pid = app.pid, %error, "runs without a record, which cannot be written");
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(recovered), Err)
}

/// The state directory a process is the shim of: `<shim> run <state dir>/<plan>`, run by us or root.
fn state_dir_of(pid: u32, root: &Path) -> Option<PathBuf> {
    let process = format!("/proc/{pid}");
    let command = fs::read(format!("{process}/cmdline")).ok()?;
    let mut words = command.split(|byte| *byte == 0);
    let (_, verb, plan) = (words.next()?, words.next()?, words.next()?);
    let plan = Path::new(OsStr::from_bytes(plan));
    if verb != b"run" || plan.file_name()? != PLAN_FILE {
        return None;
    }
    let owner = fs::metadata(process).ok()?.uid();
    let ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
    let dir = plan.parent().filter(|dir| ours && is_instance(dir, root))?;
    Some(dir.to_owned())
}

/// `<root>/<ns>/<app>/<version>/<service>/<i>`, and nothing that leads elsewhere.
fn is_instance(dir: &Path, root: &Path) -> bool {
    use std::path::Component::Normal;
    dir.strip_prefix(root).is_ok_and(|rest| {
        rest.components().count() == 5 && rest.components().all(|part| matches!(part, Normal(_)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_instances_are_given_records() {
        let root = Path::new("/d/state");
        for (dir, expected) in [
            ("/d/state/ns/app/1/svc/1", true),
            ("/d/state/ns/app/1/svc", false),
            ("/d/state/ns/app/1/../1", false),
            ("/e/state/ns/app/1/svc/1", false),
        ] {
            assert_eq!(is_instance(Path::new(dir), root), expected, "{dir}");
        }
    }
}
