//! Configuration of engine; every key with its default stands in `services/engine/etc/engine.yaml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baetyl_kit::config::{ByteSize, duration};
use baetyl_kit::grpc;
use baetyl_kit::listen::Listen;
use baetyl_model::report::RunMode;
use baetyl_model::update::Limits;
use serde::{Deserialize, Serialize};

/// All keys.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// For the core services; nothing = `<data-dir>/run/core/engine.sock`.
    pub api: Api,
    /// Where the other services are.
    pub peers: Peers,
    /// `native`: as processes of this machine; `kube`: as Pods.
    pub runtime: RunMode,
    /// How versions take over.
    pub update: Update,
    /// What is reported.
    pub report: Report,
    /// How programs are run.
    pub native: Native,
    /// How Pods are run.
    pub kube: Kube,
    /// Large files.
    pub objects: Objects,
    /// Function runtimes: id, command and image. The command of `python3` is there without a word:
    /// `baetyl-runtime-python run` beside this program.
    pub runtimes: BTreeMap<String, FunctionRuntime>,
}

/// Where the API listens.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// `unix:/path` or `ip:port` (beyond loopback this needs the identity that `tls.dir` names).
    pub listen: Option<Listen>,
}

/// Where the other services are.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// Nothing = `<data-dir>/run/core/node.sock`.
    pub node: Option<grpc::Endpoint>,
    /// Nothing = `<data-dir>/run/core/sync.sock`.
    pub sync: Option<grpc::Endpoint>,
}

/// How versions take over.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Update {
    /// How long fetching a version may take.
    #[serde(with = "duration")]
    pub stage_deadline: Duration,
    /// How long starting it may take, init services included.
    #[serde(with = "duration")]
    pub apply_deadline: Duration,
    /// How long it may take to become ready; a startup probe that allows more counts more.
    #[serde(with = "duration")]
    pub progress_deadline: Duration,
    /// How long a service without readiness or startup probe must run without an exit to count as ready.
    #[serde(with = "duration")]
    pub min_ready: Duration,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            stage_deadline: Duration::from_secs(30 * 60),
            apply_deadline: Duration::from_secs(2 * 60),
            progress_deadline: Duration::from_secs(60),
            min_ready: Duration::from_secs(2),
        }
    }
}

impl Update {
    /// Limits of an application of which nothing more is known.
    pub fn limits(&self) -> Limits {
        Limits {
            stage: self.stage_deadline,
            apply: self.apply_deadline,
            probe: self.progress_deadline,
            settle: self.min_ready,
        }
    }
}

/// What is reported.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// How often CPU and memory of instances are read.
    #[serde(with = "duration")]
    pub stats_period: Duration,
    /// Changes within this time travel together.
    #[serde(with = "duration")]
    pub gather: Duration,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            stats_period: Duration::from_secs(15),
            gather: Duration::from_millis(50),
        }
    }
}

/// How programs are run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Native {
    /// The program `baetyl-shim`; nothing = beside this program.
    pub shim: Option<PathBuf>,
    /// First port handed to instances.
    pub port_min: u16,
    /// Last port handed to instances.
    pub port_max: u16,
    /// First user id handed to applications when engine is root.
    pub uid_min: u32,
    /// Last user id handed to applications; 0 = all applications run as the user of engine.
    pub uid_max: u32,
    /// Bytes after which the log of an instance is rotated.
    pub log_max_size: ByteSize,
    /// Rotated log files kept beside the current one.
    pub log_keep: u32,
    /// First waiting time before a start after a failure.
    #[serde(with = "duration")]
    pub restart_backoff: Duration,
    /// Longest waiting time before a start after a failure.
    #[serde(with = "duration")]
    pub restart_backoff_max: Duration,
    /// Make cgroups for limits where the machine permits.
    pub cgroups: bool,
    /// Keep secret files in memory where there is a file system in memory, else in the instance directory.
    pub secrets_in_memory: bool,
}

impl Default for Native {
    fn default() -> Self {
        let ports = baetyl_runtime_native::spec::DEFAULT_PORTS;
        Self {
            shim: None,
            port_min: *ports.start(),
            port_max: *ports.end(),
            // Between the ids of 16 bits and those that machines hand to containers.
            uid_min: 70_000,
            uid_max: 79_999,
            log_max_size: ByteSize(10 << 20),
            log_keep: 2,
            restart_backoff: Duration::from_secs(1),
            restart_backoff_max: Duration::from_secs(300),
            cgroups: true,
            secrets_in_memory: true,
        }
    }
}

