//! Finding again what runs when its records were lost: a shim says on its command line which instance it is for.
//!
//! Opt-in, before [`crate::NativeRuntime::open`]: without it a copy without records counts as a leftover and is ended
//! when its workload is run again.

use std::collections::HashMap;
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

/// Writes the record of every living run of this node that has none, so that it is adopted like any other. Gives the
/// state directories whose record was written again. What it counted (restarts) is lost. Blocks.
///
/// # Errors
/// When `/proc` cannot be read or a record not be written.
pub fn recover(config: &NativeConfig) -> io::Result<Vec<PathBuf>> {
    let stats: HashMap<u32, Stat> = proc::pids()?
        .filter_map(|pid| Some((pid, Stat::read(pid).ok()?)))
        .filter(|(_, stat)| !stat.is_dead())
        .collect();
    let mut recovered = Vec::new();
    for (&pid, stat) in &stats {
        let Some(dir) = state_dir_of(pid, &config.state_dir) else {
            continue;
        };
        // The program leads its own process group, beneath the shim.
        let app = stats
            .iter()
            .find(|(child, of_child)| of_child.parent == pid && of_child.group == **child);
        let (Some((&app, of_app)), None) = (app, StateDir(dir.clone()).run()) else {
            continue;
        };
        let shim = ident(pid, stat);
        let run = Run {
            boot_id: proc::boot_id()?,
            shim,
            app: Some(ident(app, of_app)),
            started_at_ms: unix_ms() - i64::try_from(age(shim).as_millis()).unwrap_or(0),
            warning: None,
        };
        fs::create_dir_all(&dir)?;
        run.write(&dir)?;
        tracing::warn!(state = %dir.display(), pid = app, "found running without a record; it has one again");
        recovered.push(dir);
    }
    Ok(recovered)
}

fn ident(pid: u32, stat: &Stat) -> ProcessIdent {
    ProcessIdent {
        pid,
        start_ticks: stat.start_ticks,
    }
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
