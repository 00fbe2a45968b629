//! One edge node: its processes, its sockets, its applications.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use baetyl_proto::engine::engine_service_client::EngineServiceClient;
use baetyl_proto::engine::{GetAppRequest, ListAppsRequest, RestartAppRequest};
pub use baetyl_proto::shadow::{AppStatus, InstanceStatus, RunStatus};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::rest::Rest;
use crate::wait::{until, until_every};
use crate::world::{Process, Shape, program, programs_dir};

/// Process ids and start times of instances, by name.
pub type Lives = BTreeMap<String, (u64, Option<i64>)>;

/// A node on this machine.
#[derive(Debug)]
pub struct Edge {
    /// Its name in the cloud.
    pub node: String,
    /// Its data directory.
    pub dir: PathBuf,
    shape: Shape,
    processes: BTreeMap<&'static str, Process>,
    env: Vec<(String, String)>,
}

impl Edge {
    /// A node that was never started.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(node: &str, dir: &Path, shape: Shape) -> Result<Self> {
        fs::create_dir_all(dir.join("logs"))?;
        let (proxy, engine) = match shape {
            Shape::One => ("BAETYL_EDGE__FUNCTION_PROXY", "BAETYL_EDGE__ENGINE"),
            Shape::Five => ("BAETYL_FUNCTION_PROXY", "BAETYL_ENGINE"),
        };
        let env = [
            (format!("{proxy}__HTTP__LISTEN"), "127.0.0.1:0"),
            (format!("{proxy}__GRPC__LISTEN"), "127.0.0.1:0"),
            // A release that never gets ready is given up after this; the default of a minute is for real ones.
            (format!("{engine}__UPDATE__PROGRESS_DEADLINE"), "8s"),
        ];
        let mut env = env.map(|(key, value)| (key, value.to_owned())).to_vec();
        // Nodes on one machine must not hand out the same ports: a probe would ask another node's application.
        let (first, last) = ports();
        env.push((format!("{engine}__NATIVE__PORT_MIN"), first.to_string()));
        env.push((format!("{engine}__NATIVE__PORT_MAX"), last.to_string()));
        Ok(Self {
            node: node.to_owned(),
            dir: dir.to_path_buf(),
            shape,
            processes: BTreeMap::new(),
            env,
        })
    }

    /// Adds an environment variable for all programs started from now on.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.env.retain(|(k, _)| k != key);
        self.env.push((key.to_owned(), value.to_owned()));
    }

    /// Starts all services that do not run.
    ///
    /// # Errors
    /// When a program cannot be started.
    pub async fn start(&mut self) -> Result<()> {
        for service in self.shape.services() {
            if !self.processes.contains_key(service) {
                self.start_service(service)?;
            }
        }
        Ok(())
    }

    /// Starts one service that does not run; all of them when they are one process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_service(&mut self, service: &'static str) -> Result<()> {
        let service = self.program_of(service);
        if self.processes.contains_key(service) {
            return Ok(());
        }
        let name = format!("baetyl-{service}");
        let log = self.dir.join(format!("logs/{service}.log"));
        let dir = self.dir.display().to_string();
        let process = Process::start(&name, &["run", "--data-dir", &dir], &self.env, &log)?;
        self.processes.insert(service, process);
        Ok(())
    }

    /// `kill -9` of one service if it runs; of all of them when they are one process.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_service(&mut self, service: &'static str) -> Result<()> {
        match self.processes.remove(self.program_of(service)) {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// The program that has this role.
    fn program_of(&self, service: &'static str) -> &'static str {
        match self.shape {
            Shape::Five => service,
            Shape::One => "edge",
        }
    }

    /// `kill -9` of every service.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_services(&mut self) -> Result<()> {
        for (_, mut process) in std::mem::take(&mut self.processes) {
            process.kill()?;
        }
        Ok(())
    }

    /// `kill -9` of every service and every application: what a power cut does.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_everything(&mut self) -> Result<()> {
        self.kill_services()?;
        kill_all_beneath(&self.dir);
        Ok(())
    }

    /// Names of the services, for killing them one at a time.
    #[must_use]
    pub fn services(&self) -> &'static [&'static str] {
        self.shape.services()
    }

    /// How the services run.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Names of services that ended by themselves.
    pub fn ended(&mut self) -> Vec<&'static str> {
        self.processes
            .iter_mut()
            .filter_map(|(name, process)| (!process.is_running()).then_some(*name))
            .collect()
    }

    /// Process ids of the services.
    #[must_use]
    pub fn pids(&self) -> BTreeMap<&'static str, u32> {
        self.processes
            .iter()
            .map(|(name, process)| (*name, process.pid()))
            .collect()
    }

    /// The end of a service's log.
    #[must_use]
    pub fn log(&self, service: &str) -> String {
        crate::world::tail(&self.dir.join(format!("logs/{service}.log")))
    }

    /// Fetches the install command from the cloud and runs it, as an installer would.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn activate(&self, rest: &Rest) -> Result<String> {
        let answer = rest
            .get(&format!("/v1/nodes/{}/init?mode=native", self.node))
            .await?;
        let command = answer["cmd"]
            .as_str()
            .context("no install command")?
            .to_owned();
        let (output, _) = self.run_install(&command).await?;
        ensure!(output.0, "`{command}` failed:\n{}", output.1);
        Ok(command)
    }

    /// Runs an install command; answers whether it succeeded, and what it printed.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub async fn run_install(&self, command: &str) -> Result<((bool, String), ())> {
        let path = format!(
            "{}:{}",
            programs_dir()?.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let full = format!("{command} --data-dir {}", self.dir.display());
        let env = self.env.clone();
        let output = tokio::task::spawn_blocking(move || {
            Command::new("sh")
                .arg("-c")
                .arg(full)
                .env("PATH", path)
                .envs(env)
                .output()
        })
        .await??;
        let text = [output.stdout, output.stderr].concat();
        Ok((
            (
                output.status.success(),
                String::from_utf8_lossy(&text).into_owned(),
            ),
            (),
        ))
    }

    /// A channel to a core socket, as `admin`.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn channel(&self, service: &str) -> Result<Channel> {
        self.channel_at(&format!("run/core/{service}.sock")).await
    }

    /// A channel to a socket of the data directory.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn channel_at(&self, socket: &str) -> Result<Channel> {
        let path = self.dir.join(socket);
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move {
                Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?))
            }
        });
        Endpoint::from_static("http://localhost")
            .connect_with_connector(connector)
            .await
            .with_context(|| format!("nobody listens on {socket}"))
    }

    /// What engine says of all applications.
    ///
    /// # Errors
    /// When engine does not answer.
    pub async fn apps(&self) -> Result<Vec<AppStatus>> {
        let mut engine = EngineServiceClient::new(self.channel("engine").await?);
        Ok(engine
            .list_apps(ListAppsRequest::default())
            .await?
            .into_inner()
            .apps)
    }

    /// What engine says of one application.
    ///
    /// # Errors
    /// When engine does not answer or does not know it.
    pub async fn app(&self, name: &str) -> Result<AppStatus> {
        let mut engine = EngineServiceClient::new(self.channel("engine").await?);
        let answer = engine
            .get_app(GetAppRequest {
                name: name.to_owned(),
            })
            .await?;
        answer
            .into_inner()
            .app
            .context("an answer without application")
    }

    /// Asks for one application on one connection every `pause` until `accept` does; for measurements.
    ///
    /// # Errors
    /// When engine does not answer, or not within a minute as wanted.
    pub async fn poll_app(
        &self,
        name: &str,
        pause: std::time::Duration,
        accept: impl Fn(&AppStatus) -> bool,
    ) -> Result<()> {
        let engine = EngineServiceClient::new(self.channel("engine").await?);
        until_every(pause, &format!("{name} is as wanted"), || async {
            let request = GetAppRequest {
                name: name.to_owned(),
            };
            let status = engine.clone().get_app(request).await?.into_inner().app;
            ensure!(status.is_some_and(|status| accept(&status)), "not yet");
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Restarts an application.
    ///
    /// # Errors
    /// When engine refuses.
    pub async fn restart_app(&self, name: &str) -> Result<()> {
        let mut engine = EngineServiceClient::new(self.channel("engine").await?);
        engine
            .restart_app(RestartAppRequest {
                name: name.to_owned(),
            })
            .await?;
        Ok(())
    }

    /// The only instance of an application.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub async fn instance(&self, app: &str) -> Result<InstanceStatus> {
        let status = self.app(app).await?;
        match status.instances.as_slice() {
            [one] => Ok(one.clone()),
            other => bail!("{app} has {} instances", other.len()),
        }
    }

    /// Process ids and start times of all instances that are ready.
    ///
    /// # Errors
    /// When engine does not answer or something does not run.
    pub async fn lives(&self) -> Result<Lives> {
        let mut lives = Lives::new();
        for app in self.apps().await? {
            ensure!(!app.instances.is_empty(), "{} has no instance", app.name);
            for instance in app.instances {
                ensure!(instance.ready, "{} is not ready", instance.name);
                let start = instance.start_time.as_ref().map(|time| time.seconds);
                lives.insert(instance.name, (instance.pid, start));
            }
        }
        ensure!(!lives.is_empty(), "nothing runs");
        Ok(lives)
    }

    /// Calls the first port of an application over HTTP.
    ///
    /// # Errors
    /// When it does not answer with success.
    pub async fn call_app(&self, app: &str, path: &str) -> Result<Value> {
        let instance = self.instance(app).await?;
        let port = instance
            .ports
            .first()
            .with_context(|| format!("{app} has no port"))?
            .port;
        Rest::new(&format!("http://127.0.0.1:{port}"), None)
            .get(path)
            .await
    }

    /// A client of the function proxy's HTTP listener.
    ///
    /// # Errors
    /// When it did not write its address.
    pub fn functions(&self) -> Result<Rest> {
        let address = self.address("function-proxy-http")?;
        Ok(Rest::new(&format!("http://{address}"), None))
    }

    /// The bound address of a listener.
    ///
    /// # Errors
    /// When it was not written.
    pub fn address(&self, name: &str) -> Result<String> {
        let path = self.dir.join(format!("run/{name}.addr"));
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} is not there", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// Runs one of our programs to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run_program(&self, name: &str, args: &[&str]) -> Result<std::process::Output> {
        Ok(Command::new(program(name)?).args(args).output()?)
    }

    /// Waits until the application runs with this version, all instances ready.
    ///
    /// # Errors
    /// When it does not.
    pub async fn until_running(&self, app: &str, version: Option<&str>) -> Result<AppStatus> {
        let (status, _) = until(&format!("{app} runs"), || async {
            let status = self.app(app).await?;
            let running = status.status() == RunStatus::Running;
            ensure!(
                running,
                "{:?} {} {}",
                status.status(),
                status.phase,
                status.cause
            );
            ensure!(
                status.phase == "Healthy" || status.phase == "RolledBack",
                "phase {}",
                status.phase
            );
            if let Some(version) = version {
                ensure!(
                    status.version == version,
                    "version {} instead of {version}",
                    status.version
                );
            }
            ensure!(
                !status.instances.is_empty() && status.instances.iter().all(|i| i.ready),
                "not ready"
            );
            Ok(status)
        })
        .await?;
        Ok(status)
    }
}

