//! Resume tokens of states that are streamed: the server's side of [`watch_stream`](crate::watch_stream).
//!
//! A state is streamed whole: now, and at every change. A caller that comes back after its connection broke has often
//! seen the newest state already; it says so with the token of the last message it has. See
//! `docs/adr/0010-watches-have-resume-tokens.md`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::Status;

/// The revisions of one state since this process started; `S` is the state or what identifies it. Cheap to clone.
///
/// A token is `<start>-<revision>`: `start` is drawn anew by each process, because revisions begin at one again.
pub struct Revisions<S>(Arc<Inner<S>>);

struct Inner<S> {
    start: String,
    newest: Mutex<Option<(u64, S)>>,
}

impl<S: PartialEq> Revisions<S> {
    /// Of a state that nobody has seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            start: start_id(),
            newest: Mutex::new(None),
        }))
    }

    /// Begins a stream for a caller with this token (empty: none).
    ///
    /// # Errors
    /// `OUT_OF_RANGE` when the token was not given by this process.
    pub fn resume(&self, token: &str) -> Result<Resumed<S>, Status> {
        let known = if token.is_empty() {
            None
        } else {
            Some(self.revision(token).ok_or_else(too_old)?)
        };
        Ok(Resumed {
            revisions: self.clone(),
            known,
        })
    }

    fn revision(&self, token: &str) -> Option<u64> {
        let revision = token.strip_prefix(&*self.0.start)?.strip_prefix('-')?;
        let revision = revision.parse().ok()?;
        let newest = self.0.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let given = newest.as_ref().map_or(0, |(newest, _)| *newest);
        (1..=given).contains(&revision).then_some(revision)
    }

    /// The revision of a state: that of the newest one when it is equal, otherwise the next. Two streams that see two
    /// changes in different order count too many revisions; a revision still stands for one content only.
    fn revision_of(&self, state: S) -> u64 {
        let mut newest = self.0.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*newest {
            Some((revision, held)) if *held == state => *revision,
            held => {
                let next = held.as_ref().map_or(0, |(revision, _)| *revision) + 1;
                *newest = Some((next, state));
                next
            }
        }
    }
}

/// Tells tokens of this start from those of another: 16 hex digits, drawn anew by each call.
#[must_use]
pub fn start_id() -> String {
    // Without randomness the process id tells one start from the next well enough.
    crate::crypto::random_hex::<8>().unwrap_or_else(|_| format!("{:016x}", std::process::id()))
}

impl<S: PartialEq> Default for Revisions<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Clone for Revisions<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for Revisions<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revisions")
            .field("start", &self.0.start)
            .finish_non_exhaustive()
    }
}

/// One stream.
#[derive(Debug)]
pub struct Resumed<S> {
    revisions: Revisions<S>,
    known: Option<u64>,
}

impl<S: PartialEq> Resumed<S> {
    /// The token to send with this state; None when the caller has it already.
    pub fn news(&mut self, state: S) -> Option<String> {
        let revision = self.revisions.revision_of(state);
        if self.known.replace(revision) == Some(revision) {
            return None;
        }
        Some(format!("{}-{revision}", self.revisions.0.start))
    }
}

/// What a caller with a token that means nothing here is told; it asks again without one.
#[must_use]
pub fn too_old() -> Status {
    Status::out_of_range(
        "the resume token is too old or of another start of this service; ask without one",
    )
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_caller_without_a_token_gets_the_state_and_then_each_change_once() {
        let revisions = Revisions::new();
        let mut stream = revisions.resume("").unwrap();
        let first = stream.news("a").unwrap();
        assert_eq!(stream.news("a"), None);
        let second = stream.news("b").unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn a_caller_with_the_current_token_is_not_sent_the_state_again() {
        let revisions = Revisions::new();
        let token = revisions.resume("").unwrap().news("a").unwrap();
        let mut again = revisions.resume(&token).unwrap();
        assert_eq!(again.news("a"), None);
        assert!(again.news("b").is_some());
    }

    #[test]
    fn a_caller_with_an_older_token_of_this_start_gets_the_newest_state() {
        let revisions = Revisions::new();
        let mut first = revisions.resume("").unwrap();
        let old = first.news("a").unwrap();
        let newest = first.news("b").unwrap();
        let mut again = revisions.resume(&old).unwrap();
        assert_eq!(again.news("b"), Some(newest));
    }

    #[test]
    fn a_state_that_came_back_is_told_to_who_has_an_older_token() {
        let revisions = Revisions::new();
        let mut first = revisions.resume("").unwrap();
        let old = first.news("a").unwrap();
        first.news("b");
        first.news("a");
        assert!(revisions.resume(&old).unwrap().news("a").is_some());
    }

    #[test]
    fn a_token_of_another_start_or_of_nobody_is_out_of_range() {
        let before = Revisions::new();
        let token = before.resume("").unwrap().news("a").unwrap();
        let revisions = Revisions::new();
        let own = revisions.resume("").unwrap().news("a").unwrap();
        let start = own.strip_suffix("-1").unwrap();
        let never = [
            token,
            format!("{start}-0"),
            format!("{start}-2"),
            format!("{start}-x"),
            start.to_owned(),
            "x".to_owned(),
        ];
        for token in never {
            let refused = revisions.resume(&token).unwrap_err();
            assert_eq!(refused.code(), Code::OutOfRange, "{token}");
        }
    }
}
