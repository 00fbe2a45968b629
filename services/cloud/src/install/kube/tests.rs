//! The command, the manifests, and the script, which runs here in the shells of this machine against a cluster and a cloud
//! of files. Against a real server with TLS it runs in the tests of activation.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::pki::testing::{Fixture, fixture};

mod registry;
mod script;

/// Programs the script and the fakes need.
const TOOLS: [&str; 15] = [
    "cat", "cut", "dirname", "grep", "head", "mkdir", "mktemp", "mv", "rm", "sed", "sleep", "tail",
    "tar", "tr", "wc",
];

/// Where a program of this machine is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// A machine with a few programs and nothing else, on which a command is run.
pub(crate) struct Machine {
    dir: tempfile::TempDir,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Machine {
    /// Without kubectl, curl and wget.
    pub(crate) fn bare() -> Self {
        let machine = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for tool in TOOLS.into_iter().chain(["sh"]) {
            machine.has(tool);
        }
        fs::create_dir(machine.path("tmp")).unwrap();
        machine
    }

    /// With a cluster of one machine with 2 GiB.
    pub(crate) fn with_cluster() -> Self {
        let machine = Self::bare();
        machine.fake("kubectl", include_str!("tests/kubectl.sh"));
        machine.put("version", "v1.34.4");
        machine.put("nodes", "box-1 amd64 2048000Ki\n");
        machine.put("job", "\nSuccessCriteriaMet=True Complete=True \n");
        machine.put("deployments", "baetyl-node 1\nbaetyl-engine 1\n");
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes a program of this machine.
    pub(crate) fn has(&self, program: &str) {
        let real = find(program).unwrap_or_else(|| panic!("this machine has no {program}"));
        symlink(real, self.path(program)).unwrap();
    }

    pub(crate) fn fake(&self, name: &str, text: &str) {
        self.put(name, text);
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Empty when it is not there.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn run(&self, shell: &[&str], args: &[&str], env: &[(&str, &str)]) -> Ran {
        let output = Command::new(shell[0])
            .args(&shell[1..])
            .args(args)
            .env_clear()
            .env("PATH", self.dir.path())
            .env("TMPDIR", self.path("tmp"))
            .env("HOME", self.dir.path())
            .env("BAETYL_INSTALL_POLL", "0")
            .envs(env.iter().copied())
            .output()
            .unwrap();
        let left = fs::read_dir(self.path("tmp")).unwrap().count();
        assert_eq!(left, 0, "temporary files are removed");
        Ran {
            ok: output.status.success(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The shells of this machine that a machine of a customer may have as `sh`.
fn shells() -> Vec<Vec<String>> {
    let dash = find("dash").or_else(|| find("sh")).unwrap();
    let mut shells = vec![vec![dash.display().to_string()]];
    if let Some(busybox) = find("busybox") {
        shells.push(vec![busybox.display().to_string(), "sh".to_owned()]);
    }
    shells
}

fn install(fixture: &Fixture, config: CoreConfig) -> KubeInstall {
    let url = "https://cloud.example:9003".to_owned();
    KubeInstall::new(fixture.pki.clone(), config, url)
}

async fn kube_node(fixture: &Fixture) -> NodeRow {
    fixture.add_node("edge-1").await;
    let mut row = fixture.node("edge-1").await;
    row.spec.node_mode = "kube".to_owned();
    row
}

#[tokio::test]
async fn the_command_carries_the_authority_and_its_options_and_never_asks_unchecked() {
    let fixture = fixture().await;
    let node = kube_node(&fixture).await;
    let install = install(&fixture, CoreConfig::default());
    let options = KubeOptions {
        class: "node-1gb".to_owned(),
        registry: "r:5000/b".to_owned(),
        kube_node: "box-1".to_owned(),
        ..KubeOptions::default()
    };
    let command = install.command(&node, "bi1.x.y", &options).unwrap();
    assert!(
        command.starts_with("BAETYL_INIT__TOKEN=bi1.x.y sh -c '"),
        "{command}"
    );
    assert!(
        command.ends_with(" baetyl-install --class node-1gb --registry r:5000/b --kube-node box-1"),
        "{command}"
    );
    for line in install.authority().lines() {
        assert!(command.contains(&format!("\"{line}\"")), "{command}");
    }
    for unchecked in [" -k", "--insecure", "--no-check-certificate"] {
        assert!(
            !command.contains(unchecked) && !SCRIPT.contains(unchecked),
            "{unchecked}"
        );
    }
    assert_eq!(
        command.matches("bi1.x.y").count(),
        1,
        "in the environment alone"
    );
    assert_eq!(command.matches('\'').count(), 2);
    assert!(!command.contains('\n'));
}

#[tokio::test]
async fn what_an_operator_wished_is_in_the_manifests_and_what_is_asked_for_goes_first() {
    let fixture = fixture().await;
    let mut node = kube_node(&fixture).await;
    let config = CoreConfig {
        registry: "default.example/b".to_owned(),
        ..CoreConfig::default()
    };
    let install = install(&fixture, config);
    let about = |node: &NodeRow, options: &KubeOptions| {
        let text = install.manifests(node, options).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("# baetyl.io/"));
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let plain = about(&node, &KubeOptions::default());
    assert_eq!(
        plain,
        [
            "node: default/edge-1".to_owned(),
            "node-uid: uid-edge-1".to_owned(),
            "class: node-standard".to_owned(),
            format!("version: {}", baetyl_kit::VERSION),
            "registry: default.example/b".to_owned(),
            "cloud: https://cloud.example:9003".to_owned(),
            "min-memory-mib: 1800".to_owned(),
        ]
    );
    let k3s = KubeOptions {
        distribution: "k3s".to_owned(),
        ..KubeOptions::default()
    };
    assert_eq!(about(&node, &k3s)[2], "class: k3s");
    node.spec.core_version = "9.8.7".to_owned();
    node.spec.core.class = "node-1gb".to_owned();
    node.spec.core.registry = "node.example".to_owned();
    let wished = about(&node, &k3s);
    assert_eq!(
        wished[2..5],
        [
            "class: node-1gb",
            "version: 9.8.7",
            "registry: node.example"
        ]
    );
    let asked = KubeOptions {
        class: "cluster".to_owned(),
        registry: "asked.example".to_owned(),
        ..k3s
    };
    let asked = install.manifests(&node, &asked).unwrap();
    assert!(asked.contains("# baetyl.io/class: cluster\n"));
    assert!(asked.contains("image: asked.example/baetyl-engine:9.8.7"));
    assert!(asked.contains(&fixture.pki.server_authority_pin()));
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_parameter_that_is_wrong() {
    let fixture = fixture().await;
    let mut node = kube_node(&fixture).await;
    let install = install(&fixture, CoreConfig::default());
    let with = |change: fn(&mut KubeOptions)| {
        let mut options = KubeOptions::default();
        change(&mut options);
        options
    };
    for (options, parameter) in [
        (with(|o| o.class = "huge".to_owned()), "class"),
        (with(|o| o.registry = "a b".to_owned()), "registry"),
        (with(|o| o.registry = "$(reboot)".to_owned()), "registry"),
        (with(|o| o.pull_secret = "a/b".to_owned()), "pullSecret"),
        (with(|o| o.kube_node = "-x".to_owned()), "kubeNode"),
    ] {
        let error = install.command(&node, "t", &options).unwrap_err();
        assert_eq!(error.parameter(), Some(parameter), "{error}");
        assert_eq!(install.manifests(&node, &options).unwrap_err(), error);
    }
    node.spec.node_mode = "native".to_owned();
    let error = install
        .command(&node, "t", &KubeOptions::default())
        .unwrap_err();
    assert_eq!(error.parameter(), Some("mode"));
}
