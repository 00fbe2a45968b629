//! A registry on this machine, for as long as a check takes: Debian's `docker-registry` on a free loopback port.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::run;

/// The program, and the package of Debian it is in.
pub(crate) const PROGRAM: &str = "docker-registry";
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running registry; ends when dropped.
#[derive(Debug)]
pub(crate) struct Served {
    child: Child,
    /// `127.0.0.1:port`.
    pub(crate) address: String,
}

impl Served {
    /// Starts it with its files below `dir`. `http` adds lines to the section `http`, `more` whole sections.
    ///
    /// # Errors
    /// When it is not installed or does not listen.
    pub(crate) async fn start(dir: &Path, http: &str, more: &str) -> Result<Self> {
        if !run::has(PROGRAM) {
            bail!("{PROGRAM} is not installed (Debian package of this name)");
        }
        let config = dir.join("registry.yml");
        let data = dir.join("registry");
        fs::write(
            &config,
            format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {data:?}}}}}\n\
                 http:\n  addr: \"127.0.0.1:0\"\n{http}log: {{accesslog: {{disabled: true}}}}\n{more}"
            ),
        )?;
        let log = dir.join("registry.log");
        let out = File::create(&log)?;
        let child = Command::new(PROGRAM)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {PROGRAM}"))?;
        let mut served = Self {
            child,
            address: String::new(),
        };
        served.address = served.listening(&log).await?;
        Ok(served)
    }

    /// The address it says it listens on.
    async fn listening(&mut self, log: &PathBuf) -> Result<String> {
        let start = Instant::now();
        loop {
            let text = fs::read_to_string(log)?;
            if let Some((_, rest)) = text.split_once("listening on ") {
                let address = rest.split(['"', ',', ' ']).next().unwrap_or_default();
                return Ok(address.to_owned());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{PROGRAM} ended with {status}:\n{text}");
            }
            if start.elapsed() > PATIENCE {
                bail!("{PROGRAM} does not listen:\n{text}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
