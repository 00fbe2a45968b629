//! What node knows of its machine: read from the kernel's files, no library, no process started.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use baetyl_proto::shadow::{DiskStats, MachineStats, NetworkStats, NodeInfo};

/// Share of memory or disk above which the machine is under pressure.
const PRESSURE: f64 = 0.95;

/// Reads `/proc`, `/sys` and `/etc` beneath a root (tests pass their own).
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    last_cpu: Option<CpuTimes>,
}

#[derive(Clone, Copy, Debug, Default)]
struct CpuTimes {
    busy: u64,
    total: u64,
    cores: u32,
}

impl Machine {
    /// A reader of the machine whose files lie beneath `root` ("/" outside tests).
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            last_cpu: None,
        }
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path))
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    }

    /// Facts that change rarely.
    #[must_use]
    pub fn read_info(&self) -> NodeInfo {
        let release = parse_pairs(&self.text("etc/os-release"));
        let machine_id = self.text("etc/machine-id");
        let uuid = self.text("sys/class/dmi/id/product_uuid");
        let (arch, variant) = architecture();
        NodeInfo {
            hostname: self.text("proc/sys/kernel/hostname"),
            address: self.addresses().join(","),
            arch: arch.to_owned(),
            variant: variant.to_owned(),
            os: std::env::consts::OS.to_owned(),
            kernel_version: self.text("proc/sys/kernel/osrelease"),
            os_image: release.get("PRETTY_NAME").cloned().unwrap_or_default(),
            container_runtime: String::new(),
            // Empty machineID and containerRuntime is how v2's clients recognise native mode.
            machine_id: String::new(),
            boot_id: self.text("proc/sys/kernel/random/boot_id"),
            system_uuid: if uuid.is_empty() {
                machine_id.clone()
            } else {
                uuid
            },
            role: "master".to_owned(),
            labels: BTreeMap::new(),
            host_id: machine_id,
        }
    }

    /// Non-loopback IPv4 addresses that are local, from the kernel's forwarding table.
    fn addresses(&self) -> Vec<String> {
        let table = self.text("proc/net/fib_trie");
        let mut found = Vec::new();
        let mut last = "";
        for line in table.lines() {
            let line = line.trim();
            if let Some(address) = line.strip_prefix("|-- ") {
                last = address;
            } else if line.starts_with("/32 host LOCAL") && !last.starts_with("127.") {
                found.push(last.to_owned());
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// Figures of this moment; CPU use is that since the previous call (0 at the first).
    pub fn read_stats(&mut self) -> MachineStats {
        let now = parse_cpu(&self.text("proc/stat"));
        let cpu_used = self
            .last_cpu
            .replace(now)
            .map_or(0.0, |before| used_cores(before, now));
        let memory = parse_memory(&self.text("proc/meminfo"));
        let disks = self.disks();
        let memory_used = memory.0.saturating_sub(memory.1);
        MachineStats {
            hostname: self.text("proc/sys/kernel/hostname"),
            cpu_used,
            cpu_total: f64::from(now.cores),
            memory_used,
            memory_total: memory.0,
            disk_pressure: disks.iter().any(|disk| above(disk.used, disk.total)),
            memory_pressure: above(memory_used, memory.0),
            pid_pressure: self.pid_pressure(),
            disks,
            network: Some(parse_network(&self.text("proc/net/dev"))),
            ready: true,
            uptime_seconds: self
                .text("proc/uptime")
                .split('.')
                .next()
                .and_then(|s| s.parse().ok())
                .unwrap_or(0),
            ..MachineStats::default()
        }
    }

    fn pid_pressure(&self) -> bool {
        let max: u64 = self.text("proc/sys/kernel/pid_max").parse().unwrap_or(0);
        let threads = self.text("proc/loadavg");
        let now = threads
            .split(['/', ' '])
            .nth(4)
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        above(now, max)
    }

    fn disks(&self) -> Vec<DiskStats> {
        let mut seen = Vec::new();
        let mut disks = Vec::new();
        for line in self.text("proc/mounts").lines() {
            let mut words = line.split(' ');
            let (Some(device), Some(mount)) = (words.next(), words.next()) else {
                continue;
            };
            if !device.starts_with('/') || seen.contains(&device.to_owned()) {
                continue;
            }
            let Ok(stat) = rustix::fs::statvfs(Path::new(mount)) else {
                continue;
            };
            seen.push(device.to_owned());
            let total = stat.f_blocks.saturating_mul(stat.f_frsize);
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            disks.push(DiskStats {
                mount_point: mount.to_owned(),
                used: total.saturating_sub(free),
                total,
            });
        }
        disks
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
fn above(used: u64, total: u64) -> bool {
    total > 0 && used as f64 / total as f64 > PRESSURE
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
fn used_cores(before: CpuTimes, now: CpuTimes) -> f64 {
    let total = now.total.saturating_sub(before.total);
    if total == 0 {
        return 0.0;
    }
    now.busy.saturating_sub(before.busy) as f64 / total as f64 * f64::from(now.cores)
}

/// Kubernetes' words for the architecture this program was built for.
fn architecture() -> (&'static str, &'static str) {
    match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", "v8"),
        "arm" => ("arm", "v7"),
        other => (other, ""),
    }
}

fn parse_pairs(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

fn parse_cpu(text: &str) -> CpuTimes {
    let mut times = CpuTimes::default();
    for line in text.lines().filter(|line| line.starts_with("cpu")) {
        let mut words = line.split_whitespace();
        if words.next() != Some("cpu") {
            times.cores += 1;
            continue;
        }
        // user nice system idle iowait irq softirq steal; guest time is already in user.
        let values: Vec<u64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
        times.total = values.iter().sum();
        times.busy = times.total - values.get(3).unwrap_or(&0) - values.get(4).unwrap_or(&0);
    }
    times
}

/// (total, available) in bytes.
fn parse_memory(text: &str) -> (u64, u64) {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|kib| kib.parse::<u64>().ok())
            .map_or(0, |kib| kib * 1024)
    };
    (field("MemTotal:"), field("MemAvailable:"))
}

fn parse_network(text: &str) -> NetworkStats {
    let mut sum = NetworkStats::default();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else {
            continue;
        };
        if name.trim() == "lo" {
            continue;
        }
        let values: Vec<u64> = rest
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        sum.bytes_received += values.first().unwrap_or(&0);
        sum.packets_received += values.get(1).unwrap_or(&0);
        sum.bytes_sent += values.get(8).unwrap_or(&0);
        sum.packets_sent += values.get(9).unwrap_or(&0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_use_is_the_busy_share_of_all_cores_between_two_readings() {
        let before =
            parse_cpu("cpu 100 0 100 800 0 0 0 0 5 5\ncpu0 50 0 50 400\ncpu1 50 0 50 400\n");
        let now = parse_cpu("cpu 150 0 150 900 0 0 0 0 5 5\ncpu0 1 1 1 1\ncpu1 1 1 1 1\n");
        assert_eq!(now.cores, 2);
        assert!((used_cores(before, now) - 1.0).abs() < 1e-9);
        assert!(used_cores(now, now).abs() < 1e-9);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(
            parse_memory("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\n"),
            (1_024_000, 409_600)
        );
    }

    #[test]
    fn network_figures_leave_out_the_loopback_device() {
        let text = "Inter-| Receive\n face |bytes\n lo: 9 9 0 0 0 0 0 0 9 9 0\n eth0: 10 1 0 0 0 0 0 0 20 2 0\n";
        let stats = parse_network(text);
        assert_eq!((stats.bytes_received, stats.packets_received), (10, 1));
        assert_eq!((stats.bytes_sent, stats.packets_sent), (20, 2));
    }

    #[test]
    fn a_machine_without_any_of_the_files_gives_empty_facts_and_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = Machine::new(dir.path());
        assert_eq!(machine.read_info().hostname, "");
        assert_eq!(machine.read_stats().memory_total, 0);
    }

    #[test]
    fn this_machine_has_a_name_memory_and_a_boot_id() {
        let mut machine = Machine::new(Path::new("/"));
        let info = machine.read_info();
        assert!(!info.hostname.is_empty());
        assert!(!info.boot_id.is_empty());
        assert!(machine.read_stats().memory_total > 0);
    }
}
