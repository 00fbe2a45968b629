//! The cloud of this machine's image, to which nodes of every architecture are activated.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::super::catalog::by_name;
use super::super::layer::Tree;
use super::process::{Process, ask};

const NAME: &str = "baetyl-cloud";

/// A running cloud.
#[derive(Debug)]
pub(super) struct Cloud {
    process: Process,
    data: PathBuf,
    /// Of the REST interface.
    address: String,
}

impl Cloud {
    /// Starts the program of an image below `dir` and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) async fn start(tree: &Tree, dir: &Path) -> Result<Self> {
        let (root, data) = (dir.join("image"), dir.join("data"));
        tree.write_to(&root)?;
        fs::create_dir_all(&data)?;
        let image = by_name(NAME).context("no such image")?;
        let entrypoint = image.entrypoint().context("no entry point")?;
        let mut command = Command::new(root.join(entrypoint.trim_start_matches('/')));
        command
            .args(image.command)
            .env("BAETYL_DATA_DIR", &data)
            .env("BAETYL_CLOUD__PUBLIC__HOST", "127.0.0.1");
        // Nodes are told of these two and the check asks the first: they have to be known.
        let mut addresses = Vec::new();
        for listener in ["ADMIN", "ACTIVATION", "LINK"] {
            let address = free()?;
            command.env(format!("BAETYL_CLOUD__{listener}__LISTEN"), &address);
            addresses.push(address);
        }
        let mut process = Process::spawn(NAME, &mut command, &dir.join("log"))?;
        process
            .ready(&data)
            .await
            .with_context(|| format!("{NAME} does not start"))?;
        Ok(Self {
            process,
            data,
            address: addresses.swap_remove(0),
        })
    }

    /// Describes a node and gives the command that makes a machine this node.
    ///
    /// # Errors
    /// When the cloud refuses.
    pub(super) async fn install_command(&self, node: &str) -> Result<String> {
        let body = json!({"name": node, "nodeMode": "native"}).to_string();
        self.rest("POST /v1/nodes", &body).await?;
        let what = format!("GET /v1/nodes/{node}/init?mode=native");
        let answer = self.rest(&what, "").await?;
        let command = answer.get("cmd").and_then(Value::as_str);
        Ok(command.context("no install command")?.to_owned())
    }

    async fn rest(&self, what: &str, body: &str) -> Result<Value> {
        let token = fs::read_to_string(self.data.join("admin.token")).context("no admin token")?;
        let token = token.trim();
        let headers =
            format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
        let (status, answer) = ask(&self.address, what, &headers, body).await?;
        ensure!((200..300).contains(&status), "{what}: {status}: {answer}");
        serde_json::from_str(&answer).with_context(|| format!("{what}: {answer}"))
    }

    /// Ends it with SIGTERM.
    ///
    /// # Errors
    /// When it does not end with 0.
    pub(super) async fn end(self) -> Result<()> {
        let ended = self.process.end().await;
        ended.with_context(|| format!("{NAME} does not end"))
    }
}

/// An address nobody listens on.
fn free() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    Ok(listener.local_addr()?.to_string())
}
