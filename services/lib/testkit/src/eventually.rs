//! Waiting for a condition instead of sleeping.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How long a test waits for something that should be there at once: long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

const STEP: Duration = Duration::from_millis(10);

/// Waits until `condition` gives true; panics after `timeout` saying `what` did not come about.
pub async fn eventually<F, Fut>(timeout: Duration, what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    until(timeout, what, || {
        let holds = condition();
        async move {
            if holds.await {
                Ok(())
            } else {
                Err("it does not hold")
            }
        }
    })
    .await;
}

/// Waits until `attempt` gives a value and returns it; panics after `timeout` with the last error.
pub async fn until<T, E, F, Fut>(timeout: Duration, what: &str, mut attempt: F) -> T
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + timeout;
    let mut last = "the first attempt did not end".to_owned();
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => {}
        }
        assert!(
            Instant::now() < deadline,
            "waited {timeout:?} for: {what}; last: {last}"
        );
        sleep(STEP).await;
    }
}

/// `eventually!(condition)` or `eventually!(condition, "what")`: waits (up to [`PATIENCE`](crate::PATIENCE))
/// until the expression, which may use `.await`, is true.
#[macro_export]
macro_rules! eventually {
    ($condition:expr $(,)?) => {
        $crate::eventually!($condition, stringify!($condition))
    };
    ($condition:expr, $what:expr $(,)?) => {
        $crate::eventually($crate::PATIENCE, $what, async || $condition).await
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_the_condition_holds() {
        let count = AtomicU32::new(0);
        eventually!(count.fetch_add(1, Ordering::Relaxed) >= 3);
        assert_eq!(count.load(Ordering::Relaxed), 4);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "waited 1s for: the sky falls; last: still up")]
    async fn waiting_in_vain_says_for_what() {
        let attempt = || async { Err::<(), _>("still up") };
        until(Duration::from_secs(1), "the sky falls", attempt).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "waited 1s for: an answer")]
    async fn an_attempt_that_hangs_is_given_up() {
        let attempt = std::future::pending::<Result<(), &str>>;
        until(Duration::from_secs(1), "an answer", attempt).await;
    }
}
