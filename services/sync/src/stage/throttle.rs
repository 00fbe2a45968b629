//! The bandwidth cap: a token bucket that all fetches share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use baetyl_kit::metrics::Counter;
use tokio::time::Instant;

/// Lets through so many bytes a second; a second's worth may come at once.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Bytes a second; 0 = no limit.
    rate: u64,
    state: Mutex<State>,
    counter: Counter,
}

#[derive(Debug)]
struct State {
    /// May be below zero: who took the bytes waits for them to be paid back.
    tokens: f64,
    updated: Instant,
}

impl Throttle {
    /// A cap of `rate` bytes a second; 0 = none.
    pub(crate) fn new(rate: u64) -> Self {
        Self {
            rate,
            state: Mutex::new(State {
                tokens: to_f64(rate),
                updated: Instant::now(),
            }),
            counter: Counter::default(),
        }
    }

    /// Counts what passes.
    pub(crate) fn counting(self, counter: Counter) -> Self {
        Self { counter, ..self }
    }

    /// Returns when `bytes` that were just received are within the cap.
    pub(crate) async fn take(&self, bytes: usize) {
        self.counter.add(bytes as u64);
        if self.rate == 0 {
            return;
        }
        let wait = self.debit(bytes as u64, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes the bytes at once and tells how long to wait until the bucket is not below zero any more.
    fn debit(&self, bytes: u64, now: Instant) -> Duration {
        let rate = to_f64(self.rate);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(state.updated).as_secs_f64();
        state.tokens = (state.tokens + passed * rate).min(rate) - to_f64(bytes);
        state.updated = now;
        if state.tokens >= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-state.tokens / rate)
        }
    }
}

/// Exact up to 2^53 bytes, far beyond any bucket.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rounding of some bytes in 8 PiB does not matter"
)]
fn to_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_burst_of_one_second_is_free_and_what_follows_waits() {
        let throttle = Throttle::new(1000);
        let start = Instant::now();
        assert_eq!(throttle.debit(1000, start), Duration::ZERO);
        assert_eq!(throttle.debit(500, start), Duration::from_millis(500));
        assert_eq!(throttle.debit(500, start), Duration::from_secs(1));
    }

    #[test]
    fn an_idle_bucket_saves_up_no_more_than_one_second() {
        let throttle = Throttle::new(1000);
        let later = Instant::now() + Duration::from_secs(3600);
        assert_eq!(throttle.debit(2000, later), Duration::from_secs(1));
    }

    #[test]
    fn over_many_chunks_the_rate_is_the_cap() {
        let throttle = Throttle::new(10_000);
        let start = Instant::now();
        let mut now = start;
        for _ in 0..100 {
            now += throttle.debit(1000, now);
        }
        // 100,000 bytes, of which 10,000 were the burst.
        let seconds = (now - start).as_secs_f64();
        assert!((seconds - 9.0).abs() < 0.01, "{seconds}");
    }

    #[test]
    fn without_a_cap_nobody_waits() {
        let throttle = Throttle::new(0);
        assert_eq!(throttle.take(usize::MAX).now_or_never(), Some(()));
    }
}
