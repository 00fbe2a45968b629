//! The units in `manifests/systemd` start programs that exist, with options they have, and go on for ever.

use std::path::{Path, PathBuf};
use std::process::Command;

use baetyl_kit::RunArgs;
use baetyl_testkit::TestDir;
use clap::Parser;

/// What every service understands.
#[derive(Parser)]
enum Cli {
    Run(RunArgs),
}

/// Units that start applications: these outlive them.
const WITH_APPLICATIONS: [&str; 2] = ["baetyl-edge", "baetyl-engine"];

struct Unit {
    name: String,
    text: String,
}

impl Unit {
    /// Values of a key in a section, in order.
    fn values(&self, section: &str, key: &str) -> Vec<&str> {
        let mut current = "";
        let mut values = Vec::new();
        for line in self.text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[') {
                current = name.trim_end_matches(']');
            } else if let Some((name, value)) = line.split_once('=')
                && (current, name) == (section, key)
            {
                values.push(value);
            }
        }
        values
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn units() -> Vec<Unit> {
    let entries = std::fs::read_dir(root().join("manifests/systemd")).unwrap();
    let mut units: Vec<Unit> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| Unit {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            text: std::fs::read_to_string(&path).unwrap(),
        })
        .collect();
    units.sort_by(|one, other| one.name.cmp(&other.name));
    units
}

/// Programs of the services of this workspace.
fn programs() -> Vec<String> {
    let services = std::fs::read_dir(root().join("services")).unwrap();
    let manifests = services
        .map(|entry| entry.unwrap().path().join("Cargo.toml"))
        .filter_map(|path| std::fs::read_to_string(path).ok());
    manifests
        .flat_map(|text| {
            let after_bin = text.split("[[bin]]").skip(1);
            let names = after_bin.filter_map(|bin| {
                let line = bin.lines().find_map(|line| line.strip_prefix("name = "))?;
                Some(line.trim_matches('"').to_owned())
            });
            names.collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_unit_starts_a_program_of_the_workspace_with_options_it_has() {
    let (units, programs) = (units(), programs());
    assert_eq!(units.len(), 6);
    for unit in units {
        let [start] = unit.values("Service", "ExecStart")[..] else {
            panic!("{} does not start one program", unit.name);
        };
        let mut words = start.split_ascii_whitespace();
        let program = words.next().unwrap().strip_prefix("/usr/bin/").unwrap();
        assert!(programs.iter().any(|name| name == program), "{program}");
        assert_eq!(program, unit.name);
        let Cli::Run(args) = Cli::try_parse_from([program].into_iter().chain(words)).unwrap();
        assert_eq!(args.data_dir, Path::new("/var/lib/baetyl"));
    }
}

#[test]
fn no_unit_is_ever_given_up() {
    for unit in units() {
        let once = unit.values("Service", "Type") == ["oneshot"];
        let restart = if once { "on-failure" } else { "always" };
        assert_eq!(
            unit.values("Service", "Restart"),
            [restart],
            "{}",
            unit.name
        );
        let limit = unit.values("Unit", "StartLimitIntervalSec");
        assert_eq!(limit, ["0"], "{}", unit.name);
        assert_eq!(unit.values("Service", "RestartSec").len(), 1);
    }
}

#[test]
fn only_what_starts_applications_leaves_processes_behind() {
    for unit in units() {
        let starts = WITH_APPLICATIONS.contains(&unit.name.as_str());
        let mode = unit.values("Service", "KillMode");
        assert_eq!(mode == ["process"], starts, "{}", unit.name);
        let delegate = unit.values("Service", "Delegate");
        assert_eq!(delegate == ["yes"], starts, "{}", unit.name);
    }
}

#[test]
fn no_service_waits_for_the_network() {
    for unit in units() {
        for key in ["Requires", "Requisite", "BindsTo"] {
            assert!(unit.values("Unit", key).is_empty(), "{}", unit.name);
        }
        let network = unit.text.contains("network");
        assert_eq!(network, unit.name == "baetyl-init", "{}", unit.name);
    }
}

#[test]
fn systemd_finds_nothing_to_complain_about() {
    let dir = TestDir::new();
    let paths = units().into_iter().map(|unit| {
        // The programs are not installed here.
        let text = unit.text.replace("/usr/bin/baetyl-", "/bin/true baetyl-");
        dir.write(format!("{}.service", unit.name), text)
    });
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .args(paths)
        .output();
    let Ok(output) = verify else {
        baetyl_testkit::skipped("systemd-analyze (apt-get install systemd)");
        return;
    };
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
