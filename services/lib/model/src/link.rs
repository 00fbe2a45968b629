//! The protocol between an edge node (sync) and its cloud, as two state machines without I/O: [`EdgeLink`] and
//! [`CloudLink`].
//!
//! They speak in headers, digests and sequence numbers; the shells keep the bytes that belong to them, put them into the
//! messages they send and verify the ones they receive *before* a machine hears of them. Each machine takes an input and
//! the time (any monotonic clock of the program) and gives actions.
//!
//! The stream beneath keeps order and loses nothing while it lasts. The machines do not rely on it: everything that
//! matters is sent again until it is acknowledged, and everything may come twice or late. That makes a half-dead
//! connection, a restarted peer and a bug in either shell harmless. The laws in the tests lose, repeat, reorder and crash.

use std::time::Duration;

use jiff::Timestamp;

use crate::desire::Header;
use crate::digest::Digest;

mod cloud;
mod edge;

pub use cloud::{CloudAction, CloudInput, CloudLink};
pub use edge::{EdgeAction, EdgeInput, EdgeLink, EdgePhase};

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

/// An inclusive range of protocol numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolRange {
    /// Lowest number spoken.
    pub min: u32,
    /// Highest number spoken.
    pub max: u32,
}

/// What this release speaks.
pub const PROTOCOL: ProtocolRange = ProtocolRange { min: 1, max: 1 };

impl ProtocolRange {
    /// The highest number both speak; `None`: they cannot talk.
    pub fn common(self, other: Self) -> Option<u32> {
        let highest = self.max.min(other.max);
        (highest >= self.min.max(other.min)).then_some(highest)
    }
}

/// Times of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periods {
    /// Something is sent at least this often.
    pub heartbeat: Duration,
    /// Stats are sent this often.
    pub stats: Duration,
    /// What is not acknowledged is sent again after this time.
    pub retry: Duration,
}

impl Default for Periods {
    /// A heartbeat every 15 s keeps the usual NAT mapping (30 s) alive; stats as often as Baetyl v2 reported (20 s).
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            stats: Duration::from_secs(20),
            retry: Duration::from_secs(30),
        }
    }
}

impl Periods {
    /// A peer that was silent for this long is gone: three heartbeats.
    pub fn silence(&self) -> Duration {
        self.heartbeat * 3
    }
}

/// Why a desire was not taken, as `DesireAck.refused` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// Older than what is held.
    Stale,
    /// Same (epoch, generation), other content.
    Conflict,
    /// No valid signature of a trusted key.
    Signature,
    /// For another node.
    WrongNode,
    /// Unreadable.
    Malformed,
}

impl Refused {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Conflict => "conflict",
            Self::Signature => "signature",
            Self::WrongNode => "wrong-node",
            Self::Malformed => "malformed",
        }
    }

    /// Reads the word; a word this program does not know counts as unreadable.
    pub fn from_word(word: &str) -> Self {
        [
            Self::Stale,
            Self::Conflict,
            Self::Signature,
            Self::WrongNode,
        ]
        .into_iter()
        .find(|refused| refused.as_str() == word)
        .unwrap_or(Self::Malformed)
    }
}

impl From<crate::desire::Refusal> for Refused {
    fn from(refusal: crate::desire::Refusal) -> Self {
        match refusal {
            crate::desire::Refusal::Stale => Self::Stale,
            crate::desire::Refusal::Conflict => Self::Conflict,
            crate::desire::Refusal::WrongNode => Self::WrongNode,
        }
    }
}

/// From edge to cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Up {
    /// The first message.
    Hello {
        /// The desire the node holds. A claim only.
        held: Option<Header>,
        /// Digest of the status the node would send.
        status: Option<Digest>,
    },
    /// The whole status.
    Status(Digest),
    /// The stats of now.
    Stats,
    /// Nothing but a sign of life.
    Heartbeat,
    /// What became of a desire.
    DesireAck {
        /// Which.
        header: Header,
        /// `None`: it is on disk.
        refused: Option<Refused>,
    },
    /// The whole signed desire the node holds; the shell tells whether the cloud's own signature on it is valid.
    Presented {
        /// Its header.
        header: Header,
        /// True when this cloud signed it.
        genuine: bool,
    },
    /// An event of the outbox.
    Event {
        /// Its number.
        sequence: u64,
        /// How many events right before it were dropped.
        dropped: u64,
    },
}

/// From cloud to edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Down {
    /// The first message.
    Welcome {
        /// Times the edge shall keep.
        periods: Periods,
        /// Digest of the status stored last.
        status: Option<Digest>,
        /// The last event stored.
        events: u64,
        /// The cloud's clock.
        time: Option<Timestamp>,
    },
    /// A signed desire.
    Desire(Header),
    /// That status is stored.
    StatusAck(Digest),
    /// Everything up to this event is stored.
    EventAck(u64),
    /// A request of an operator, by its id.
    Command(String),
    /// "Show me the signed desire you claim."
    PresentDesire,
    /// The node was deleted.
    Removed,
    /// Answer to a heartbeat.
    HeartbeatAck {
        /// The cloud's clock.
        time: Option<Timestamp>,
    },
}
