//! Other programs: whether they are there, and running them. What they say goes to standard error, so that standard
//! output holds the result alone.

use std::io;
use std::os::fd::AsFd as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// A command in the root of the workspace, without what cargo told this program about itself.
pub(crate) fn command(program: &str) -> Command {
    let mut command = crate::ci::command(program);
    command.current_dir(crate::root());
    command
}

/// Whether a program is in `PATH`.
pub(crate) fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join(program).is_file())
}

/// How a command is told to people.
pub(crate) fn told(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()));
    words.join(" ")
}

/// Runs a command that talks to people while it works.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn loud(command: &mut Command) -> Result<()> {
    let told = told(command);
    eprintln!("$ {told}");
    let out = io::stderr().as_fd().try_clone_to_owned()?;
    let status = command
        .stdin(Stdio::null())
        .stdout(out)
        .status()
        .with_context(|| format!("cannot start `{told}`"))?;
    if !status.success() {
        bail!("`{told}` failed: {status}");
    }
    Ok(())
}

/// Runs a command and gives what it wrote to standard output.
///
/// # Errors
/// When it cannot be started or fails; the message has what it complained.
pub(crate) fn quiet(command: &mut Command) -> Result<Vec<u8>> {
    let told = told(command);
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{told}`"))?;
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        bail!("`{told}` failed: {status}\n{}", stderr.trim_end());
    }
    Ok(stdout)
}
