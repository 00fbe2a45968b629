//! The test bed under the cluster: its registry, its faults, further nodes. The scripts are those of `tools/kubebed`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::output;

/// Where the scripts of the bed are.
fn script(name: &str) -> PathBuf {
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/kubebed");
    Path::new(tools).join(name)
}

/// The bed that `cargo xtask e2e kube` has brought up.
pub(crate) struct Bed {
    dir: PathBuf,
}

/// User and password of the registry's closed door.
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Bed {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// A file of the bed.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// The registry ([`registry`](super::Cluster::registry)) once more, behind credentials.
    pub(crate) fn closed_registry(&self) -> Result<(String, Credentials)> {
        let text = self.read("registry-credentials")?;
        let (user, password) = text.split_once(':').context("no USER:PASSWORD")?;
        let credentials = Credentials {
            user: user.to_owned(),
            password: password.to_owned(),
        };
        Ok((format!("{}:5001", self.read("api-ip")?), credentials))
    }

    /// An image of ours as `cargo xtask images` has built it for these tests: an OCI layout directory.
    pub(crate) fn layout(&self, image: &str) -> PathBuf {
        let layouts = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/images/oci");
        Path::new(layouts).join(image)
    }

    /// Pushes an OCI layout directory; `image` is its name and tag, without the registry.
    pub(crate) async fn push(&self, layout: &Path, image: &str) -> Result<()> {
        let mut command = Command::new(self.path("push"));
        command.arg(layout).arg(image);
        output(command, &format!("push {image}"), "").await?;
        Ok(())
    }

    /// What `ctr` of the machine's containerd prints about the images of Kubernetes, and does with them.
    pub(crate) async fn ctr(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(self.path("in"));
        command.args(["ctr", "-n", "k8s.io"]).args(args);
        output(command, &format!("ctr {}", args.join(" ")), "").await
    }

    async fn run(&self, name: &str, args: &[&str]) -> Result<String> {
        let mut command = Command::new(script(name));
        command.args(args).env("BED", &self.dir);
        output(command, &format!("{name} {}", args.join(" ")), "").await
    }

    /// The API server answers nobody until the result is forgotten; its connections stay open.
    pub(crate) async fn pause_api(&self) -> Result<PausedApi<'_>> {
        self.run("pause-api", &[]).await?;
        Ok(PausedApi { bed: self })
    }

    /// `kill -9` of the first process of a container.
    pub(crate) async fn kill_container(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<()> {
        let args = [namespace, pod, container];
        self.run("kill-container", &args).await?;
        Ok(())
    }

    /// Kills (`-9`) a program of the bed, like `registry`, `kubelet` or `kube-apiserver`, until it is started again.
    pub(crate) async fn kill_component(&self, name: &str) -> Result<()> {
        self.run("component", &["kill", name]).await?;
        Ok(())
    }

    /// Starts a killed program of the bed again.
    pub(crate) async fn start_component(&self, name: &str) -> Result<()> {
        self.run("component", &["start", name]).await?;
        Ok(())
    }

    /// The node loses power and comes back, control plane included.
    pub(crate) async fn reboot(&self) -> Result<()> {
        self.run("reboot", &["--with-control-plane"]).await?;
        Ok(())
    }

    /// A further node, number `number` (from 1), which leaves when the result is forgotten.
    pub(crate) async fn join(&self, number: u8) -> Result<JoinedNode<'_>> {
        let name = format!("edge{number}");
        let mut dir = self.dir.clone().into_os_string();
        dir.push(format!("-{number}"));
        let node = JoinedNode {
            bed: self,
            dir: dir.into(),
            name,
        };
        let mut command = Command::new(script("up.sh"));
        command
            .env("BED", &node.dir)
            .env("JOIN", &self.dir)
            .env("KBED", self.programs()?)
            .env("NODE_NAME", &node.name)
            .env("NODE_IP", format!("10.250.0.{}", 1 + u32::from(number)))
            .env("POD_CIDR", format!("10.244.{number}.0/24"));
        output(command, &format!("up.sh of {}", node.name), "").await?;
        Ok(node)
    }

    /// Directory of the bed's own programs.
    fn programs(&self) -> Result<String> {
        let settings = self.read("settings")?;
        let line = settings.lines().find_map(|line| line.strip_prefix("KBED="));
        Ok(line
            .context("the bed does not know its programs")?
            .to_owned())
    }
}

/// For as long as this is there the API server hangs.
pub(crate) struct PausedApi<'a> {
    bed: &'a Bed,
}

impl Drop for PausedApi<'_> {
    fn drop(&mut self) {
        run_blocking("resume-api", &self.bed.dir);
    }
}

/// A node that joined the bed's.
pub(crate) struct JoinedNode<'a> {
    bed: &'a Bed,
    dir: PathBuf,
    name: String,
}

impl JoinedNode<'_> {
    /// Its name in Kubernetes.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for JoinedNode<'_> {
    fn drop(&mut self) {
        run_blocking("down.sh", &self.dir);
        let kubectl = super::Kubectl::new(self.bed.path("kubectl"), None);
        kubectl.run_blocking(&["delete", "node", &self.name, "--wait=false"]);
    }
}

fn run_blocking(name: &str, bed: &Path) {
    let status = std::process::Command::new(script(name))
        .env("BED", bed)
        .status();
    if !matches!(status, Ok(status) if status.success()) {
        println!("{name} of {}: {status:?}", bed.display());
    }
}
