//! How long to wait before the next attempt: exponential with full jitter.
//!
//! Full jitter (any delay between `min` and the current cap is equally likely) spreads a fleet that lost
//! its cloud at one moment; a mere ± percentage would bring all nodes back in the same second.

use std::time::Duration;

/// The policy and the number of failures so far. Cheap to clone; a clone starts where the original is.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    factor: f64,
    attempt: u32,
}

impl Backoff {
    /// Delays between `min` and a cap that starts at `min * factor` and doubles up to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max: max.max(min),
            factor: 2.0,
            attempt: 0,
        }
    }

    /// For peers on the same machine: 50 ms to 5 s.
    pub fn local() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(5))
    }

    /// For the cloud: 1 s to 5 min.
    pub fn remote() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(300))
    }

    /// Replaces the growth factor (default 2, values below 1 count as 1).
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor.max(1.0);
        self
    }

    /// Failures since the last [`reset`](Self::reset).
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Call after a success: the next delay is a short one again.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// The next delay; counts one failure.
    pub fn next_delay(&mut self) -> Duration {
        self.next_delay_with(random_fraction())
    }

    /// The next delay for a given random number in `0.0..=1.0`, for callers that own their randomness.
    pub fn next_delay_with(&mut self, fraction: f64) -> Duration {
        self.attempt = self.attempt.saturating_add(1);
        let cap = self.cap();
        self.min + (cap - self.min).mul_f64(fraction.clamp(0.0, 1.0))
    }

    /// Sleeps for the next delay. Cancel-safe: dropping the future has only counted the failure.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }

    fn cap(&self) -> Duration {
        let exponent = i32::try_from(self.attempt).unwrap_or(i32::MAX);
        let seconds = self.min.as_secs_f64() * self.factor.powi(exponent);
        // Also the answer for infinity and NaN, which `from_secs_f64` would panic on.
        if seconds < self.max.as_secs_f64() {
            Duration::from_secs_f64(seconds).clamp(self.min, self.max)
        } else {
            self.max
        }
    }
}

/// Uniform in `0.0..1.0`. Without randomness the delay is the middle one, never none.
fn random_fraction() -> f64 {
    crate::crypto::random_bytes::<4>().map_or(0.5, |bytes| {
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_cap_doubles_until_the_maximum_and_a_reset_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let delays: Vec<u128> = (0..6)
            .map(|_| backoff.next_delay_with(1.0).as_millis())
            .collect();
        assert_eq!(delays, [200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(backoff.attempt(), 6);
        backoff.reset();
        assert_eq!(backoff.next_delay_with(1.0), Duration::from_millis(200));
    }

    #[test]
    fn no_luck_gives_the_minimum_each_time() {
        let mut backoff = Backoff::remote();
        for _ in 0..5 {
            assert_eq!(backoff.next_delay_with(0.0), Duration::from_secs(1));
        }
    }

    proptest! {
        #[test]
        fn a_delay_is_always_within_its_bounds(
            min in 0u64..10_000,
            spread in 0u64..1_000_000,
            factor in 0.0f64..1e6,
            failures in 0u32..200,
        ) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(min + spread));
            let mut backoff = Backoff::new(min, max).factor(factor);
            for _ in 0..failures {
                let delay = backoff.next_delay();
                prop_assert!(delay >= min && delay <= max, "{delay:?} not in {min:?}..={max:?}");
            }
        }
    }
}
