//! The managed node: a cloud in the cluster, and the cluster itself as its edge node, installed with the command a user
//! would use. The first test that needs it makes it; the others find it.
//!
//! Whoever runs these tests reaches the addresses of Services directly: in the test bed by its network, on another cluster by
//! being on one of its machines.

mod app;
mod cloud;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use baetyl_model::base64;
use baetyl_tests::rest::Rest;
use baetyl_tests::wait::{until, until_within};
use baetyl_tests::world::program;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Mutex;

pub(crate) use app::{IDLE, PATIENCE, PAUSE, busybox, page_at, set_env, web};
pub(crate) use cloud::Cloud;

use crate::cluster::{Cluster, Objects};

/// The node in the cloud.
pub(crate) const NODE: &str = "shop-1";
/// What its applications are selected by.
pub(crate) const SELECTOR: &str = "site=shop";
/// Namespace of user applications.
pub(crate) const USERS: &str = "baetyl-edge";
/// Namespace of the core services.
pub(crate) const SYSTEM: &str = "baetyl-edge-system";
/// Deployments of the core services.
pub(crate) const CORE: [&str; 4] = [
    "baetyl-node",
    "baetyl-sync",
    "baetyl-engine",
    "baetyl-function",
];
/// Images that Pods of the core have.
pub(crate) const CORE_IMAGES: [&str; 5] = [
    "baetyl-init",
    "baetyl-node",
    "baetyl-sync",
    "baetyl-engine",
    "baetyl-function-proxy",
];
/// Version of everything of ours.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The token of the cloud once the node was made; one test at a time makes it.
static MADE: Mutex<Option<String>> = Mutex::const_new(None);

/// A managed node, for as long as one test uses it.
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) cloud: Cloud,
    /// A client of the cloud with an administrator's token.
    pub(crate) rest: Rest,
    dir: tempfile::TempDir,
}

impl Node {
    /// For a test that disturbs nobody.
    pub(crate) async fn shared() -> Result<Self> {
        Self::of(Cluster::shared().await?).await
    }

    /// For a test that does something to the whole node.
    pub(crate) async fn alone() -> Result<Self> {
        Self::of(Cluster::alone().await?).await
    }

    async fn of(cluster: Cluster) -> Result<Self> {
        let mut made = MADE.lock().await;
        let cloud = Cloud::of(&cluster)?;
        let token = match made.as_ref() {
            Some(token) => token.clone(),
            None => cloud.deploy().await.context("the cloud")?,
        };
        let rest = cloud.rest(&token).await?;
        let node = Self {
            rest,
            cloud,
            cluster,
            dir: tempfile::Builder::new().prefix("bt-e2e-").tempdir()?,
        };
        std::fs::write(node.dir.path().join("token"), &token)?;
        if made.is_none() {
            node.describe().await?;
            node.install(&[]).await.context("the installation")?;
            *made = Some(token);
        }
        Ok(node)
    }

    async fn describe(&self) -> Result<()> {
        let (key, value) = SELECTOR.split_once('=').context("a selector")?;
        let body = json!({"name": NODE, "nodeMode": "kube", "labels": {key: value}});
        let answer = self.rest.json(http::Method::POST, "/v1/nodes", &body).await;
        let answer = answer?;
        ensure!(
            answer.status.is_success() || answer.status == 409,
            "{} {:?}",
            answer.status,
            answer.bytes
        );
        Ok(())
    }

    /// Runs the install command as a user would, with these options; answers what it says.
    pub(crate) async fn install(&self, options: &[&str]) -> Result<String> {
        let command = self.ctl(&["node", "install-command", NODE]).await?;
        self.run_install(command.trim(), options).await
    }

