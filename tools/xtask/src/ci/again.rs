//! A run of all tests in which few that fail get a second chance, alone.
//!
//! Machines are noisy, and what failed once and passes alone is a fault of the test or a race in what it tests: it is
//! named at the end of the run, and has to be mended. It does not hold up everything else.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

/// More than these are no noise.
const MOST: usize = 3;

/// Runs `cargo test` with these arguments; what failed is run once more.
///
/// # Errors
/// When something does not build, when a test fails twice, or when more than [`MOST`] fail.
pub(super) fn test(args: &[&str], env: &[(&str, &str)]) -> Result<Vec<String>> {
    let all = [args, &["--no-fail-fast"]].concat();
    let (ok, failed) = run(&all, env)?;
    if ok {
        return Ok(Vec::new());
    }
    if failed.is_empty() || failed.len() > MOST {
        bail!(
            "the tests failed ({} by name): {}",
            failed.len(),
            failed.join(", ")
        );
    }
    println!("\n=== once more: {}", failed.join(", "));
    let mut once_more = [args, &["--no-fail-fast", "--", "--exact"]].concat();
    once_more.extend(failed.iter().map(String::as_str));
    let (ok, again) = run(&once_more, env)?;
    if !ok {
        bail!("failed twice: {}", again.join(", "));
    }
    Ok(failed)
}

/// Whether all is well, and the names of tests that are not.
fn run(args: &[&str], env: &[(&str, &str)]) -> Result<(bool, Vec<String>)> {
    println!("$ cargo {}", args.join(" "));
    let mut child = super::command("cargo")
        .args(args)
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut failed = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        failed.extend(failed_test(&line).map(str::to_owned));
    }
    Ok((child.wait()?.success(), failed))
}

/// `test some::name ... FAILED`
fn failed_test(line: &str) -> Option<&str> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    (!name.contains(' ')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_found_in_the_output() {
        assert_eq!(failed_test("test a::b ... FAILED"), Some("a::b"));
        for line in [
            "test a::b ... ok",
            "a::b ... FAILED",
            "test result: FAILED. 1 passed; 1 failed",
            "test src/lib.rs - a (line 1) ... FAILED",
        ] {
            assert_eq!(failed_test(line), None, "{line}");
        }
    }
}