/// How Pods are run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kube {
    /// Configuration file of a Kubernetes client; nothing = that of the Pod engine runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Context of that file; nothing = its current one.
    pub context: Option<String>,
    /// Image of `baetyl-sync`, for the init container that brings objects to a Pod; nothing = applications with objects
    /// are refused.
    pub sync_image: Option<String>,
    /// Image of `baetyl-helm`, for applications of type helm; nothing = these are refused.
    pub helm_image: Option<String>,
    /// Image of `baetyl-init`, which clears away what a Helm that was killed left, so that the next one works; nothing = the
    /// application has to be deleted then.
    pub init_image: Option<String>,
    /// Names of Secrets in the namespaces of applications with which our own images are pulled.
    pub pull_secrets: Vec<String>,
    /// Resources that device plugins offer, by the path of the device they stand for.
    pub devices: BTreeMap<String, String>,
    /// Class of the node, whose manifests were applied; nothing = the core services are not upgraded from the cloud.
    pub class: Option<String>,
    /// How long another version of the core services may take to work.
    #[serde(with = "duration")]
    pub upgrade_deadline: Duration,
    /// How long the Job of an upgrade may take to get to work; pulling its image is a part of it.
    #[serde(with = "duration")]
    pub upgrade_start_deadline: Duration,
}

impl Default for Kube {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            sync_image: None,
            helm_image: None,
            init_image: None,
            pull_secrets: Vec::new(),
            devices: BTreeMap::new(),
            class: None,
            upgrade_deadline: Duration::from_secs(10 * 60),
            upgrade_start_deadline: Duration::from_secs(5 * 60),
        }
    }
}

/// Large files.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objects {
    /// Most bytes one archive may hold.
    pub max_unpacked: ByteSize,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            max_unpacked: ByteSize(4 << 30),
        }
    }
}

/// A function runtime.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionRuntime {
    /// Program and arguments, for `native`.
    pub command: Vec<String>,
    /// Image, for `kube`.
    pub image: Option<String>,
}

impl Config {
    /// Commands of function runtimes by id: those of the configuration, and `python3` when it names none.
    pub fn runtime_commands(&self) -> BTreeMap<String, Vec<String>> {
        let python = beside_us("baetyl-runtime-python").display().to_string();
        let mut commands = BTreeMap::from([("python3".to_owned(), vec![python, "run".to_owned()])]);
        let configured = self.runtimes.iter();
        let commanded = configured.filter(|(_, runtime)| !runtime.command.is_empty());
        commands.extend(commanded.map(|(id, runtime)| (id.clone(), runtime.command.clone())));
        commands
    }

    /// Images of function runtimes by id.
    pub fn runtime_images(&self) -> BTreeMap<String, String> {
        let images = self.runtimes.iter();
        images
            .filter_map(|(id, runtime)| Some((id.clone(), runtime.image.clone()?)))
            .collect()
    }

    /// The program `baetyl-shim`.
    pub fn shim(&self) -> PathBuf {
        self.native
            .shim
            .clone()
            .unwrap_or_else(|| beside_us("baetyl-shim"))
    }
}

/// A program in the directory of the running one.
fn beside_us(program: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().unwrap_or(Path::new("")).join(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_shows_every_key_with_its_default() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/engine.yaml");
        let (_, from_file): (baetyl_kit::cli::ShellConfig, Config) =
            baetyl_kit::config::load_both("engine", Some(&file), []).unwrap();
        let render = |config: &Config| baetyl_kit::config::render(config).unwrap();
        assert_eq!(render(&from_file), render(&Config::default()));
        let text = std::fs::read_to_string(file).unwrap();
        for line in render(&Config::default()).lines() {
            let key = line.trim().split(':').next().unwrap();
            assert!(text.contains(&format!("{key}:")), "{key} is missing");
        }
    }

    #[test]
    fn a_runtime_is_added_by_file_or_environment_and_python_stays() {
        let env = [(
            "BAETYL_ENGINE__RUNTIMES__LUA__COMMAND".to_owned(),
            r#"["lua","run.lua"]"#.to_owned(),
        )];
        let config: Config = baetyl_kit::config::load("engine", None, env).unwrap();
        let commands = config.runtime_commands();
        assert_eq!(commands["lua"], ["lua", "run.lua"]);
        assert!(commands["python3"][0].ends_with("baetyl-runtime-python"));
    }
}
