//! Real processes: a cloud, edge nodes, and ways to start, stop and kill them. Everything lies in one temporary directory.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use crate::edge::Edge;
use crate::rest::Rest;
use crate::wait::until;

/// A process that is killed when forgotten.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program of the workspace in a process group of its own, with its output in `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, args: &[&str], env: &[(String, String)], log: &Path) -> Result<Self> {
        let path = program(name)?;
        let out = File::options().create(true).append(true).open(log)?;
        let child = Command::new(&path)
            .args(args)
            .envs(env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_path_buf(),
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Program name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits until it ended by itself.
    ///
    /// # Errors
    /// When it does not end, or ends with a failure.
    pub async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let name = self.name.clone();
        let (status, _) = until(&format!("{name} ends after SIGTERM"), || {
            let status = self.child.try_wait();
            async move { status?.context("still running") }
        })
        .await?;
        ensure!(
            status.success(),
            "{name} ended with {status}; log:\n{}",
            self.tail()
        );
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("no process id")?;
        rustix::process::kill_process(pid, signal)?;
        Ok(())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last 40 lines of a file.
#[must_use]
pub fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(40)..)
        .unwrap_or_default()
        .join("\n")
}

/// Where a program of the workspace lies: beside the running test or demo, or in `BAETYL_PROGRAMS_DIR`.
///
/// # Errors
/// When it was not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = programs_dir()?.join(name);
    ensure!(
        path.exists(),
        "{} is not built; run `cargo build --workspace --bins`",
        path.display()
    );
    Ok(path)
}

/// The directory of the built programs.
///
/// # Errors
/// When the path of the running program is unknown.
pub fn programs_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("BAETYL_PROGRAMS_DIR") {
        return Ok(dir.into());
    }
    let exe = std::env::current_exe()?;
    let dir = exe.parent().context("the program lies nowhere")?;
    Ok(if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir).to_path_buf()
    } else {
        dir.to_path_buf()
    })
}

/// A port nobody listens on, and that the system gives to nobody: it stays free while a server is stopped and started
/// again. Engine's ports begin above these, those of outgoing connections above engine's.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    use std::sync::atomic::{AtomicU32, Ordering};
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let number = std::process::id() * 97 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + number % COUNT)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port between {FIRST} and {} is free", FIRST + COUNT)
}

/// A cloud process.
#[derive(Debug)]
pub struct Cloud {
    /// Its data directory.
    pub dir: PathBuf,
    env: Vec<(String, String)>,
    process: Option<Process>,
    admin_port: u16,
}

impl Cloud {
    /// Starts a cloud on an empty directory and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, &[]).await
    }

    /// [`Cloud::start`] with settings (`BAETYL_CLOUD__…`).
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_with(dir: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let admin_port = free_port()?;
        let mut env = vec![
            (
                "BAETYL_CLOUD__ADMIN__LISTEN".to_owned(),
                format!("127.0.0.1:{admin_port}"),
            ),
            (
                "BAETYL_CLOUD__LINK__LISTEN".to_owned(),
                format!("127.0.0.1:{}", free_port()?),
            ),
            (
                "BAETYL_CLOUD__ACTIVATION__LISTEN".to_owned(),
                format!("127.0.0.1:{}", free_port()?),
            ),
            (
                "BAETYL_CLOUD__PUBLIC__HOST".to_owned(),
                "127.0.0.1".to_owned(),
            ),
        ];
        env.extend(
            settings
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        let mut cloud = Self {
            dir: dir.to_path_buf(),
            env,
            process: None,
            admin_port,
        };
        cloud.resume().await?;
        Ok(cloud)
    }

    /// Starts it again on the same directory and ports.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn resume(&mut self) -> Result<()> {
        let dir = self.dir.display().to_string();
        let log = self.dir.join("cloud.log");
        let mut process = Process::start(
            "baetyl-cloud",
            &["serve", "--data-dir", &dir],
            &self.env,
            &log,
        )?;
        let rest = Rest::new(&self.address(), None);
        let ready = until("the cloud answers", || {
            let (rest, running) = (rest.clone(), process.is_running());
            async move {
                ensure!(running, "it ended");
                let answer = rest
                    .send(http::Method::GET, "/v1/nodes", &[], bytes::Bytes::new())
                    .await?;
                ensure!(answer.status == 401, "status {}", answer.status);
                Ok(())
            }
        })
        .await;
        if let Err(error) = ready {
            bail!("{error:#}; log:\n{}", process.tail());
        }
        self.process = Some(process);
        Ok(())
    }

    /// Address of the REST interface.
    #[must_use]
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin_port)
    }

    /// A client with the admin token of the first start.
    ///
    /// # Errors
    /// When the token file is not there.
    pub fn rest(&self) -> Result<Rest> {
        let token =
            fs::read_to_string(self.token_file()).context("the admin token is not readable")?;
        Ok(Rest::new(&self.address(), Some(token.trim())))
    }

    /// The file of the first admin token.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.dir.join("admin.token")
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process
            .take()
            .context("the cloud does not run")?
            .kill()
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// When it does not run, or ends badly.
    pub async fn stop(&mut self) -> Result<()> {
        self.process
            .take()
            .context("the cloud does not run")?
            .stop()
            .await
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }
}

