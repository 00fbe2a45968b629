//! A clock that stands still until it is moved.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use baetyl_kit::clock::{Clock, TimeSource};
use jiff::{SignedDuration, Timestamp};

/// A clock the test moves by hand; clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Hands>>);

#[derive(Debug)]
struct Hands {
    now: Timestamp,
    uptime: Duration,
}

impl ManualClock {
    /// Stands at `now`, one minute after boot.
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Hands {
            now,
            uptime: Duration::from_secs(60),
        })))
    }

    /// Stands at a time given as RFC 3339 text, such as `"2030-01-01T00:00:00Z"`.
    pub fn at(text: &str) -> Self {
        Self::new(text.parse().expect("an RFC 3339 time"))
    }

    /// As what services are given.
    pub fn clock(&self) -> Clock {
        Clock::from_source(Arc::new(self.clone()))
    }

    /// Time passes: wall time and uptime both move.
    pub fn advance(&self, duration: Duration) {
        let mut hands = self.0.lock().unwrap();
        let signed = SignedDuration::try_from(duration).expect("a duration that fits");
        hands.now = hands.now.checked_add(signed).expect("a time that exists");
        hands.uptime += duration;
    }

    /// Somebody sets the wall clock; uptime goes on as before.
    pub fn set_wall(&self, now: Timestamp) {
        self.0.lock().unwrap().now = now;
    }
}

impl TimeSource for ManualClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().now
    }

    fn uptime(&self) -> Duration {
        self.0.lock().unwrap().uptime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_only_by_hand() {
        let manual = ManualClock::at("2030-01-01T00:00:00Z");
        let clock = manual.clock();
        manual.advance(Duration::from_secs(90));
        assert_eq!(clock.now().to_string(), "2030-01-01T00:01:30Z");
        let before = clock.uptime();
        manual.set_wall(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
        assert_eq!(clock.uptime(), before);
    }
}
