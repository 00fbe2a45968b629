//! Time in trust: what a node may believe about time when its clock may say anything, and which certificates follow.
//!
//! The wall clock of an edge never decides. What is known for certain is a *floor*: the latest of the time this program
//! was built, every `not_before` that was accepted, and every time the cloud told over an authenticated link. From the
//! floor on, the monotonic clock counts. Real time is never earlier than that, so "expired before the floor" is certain,
//! and "not valid yet" never is.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// No release of this program is older: the floor of a node that knows nothing yet. Raised with every release.
pub const RELEASED: Timestamp = Timestamp::constant(1_767_225_600, 0); // 2026-01-01T00:00:00Z

/// A lower bound of real time: a persisted floor and the monotonic time since it was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedTime {
    floor: Timestamp,
    /// Monotonic time of the program when `floor` was set.
    at: Duration,
    /// What is on disk.
    written: Timestamp,
}

/// What is persisted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor(pub Timestamp);

/// Furthest the floor may be raised by one piece of evidence beyond the build time: a signed mistake of the cloud (a
/// clock in the year 9999) must not expire every certificate for ever. 50 years outlive any device.
pub const MAX_AHEAD: SignedDuration = SignedDuration::from_hours(50 * 365 * 24);

/// The floor is written when it rose by this much: the cloud tells the time with every heartbeat, flash wears.
const WORTH_A_WRITE: SignedDuration = SignedDuration::from_hours(1);

impl TrustedTime {
    /// At the start of a program: the later of what was persisted and when the program was built.
    pub fn start(persisted: Option<Floor>, built: Timestamp, mono: Duration) -> Self {
        let floor = persisted.map_or(built, |Floor(floor)| floor.max(built));
        let written = persisted.map_or(Timestamp::MIN, |Floor(floor)| floor);
        Self {
            floor,
            at: mono,
            written,
        }
    }

    /// The lower bound of real time now.
    pub fn now(&self, mono: Duration) -> Timestamp {
        let passed =
            SignedDuration::try_from(mono.saturating_sub(self.at)).unwrap_or(SignedDuration::MAX);
        self.floor.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// Takes evidence that real time is at least `time`: a `not_before` that was accepted, the cloud's time over an
    /// authenticated link. Gives the floor to persist when that is worth a write, which it also is after time that
    /// merely passed. Evidence further than [`MAX_AHEAD`] beyond `built` is not believed.
    pub fn raise(&mut self, time: Timestamp, built: Timestamp, mono: Duration) -> Option<Floor> {
        let furthest = built.saturating_add(MAX_AHEAD).unwrap_or(Timestamp::MAX);
        let now = self.now(mono);
        self.floor = if time <= furthest { now.max(time) } else { now };
        self.at = mono;
        if self.floor.duration_since(self.written) < WORTH_A_WRITE {
            return None;
        }
        self.written = self.floor;
        Some(Floor(self.floor))
    }

    /// What to persist at a regular end of the program.
    pub fn floor(&self, mono: Duration) -> Floor {
        Floor(self.now(mono))
    }
}

/// Validity of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// From this time on, both ends included.
    pub not_before: Timestamp,
    /// Up to this time.
    pub not_after: Timestamp,
}

impl Validity {
    /// Of Unix seconds, as certificates say them; what no calendar holds counts as the end of time.
    pub fn from_seconds(not_before: i64, not_after: i64) -> Self {
        Self {
            not_before: Timestamp::from_second(not_before).unwrap_or(Timestamp::MAX),
            not_after: Timestamp::from_second(not_after).unwrap_or(Timestamp::MAX),
        }
    }

    /// Two thirds of its life: when a renewal is due.
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        self.not_before
            .saturating_add(life * 2 / 3)
            .unwrap_or(self.not_after)
    }

    /// True when a renewal is due. On an edge, give it the trusted time; an edge that was dark for long renews at its
    /// first contact, because the cloud's time raises the floor.
    pub fn is_renewal_due(&self, now: Timestamp) -> bool {
        now >= self.renew_at()
    }
}

/// A certificate that is refused because of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeRefusal {
    /// It ended before a time that has certainly passed.
    #[error("the certificate expired at {not_after}, and it is at least {now}")]
    Expired {
        /// Its end.
        not_after: Timestamp,
        /// A lower bound of the time of now.
        now: Timestamp,
    },
    /// It begins after the verifier's time.
    #[error("the certificate is valid from {not_before} on, and it is {now}")]
    NotYet {
        /// Its beginning.
        not_before: Timestamp,
        /// The verifier's time.
        now: Timestamp,
    },
    /// Its end is before its beginning.
    #[error("the certificate ends before it begins")]
    Inverted,
}

/// Edge verifying cloud: after chain, name and pinned root were found good, is the time good? Gives the time to raise the
/// floor to when the handshake succeeded.
///
/// Expired only if its end is before the floor. A beginning beyond the floor is no fault: real time is somewhere after
/// the floor, and a certificate of a pinned authority says so too. For a chain give all its certificates: every one must
/// be good, the latest beginning counts.
pub fn edge_accepts_cloud(chain: &[Validity], now: Timestamp) -> Result<Timestamp, TimeRefusal> {
    let mut latest = now;
    for validity in chain {
        let Validity {
            not_before,
            not_after,
        } = *validity;
        if not_after < not_before {
            return Err(TimeRefusal::Inverted);
        }
        if not_after < now {
            return Err(TimeRefusal::Expired { not_after, now });
        }
        latest = latest.max(not_before);
    }
    // A chain whose members exclude each other was never good.
    match chain.iter().find(|validity| validity.not_after < latest) {
        Some(validity) => Err(TimeRefusal::Expired {
            not_after: validity.not_after,
            now: latest,
        }),
        None => Ok(latest),
    }
}

/// What a node with a certificate of this validity may do at the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Everything a node may.
    Full,
    /// Its certificate expired, but not long ago: it may renew it and nothing else.
    RenewOnly,
}

/// How long after its end a node's certificate still renews itself: 400 days in the dark must not need a visit.
pub const RENEWAL_GRACE: SignedDuration = SignedDuration::from_hours(400 * 24);

/// How far a node's certificate may begin in the future by the cloud's clock: replicas disagree a little.
pub const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Cloud verifying node: after the chain was found good, by the cloud's own clock.
pub fn cloud_admits_node(
    validity: Validity,
    now: Timestamp,
    grace: SignedDuration,
) -> Result<Admission, TimeRefusal> {
    let Validity {
        not_before,
        not_after,
    } = validity;
    if not_after < not_before {
        return Err(TimeRefusal::Inverted);
    }
    if now.saturating_add(SKEW).unwrap_or(Timestamp::MAX) < not_before {
        return Err(TimeRefusal::NotYet { not_before, now });
    }
    if now <= not_after {
        return Ok(Admission::Full);
    }
    if now <= not_after.saturating_add(grace).unwrap_or(Timestamp::MAX) {
        return Ok(Admission::RenewOnly);
    }
    Err(TimeRefusal::Expired { not_after, now })
}

/// In-node certificates are replaced by age, counted in uptime, because no clock can be trusted for it: due at two thirds
/// of `life`.
pub fn in_node_renewal_due(age: Duration, life: Duration) -> bool {
    age >= life * 2 / 3
}
