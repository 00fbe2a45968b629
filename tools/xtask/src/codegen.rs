//! Turns `proto/**/*.proto` into checked-in Rust code and descriptors. No `protoc` needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use prost::Message as _;
use protox::Compiler;

use crate::root;

/// Generates into `proto/src/generated`, or with `check` compares what is there with what would be generated.
///
/// # Errors
/// When a contract does not compile, a file cannot be written, or (`check`) something differs.
pub(crate) fn run(check: bool) -> Result<()> {
    let out = root().join("proto/src/generated");
    let fresh = generate()?;
    if check {
        return compare(&out, &fresh);
    }
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::create_dir_all(&out)?;
    for (name, content) in &fresh {
        fs::write(out.join(name), content).with_context(|| format!("cannot write {name}"))?;
    }
    println!("generated {} files in proto/src/generated", fresh.len());
    Ok(())
}

/// The compiled contracts with their comments.
///
/// # Errors
/// When a contract does not compile.
pub(crate) fn descriptors() -> Result<prost_types::FileDescriptorSet> {
    let proto = root().join("proto");
    let mut files = Vec::new();
    collect(&proto, &mut files)?;
    files.sort();
    let mut compiler = Compiler::new([&proto])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&files)?;
    Ok(compiler.file_descriptor_set())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

fn generate() -> Result<BTreeMap<String, Vec<u8>>> {
    let set = descriptors()?;
    let dir = std::env::temp_dir().join(format!("baetyl-codegen-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let mut config = tonic_prost_build::Config::new();
    config.btree_map(["."]).bytes(["."]);
    // Holds a private key, which must not get into a log by `{:?}`; `proto/src/mirror.rs` shows the rest.
    config.skip_debug(["baetyl.sync.v1.InstallIdentityRequest"]);
    tonic_prost_build::configure()
        .out_dir(&dir)
        .build_transport(false)
        .compile_fds_with_config(set.clone(), config)?;
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("baetyl.") || name == "faas.rs" {
            files.insert(name, fs::read(&path)?);
        }
    }
    fs::remove_dir_all(&dir)?;
    let mut slim = set;
    for file in &mut slim.file {
        file.source_code_info = None;
    }
    files.insert("descriptors.bin".to_owned(), slim.encode_to_vec());
    Ok(files)
}

fn compare(out: &Path, fresh: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let mut differing = Vec::new();
    for (name, content) in fresh {
        if fs::read(out.join(name)).ok().as_deref() != Some(content) {
            differing.push(name.clone());
        }
    }
    for entry in fs::read_dir(out)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !fresh.contains_key(&name) {
            differing.push(name);
        }
    }
    if !differing.is_empty() {
        bail!(
            "proto/src/generated is not what the contracts say: {differing:?}; run `cargo xtask codegen` and commit"
        );
    }
    println!("generated code matches the contracts");
    Ok(())
}
