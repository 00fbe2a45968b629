//! Why something is not staged.

use std::time::Duration;

use baetyl_kit::error::chain;
use baetyl_model::Digest;
use tonic::{Code, Status};

use crate::store::StoreError;

/// Why a body or object is not complete on disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    /// The cloud, or the server of a URL, cannot be reached or broke off.
    #[error(
        "{digest} is missing and cannot be fetched now: {reason}; it is tried again when it is staged again"
    )]
    Unreachable {
        /// What is missing.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// The sender does not give it to this node.
    #[error("{digest} is refused to this node: {reason}")]
    Refused {
        /// What was asked for.
        digest: Digest,
        /// What the sender says.
        reason: String,
    },
    /// The sender does not have it.
    #[error(
        "{digest} does not exist any more: {reason}; put it there again, or change what refers to it"
    )]
    Gone {
        /// What was asked for.
        digest: Digest,
        /// What the sender says.
        reason: String,
    },
    /// The sender has it and cannot give it as it was.
    #[error("{digest} is damaged where it is stored: {reason}; put it there again")]
    Damaged {
        /// What was asked for.
        digest: Digest,
        /// What the sender says.
        reason: String,
    },
    /// What is here of it is longer than what the sender has.
    #[error("{digest} is shorter at the sender than the part that is here: {reason}")]
    OutOfRange {
        /// What was asked for.
        digest: Digest,
        /// What the sender says.
        reason: String,
    },
    /// It is longer than it may be.
    #[error("{digest} is longer than the {limit} bytes it may have; the bytes were thrown away")]
    TooLong {
        /// What was asked for.
        digest: Digest,
        /// Bytes it may have.
        limit: u64,
    },
    /// The store refused: wrong digest, no room, a broken disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody waited for it any more, or sync stops.
    #[error("{digest} was not fetched to the end because sync stops or nobody waited for it")]
    Interrupted {
        /// What was being fetched.
        digest: Digest,
    },
}

impl StageError {
    pub(crate) fn unreachable(digest: &Digest, reason: impl Into<String>) -> Self {
        Self::Unreachable {
            digest: *digest,
            reason: reason.into(),
        }
    }

    /// Silence for so long counts as unreachable.
    pub(crate) fn silent(digest: &Digest, patience: Duration) -> Self {
        Self::unreachable(digest, format!("nothing came for {} s", patience.as_secs()))
    }

    /// What the cloud's answer means for this digest.
    pub(crate) fn from_cloud(digest: &Digest, status: &Status) -> Self {
        let (digest, reason) = (*digest, status.message().to_owned());
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Self::Refused { digest, reason },
            Code::NotFound => Self::Gone { digest, reason },
            Code::DataLoss => Self::Damaged { digest, reason },
            Code::OutOfRange => Self::OutOfRange { digest, reason },
            _ => Self::Unreachable { digest, reason },
        }
    }

    /// The contract's code for it.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } | Self::OutOfRange { .. } => {
                Code::Unavailable
            }
            Self::Refused { .. } => Code::PermissionDenied,
            Self::Gone { .. } => Code::NotFound,
            Self::TooLong { .. } | Self::Damaged { .. } => Code::DataLoss,
            Self::Store(error) => store_code(error),
        }
    }

    /// For callers.
    pub(crate) fn to_status(&self) -> Status {
        Status::new(self.code(), chain(self))
    }
}

/// The contract's code for what the store says.
pub(crate) fn store_code(error: &StoreError) -> Code {
    match error {
        StoreError::Mismatch { .. } => Code::DataLoss,
        StoreError::Full { .. } => Code::ResourceExhausted,
        StoreError::Io { .. } | StoreError::Seal { .. } => Code::Internal,
    }
}
