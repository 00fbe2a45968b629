//! The cluster the tests run on, as its administrator's kubectl sees it.

mod machine;
mod objects;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use baetyl_testkit::skipped;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use machine::Bed;
pub(crate) use objects::{FreshNamespace, Objects, is_ready};

/// Most tests run beside each other; one that pauses the API server or reboots a node is alone.
static TURN: RwLock<()> = RwLock::const_new(());

/// How long a test may hold on to the cluster.
#[expect(dead_code, reason = "guards are only held")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A Kubernetes, for as long as one test uses it.
pub(crate) struct Cluster {
    kubectl: Kubectl,
    bed: Option<Bed>,
    _turn: Turn,
}

impl Cluster {
    /// For a test that disturbs nobody: others run at the same time.
    pub(crate) async fn shared() -> Result<Self> {
        Self::with(Turn::Shared(TURN.read().await))
    }

    /// For a test that does something to the whole cluster: nobody else runs meanwhile.
    pub(crate) async fn alone() -> Result<Self> {
        Self::with(Turn::Alone(TURN.write().await))
    }

    fn with(turn: Turn) -> Result<Self> {
        let bed = std::env::var_os("BAETYL_E2E_BED").map(|dir| Bed::new(dir.into()));
        let kubectl = match (&bed, std::env::var("BAETYL_E2E_CONTEXT")) {
            (Some(bed), _) => Kubectl::new(bed.path("kubectl"), None),
            (None, Ok(context)) => Kubectl::new("kubectl".into(), Some(context)),
            (None, Err(_)) => {
                bail!("no cluster is told; run these tests by `cargo xtask e2e kube`")
            }
        };
        Ok(Self {
            kubectl,
            bed,
            _turn: turn,
        })
    }

    /// The test bed under the cluster, of a test that needs it. On any other cluster there is none: then this says that the
    /// test is skipped.
    pub(crate) fn bed(&self) -> Option<&Bed> {
        if self.bed.is_none() {
            skipped("the test bed: run it without --context");
        }
        self.bed.as_ref()
    }

    /// The test bed, of a test that does without.
    pub(crate) fn bed_if_any(&self) -> Option<&Bed> {
        self.bed.as_ref()
    }

    /// An image with `/bin/busybox` and `/bin/sh` that is there without any registry of ours.
    pub(crate) fn busybox(&self) -> &'static str {
        match self.bed {
            Some(_) => "localhost/box:1",
            None => "docker.io/library/busybox:stable",
        }
    }

    /// A registry, as `host:port`, that nodes pull from without credentials.
    pub(crate) fn registry(&self) -> Result<String> {
        std::env::var("BAETYL_E2E_REGISTRY").context(
            "BAETYL_E2E_REGISTRY does not say which registry the cluster's nodes pull from",
        )
    }

    /// A search path whose `kubectl` is that of the cluster.
    pub(crate) fn path_with_kubectl(&self) -> Result<OsString> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let Some(bed) = &self.bed else {
            return Ok(path);
        };
        let dir = bed.path("bin");
        if !dir.exists() {
            std::fs::create_dir(&dir)?;
            std::os::unix::fs::symlink(bed.path("kubectl"), dir.join("kubectl"))?;
        }
        let dirs = std::iter::once(dir).chain(std::env::split_paths(&path));
        Ok(std::env::join_paths(dirs)?)
    }

    /// kubectl itself, for what [`Objects`] does not offer.
    pub(crate) fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Objects that are in no namespace: nodes, volumes, namespaces.
    pub(crate) fn objects(&self) -> Objects {
        Objects::new(self.kubectl.clone(), None)
    }

    /// Objects of a namespace.
    pub(crate) fn objects_in(&self, namespace: &str) -> Objects {
        Objects::new(self.kubectl.clone(), Some(namespace.to_owned()))
    }

    /// A namespace for one test, whose name begins with `hint`; it is deleted when forgotten.
    pub(crate) async fn fresh_namespace(&self, hint: &str) -> Result<FreshNamespace> {
        FreshNamespace::create(self.kubectl.clone(), hint).await
    }
}

/// The program kubectl and which cluster it talks to.
#[derive(Debug, Clone)]
pub(crate) struct Kubectl {
    program: PathBuf,
    context: Option<String>,
}

impl Kubectl {
    fn new(program: PathBuf, context: Option<String>) -> Self {
        Self { program, context }
    }

    /// Context of a cluster that is no test bed.
    pub(crate) fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// The arguments that choose the cluster, then `args`.
    fn arguments<'a>(&'a self, args: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let context = self.context.as_deref();
        context
            .into_iter()
            .flat_map(|context| ["--context", context])
            .chain(args.iter().copied())
    }

    /// What kubectl prints.
    ///
    /// # Errors
    /// When it cannot be started or fails; the message has its own words.
    pub(crate) async fn run(&self, args: &[&str]) -> Result<String> {
        self.fed(args, "").await
    }

    /// [`run`](Self::run) with something on standard input.
    pub(crate) async fn fed(&self, args: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(self.arguments(args));
        let told = format!("kubectl {}", args.join(" "));
        output(command, &told, input).await
    }

    /// [`run`](Self::run) where nothing may be awaited, as in a destructor; failures are printed.
    fn run_blocking(&self, args: &[&str]) {
        let done = std::process::Command::new(&self.program)
            .args(self.arguments(args))
            .output();
        let told = match done {
            Ok(output) if output.status.success() => return,
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        println!("kubectl {}: {told}", args.join(" "));
    }
}

/// Runs a command to its end; it is killed when the caller stops waiting.
async fn output(mut command: Command, told: &str, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start `{told}`"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let (fed, done) = tokio::join!(
        async move {
            // Whoever does not read says himself why: his words count, not the broken pipe.
            let _ = stdin.write_all(input.as_bytes()).await;
        },
        child.wait_with_output()
    );
    let () = fed;
    let Output {
        status,
        stdout,
        stderr,
    } = done?;
    let stdout = String::from_utf8_lossy(&stdout);
    let stderr = String::from_utf8_lossy(&stderr);
    ensure!(
        status.success(),
        "`{told}` failed ({status}): {}",
        if stderr.trim().is_empty() {
            &stdout
        } else {
            &stderr
        }
        .trim()
    );
    Ok(stdout.into_owned())
}
