//! Each kind of volume: what an application finds, and what of it stays.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::node::{IDLE, Node, busybox};

/// Mounts volumes into the only service.
pub(crate) fn with_volumes(mut app: Value, volumes: &[(&str, Value)]) -> Value {
    let mount = |(path, volume): &(&str, Value)| json!({"name": volume["name"], "mountPath": path});
    app["services"][0]["volumeMounts"] = volumes.iter().map(mount).collect();
    app["volumes"] = volumes.iter().map(|(_, volume)| volume.clone()).collect();
    app
}

impl Node {
    pub(crate) async fn sh(&self, app: &str, script: &str) -> Result<String> {
        let target = format!("deploy/{app}");
        let printed = self
            .users()
            .exec(&target, &["/bin/sh", "-c", script])
            .await?;
        Ok(printed.trim().to_owned())
    }

    /// Ends the Pods of an application and waits for others.
    pub(crate) async fn renew(&self, app: &Value) -> Result<()> {
        let name = app["name"].as_str().context("a name")?;
        let selector = format!("baetyl-app-name={name}");
        let args = [
            "-n",
            crate::node::USERS,
            "delete",
            "pods",
            "-l",
            &selector,
            "--wait",
        ];
        self.cluster.kubectl().run(&args).await?;
        self.users().wait_for_deployment(name).await?;
        Ok(())
    }
}

#[tokio::test]
async fn configurations_and_secrets_are_files_and_a_change_of_them_is_a_version() -> Result<()> {
    let node = Node::shared().await?;
    let config = |words| baetyl_tests::apps::config("vol-conf", &[("conf.yml", words)]);
    node.make("configs", &config("a: 1")).await?;
    let secret = json!({"name": "vol-key", "data": {"key": "s3cr3t"}});
    node.make("secrets", &secret).await?;
    let app = with_volumes(
        busybox(&node, "files", IDLE),
        &[
            (
                "/etc/conf",
                json!({"name": "conf", "config": {"name": "vol-conf"}}),
            ),
            (
                "/etc/key",
                json!({"name": "key", "secret": {"name": "vol-key"}}),
            ),
        ],
    );
    node.run(&app).await?;
    ensure!(node.sh("files", "cat /etc/conf/conf.yml").await? == "a: 1");
    ensure!(node.sh("files", "cat /etc/key/key").await? == "s3cr3t");
    node.rest
        .put("/v1/configs/vol-conf", &config("a: 2"))
        .await?;
    let now = node.rest.get("/v1/apps/files").await?;
    node.until_running(&now).await?;
    ensure!(node.sh("files", "cat /etc/conf/conf.yml").await? == "a: 2");
    // What the version before was made of goes when nobody needs it.
    node.delete("files").await
}

#[tokio::test]
async fn directories_of_the_machine_and_claims_keep_what_is_written() -> Result<()> {
    let node = Node::shared().await?;
    let claim = match node.cluster.bed_if_any() {
        Some(_) => volume_of_the_bed(),
        None => String::new(),
    };
    node.users().apply(&format!("{claim}{CLAIM}")).await?;
    let app = with_volumes(
        busybox(&node, "keeper", IDLE),
        &[
            (
                "/host",
                json!({"name": "host", "hostPath": {"path": "e2e/keeper", "type": "DirectoryOrCreate"}}),
            ),
            (
                "/claim",
                json!({"name": "claim", "persistentVolumeClaim": {"claimName": "e2e-claim"}}),
            ),
            ("/empty", json!({"name": "empty", "emptyDir": {}})),
        ],
    );
    let app = node.run(&app).await?;
    node.sh(
        "keeper",
        "for d in host claim empty; do echo kept >/$d/file; done",
    )
    .await?;
    node.renew(&app).await?;
    for (dir, wanted) in [("host", "kept"), ("claim", "kept"), ("empty", "")] {
        let script = format!("cat /{dir}/file 2>/dev/null || true");
        ensure!(node.sh("keeper", &script).await? == wanted, "{dir}");
    }
    if let Some(bed) = node.cluster.bed_if_any() {
        let there = bed.path("lib/host/e2e/keeper/file");
        ensure!(
            there.exists(),
            "relative paths lie below /var/lib/baetyl/host"
        );
    }
    node.delete("keeper").await?;
    node.users().delete("pvc", "e2e-claim").await?;
    node.cluster.objects().delete("pv", "e2e-volume").await
}

const CLAIM: &str = "
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: e2e-claim}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
";

/// The bed has no provisioner.
fn volume_of_the_bed() -> String {
    "
apiVersion: v1
kind: PersistentVolume
metadata: {name: e2e-volume}
spec:
  capacity: {storage: 10Mi}
  accessModes: [ReadWriteOnce]
  claimRef: {namespace: baetyl-edge, name: e2e-claim}
  hostPath: {path: /var/lib/baetyl/e2e-claim, type: DirectoryOrCreate}
"
    .to_owned()
}

/// An archive with one file, as `tar` makes it.
fn archive(node: &Node, words: &str) -> Result<Vec<u8>> {
    let file = node.file("words.txt", words)?;
    let dir = file.parent().context("a directory")?;
    let output = std::process::Command::new("tar")
        .args(["-C", &dir.display().to_string(), "-cf", "-", "words.txt"])
        .output()?;
    ensure!(output.status.success(), "tar: {}", output.status);
    Ok(output.stdout)
}

/// Stores an object in the cloud.
pub(crate) async fn upload(node: &Node, name: &str, bytes: Vec<u8>) -> Result<()> {
    let path = format!("/v1/objects/{name}");
    let kind = [("content-type", "application/octet-stream")];
    let sent = node
        .rest
        .send(http::Method::PUT, &path, &kind, bytes.into());
    sent.await?.ok()?;
    Ok(())
}

/// An entry of a configuration that is an object of the cloud.
pub(crate) fn object(object: &str, unpack: &str) -> Value {
    json!({"type": "object", "source": "baetyl", "object": object, "unpack": unpack})
}

#[tokio::test]
async fn large_files_reach_pods_as_directories_of_the_machine() -> Result<()> {
    let node = Node::shared().await?;
    upload(&node, "e2e-words.tar", archive(&node, "from an archive\n")?).await?;
    upload(&node, "e2e-model", vec![7; 3 << 20]).await?;
    let config = json!({"name": "vol-model", "data": [
        {"key": "words.tar", "value": object("e2e-words.tar", "tar")},
        {"key": "model.bin", "value": object("e2e-model", "")},
        {"key": "plain.txt", "value": {"type": "kv", "value": "plain"}},
    ]});
    node.make("configs", &config).await?;
    let mut app = with_volumes(
        busybox(&node, "model", IDLE),
        &[(
            "/model",
            json!({"name": "model", "config": {"name": "vol-model"}}),
        )],
    );
    app["labels"]["baetyl-progress-deadline"] = json!("90s");
    let app = node.run(&app).await?;
    let script = "cat /model/words.txt /model/plain.txt; wc -c </model/model.bin";
    let found = node.sh("model", script).await?;
    let words: Vec<&str> = found.split_whitespace().collect();
    ensure!(
        words == ["from", "an", "archive", "plain3145728"],
        "{found}"
    );
    // What is there needs nobody.
    let system = node.system();
    system.scale("deployment", "baetyl-sync", 0).await?;
    let renewed = node.renew(&app).await;
    system.scale("deployment", "baetyl-sync", 1).await?;
    renewed?;
    node.until_core_is_ready().await?;
    node.delete("model").await
}
