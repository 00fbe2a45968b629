//! Limits by cgroup, version 2 or 1, where the machine permits.
//!
//! A group is made only for an instance that has limits: a memory group costs the kernel more than our shim.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::CgroupMode;
use crate::spec::{InstanceId, Limits};

#[cfg(test)]
mod tests;

/// Period of the CPU quota in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;

/// Least CPU quota the kernel accepts, in microseconds.
const MIN_QUOTA_US: u64 = 1000;

/// Where groups of instances are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// A directory whose children have the controllers.
    V2(PathBuf),
    /// One directory in the tree of each controller.
    V1 {
        memory: Option<PathBuf>,
        cpu: Option<PathBuf>,
    },
    /// None, and why.
    Absent(String),
}

/// The group or groups of one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// Files (`cgroup.procs`) by which it is entered.
    pub(crate) enter: Vec<PathBuf>,
    /// What is not enforced, and why; empty: all is.
    pub(crate) missing: String,
}

impl Cgroups {
    /// Looks at the machine.
    pub(crate) fn detect(mode: &CgroupMode, tag: &str) -> Self {
        match mode {
            CgroupMode::Off => Self::Absent("cgroups are switched off".to_owned()),
            CgroupMode::Delegated(dir) => match enable(dir) {
                Ok(()) => Self::V2(dir.clone()),
                Err(error) => Self::Absent(format!("{} cannot be used: {error}", dir.display())),
            },
            CgroupMode::DelegatedV1 { memory, cpu } => Self::V1 {
                memory: usable(memory),
                cpu: usable(cpu),
            },
            CgroupMode::Auto => {
                let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
                let machine =
                    Machine::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
                Self::on(&machine, tag, std::process::id())
            }
        }
    }

    fn on(machine: &Machine, tag: &str, own_pid: u32) -> Self {
        if let Some((mount, own)) = &machine.unified
            && let Some(dir) = v2_base(mount, own, tag, own_pid)
        {
            return Self::V2(dir);
        }
        let beside = |own: &Option<PathBuf>| usable(&own.as_ref()?.join(tag));
        let (memory, cpu) = (beside(&machine.memory), beside(&machine.cpu));
        if memory.is_none() && cpu.is_none() {
            return Self::Absent(
                "no cgroup can be made: it needs root, or a delegated cgroup (Delegate=yes)"
                    .to_owned(),
            );
        }
        Self::V1 { memory, cpu }
    }

    /// Makes the group of an instance and sets its limits.
    pub(crate) fn make(&self, id: &InstanceId, limits: &Limits) -> Group {
        let mut group = Group::default();
        let name = id.to_string();
        match self {
            Self::Absent(why) => group.missing.clone_from(why),
            Self::V2(base) => {
                let dir = base.join(&name);
                let memory = ("memory.max", limits.memory.map(|bytes| bytes.to_string()));
                let cpu = (
                    "cpu.max",
                    limits
                        .cpu_millis
                        .map(|millis| format!("{} {PERIOD_US}", quota(millis))),
                );
                group.add(&dir, [memory, cpu]);
            }
            Self::V1 { memory, cpu } => {
                let bytes = limits.memory.map(|bytes| bytes.to_string());
                let quota = limits.cpu_millis.map(|millis| quota(millis).to_string());
                group.add_v1("memory", memory, &name, ("memory.limit_in_bytes", bytes));
                group.add_v1("cpu", cpu, &name, ("cpu.cfs_quota_us", quota));
            }
        }
        group
    }
}

impl Group {
    fn add_v1(
        &mut self,
        controller: &str,
        base: &Option<PathBuf>,
        name: &str,
        limit: (&str, Option<String>),
    ) {
        match base {
            _ if limit.1.is_none() => {}
            Some(base) => self.add(&base.join(name), [limit]),
            None => self.miss(&format!("there is no {controller} cgroup")),
        }
    }

    fn add<const N: usize>(&mut self, dir: &Path, limits: [(&str, Option<String>); N]) {
        if let Err(error) = fs::create_dir_all(dir) {
            return self.miss(&format!("{} cannot be made: {error}", dir.display()));
        }
        for (file, value) in limits {
            if let Some(value) = value
                && let Err(error) = fs::write(dir.join(file), value)
            {
                self.miss(&format!(
                    "{} cannot be set: {error}",
                    dir.join(file).display()
                ));
            }
        }
        self.enter.push(dir.join("cgroup.procs"));
    }

