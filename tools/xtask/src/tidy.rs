//! Rules of the house that no compiler checks: crate directions, orphan files, cited paths, licences, lengths.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};

use crate::root;

/// Lines after which a source file is refused. People aim at 500.
const MAX_LINES: usize = 700;

/// Licences that dependencies may have (each alternative of an `OR` is enough).
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Zlib",
    "Unlicense",
    "0BSD",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "MIT-0",
    "BSL-1.0",
];

/// Checks everything and reports all faults at once.
///
/// # Errors
/// When a rule is broken; the message lists each place.
pub(crate) fn run() -> Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .exec()?;
    let mut faults = Vec::new();
    directions(&metadata, &mut faults);
    licences(&metadata, &mut faults);
    reachable(&metadata, &mut faults)?;
    let files = tracked()?;
    lengths(&files, &mut faults);
    cited_paths(&files, &mut faults);
    foreign_hosts(&files, &mut faults);
    if faults.is_empty() {
        println!("tidy: {} files, no fault", files.len());
        return Ok(());
    }
    for fault in &faults {
        println!("tidy: {fault}");
    }
    bail!("{} faults of tidiness", faults.len())
}

/// What a workspace crate may depend on, by the folder it lives in.
fn allowed(folder: &str) -> Option<&'static [&'static str]> {
    const SERVICE: &[&str] = &["services/lib/", "proto"];
    Some(match folder {
        "services/lib/model" => &[],
        "services/lib/kit" => &[],
        "services/lib/manifests" => &[],
        "services/lib/ledger" => &["services/lib/kit"],
        "services/lib/archive" => &["services/lib/model"],
        "proto" => &["services/lib/model"],
        "services/lib/runtime-native" | "services/lib/runtime-kube" => &["services/lib/model"],
        "services/runtimes/host" => SERVICE,
        f if f.starts_with("services/runtimes/") => {
            &["services/lib/", "proto", "services/runtimes/host"]
        }
        "services/lib/testkit" => &["services/lib/", "proto"],
        "services/edge" | "tests" => &[""],
        "tools/bench" => &["tests"],
        f if f.starts_with("tools/") => &["services/lib/", "proto"],
        f if f.starts_with("services/") => SERVICE,
        _ => return None,
    })
}

fn directions(metadata: &Metadata, faults: &mut Vec<String>) {
    let base = metadata.workspace_root.as_std_path();
    let mut folders = BTreeMap::new();
    for package in metadata.workspace_packages() {
        let dir = package.manifest_path.as_std_path().parent().unwrap_or(base);
        folders.insert(
            package.name.to_string(),
            dir.strip_prefix(base).unwrap_or(dir).display().to_string(),
        );
    }
    for package in metadata.workspace_packages() {
        let Some(folder) = folders.get(package.name.as_str()) else {
            continue;
        };
        let Some(allowed) = allowed(folder) else {
            faults.push(format!(
                "{folder}: no direction is written down for this folder (tools/xtask/src/tidy.rs)"
            ));
            continue;
        };
        for dependency in &package.dependencies {
            if dependency.kind == cargo_metadata::DependencyKind::Development {
                continue;
            }
            let Some(target) = folders.get(&dependency.name) else {
                continue;
            };
            if !allowed.iter().any(|prefix| target.starts_with(prefix)) {
                faults.push(format!("{folder} may not depend on {target}"));
            }
        }
    }
}

fn licences(metadata: &Metadata, faults: &mut Vec<String>) {
    for package in &metadata.packages {
        let Some(licence) = &package.license else {
            if package.source.is_some() {
                faults.push(format!(
                    "{} {} names no licence",
                    package.name, package.version
                ));
            }
            continue;
        };
        let terms = licence.replace('/', " OR ").replace(['(', ')'], "");
        let fine = terms
            .split(" AND ")
            .all(|all| all.split(" OR ").any(|one| LICENCES.contains(&one.trim())));
        if !fine
            && !terms
                .split(" OR ")
                .any(|one| LICENCES.contains(&one.trim()))
        {
            faults.push(format!(
                "{} {}: licence {licence} is not in the list",
                package.name, package.version
            ));
        }
    }
}

/// Every `.rs` file must be reached by `mod` from a target: an orphan is never compiled and rots.
fn reachable(metadata: &Metadata, faults: &mut Vec<String>) -> Result<()> {
    let mut reached = BTreeSet::new();
    let mut folders = Vec::new();
    for package in metadata.workspace_packages() {
        for target in &package.targets {
            follow(target.src_path.as_std_path(), true, &mut reached);
        }
        if let Some(dir) = package.manifest_path.as_std_path().parent() {
            folders.push(dir.to_path_buf());
        }
    }
    for folder in folders {
        let mut all = Vec::new();
        rust_files(&folder, &mut all)?;
        for file in all {
            let file = file.canonicalize()?;
            if !reached.contains(&file) && !file.components().any(|c| c.as_os_str() == "generated")
            {
                faults.push(format!("{} is reached by no `mod`", short(&file)));
            }
        }
    }
    Ok(())
}