    /// Runs an install command; answers what it says.
    pub(crate) async fn run_install(&self, command: &str, options: &[&str]) -> Result<String> {
        let context = self.cluster.kubectl().context();
        let context = context.map(|context| format!(" --context {context}"));
        let line = format!(
            "{command} --timeout 180 {}{}",
            options.join(" "),
            context.unwrap_or_default()
        );
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &line])
            .env("PATH", self.cluster.path_with_kubectl()?);
        run(shell, "the install command").await
    }

    /// What `baetylctl` prints.
    pub(crate) async fn ctl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(program("baetylctl")?);
        command
            .args(args)
            .env("PATH", self.cluster.path_with_kubectl()?);
        self.with_cloud(&mut command).await?;
        run(command, &format!("baetylctl {}", args.join(" "))).await
    }

    /// What a shell prints that has `kubectl` and `baetylctl`, in a directory of the test's own; it ends with the first
    /// command that fails.
    pub(crate) async fn shell(&self, script: &str) -> Result<String> {
        let programs = program("baetylctl")?;
        let programs = programs.parent().context("a directory of programs")?;
        let path = self.cluster.path_with_kubectl()?;
        let paths = std::iter::once(programs.to_owned()).chain(std::env::split_paths(&path));
        let mut shell = Command::new("sh");
        shell
            .args(["-eu", "-c", script])
            .current_dir(self.dir.path())
            .env("PATH", std::env::join_paths(paths)?);
        self.with_cloud(&mut shell).await?;
        run(shell, "the shell").await
    }

    /// Tells `baetylctl` by its environment where the cloud is.
    async fn with_cloud(&self, command: &mut Command) -> Result<()> {
        command
            .env("BAETYLCTL_SERVER", self.cloud.address().await?)
            .env("BAETYLCTL_TOKEN_FILE", self.dir.path().join("token"))
            .env("BAETYLCTL_CONFIG", self.dir.path().join("ctl.yaml"));
        Ok(())
    }

    /// A file for one test, in a directory that is made if it is not there.
    pub(crate) fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().context("a directory")?)?;
        std::fs::write(&path, content)?;
        Ok(path)
    }

    /// Objects of user applications.
    pub(crate) fn users(&self) -> Objects {
        self.cluster.objects_in(USERS)
    }

    /// Objects of the core services.
    pub(crate) fn system(&self) -> Objects {
        self.cluster.objects_in(SYSTEM)
    }

    /// The node as the cloud shows it.
    pub(crate) async fn view(&self) -> Result<Value> {
        self.rest.get(&format!("/v1/nodes/{NODE}")).await
    }

    /// Waits until the cloud sees the node.
    pub(crate) async fn until_online(&self) -> Result<()> {
        until_within(PATIENCE, "the node is online", || async {
            let node = self.view().await?;
            ensure!(node["ready"] == 1, "ready is {}", node["ready"]);
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Waits until all core services are ready.
    pub(crate) async fn until_core_is_ready(&self) -> Result<()> {
        for name in CORE {
            self.system().wait_for_deployment(name).await?;
        }
        Ok(())
    }

    /// Kills (-9) the program of a core service, as often as there are containers of it.
    pub(crate) async fn kill_core(&self, name: &str) -> Result<()> {
        let bed = self.cluster.bed().context("only in the test bed")?;
        let selector = format!("app.kubernetes.io/name={name}");
        let pod = self.system().pod_of(&selector).await?;
        bed.kill_container(SYSTEM, &pod, name).await
    }

    /// Calls a function with what curl takes as data; answers status and body.
    pub(crate) async fn invoke(&self, path: &str, data: &str) -> Result<(u16, String)> {
        let (host, address) = self.address_of("baetyl-function").await?;
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "40", "-w", "\n%{http_code}"])
            .arg("--cacert")
            .arg(self.node_authority().await?)
            .args(["--resolve", &format!("{host}:50011:{address}")])
            .args(["--data-binary", data])
            .arg(format!("https://{host}:50011{path}"));
        let printed = run(curl, &format!("POST {path}")).await?;
        let (body, status) = printed.rsplit_once('\n').context("curl tells no status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// Waits until a function answers this.
    pub(crate) async fn until_answered(
        &self,
        path: &str,
        data: &str,
        wanted: &Value,
    ) -> Result<()> {
        until_within(PATIENCE, &format!("{path} answers"), || async {
            let (status, body) = self.invoke(path, data).await?;
            ensure!(status == 200, "{status} {body}");
            let answer: Value = serde_json::from_str(&body)?;
            ensure!(answer == *wanted, "{answer}");
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Calls a function over gRPC; answers its JSON.
    pub(crate) async fn call_over_grpc(
        &self,
        service: &str,
        function: &str,
        payload: &str,
    ) -> Result<Value> {
        let request = json!({
            "service": service,
            "function": function,
            "payload": base64::encode(payload.as_bytes()),
        });
        let method = "baetyl.function.v1.FunctionService/Invoke";
        let answer = self
            .grpcurl("baetyl-function", 50012, method, &request, None)
            .await?;
        let payload = answer["payload"].as_str().context("no payload")?;
        Ok(serde_json::from_slice(&base64::decode(payload)?)?)
    }

    /// Calls a method of a core service with grpcurl, by its reflection, as the holder of a token.
    pub(crate) async fn grpcurl(
        &self,
        service: &str,
        port: u16,
        method: &str,
        request: &Value,
        token: Option<&str>,
    ) -> Result<Value> {
        let (host, address) = self.address_of(service).await?;
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/grpcurl");
        let program = if built.exists() {
            built
        } else {
            "grpcurl".into()
        };
        let mut grpcurl = Command::new(program);
        grpcurl
            .arg("-cacert")
            .arg(self.node_authority().await?)
            .args(["-authority", &host, "-max-time", "40"])
            .args(["-d", &request.to_string()]);
        if let Some(token) = token {
            grpcurl
                .arg("-expand-headers")
                .args(["-H", "authorization: Bearer ${APP_TOKEN}"])
                .env("APP_TOKEN", token);
        }
        grpcurl.arg(format!("{address}:{port}")).arg(method);
        let printed = run(grpcurl, method).await?;
        Ok(serde_json::from_str(&printed)?)
    }

    /// The token of an application.
    pub(crate) async fn app_token(&self, app: &str) -> Result<String> {
        let token = self
            .users()
            .secret(&format!("baetyl-id-{app}"), "token")
            .await?;
        Ok(token.trim().to_owned())
    }

    /// Name of a core service inside the cluster, and the address of its Service.
    async fn address_of(&self, name: &str) -> Result<(String, String)> {
        let service: Value = self.system().get("service", name).await?;
        let address = service["spec"]["clusterIP"].as_str();
        let address = address.context("the Service has no address")?.to_owned();
        Ok((format!("{name}.{SYSTEM}"), address))
    }

    /// File with the authority of the node's own services.
    pub(crate) async fn node_authority(&self) -> Result<PathBuf> {
        let path = self.dir.path().join("node-ca.pem");
        if !path.exists() {
            let pem = self.system().secret("baetyl-tls-init", "ca.crt").await?;
            std::fs::write(&path, pem)?;
        }
        Ok(path)
    }
}

/// What a program prints; fails when it does.
async fn run(mut command: Command, what: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {what}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{what} failed ({}):\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// Waits until the cloud answers.
pub(crate) async fn until_answers(rest: &Rest) -> Result<()> {
    until("the cloud answers", || rest.get("/v1/nodes")).await?;
    Ok(())
}
