//! A run of all tests in which few that fail get a second chance, alone.
//!
//! Machines are noisy, and what failed once and passes alone is a fault of the test or a race in what it tests: it is
//! named at the end of the run, and has to be mended. It does not hold up everything else.

use std::io::{BufRead as _, BufReader, Read};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

/// More than these are no noise.
const MOST: usize = 3;

/// Whether all is well, and the names of tests that are not.
pub(crate) type Outcome = (bool, Vec<String>);

/// Runs all tests (no names), and once more those that failed; tells those that passed then.
///
/// # Errors
/// When `run` has one, when a test fails twice, or when more than [`MOST`] fail.
pub(crate) fn twice(mut run: impl FnMut(&[String]) -> Result<Outcome>) -> Result<()> {
    let (ok, failed) = run(&[])?;
    if ok {
        return Ok(());
    }
    let names = failed.join(", ");
    if failed.is_empty() || failed.len() > MOST {
        bail!("the tests failed ({} by name): {names}", failed.len());
    }
    println!("\n=== once more: {names}");
    let (ok, again) = run(&failed)?;
    if !ok {
        bail!("failed twice: {}", again.join(", "));
    }
    println!("FLAKY, to be mended: failed in the whole run and passed alone: {names}");
    Ok(())
}

/// Runs `cargo test` with these arguments; what failed is run once more.
///
/// # Errors
/// As [`twice`], and when something does not build.
pub(super) fn test(args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    twice(|names| {
        let mut args = [args, &["--no-fail-fast"]].concat();
        if !names.is_empty() {
            args.extend(["--", "--exact"]);
            args.extend(names.iter().map(String::as_str));
        }
        run(&args, env)
    })
}

fn run(args: &[&str], env: &[(&str, &str)]) -> Result<Outcome> {
    println!("$ cargo {}", args.join(" "));
    let mut child = super::command("cargo")
        .args(args)
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let failed = failed_tests(output)?;
    Ok((child.wait()?.success(), failed))
}

/// Prints what tests print, to its end; the names of those that failed.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn failed_tests(output: impl Read) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        failed.extend(failed_test(&line).map(str::to_owned));
    }
    Ok(failed)
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
    fn what_failed_is_run_once_more_and_only_that() {
        let told = |outcomes: Vec<Outcome>| {
            let (mut outcomes, mut asked) = (outcomes.into_iter(), Vec::new());
            let ended = twice(|names| {
                asked.push(names.to_vec());
                Ok(outcomes.next().unwrap())
            });
            (ended.is_ok(), asked)
        };
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let all = names(&[]);
        let one = names(&["a::b"]);
        assert_eq!(told(vec![(true, names(&[]))]), (true, vec![all.clone()]));
        assert_eq!(
            told(vec![(false, one.clone()), (true, names(&[]))]),
            (true, vec![all.clone(), one.clone()])
        );
        assert_eq!(
            told(vec![(false, one.clone()), (false, one.clone())]),
            (false, vec![all.clone(), one])
        );
        // Nothing by name is something that did not build; and many are no noise.
        assert_eq!(told(vec![(false, names(&[]))]), (false, vec![all.clone()]));
        let many = names(&["a", "b", "c", "d"]);
        assert_eq!(told(vec![(false, many)]), (false, vec![all]));
    }

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