/// How the edge services run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Five programs (init beside them).
    Five,
    /// All roles in `baetyl-edge run`.
    One,
}

impl Shape {
    /// The long-running programs, by service name.
    #[must_use]
    pub const fn services(self) -> &'static [&'static str] {
        match self {
            Self::Five => &["engine", "node", "sync", "function-proxy"],
            Self::One => &["edge"],
        }
    }
}

/// A cloud and one installed node, for tests that need no story.
#[derive(Debug)]
pub struct World {
    /// The node; dropped first, so that nothing it started outlives the directory.
    pub edge: Edge,
    /// The cloud.
    pub cloud: Cloud,
    /// A client with the admin token.
    pub rest: Rest,
    /// The command the node was installed with.
    pub install_command: String,
    /// Everything lies here.
    pub dir: tempfile::TempDir,
}

impl World {
    /// Starts a cloud, describes node `north-1` with label `site=north`, and installs it.
    ///
    /// # Errors
    /// When a step fails.
    pub async fn start(shape: Shape) -> Result<Self> {
        Self::start_in(shape, &[]).await
    }

    /// [`World::start`] with these variables in the environment of all programs of the node, `baetyl-init` included.
    ///
    /// # Errors
    /// When a step fails.
    pub async fn start_in(shape: Shape, env: &[(&str, String)]) -> Result<Self> {
        Self::start_with(shape, env, &[]).await
    }

    /// [`World::start_in`] with settings of the cloud (`BAETYL_CLOUD__…`).
    ///
    /// # Errors
    /// When a step fails.
    pub async fn start_with(
        shape: Shape,
        env: &[(&str, String)],
        cloud: &[(&str, &str)],
    ) -> Result<Self> {
        // Short: the path of a Unix socket has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("bt-").tempdir()?;
        let cloud = Cloud::start_with(&dir.path().join("cloud"), cloud).await?;
        let rest = cloud.rest()?;
        let node = serde_json::json!({"name": "north-1", "nodeMode": "native", "labels": {"site": "north"}});
        rest.post("/v1/nodes", &node).await?;
        let mut edge = Edge::new("north-1", &dir.path().join("edge"), shape)?;
        for (key, value) in env {
            edge.set_env(key, value);
        }
        edge.start().await?;
        let install_command = edge.activate(&rest).await?;
        Ok(Self {
            install_command,
            edge,
            cloud,
            rest,
            dir,
        })
    }

    /// Creates an application and waits until it runs.
    ///
    /// # Errors
    /// When it does not.
    pub async fn run_app(&self, app: &serde_json::Value) -> Result<String> {
        let made = self.rest.post("/v1/apps", app).await?;
        let name = made["name"]
            .as_str()
            .context("an application without name")?;
        let version = made["version"]
            .as_str()
            .context("an application without version")?
            .to_owned();
        self.edge.until_running(name, Some(&version)).await?;
        Ok(version)
    }

    /// Waits until the cloud says that the node is online.
    ///
    /// # Errors
    /// When it does not.
    pub async fn until_online(&self) -> Result<serde_json::Value> {
        let (node, _) = until("the node is online", || async {
            let node = self
                .rest
                .get(&format!("/v1/nodes/{}", self.edge.node))
                .await?;
            ensure!(node["ready"] == 1, "ready is {}", node["ready"]);
            Ok(node)
        })
        .await?;
        Ok(node)
    }
}
