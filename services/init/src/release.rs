//! Clears away what a Helm left that was killed: it runs right before Helm, in the same Pod and with the same rights.

use std::process::ExitCode;
use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_runtime_kube::{CoreObjects, KubeConfig, KubeError, OpenError};
use tokio::time::{Instant, sleep};

/// How long the API server may be away; after that the Job tries again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why Helm cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// No way to the cluster.
    #[error("the cluster cannot be reached as configured")]
    Open(#[from] OpenError),
    /// It does not answer, or refuses.
    #[error("it cannot be seen whether a Helm was killed while it was at work on the release")]
    Cluster(#[from] KubeError),
    /// The operating system gives no threads or files.
    #[error("the program cannot begin")]
    Begin(#[from] std::io::Error),
}

/// The program.
#[expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "its log is what a person reads"
)]
#[must_use]
pub fn main(namespace: &str, release: &str) -> ExitCode {
    match run(namespace, release) {
        Ok(forgotten) => {
            for revision in forgotten {
                println!(
                    "a Helm was killed while it was at work on {revision}, which is forgotten"
                );
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("baetyl-init: {}", baetyl_kit::error::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(namespace: &str, release: &str) -> Result<Vec<String>, ReleaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let objects = CoreObjects::open(KubeConfig::default()).await?;
        let end = Instant::now() + PATIENCE;
        let mut backoff = Backoff::local();
        loop {
            match objects.forget_pending_release(namespace, release).await {
                Err(error) if error.is_later() && Instant::now() < end => {
                    sleep(backoff.next_delay()).await;
                }
                result => return Ok(result?),
            }
        }
    })
}
