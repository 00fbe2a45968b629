//! What instances use, summed over their sessions.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use crate::proc::{self, Stat};
use crate::shared::TICKS_PER_SECOND;
use crate::spec::InstanceId;
use crate::status::{InstanceUsage, Observed};

/// Reads `/proc` once for all. Processes that left the session of their instance are not seen; CPU time of processes
/// that ended is.
pub(crate) fn read(observed: &Observed) -> BTreeMap<InstanceId, InstanceUsage> {
    let mut by_session = HashMap::new();
    for (id, status) in &observed.instances {
        if let Some(run) = status
            .process
            .as_ref()
            .filter(|run| proc::ident(run.shim.pid) == Some(run.shim))
        {
            by_session.insert(run.shim.pid, (id, InstanceUsage::default()));
        }
    }
    let Ok(pids) = proc::pids() else {
        return BTreeMap::new();
    };
    for pid in pids {
        let Ok(stat) = Stat::read(pid) else { continue };
        let Some((_, usage)) = by_session.get_mut(&stat.session) else {
            continue;
        };
        let ticks = stat.cpu_ticks + stat.ended_children_ticks;
        usage.cpu_nanos += ticks * (1_000_000_000 / TICKS_PER_SECOND);
        let memory = memory(pid);
        usage.memory_bytes += memory;
        if pid == stat.session {
            usage.shim_bytes = memory;
        } else {
            usage.processes += 1;
        }
    }
    by_session
        .into_values()
        .map(|(id, usage)| (id.clone(), usage))
        .collect()
}

/// Proportional share where the kernel tells it to us, else what is resident.
fn memory(pid: u32) -> u64 {
    let kilobytes = |file: &str, key: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        text.lines().find_map(|line| {
            line.strip_prefix(key)?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()
        })
    };
    kilobytes("smaps_rollup", "Pss:")
        .or_else(|| kilobytes("status", "VmRSS:"))
        .unwrap_or(0)
        << 10
}
