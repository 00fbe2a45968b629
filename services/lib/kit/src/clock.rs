//! Wall time and uptime, behind one trait so that a test can move both.
//!
//! The wall clock of an edge node may be wrong by years: use it for display and for what people read,
//! and [`Clock::uptime`] for every decision about "how long".

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// A source of wall time and uptime.
pub trait TimeSource: Send + Sync + 'static {
    /// Wall time. May jump in both directions.
    fn now(&self) -> Timestamp;
    /// Time since boot, suspended time included. Never goes back while the machine is up.
    fn uptime(&self) -> Duration;
}

/// A clock that services carry around; cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn TimeSource>);

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Self {
        Self(Arc::new(System))
    }

    /// A clock that reads `source`, for tests.
    pub fn from_source(source: Arc<dyn TimeSource>) -> Self {
        Self(source)
    }

    /// Wall time. May jump in both directions.
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// Time since boot, suspended time included.
    pub fn uptime(&self) -> Duration {
        self.0.uptime()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

/// Wall time of this machine (with the test offset under the feature `test-clock`).
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    now.checked_add(jiff::SignedDuration::from_secs(test_offset()))
        .unwrap_or(now)
}

/// Time since this machine booted, suspended time included.
pub fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

struct System;

impl TimeSource for System {
    fn now(&self) -> Timestamp {
        now()
    }

    fn uptime(&self) -> Duration {
        uptime()
    }
}

#[cfg(not(feature = "test-clock"))]
const fn test_offset() -> i64 {
    0
}

/// Read once: the environment of a running program does not change.
#[cfg(feature = "test-clock")]
fn test_offset() -> i64 {
    static OFFSET: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    *OFFSET.get_or_init(|| {
        std::env::var("BAETYL_TEST_CLOCK_OFFSET_SECONDS")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_never_goes_back() {
        let before = uptime();
        let after = uptime();
        assert!(after >= before);
        assert!(before > Duration::ZERO);
    }

    #[test]
    fn a_clock_reads_its_source() {
        struct Fixed;
        impl TimeSource for Fixed {
            fn now(&self) -> Timestamp {
                Timestamp::UNIX_EPOCH
            }
            fn uptime(&self) -> Duration {
                Duration::from_secs(7)
            }
        }
        let clock = Clock::from_source(Arc::new(Fixed));
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
        assert_eq!(clock.uptime(), Duration::from_secs(7));
    }
}
