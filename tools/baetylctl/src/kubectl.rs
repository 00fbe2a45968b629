//! The cluster, through `kubectl` or `k3s kubectl`: this program knows no Kubernetes itself, and who may do what is said by the
//! kubeconfig as always.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// A program that speaks to a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Kubectl {
    program: PathBuf,
    /// `k3s kubectl`.
    is_k3s: bool,
    context: Option<String>,
}

impl Kubectl {
    /// The first program that reaches the cluster.
    ///
    /// # Errors
    /// When there is none, or none reaches it.
    pub(crate) fn find(context: Option<&str>) -> Result<Self> {
        let mut tried = String::new();
        for program in ["kubectl", "k3s"] {
            let kubectl = Self {
                program: program.into(),
                is_k3s: program == "k3s",
                context: context.map(ToOwned::to_owned),
            };
            match kubectl.run(&["get", "--raw", "/version"], None) {
                Ok(output) if output.status.success() => return Ok(kubectl),
                Ok(output) => tried.push_str(&format!("\n{program}: {}", words(&output.stderr))),
                Err(error) if is_missing(&error) => {}
                Err(error) => tried.push_str(&format!("\n{program}: {error:#}")),
            }
        }
        if tried.is_empty() {
            bail!("neither kubectl nor k3s is installed here");
        }
        bail!("the cluster does not answer; is KUBECONFIG set?{tried}")
    }

    /// A program at a path.
    #[cfg(test)]
    pub(crate) const fn at(program: PathBuf) -> Self {
        Self {
            program,
            is_k3s: false,
            context: None,
        }
    }

    fn run(&self, args: &[&str], input: Option<&str>) -> Result<Output> {
        let mut command = Command::new(&self.program);
        if self.is_k3s {
            command.arg("kubectl");
        }
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command
            .args(args)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // A program that ends before it read everything says why itself.
            let _ = stdin.write_all(input.as_bytes());
        }
        Ok(child.wait_with_output()?)
    }

    /// What it prints.
    ///
    /// # Errors
    /// In its own words.
    pub(crate) fn get(&self, args: &[&str]) -> Result<String> {
        self.checked(args, None)
    }

    /// As [`Self::get`], with something to read.
    ///
    /// # Errors
    /// In its own words.
    pub(crate) fn checked(&self, args: &[&str], input: Option<&str>) -> Result<String> {
        let doing = || format!("kubectl {}", args.first().copied().unwrap_or_default());
        let output = self.run(args, input).with_context(doing)?;
        if !output.status.success() {
            bail!("{}: {}", doing(), words(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The lines it prints, without empty ones.
    ///
    /// # Errors
    /// In its own words.
    pub(crate) fn lines(&self, args: &[&str]) -> Result<Vec<String>> {
        let text = self.get(args)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.map(ToOwned::to_owned).collect())
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn words(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).trim().to_owned()
}