/// A range of ports for one node, below those the system hands out.
fn ports() -> (u16, u16) {
    use std::sync::atomic::{AtomicU32, Ordering};
    const BLOCK: u32 = 50;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id() * 17 + NEXT.fetch_add(1, Ordering::Relaxed);
    let first = u16::try_from(20_000 + number % 240 * BLOCK).unwrap_or(20_000);
    (first, first + 49)
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.kill_everything();
    }
}

/// Kills every process of ours whose environment or arguments name the directory: shims and applications.
fn kill_all_beneath(dir: &Path) {
    let Ok(dir) = dir.canonicalize() else { return };
    let needle = dir.display().to_string().into_bytes();
    let own = std::process::id();
    // A few rounds: a shim may start something between the look and the kill.
    for _ in 0..5 {
        let mut found = false;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            if pid == own || pid == 1 {
                continue;
            }
            let names = ["environ", "cmdline"]
                .into_iter()
                .filter_map(|file| fs::read(entry.path().join(file)).ok());
            let ours = names
                .into_iter()
                .any(|bytes| bytes.windows(needle.len()).any(|window| window == needle));
            let zombie = fs::read_to_string(entry.path().join("stat"))
                .is_ok_and(|stat| stat.contains(") Z "));
            if ours && !zombie {
                found = true;
                if let Some(pid) = i32::try_from(pid)
                    .ok()
                    .and_then(rustix::process::Pid::from_raw)
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
        if !found {
            return;
        }
    }
}
