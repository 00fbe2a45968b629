//! What a machine must have, in words: what is missing, and how to have it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// Programs the bed's scripts call, and the Debian packages they are in.
const PROGRAMS: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("jq", "jq"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
];

/// The oldest Go that builds the bed (`tools/kubebed/go.mod`).
const GO: (u32, u32) = (1, 24);

/// Whether this machine can have a test bed; `must_build` when its programs are not there yet.
///
/// # Errors
/// When it cannot; the message lists everything that is missing.
pub(super) fn check_bed(must_build: bool) -> Result<()> {
    let missing = missing(&this_machine(must_build));
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "the test bed cannot be made on this machine:\n  - {}\nwith --context CONTEXT the tests run on a cluster that is there already",
        missing.join("\n  - ")
    );
}

/// Debian packages a test bed wants and this machine has not.
pub(crate) fn missing_packages() -> Vec<&'static str> {
    packages(&this_machine(false))
}

fn this_machine(must_build: bool) -> Machine<'static> {
    let cni = std::env::var_os("CNI_BIN").map_or("/usr/lib/cni".into(), PathBuf::from);
    Machine {
        is_root: rustix::process::geteuid().is_root(),
        may_unshare: may_unshare(),
        has_program: &|name| is_in_path(name),
        has_cni: cni.join("bridge").exists() && cni.join("portmap").exists(),
        has_static_busybox: is_static(Path::new("/bin/busybox")),
        go: if must_build {
            Go::Needed(go_version())
        } else {
            Go::NotNeeded
        },
    }
}

/// Whether kubectl is there and reaches the cluster.
///
/// # Errors
/// When not, with kubectl's own words.
pub(super) fn check_cluster(context: &str) -> Result<()> {
    let asked = Command::new("kubectl")
        .args(["--context", context, "--request-timeout=10s"])
        .args(["auth", "can-i", "create", "namespaces"])
        .output();
    match asked {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!(
            "the cluster of context {context} lets nobody make namespaces for the tests: {}{}",
            String::from_utf8_lossy(&output.stdout).trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => bail!("cannot run kubectl ({error}); --context needs it in the PATH"),
    }
}

enum Go {
    NotNeeded,
    /// The version that is there, if any.
    Needed(Option<(u32, u32)>),
}

/// What was seen of a machine.
struct Machine<'a> {
    is_root: bool,
    may_unshare: bool,
    has_program: &'a dyn Fn(&str) -> bool,
    has_cni: bool,
    has_static_busybox: bool,
    go: Go,
}

fn packages(machine: &Machine<'_>) -> Vec<&'static str> {
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !(machine.has_program)(program))
        .map(|(_, package)| *package)
        .collect();
    if !machine.has_cni {
        packages.push("containernetworking-plugins");
    }
    if !machine.has_static_busybox {
        packages.push("busybox-static");
    }
    packages.dedup();
    packages
}

/// Everything that is missing, one sentence each.
fn missing(machine: &Machine<'_>) -> Vec<String> {
    let mut sentences = Vec::new();
    if !machine.is_root {
        sentences.push(
            "it needs root, for network, mount and process namespaces: run it as root, as in `sudo -E env \"PATH=$PATH\" cargo xtask e2e kube`"
                .to_owned(),
        );
    } else if !machine.may_unshare {
        sentences.push(
            "root may not make namespaces here (`unshare --net --mount --pid --fork true` fails): in a container it must be a privileged one"
                .to_owned(),
        );
    }
    let packages = packages(machine);
    if !packages.is_empty() {
        sentences.push(format!(
            "packages are missing: apt-get install --no-install-recommends {}",
            packages.join(" ")
        ));
    }
    match machine.go {
        Go::NotNeeded => {}
        Go::Needed(Some(version)) if version >= GO => {}
        Go::Needed(version) => sentences.push(format!(
            "Go {}.{} or newer is missing ({}): see https://go.dev/doc/install",
            GO.0,
            GO.1,
            version.map_or_else(
                || "there is none in the PATH".to_owned(),
                |(major, minor)| format!("{major}.{minor} is there")
            )
        )),
    }
    sentences
}

fn may_unshare() -> bool {
    let tried = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "true"])
        .output();
    tried.is_ok_and(|output| output.status.success())
}

fn is_in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// A dynamic program names its loader in its first page.
fn is_static(program: &Path) -> bool {
    fs::read(program).is_ok_and(|bytes| {
        let head = &bytes[..bytes.len().min(4096)];
        !head.windows(4).any(|window| window == b"/ld-")
    })
}

fn go_version() -> Option<(u32, u32)> {
    let output = Command::new("go")
        .args(["env", "GOVERSION"])
        .output()
        .ok()?;
    parse_go(std::str::from_utf8(&output.stdout).ok()?)
}

/// `go1.26.8` is (1, 26).
fn parse_go(printed: &str) -> Option<(u32, u32)> {
    let mut numbers = printed.trim().strip_prefix("go")?.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor: String = numbers
        .next()?
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    Some((major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_machine_is_told_everything_at_once() {
        let told = missing(&Machine {
            is_root: false,
            may_unshare: false,
            has_program: &|_| false,
            has_cni: false,
            has_static_busybox: false,
            go: Go::Needed(None),
        });
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("it needs root"));
        assert_eq!(
            told[1],
            "packages are missing: apt-get install --no-install-recommends containerd runc iptables nftables iproute2 jq \
             openssl curl util-linux containernetworking-plugins busybox-static"
        );
        assert!(told[2].starts_with("Go 1.24 or newer is missing (there is none"));
    }

    #[test]
    fn a_machine_with_everything_is_told_nothing() {
        let told = missing(&Machine {
            is_root: true,
            may_unshare: true,
            has_program: &|_| true,
            has_cni: true,
            has_static_busybox: true,
            go: Go::Needed(Some((1, 24))),
        });
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn only_what_is_missing_is_told() {
        let told = missing(&Machine {
            is_root: true,
            may_unshare: true,
            has_program: &|name| name != "ctr",
            has_cni: true,
            has_static_busybox: true,
            go: Go::NotNeeded,
        });
        assert_eq!(
            told,
            ["packages are missing: apt-get install --no-install-recommends containerd"]
        );
    }

    #[test]
    fn an_old_go_is_not_enough() {
        assert_eq!(parse_go("go1.19.8\n"), Some((1, 19)));
        assert_eq!(parse_go("go1.27rc1"), Some((1, 27)));
        assert!((1, 19) < GO);
    }
}
