//! Walking an error's causes, for log lines and exit messages.
//!
//! An error's `Display` never repeats its source (house rule), so whoever prints one has to walk.

use std::error::Error;
use std::fmt::Write as _;

/// Any error a service or task may end with. `anyhow::Error` and every `thiserror` enum convert into it.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// The error and its causes, outermost first, joined by `": "`.
///
/// A cause whose text the line already ends with is left out: some libraries do repeat their source.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !text.is_empty() && !line.ends_with(&text) {
            let _ = write!(line, ": {text}");
        }
        cause = error.source();
    }
    line
}

/// The first cause (the error itself included) that is a `T`.
pub fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        current = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the ledger; check the data directory")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("repeats: {0}")]
    struct Repeats(#[source] std::io::Error);

    #[test]
    fn causes_are_joined_outermost_first() {
        let error = Outer(std::io::Error::other("disk is gone"));
        assert_eq!(
            chain(&error),
            "cannot open the ledger; check the data directory: disk is gone"
        );
    }

    #[test]
    fn a_cause_that_was_already_said_is_not_said_twice() {
        let error = Repeats(std::io::Error::other("disk is gone"));
        assert_eq!(chain(&error), "repeats: disk is gone");
    }

    #[test]
    fn a_cause_is_found_by_its_type() {
        let error = Outer(std::io::Error::from(std::io::ErrorKind::NotFound));
        let found = find::<std::io::Error>(&error).map(std::io::Error::kind);
        assert_eq!(found, Some(std::io::ErrorKind::NotFound));
        assert!(find::<std::fmt::Error>(&error).is_none());
    }
}
