//! A program that runs for a check: what its admin port and its log say, and its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long anything may take: emulation is slow and machines are busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// A running program; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with its output in `log`.
    pub(super) fn spawn(name: &'static str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {}", super::run::told(command)))?;
        Ok(Self {
            name,
            child,
            log: log.to_path_buf(),
        })
    }

    pub(super) fn name(&self) -> &str {
        self.name
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `look` gives something.
    async fn until<T>(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut(&Self) -> Result<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            let error = match look(self).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}:\n{}", self.text());
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "{what}: not within {PATIENCE:?}: {error:#}\n{}",
                    self.text()
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until `/readyz` says that it is ready.
    pub(super) async fn ready(&mut self, data: &Path) -> Result<()> {
        let file = self.admin(data);
        self.until("ready", async |_: &Self| {
            let (status, body) = get(&file, "/readyz").await?;
            ensure!(status == 200, "/readyz answers {status}: {body}");
            Ok(())
        })
        .await
    }

    /// Waits until it is live and waits for one thing alone.
    pub(super) async fn waits_for(&mut self, data: &Path, latch: &str, reason: &str) -> Result<()> {
        let file = self.admin(data);
        self.until("live", async |_: &Self| {
            let (status, _) = get(&file, "/livez").await?;
            ensure!(status == 200, "/livez answers {status}");
            let (status, body) = get(&file, "/readyz").await?;
            ensure!(status == 503, "/readyz answers {status}: {body}");
            let body: Value = serde_json::from_str(&body)?;
            let latches = body
                .get("latches")
                .and_then(Value::as_object)
                .context("no latches")?;
            let closed: Vec<_> = latches
                .iter()
                .filter(|(_, latch)| latch.get("ready") != Some(&Value::Bool(true)))
                .map(|(name, latch)| (name.as_str(), latch.get("reason").and_then(Value::as_str)))
                .collect();
            ensure!(closed == [(latch, Some(reason))], "it waits for {closed:?}");
            Ok(())
        })
        .await
    }

    /// Waits until its log has `line`.
    pub(super) async fn says(&mut self, line: &str) -> Result<()> {
        self.until(line, async |this: &Self| {
            ensure!(this.text().contains(line), "its log does not say so");
            Ok(())
        })
        .await
    }

    /// Waits until it ended by itself, with 0.
    pub(super) async fn ends(mut self) -> Result<()> {
        let start = Instant::now();
        self.ended(start).await
    }

    /// Ends it with SIGTERM.
    pub(super) async fn end(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("no process id")?;
        let start = Instant::now();
        kill_process(pid, Signal::TERM)?;
        self.ended(start).await
    }

    async fn ended(&mut self, start: Instant) -> Result<()> {
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(start.elapsed() < PATIENCE, "it runs on:\n{}", self.text());
            tokio::time::sleep(PAUSE).await;
        };
        ensure!(status.success(), "it ended with {status}:\n{}", self.text());
        Ok(())
    }

    /// Where a service tells the address of its admin port.
    fn admin(&self, data: &Path) -> PathBuf {
        let service = self.name.trim_start_matches("baetyl-");
        data.join(format!("run/{service}-admin.addr"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request to the address in `file`: status and body.
async fn get(file: &Path, path: &str) -> Result<(u16, String)> {
    let address = fs::read_to_string(file).context("no admin port yet")?;
    ask(address.trim(), &format!("GET {path}"), "", "").await
}

/// One request over plain HTTP: status and body. `headers` end in line breaks.
pub(super) async fn ask(
    address: &str,
    what: &str,
    headers: &str,
    body: &str,
) -> Result<(u16, String)> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let length = body.len();
        let request = format!(
            "{what} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), ask).await??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((status.context("no status")?, body.to_owned()))
}
