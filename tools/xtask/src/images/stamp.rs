//! Version, revision and time that images carry.

use anyhow::{Context as _, Result};

use super::catalog::Stamp;
use super::run;

/// From the workspace and its repository. `SOURCE_DATE_EPOCH` wins over the time of the commit; a tree without a
/// repository has the revision `unknown` and the time 0.
///
/// # Errors
/// When `SOURCE_DATE_EPOCH` is no number.
pub(crate) fn stamp() -> Result<Stamp> {
    let head = git(&["show", "-s", "--format=%H %ct", "HEAD"]);
    let (mut revision, time) = match head.as_deref().and_then(|text| text.trim().split_once(' ')) {
        Some((revision, time)) => (revision.to_owned(), time.parse().unwrap_or_default()),
        None => ("unknown".to_owned(), 0),
    };
    if git(&["status", "--porcelain"]).is_some_and(|text| !text.trim().is_empty()) {
        revision.push_str("-dirty");
    }
    let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text
            .parse()
            .context("SOURCE_DATE_EPOCH is no number of seconds")?,
        Err(_) => time,
    };
    Ok(Stamp {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision,
        epoch,
    })
}

fn git(args: &[&str]) -> Option<String> {
    let output = run::quiet(run::command("git").args(args)).ok()?;
    String::from_utf8(output).ok()
}