fn follow(file: &Path, is_root: bool, reached: &mut BTreeSet<PathBuf>) {
    let Ok(file) = file.canonicalize() else {
        return;
    };
    if !reached.insert(file.clone()) {
        return;
    }
    let Ok(text) = fs::read_to_string(&file) else {
        return;
    };
    let stem = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let parent = file.parent().unwrap_or(Path::new("")).to_path_buf();
    let dir = if is_root || stem == "mod" {
        parent.clone()
    } else {
        parent.join(&stem)
    };
    let mut explicit = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            explicit = rest.split('"').next().map(ToOwned::to_owned);
            continue;
        }
        let Some(name) = module_name(line) else {
            continue;
        };
        if let Some(path) = explicit.take() {
            follow(&parent.join(path), true, reached);
            continue;
        }
        follow(&dir.join(format!("{name}.rs")), false, reached);
        follow(&dir.join(name).join("mod.rs"), false, reached);
    }
}

fn module_name(line: &str) -> Option<&str> {
    let line = line.strip_suffix(';')?;
    let line = match line.strip_prefix("pub") {
        Some(rest) => match rest.trim_start().strip_prefix('(') {
            Some(inner) => inner.split_once(')')?.1.trim_start(),
            None => rest.trim_start(),
        },
        None => line,
    };
    let name = line.strip_prefix("mod ")?.trim();
    name.chars()
        .all(|c| c.is_alphanumeric() || c == '_')
        .then_some(name)
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            let nested = path.join("Cargo.toml").exists();
            if !nested && name != "target" && !name.starts_with('.') {
                rust_files(&path, files)?;
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn tracked() -> Result<Vec<PathBuf>> {
    let output = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("cannot run git")?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .lines()
        .map(|line| root().join(line))
        .filter(|path| path.is_file())
        .collect())
}

fn lengths(files: &[PathBuf], faults: &mut Vec<String>) {
    for file in files {
        if file.extension().is_none_or(|e| e != "rs")
            || file.components().any(|c| c.as_os_str() == "generated")
        {
            continue;
        }
        let lines = fs::read_to_string(file).map_or(0, |text| text.lines().count());
        if lines > MAX_LINES {
            faults.push(format!(
                "{} has {lines} lines; split it (aim at 500)",
                short(file)
            ));
        }
    }
}

/// A path in backticks or a link that begins with a top-level folder must exist.
fn cited_paths(files: &[PathBuf], faults: &mut Vec<String>) {
    const TOP: &[&str] = &[
        "proto/",
        "services/",
        "manifests/",
        "tools/",
        "tests/",
        "docs/",
    ];
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "md"))
    {
        let Ok(text) = fs::read_to_string(file) else {
            continue;
        };
        let words = text.split(|c: char| c.is_whitespace() || "`()[],;\"'".contains(c));
        for word in words.filter(|word| TOP.iter().any(|top| word.starts_with(top))) {
            let word = word.trim_end_matches(['.', ':']);
            let path = word.split(['#', ':']).next().unwrap_or(word);
            if path.contains(['<', '*', '{', '$', '…']) {
                continue;
            }
            let beside = file.parent().map(|dir| dir.join(path));
            if !root().join(path).exists() && !beside.is_some_and(|path| path.exists()) {
                faults.push(format!(
                    "{} cites {path}, which does not exist",
                    short(file)
                ));
            }
        }
    }
}

/// Lock files and configuration name the public registries only.
fn foreign_hosts(files: &[PathBuf], faults: &mut Vec<String>) {
    const WORDS: &[&str] = &["artifactory", "nexus.", "jfrog"];
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if !(name.ends_with(".lock")
            || name.ends_with(".toml")
            || name.ends_with(".json")
            || name == "run")
        {
            continue;
        }
        let Ok(text) = fs::read_to_string(file) else {
            continue;
        };
        for word in WORDS.iter().filter(|word| text.contains(**word)) {
            if !file.ends_with("tidy.rs") {
                faults.push(format!("{} names a package mirror ({word})", short(file)));
            }
        }
    }
}

fn short(path: &Path) -> String {
    let base = root().canonicalize().unwrap_or_else(|_| root());
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    path.strip_prefix(base)
        .unwrap_or(&path)
        .display()
        .to_string()
}