    fn miss(&mut self, why: &str) {
        if !self.missing.is_empty() {
            self.missing.push_str("; ");
        }
        self.missing.push_str(why);
    }
}

fn quota(millis: u64) -> u64 {
    (millis.saturating_mul(PERIOD_US) / 1000).max(MIN_QUOTA_US)
}

/// How often the kernel ended a process of these groups for want of memory.
pub(crate) fn oom_kills(enter: &[PathBuf]) -> u64 {
    let count = |dir: &Path, file: &str| {
        let text = fs::read_to_string(dir.join(file)).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
    };
    enter
        .iter()
        .filter_map(|file| file.parent())
        .filter_map(|dir| count(dir, "memory.events").or_else(|| count(dir, "memory.oom_control")))
        .sum()
}

/// Removes empty groups. One that is not empty is left: it belongs to something that lives.
pub(crate) fn remove(enter: &[PathBuf]) {
    for dir in enter.iter().filter_map(|file| file.parent()) {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(path = %dir.display(), %error, "cgroup stays");
            }
            _ => {}
        }
    }
}

/// Where cgroup trees are mounted and where this process is in them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Machine {
    /// Mount point of version 2 and our directory in it.
    unified: Option<(PathBuf, PathBuf)>,
    /// Our directory in the tree of the memory controller of version 1.
    memory: Option<PathBuf>,
    /// Our directory in the tree of the cpu controller of version 1.
    cpu: Option<PathBuf>,
}

impl Machine {
    /// From `/proc/self/mountinfo` and `/proc/self/cgroup`.
    fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mut machine = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let ([_, _, _, root, point, ..], [kind, _, options]) =
                (left.as_slice(), right.as_slice())
            else {
                continue;
            };
            let has = |controller: &str| options.split(',').any(|option| option == controller);
            let own = |controller: &str| own_dir(cgroup, controller, root, point);
            match *kind {
                "cgroup2" => machine.unified = own("").map(|own| (PathBuf::from(point), own)),
                "cgroup" if has("memory") => machine.memory = own("memory"),
                "cgroup" if has("cpu") => machine.cpu = own("cpu"),
                _ => {}
            }
        }
        machine
    }
}

/// Our directory in one tree: `<id>:<controllers>:<path>`, seen from what of the tree is mounted.
fn own_dir(cgroup: &str, controller: &str, root: &str, point: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    })?;
    let path = Path::new(path);
    let beneath = path
        .strip_prefix(root)
        .or_else(|_| path.strip_prefix("/"))
        .ok()?;
    Some(Path::new(point).join(beneath))
}

/// A directory of ours in a version 2 tree whose children have the controllers: outside our own group where we may
/// (root), else beneath it. Applications outlive us, and with them every group that has controllers; where those were
/// given by our own group, a service manager could not put our successor into it (no processes beside controllers; EBUSY).
fn v2_base(mount: &Path, own: &Path, tag: &str, own_pid: u32) -> Option<PathBuf> {
    if has_controllers(mount)
        && enable(mount).is_ok()
        && let Some(base) = usable(&mount.join(tag)).filter(|base| enable(base).is_ok())
    {
        return Some(base);
    }
    if own != mount && has_controllers(own) && alone_in(own, own_pid) {
        // A group with limits for its children may hold no process itself: we move to a leaf.
        let core = own.join("baetyl-core");
        let moved = fs::create_dir_all(&core)
            .and_then(|()| fs::write(core.join("cgroup.procs"), own_pid.to_string()));
        if moved.and_then(|()| enable(own)).is_ok() {
            return usable(&own.join(tag)).filter(|base| enable(base).is_ok());
        }
    }
    None
}

fn has_controllers(dir: &Path) -> bool {
    let text = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let has = |name: &str| text.split_ascii_whitespace().any(|word| word == name);
    has("memory") && has("cpu")
}

fn alone_in(dir: &Path, own_pid: u32) -> bool {
    fs::read_to_string(dir.join("cgroup.procs"))
        .is_ok_and(|text| text.lines().all(|line| line == own_pid.to_string()))
}

/// Gives the children of a version 2 group the controllers.
fn enable(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("cgroup.subtree_control"), "+memory +cpu")
}

/// The directory, made; `None` when it cannot be made or written.
fn usable(dir: &Path) -> Option<PathBuf> {
    fs::create_dir_all(dir).ok()?;
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).ok()?;
    Some(dir.to_owned())
}
