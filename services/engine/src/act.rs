//! What is done to the runtime for one application: starting a version, clearing others away, removing all.
//!
//! Each act is a future that its application drops when something newer is wished; all of them may be begun again at
//! any point.

use std::sync::Arc;

use baetyl_model::desire::Release;
use baetyl_model::name::AppName;
use baetyl_model::workload::{WorkloadKey, WorkloadState};

use crate::context::Context;
use crate::ports::{Ports, Runtime, RuntimeError};

/// What a start consists of, in this order.
#[derive(Debug)]
pub(crate) struct StartPlan<W> {
    /// Stopped before anything is started.
    pub(crate) stop_first: Vec<WorkloadKey>,
    /// What runs on beside the new version until that is ready.
    pub(crate) beside: Vec<W>,
    /// Run to their end one after the other.
    pub(crate) init: Vec<W>,
    /// The version.
    pub(crate) run: Vec<W>,
    /// Stopped after the version was started.
    pub(crate) stop_last: Vec<WorkloadKey>,
}

impl<W> Default for StartPlan<W> {
    fn default() -> Self {
        Self {
            stop_first: Vec::new(),
            beside: Vec::new(),
            init: Vec::new(),
            run: Vec::new(),
            stop_last: Vec::new(),
        }
    }
}

/// Executes a start.
pub(crate) async fn start<P: Ports>(
    ctx: Arc<Context<P>>,
    plan: StartPlan<<P::Runtime as Runtime>::Workload>,
) -> Result<(), RuntimeError> {
    for key in &plan.stop_first {
        ctx.runtime.stop(key).await?;
    }
    for workload in plan.beside {
        // What ran until now going on is a help, not a condition.
        if let Err(error) = run(&ctx.runtime, workload).await {
            tracing::warn!(%error, "the version before could not be kept running");
        }
    }
    for workload in plan.init {
        let key = P::Runtime::key(&workload).clone();
        run(&ctx.runtime, workload).await?;
        until_done(&ctx.runtime, &key).await?;
    }
    for workload in plan.run {
        run(&ctx.runtime, workload).await?;
    }
    for key in &plan.stop_last {
        ctx.runtime.stop(key).await?;
    }
    Ok(())
}

/// Takes a workload under supervision. Another content under the same key, and a stop that was interrupted by a newer
/// wish, are brought to an end first.
async fn run<R: Runtime>(runtime: &R, workload: R::Workload) -> Result<(), RuntimeError> {
    match runtime.run(workload.clone()).await {
        Err(RuntimeError::InTheWay(why)) => {
            let key = R::key(&workload);
            tracing::info!(workload = %key, why, "stopped before it is started");
            runtime.stop(key).await?;
            runtime.run(workload).await
        }
        other => other,
    }
}

/// Waits until an init service ended.
async fn until_done<R: Runtime>(runtime: &R, key: &WorkloadKey) -> Result<(), RuntimeError> {
    let mut watch = runtime.watch();
    loop {
        watch.mark_unchanged();
        let observed = runtime.observed();
        match observed.workloads.get(key).map(|workload| workload.state) {
            Some(WorkloadState::Succeeded) => return Ok(()),
            Some(WorkloadState::Failed) => {
                let cause = observed
                    .of(key)
                    .map(|seen| seen.status.cause.as_str())
                    .find(|cause| !cause.is_empty());
                let cause = cause.unwrap_or("no cause is known");
                return Err(RuntimeError::Failed(format!(
                    "init service {} failed: {cause}",
                    key.service
                )));
            }
            _ => {}
        }
        let stopping = |_| RuntimeError::Failed("the runtime is stopping".to_owned());
        watch.changed().await.map_err(stopping)?;
    }
}

/// What is left of other versions once one has settled.
#[derive(Debug, Default)]
pub(crate) struct ClearPlan {
    /// Stopped; its directory and logs stay for whoever wants to know why it failed.
    pub(crate) stop: Vec<WorkloadKey>,
    /// Removed with everything it left.
    pub(crate) remove: Vec<WorkloadKey>,
}

/// Executes it as far as it goes; the rest is told.
pub(crate) async fn clear<P: Ports>(
    ctx: Arc<Context<P>>,
    plan: ClearPlan,
) -> Result<(), RuntimeError> {
    let mut result = Ok(());
    for key in &plan.stop {
        result = result.and(ctx.runtime.stop(key).await);
    }
    for key in &plan.remove {
        result = result.and(ctx.runtime.remove(key).await);
    }
    result
}

/// Ends and starts all instances of these workloads.
pub(crate) async fn restart<P: Ports>(
    ctx: Arc<Context<P>>,
    keys: Vec<WorkloadKey>,
) -> Result<(), RuntimeError> {
    for key in &keys {
        ctx.runtime.restart(key).await?;
    }
    Ok(())
}

/// All workloads of an application on this machine, supervised or not. An error is "unknown", never "none".
pub(crate) async fn known<P: Ports>(
    ctx: &Context<P>,
    app: &AppName,
) -> Result<Vec<WorkloadKey>, RuntimeError> {
    let mut keys = ctx.runtime.found().await?;
    keys.retain(|key| key.app == *app);
    let observed = ctx.runtime.observed();
    keys.extend(
        observed
            .workloads
            .keys()
            .filter(|key| key.app == *app)
            .cloned(),
    );
    keys.sort();
    keys.dedup();
    Ok(keys)
}

/// What came of an act.
#[derive(Debug)]
pub(crate) enum Acted {
    /// A version was started, or not.
    Started {
        /// Which.
        release: Release,
        /// Whether.
        result: Result<(), RuntimeError>,
    },
    /// Content that was lost is there again, or not yet.
    Refetched {
        /// Of which version.
        release: Release,
        /// Whether.
        result: Result<crate::stage::Staged, crate::ports::ContentError>,
    },
    /// Other versions were cleared away.
    Cleared(Result<(), RuntimeError>),
    /// Everything was removed.
    Removed(Result<(), RuntimeError>),
    /// Instances were restarted.
    Restarted(Result<(), RuntimeError>),
}
