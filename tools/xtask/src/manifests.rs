//! Renders `manifests/` with kustomize to `manifests/rendered/`, which is checked in: the programs carry it with them.
//!
//! What is written is kustomize's output in an order of our own, so that the file is the same whichever version of it a
//! machine has.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::root;

mod canonical;

/// Where the rendered manifests are.
const RENDERED: &str = "manifests/rendered";

/// What is rendered besides the overlays: directory below `manifests/` and name of the file.
const OTHERS: &[(&str, &str)] = &[
    ("cloud", "cloud.yaml"),
    ("examples/workshop", "example-workshop.yaml"),
];

/// The kustomize that is built where a machine has none; the one in kubectl 1.34.
const KUSTOMIZE: &str = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1";

/// Renders every overlay, the cloud and the example; with `check` compares with what is there.
///
/// # Errors
/// When there is no kustomize, it refuses an overlay, a file cannot be written, or (`check`) something differs.
pub(crate) fn run(check: bool) -> Result<()> {
    let fresh = render(&Kustomize::find()?)?;
    let out = root().join(RENDERED);
    if check {
        return compare(&out, &fresh);
    }
    fs::create_dir_all(&out)?;
    for old in there(&out)? {
        if !fresh.contains_key(&old) {
            fs::remove_file(out.join(&old)).with_context(|| format!("cannot remove {old}"))?;
        }
    }
    for (name, text) in &fresh {
        fs::write(out.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    println!("rendered {} files in {RENDERED}", fresh.len());
    Ok(())
}

/// Text of every rendered file by its name.
fn render(kustomize: &Kustomize) -> Result<BTreeMap<String, String>> {
    let manifests = root().join("manifests");
    let mut sources: Vec<(String, String)> = OTHERS
        .iter()
        .map(|(dir, file)| ((*dir).to_owned(), (*file).to_owned()))
        .collect();
    for entry in fs::read_dir(manifests.join("overlays"))? {
        let class = entry?.file_name().to_string_lossy().into_owned();
        sources.push((format!("overlays/{class}"), format!("{class}.yaml")));
    }
    let mut files = BTreeMap::new();
    for (dir, file) in sources {
        let built = kustomize.build(&manifests.join(&dir))?;
        let text = canonical::text(&built).with_context(|| format!("manifests/{dir}"))?;
        let head = format!("# Rendered from manifests/{dir} by `cargo xtask manifests`.\n");
        files.insert(file, head + &text);
    }
    Ok(files)
}

fn compare(out: &Path, fresh: &BTreeMap<String, String>) -> Result<()> {
    let mut differing: Vec<String> = fresh
        .iter()
        .filter(|(name, text)| fs::read_to_string(out.join(name)).ok().as_ref() != Some(text))
        .map(|(name, _)| name.clone())
        .collect();
    let left_over = there(out)?
        .into_iter()
        .filter(|name| !fresh.contains_key(name));
    differing.extend(left_over);
    ensure!(
        differing.is_empty(),
        "{RENDERED} is not what the overlays say: {differing:?}; run `cargo xtask manifests` and commit"
    );
    println!("rendered manifests match their sources");
    Ok(())
}

fn there(out: &Path) -> Result<Vec<String>> {
    if !out.exists() {
        return Ok(Vec::new());
    }
    fs::read_dir(out)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// A program that builds kustomizations, and the words before the directory.
struct Kustomize {
    program: PathBuf,
    words: &'static [&'static str],
}

impl Kustomize {
    /// The first that works on this machine; where there is none but Go, one is built into `target/tools`.
    fn find() -> Result<Self> {
        let built = root().join("target/tools/kustomize");
        let mut candidates = vec![
            Self::new("kubectl", &["kustomize"]),
            Self::new("kustomize", &["build"]),
            Self::new(&built, &["build"]),
        ];
        let bed = |program: PathBuf| Self::new(program, &["kubectl", "kustomize"]);
        candidates.extend(kubebeds().into_iter().map(bed));
        if let Some(works) = candidates.into_iter().find(Self::works) {
            return Ok(works);
        }
        let go = Command::new("go").arg("version").output();
        if !go.is_ok_and(|output| output.status.success()) {
            bail!(
                "kustomize is missing, and so is Go to build it: install kubectl (1.27 or later; it has kustomize inside), \
                 kustomize 5, or Go"
            );
        }
        let bin = root().join("target/tools");
        fs::create_dir_all(&bin)?;
        let bin = bin.canonicalize()?;
        let env = [("GOBIN", &*bin.to_string_lossy()), ("CGO_ENABLED", "0")];
        crate::ci::sh("go", &["install", KUSTOMIZE], &env)?;
        Ok(Self::new(&built, &["build"]))
    }

    fn new(program: impl Into<PathBuf>, words: &'static [&'static str]) -> Self {
        Self {
            program: program.into(),
            words,
        }
    }

    fn works(&self) -> bool {
        let output = Command::new(&self.program)
            .args(self.words)
            .arg("--help")
            .output();
        output.is_ok_and(|output| output.status.success())
    }

    fn build(&self, dir: &Path) -> Result<String> {
        let output = Command::new(&self.program)
            .args(self.words)
            .arg(dir)
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        ensure!(
            output.status.success(),
            "{} refuses {}: {}",
            self.program.display(),
            dir.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// The Kubernetes that was built for tests on this machine: its kubectl has kustomize inside.
fn kubebeds() -> Vec<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let Some(entries) = cache.and_then(|dir| fs::read_dir(dir.join("baetyl-kubebed")).ok()) else {
        return Vec::new();
    };
    let programs = entries.flatten().map(|entry| entry.path().join("kbed"));
    programs.filter(|program| program.is_file()).collect()
}
