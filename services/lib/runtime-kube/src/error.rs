//! What can go wrong with a cluster, in its own words.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// An operation that did not do what it should, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct KubeError {
    /// What kind of thing went wrong.
    pub kind: ErrorKind,
    /// Which object, and why in Kubernetes' words.
    pub message: String,
}

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The API server does not answer, asks to come again later, or something takes longer than expected. Trying again
    /// helps.
    Later,
    /// Somebody else owns a field of the object.
    Conflict,
    /// There is an object of this name that is not ours.
    NotOurs,
    /// Kubernetes refuses it.
    Refused,
}

impl KubeError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// True when trying again can help without anything else being changed.
    pub fn is_later(&self) -> bool {
        self.kind == ErrorKind::Later
    }

    /// The same, with what it is about in front.
    pub(crate) fn about(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

/// A request that brought no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// No answer, or one that broke off.
    #[error("{0}")]
    Silent(String),
    /// The API server says no.
    #[error("{0}")]
    Status(Box<Status>),
    /// Something else than Kubernetes answers, or a newer one than we can read.
    #[error("the answer of the API server cannot be read: {0}")]
    Strange(String),
}

/// What the API server says instead of a result.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    /// The HTTP status.
    pub(crate) code: u16,
    /// A word for programs.
    pub(crate) reason: String,
    /// A sentence for people.
    pub(crate) message: String,
    pub(crate) details: Option<Details>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Details {
    pub(crate) retry_after_seconds: u64,
    pub(crate) causes: Vec<Cause>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cause {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) field: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.message.trim(), self.reason.as_str()) {
            ("", "") => write!(f, "the API server answers {}", self.code),
            ("", reason) => write!(f, "the API server answers {} {reason}", self.code),
            (message, _) => f.write_str(message),
        }
    }
}

impl Status {
    /// When to come again, if the API server says so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    pub(crate) fn causes(&self) -> &[Cause] {
        self.details
            .as_ref()
            .map_or(&[], |details| details.causes.as_slice())
    }

    /// Whether a field was to be changed that stays what it is as long as the object lives.
    pub(crate) fn is_immutable(&self) -> bool {
        let immutable = |text: &str| {
            [
                "field is immutable",
                "updates to statefulset spec",
                "may not change once set",
            ]
            .iter()
            .any(|words| text.contains(words))
        };
        self.code == 422
            && (immutable(&self.message)
                || self.causes().iter().any(|cause| immutable(&cause.message)))
    }

    /// Whether a server-side apply met a field of somebody else.
    pub(crate) fn is_field_conflict(&self) -> bool {
        self.code == 409
            && self
                .causes()
                .iter()
                .any(|cause| cause.reason == "FieldManagerConflict")
    }
}

impl ApiError {
    /// The HTTP status; 0: there was no answer.
    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::Status(status) => status.code,
            _ => 0,
        }
    }

    /// When to come again, if the API server says so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(status) => status.retry_after(),
            _ => None,
        }
    }
}

impl From<ApiError> for KubeError {
    fn from(error: ApiError) -> Self {
        let kind = match &error {
            ApiError::Silent(_) | ApiError::Strange(_) => ErrorKind::Later,
            ApiError::Status(status) => match status.code {
                409 if status.is_field_conflict() => ErrorKind::Conflict,
                // A field that the kind does not have is told of as if it were the server's own trouble.
                500 if status
                    .message
                    .contains("failed to create typed patch object") =>
                {
                    ErrorKind::Refused
                }
                // Written by two at once, or too much at once, or the server's own trouble.
                409 | 429 | 500..=599 => ErrorKind::Later,
                // Our own token is not valid (yet): a matter of the cluster, not of what is applied.
                401 => ErrorKind::Later,
                _ => ErrorKind::Refused,
            },
        };
        Self::new(kind, error.to_string())
    }
}
