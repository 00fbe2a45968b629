//! Digests of bytes and of contracts.

use baetyl_model::{Desire, Digest};
use prost::Message as _;

use crate::shadow;

/// sha256 of bytes.
pub fn of(bytes: &[u8]) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    finish(digest.as_ref())
}

/// A running sha256, for bytes that come in pieces.
#[derive(Clone)]
pub struct Hasher(ring::digest::Context);

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes.
    pub fn finish(self) -> Digest {
        finish(self.0.finish().as_ref())
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

fn finish(bytes: &[u8]) -> Digest {
    let mut raw = [0; 32];
    raw.copy_from_slice(bytes);
    Digest::from_sha256(raw)
}

/// Digest of a desire's content: of its encoding without epoch, generation and digest.
pub fn of_desire(desire: &shadow::Desire) -> Digest {
    let content = shadow::Desire {
        epoch: 0,
        generation: 0,
        digest: String::new(),
        ..desire.clone()
    };
    of(&content.encode_to_vec())
}

/// Puts a desire into the order the contract fixes and writes its digest.
#[must_use]
pub fn complete_desire(mut desire: Desire) -> Desire {
    desire.sort();
    desire.digest = of_desire(&shadow::Desire::from(desire.clone()));
    desire
}

/// Digest of a status: of its encoding without the times of transitions, which alone are no news.
pub fn of_status(status: &shadow::NodeStatus) -> Digest {
    let mut content = status.clone();
    let of_apps = content.apps.iter_mut().flat_map(|app| &mut app.conditions);
    for condition in content.conditions.iter_mut().chain(of_apps) {
        condition.last_transition_time = None;
    }
    of(&content.encode_to_vec())
}
