//! Waiting for something to become true, with a deadline and the last reason why it was not.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take before it counts as never: generous, because machines are noisy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `attempt` until it succeeds; answers its value and how long that took.
///
/// # Errors
/// The last failure, when [`PATIENCE`] is over.
pub async fn until<T, F, Fut>(what: &str, attempt: F) -> Result<(T, Duration)>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    until_within(PATIENCE, what, attempt).await
}

/// [`until`] with another pause between two attempts, for measurements.
///
/// # Errors
/// The last failure, when [`PATIENCE`] is over.
pub async fn until_every<T, F, Fut>(
    pause: Duration,
    what: &str,
    attempt: F,
) -> Result<(T, Duration)>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    until_paced(PATIENCE, pause, what, attempt).await
}

/// [`until`] with another deadline.
///
/// # Errors
/// The last failure, when the deadline is over.
pub async fn until_within<T, F, Fut>(
    patience: Duration,
    what: &str,
    attempt: F,
) -> Result<(T, Duration)>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    until_paced(patience, Duration::from_millis(50), what, attempt).await
}

/// [`until`] with another deadline and another pause between two attempts, for attempts that are costly.
///
/// # Errors
/// The last failure, when the deadline is over.
pub async fn until_paced<T, F, Fut>(
    patience: Duration,
    pause: Duration,
    what: &str,
    mut attempt: F,
) -> Result<(T, Duration)>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let start = Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_secs(20), attempt()).await {
            Ok(Ok(value)) => return Ok((value, start.elapsed())),
            Ok(Err(error)) if start.elapsed() > patience => {
                bail!("{what}: not within {patience:?}; last: {error:#}")
            }
            Err(_) if start.elapsed() > patience => {
                bail!("{what}: not within {patience:?}; the last try hung")
            }
            Ok(Err(_)) | Err(_) => tokio::time::sleep(pause).await,
        }
    }
}
