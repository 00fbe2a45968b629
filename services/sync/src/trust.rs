//! The time this node believes in: a shell around [`baetyl_model::trust`] that persists the floor and judges the
//! certificates of servers by it. The wall clock decides nothing.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baetyl_kit::clock::Clock;
use baetyl_kit::error::chain;
use baetyl_kit::tls::{self, CertTime};
use baetyl_model::trust::{Floor, RELEASED, TrustedTime, Validity, edge_accepts_cloud};
use jiff::Timestamp;

use crate::blocking;
use crate::db::{Db, DbError, META};

const FLOOR: &str = "trust_floor";

/// The trusted time of this node.
pub(crate) struct TrustClock {
    clock: Clock,
    db: Arc<Db>,
    time: Mutex<TrustedTime>,
}

impl TrustClock {
    /// Goes on from the persisted floor.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) fn open(db: Arc<Db>, clock: Clock) -> Result<Self, DbError> {
        let persisted = db.read(|transaction| {
            let table = transaction.open_table(META)?;
            let value = table.get(FLOOR)?;
            Ok(value.and_then(|value| value.value().try_into().ok().map(i64::from_be_bytes)))
        })?;
        let floor = persisted
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .map(Floor);
        let time = TrustedTime::start(floor, RELEASED, clock.uptime());
        Ok(Self {
            clock,
            db,
            time: Mutex::new(time),
        })
    }

    /// A lower bound of real time.
    pub(crate) fn now(&self) -> Timestamp {
        self.lock().now(self.clock.uptime())
    }

    /// Takes evidence that real time is at least this: a `not_before` that was accepted, the cloud's clock over an
    /// authenticated link. Writes to disk when the floor rose by an hour.
    pub(crate) async fn raise(self: &Arc<Self>, time: Timestamp) {
        let floor = self.lock().raise(time, RELEASED, self.clock.uptime());
        if let Some(floor) = floor {
            let trust = Arc::clone(self);
            blocking(move || trust.persist(floor)).await;
        }
    }

    /// At a regular end: the next start begins here. Blocks.
    pub(crate) fn close(&self) {
        let floor = self.lock().floor(self.clock.uptime());
        self.persist(floor);
    }

    /// A floor that is not written only means that the next start knows less.
    fn persist(&self, Floor(floor): Floor) {
        let written = self.db.write(|transaction| {
            transaction
                .open_table(META)?
                .insert(FLOOR, floor.as_second().to_be_bytes().as_slice())?;
            Ok(())
        });
        if let Err(error) = written {
            tracing::warn!(error = %chain(&error), "the trusted time could not be written");
        }
    }

    fn lock(&self) -> MutexGuard<'_, TrustedTime> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TrustClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustClock({})", self.now())
    }
}

/// The validity of a whole chain, certificates that a stranger added included: good for judging this one handshake. The
/// floor is raised by the leaf alone, after the handshake (see [`crate::link::dial`]), because only the leaf is signed
/// by an authority for certain.
impl CertTime for TrustClock {
    fn judge_at(&self, chain: tls::Validity, _wall: i64) -> i64 {
        let now = self.now();
        let validity = Validity::from_seconds(chain.not_before, chain.not_after);
        edge_accepts_cloud(&[validity], now).map_or(now.as_second(), Timestamp::as_second)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use baetyl_testkit::{ManualClock, TestDir};

    use super::*;
    use crate::db;

    fn open(dir: &TestDir, clock: &ManualClock) -> Arc<TrustClock> {
        let db = db::open(&dir.join("sync.redb")).unwrap().file;
        Arc::new(TrustClock::open(Arc::new(db), clock.clock()).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_wall_clock_decides_nothing() {
        for wall in ["1970-01-01T00:00:00Z", "2031-06-01T00:00:00Z"] {
            let dir = TestDir::new();
            let time = open(&dir, &ManualClock::at(wall));
            assert_eq!(time.now(), RELEASED, "{wall}");
        }
    }

    #[tokio::test]
    async fn what_was_learned_survives_a_restart_with_any_clock() {
        let dir = TestDir::new();
        let clock = ManualClock::at("2027-01-01T00:00:00Z");
        let time = open(&dir, &clock);
        time.raise(at("2027-03-01T00:00:00Z")).await;
        clock.advance(Duration::from_secs(60));
        assert_eq!(time.now(), at("2027-03-01T00:01:00Z"));
        drop(time);
        let time = open(&dir, &ManualClock::at("1970-01-01T00:00:00Z"));
        assert_eq!(time.now(), at("2027-03-01T00:00:00Z"));
    }

    #[tokio::test]
    async fn a_regular_end_keeps_the_minutes_too() {
        let dir = TestDir::new();
        let clock = ManualClock::at("2027-01-01T00:00:00Z");
        let time = open(&dir, &clock);
        time.raise(at("2027-03-01T00:00:00Z")).await;
        clock.advance(Duration::from_secs(90));
        time.close();
        drop(time);
        assert_eq!(open(&dir, &clock).now(), at("2027-03-01T00:01:30Z"));
    }

    #[tokio::test]
    async fn a_chain_is_judged_at_a_time_at_which_it_is_valid_unless_it_ended_before_the_floor() {
        let dir = TestDir::new();
        let time = open(&dir, &ManualClock::at("1970-01-01T00:00:00Z"));
        time.raise(at("2027-03-01T00:00:00Z")).await;
        let judge = |from: &str, to: &str| {
            let chain = tls::Validity {
                not_before: at(from).as_second(),
                not_after: at(to).as_second(),
            };
            Timestamp::from_second(time.judge_at(chain, 0)).unwrap()
        };
        let future = judge("2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z");
        assert_eq!(future, at("2030-01-01T00:00:00Z"));
        let current = judge("2026-01-01T00:00:00Z", "2028-01-01T00:00:00Z");
        assert_eq!(current, at("2027-03-01T00:00:00Z"));
        let ended = judge("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        assert_eq!(
            ended,
            at("2027-03-01T00:00:00Z"),
            "judged after its end: refused"
        );
        assert_eq!(
            time.now(),
            at("2027-03-01T00:00:00Z"),
            "judging raises nothing"
        );
    }
}
