//! The test bed of `tools/kubebed`: built once, brought up for one run, taken down whatever happens.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use super::interrupt::Interrupts;
use crate::{root, target_dir};

/// Where beds are made: Unix sockets lie in them, and their paths are short.
const PARENT: &str = "/tmp";
const PREFIX: &str = "kubebed-";

/// Held locked by the program that made the bed, for as long as it lives.
const OWNER: &str = "owner";

fn script(name: &str) -> PathBuf {
    root().join("tools/kubebed").join(name)
}

/// Directory of the bed's programs, when those of the sources as they are were built before.
///
/// # Errors
/// When the script cannot be run.
pub(super) fn programs_of_these_sources() -> Result<Option<PathBuf>> {
    let output = Command::new(script("build.sh")).arg("--built").output()?;
    Ok(directory(&output.stdout).filter(|_| output.status.success()))
}

/// Builds the bed's programs into the user's cache; answers the directory.
///
/// # Errors
/// When they do not build.
pub(super) fn build() -> Result<PathBuf> {
    let output = Command::new(script("build.sh"))
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(
        output.status.success(),
        "tools/kubebed/build.sh failed: {}",
        output.status
    );
    directory(&output.stdout).context("tools/kubebed/build.sh does not say what it has built")
}

fn directory(printed: &[u8]) -> Option<PathBuf> {
    let path = std::str::from_utf8(printed).ok()?.trim();
    (!path.is_empty()).then(|| path.into())
}

/// Takes down beds whose makers were killed before they could.
pub(super) fn take_down_stale() {
    let Ok(entries) = fs::read_dir(PARENT) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let is_bed = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if !is_bed {
            continue;
        }
        let Ok(owner) = File::open(path.join(OWNER)) else {
            continue;
        };
        if flock(&owner, FlockOperation::NonBlockingLockExclusive).is_ok() {
            println!(
                "taking down {}, left by a run that was killed",
                path.display()
            );
            down(&path);
        }
    }
}

/// A bed, up or half up; dropping it takes it down.
pub(super) struct Bed {
    dir: PathBuf,
    kept: bool,
    /// Its lock says that we live.
    _owner: File,
}

impl Bed {
    /// An empty directory for one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(PARENT)?
            .keep();
        let owner = File::create(dir.join(OWNER))?;
        flock(&owner, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self {
            dir,
            kept: false,
            _owner: owner,
        })
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Brings it up, with metrics unless the environment says `METRICS=`.
    ///
    /// # Errors
    /// When it does not come up; it says why.
    pub(super) fn up(&self, interrupts: &Interrupts, programs: &Path) -> Result<()> {
        let mut up = Command::new(script("up.sh"));
        up.env("BED", &self.dir).env("KBED", programs);
        if std::env::var_os("METRICS").is_none() {
            up.env("METRICS", "1");
        }
        let status = interrupts.run(&mut up)?;
        if !status.success() {
            bail!("the test bed did not come up ({status})");
        }
        Ok(())
    }

    /// Sends an image to the bed's registry, as `baetyl/<name>` with the version of the workspace.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub(super) fn push(&self, layout: &Path, name: &str) -> Result<()> {
        let image = format!("baetyl/{name}:{}", env!("CARGO_PKG_VERSION"));
        let status = Command::new(self.dir.join("push"))
            .arg(layout)
            .arg(&image)
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "{image} was not pushed: {status}");
        Ok(())
    }

    /// A program that runs in the bed's network and knows the bed.
    ///
    /// # Errors
    /// When the bed is not up.
    pub(super) fn command(&self, program: &Path) -> Result<Command> {
        let read = |name: &str| {
            fs::read_to_string(self.dir.join(name))
                .with_context(|| format!("the bed has no {name}"))
        };
        // It ends with us even when we are killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", "--", "nsenter"])
            .args(["-t", read("init.pid")?.trim(), "--net", "--"])
            .arg(program)
            .env("BAETYL_E2E_BED", &self.dir)
            .env(
                "BAETYL_E2E_REGISTRY",
                format!("{}:5000", read("api-ip")?.trim()),
            )
            .env("KUBECONFIG", self.dir.join("pki/admin.kubeconfig"))
            .env_remove("BAETYL_E2E_CONTEXT");
        Ok(command)
    }

    /// Copies logs and what the cluster says about itself to where they outlive the bed.
    ///
    /// # Errors
    /// When that directory cannot be made anew.
    pub(super) fn collect(&self) -> Result<PathBuf> {
        let out = target_dir()?.join("e2e-kube");
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        let status = Command::new(script("collect.sh"))
            .arg(&out)
            .env("BED", &self.dir)
            .status()?;
        ensure!(
            status.success(),
            "tools/kubebed/collect.sh failed: {status}"
        );
        Ok(out)
    }

    /// Leaves it standing.
    pub(super) fn keep(&mut self) {
        self.kept = true;
        // Nobody's from now on: the next run does not take it for one that was left behind.
        let _ = fs::remove_file(self.dir.join(OWNER));
        let dir = self.dir.display();
        println!("the bed stays: {dir}/kubectl, {dir}/in, {dir}/push");
        println!("take it down with: BED={dir} tools/kubebed/down.sh");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !self.kept {
            down(&self.dir);
        }
    }
}

/// In a process group of its own: a second Ctrl-C does not stop it half-way.
fn down(bed: &Path) {
    let status = Command::new(script("down.sh"))
        .env("BED", bed)
        .env_remove("KEEP")
        .process_group(0)
        .status();
    if !matches!(status, Ok(status) if status.success()) {
        println!("could not take down {}: {status:?}", bed.display());
    }
}
