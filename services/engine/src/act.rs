//! What is done to the runtime for one application: starting a version, clearing others away, removing all.
//!
//! Each act is a future that its application drops when something newer is wished; all of them may be begun again at
//! any point.

use std::sync::Arc;

use baetyl_model::desire::Release;
use baetyl_model::name::AppName;
use baetyl_runtime_native::status::WorkloadState;
use baetyl_runtime_native::{WorkloadKey, WorkloadSpec, put_instance_file};

use crate::context::Context;
use crate::ports::{Ports, Runtime, RuntimeError};
use crate::resolve::TOKEN_FILE;

/// What a start consists of, in this order.
#[derive(Debug, Default)]
pub(crate) struct StartPlan {
    /// Stopped before anything is started.
    pub(crate) stop_first: Vec<WorkloadKey>,
    /// What runs on beside the new version until that is ready.
    pub(crate) beside: Vec<WorkloadSpec>,
    /// Run to their end one after the other.
    pub(crate) init: Vec<WorkloadSpec>,
    /// The version.
    pub(crate) run: Vec<WorkloadSpec>,
    /// Stopped after the version was started.
    pub(crate) stop_last: Vec<WorkloadKey>,
}

/// Executes a start.
pub(crate) async fn start<P: Ports>(
    ctx: Arc<Context<P>>,
    plan: StartPlan,
) -> Result<(), RuntimeError> {
    for key in &plan.stop_first {
        ctx.runtime.stop(key).await?;
    }
    refresh_tokens(&ctx, plan.beside.iter().chain(&plan.init).chain(&plan.run)).await;
    for spec in plan.beside {
        // What ran until now going on is a help, not a condition.
        if let Err(error) = run(&ctx.runtime, spec).await {
            tracing::warn!(%error, "the version before could not be kept running");
        }
    }
    for spec in plan.init {
        let key = spec.key.clone();
        run(&ctx.runtime, spec).await?;
        until_done(&ctx.runtime, &key).await?;
    }
    for spec in plan.run {
        run(&ctx.runtime, spec).await?;
    }
    for key in &plan.stop_last {
        ctx.runtime.stop(key).await?;
    }
    Ok(())
}

/// Takes a workload under supervision. Another content under the same key, and a stop that was interrupted by a newer
/// wish, are brought to an end first.
async fn run<R: Runtime>(runtime: &R, spec: WorkloadSpec) -> Result<(), RuntimeError> {
    match runtime.run(spec.clone()) {
        Err(RuntimeError::InTheWay(why)) => {
            tracing::info!(workload = %spec.key, why, "stopped before it is started");
            runtime.stop(&spec.key).await?;
            runtime.run(spec)
        }
        other => other,
    }
}

/// Waits until an init service ended.
async fn until_done<R: Runtime>(runtime: &R, key: &WorkloadKey) -> Result<(), RuntimeError> {
    let mut watch = runtime.watch();
    let ended = |state: Option<&WorkloadState>| {
        matches!(
            state,
            Some(WorkloadState::Succeeded | WorkloadState::Failed)
        )
    };
    let observed = watch
        .wait_for(|observed| ended(observed.workloads.get(key)))
        .await
        .map_err(|_| RuntimeError::Failed("the runtime is stopping".to_owned()))?
        .clone();
    if observed.workloads.get(key) == Some(&WorkloadState::Succeeded) {
        return Ok(());
    }
    let cause = observed
        .of(key)
        .map(|(_, seen)| seen.message.as_str())
        .find(|message| !message.is_empty());
    let cause = cause.unwrap_or("no cause is known");
    Err(RuntimeError::Failed(format!(
        "init service {} failed: {cause}",
        key.service
    )))
}

/// Instances that run already have the token of the key engine had when it started them, or none when the directory
/// was lost: they find a valid one at the path they know.
async fn refresh_tokens<P: Ports>(
    ctx: &Arc<Context<P>>,
    specs: impl Iterator<Item = &WorkloadSpec>,
) {
    let mut tokens = Vec::new();
    for spec in specs {
        for (index, instance) in (1..).zip(&spec.instances) {
            let dir = ctx.runtime.instance_dir(&spec.key.instance(index));
            let token = instance.files.iter().find(|file| file.path == TOKEN_FILE);
            if let Some(token) = token {
                tokens.push((dir, token.clone(), instance.user));
            }
        }
    }
    let refreshed = tokio::task::spawn_blocking(move || {
        for (dir, token, user) in tokens {
            if let Err(error) = put_instance_file(&dir, &token, user) {
                tracing::warn!(dir = %dir.display(), %error, "a token could not be renewed");
            }
        }
    });
    let _ = refreshed.await;
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
        let removed = ctx.runtime.remove(key).await;
        if removed.is_ok() {
            ctx.runtime.release_ports(key);
        }
        result = result.and(removed);
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
    let observed = ctx.runtime.watch().borrow().clone();
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
