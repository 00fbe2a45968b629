//! How a program of an image is run where it lies, emulated when it is foreign.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::super::arch::Arch;
use super::super::catalog::{BIN, Image};
use super::super::python;

/// The words that run the program of an image where it lies.
///
/// # Errors
/// When its path cannot be written down.
pub(super) fn command_line(arch: Arch, image: &Image, root: &Path) -> Result<Vec<String>> {
    let entrypoint = image.entrypoint().context("no entry point")?;
    let program = root.join(entrypoint.trim_start_matches('/'));
    let program = program.to_str().context("a path is not named in UTF-8")?;
    let emulator = super::is_foreign(arch).then(|| arch.emulator().to_owned());
    Ok(emulator.into_iter().chain([program.to_owned()]).collect())
}

/// A script that runs the Python of an image where it lies: a program that is emulated cannot start another one of its
/// kind itself.
pub(super) fn interpreter(arch: Arch, root: &Path) -> Result<PathBuf> {
    let python = python::python(arch, root, super::is_foreign(arch));
    let text = |text: &std::ffi::OsStr| text.to_str().map(str::to_owned);
    let words = [python.get_program()].into_iter().chain(python.get_args());
    let words: Option<Vec<String>> = words.map(text).collect();
    let mut env = vec![(
        "SSL_CERT_FILE".to_owned(),
        root.join(python::AUTHORITIES).display().to_string(),
    )];
    for (name, value) in python.get_envs() {
        if let Some(value) = value {
            env.push((name.display().to_string(), value.display().to_string()));
        }
    }
    let path = root.join(BIN).join("python3-here");
    script(&path, &env, &words.context("a path is not named in UTF-8")?)?;
    Ok(path)
}

/// Writes a script that sets variables and runs these words, with its own arguments behind them.
pub(super) fn script(path: &Path, env: &[(String, String)], words: &[String]) -> Result<()> {
    let texts = env.iter().map(|(_, value)| value).chain(words);
    for text in texts {
        ensure!(!text.contains('\''), "{text} has a quote in its name");
    }
    let mut script = String::from("#!/bin/sh\n");
    for (name, value) in env {
        script += &format!("export {name}='{value}'\n");
    }
    script += "exec";
    for word in words {
        script += &format!(" '{word}'");
    }
    script += " \"$@\"\n";
    fs::write(path, script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
