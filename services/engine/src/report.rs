//! Hops 7 and 8: what the runtime observes is rolled up into the status of each application and of the node, and told
//! to node when it changes. Figures of instances travel on their own period and are never on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use baetyl_kit::backoff::Backoff;
use baetyl_model::name::AppName;
use baetyl_model::report::{
    AppStatus, Condition, InstanceStats, InstanceStatus, NodeStats, NodeStatus, ProgramInfo,
    RunStatus, Truth,
};
use baetyl_model::rollup::{self, AppFacts};
use baetyl_model::workload::{Observed, WorkloadKey};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::board::AppView;
use crate::context::Context;
use crate::instances;
use crate::ports::{Ports, Remark, Runtime, Shadow as _, ShadowError};

#[cfg(test)]
mod tests;

/// Keeps node told, for ever, once what ran before the start was taken up (`adopted`): before that nothing is known.
/// `opened` counts how often node was reached.
pub(crate) async fn report<P: Ports>(
    ctx: Arc<Context<P>>,
    mut opened: watch::Receiver<u64>,
    mut adopted: watch::Receiver<bool>,
) {
    if adopted.wait_for(|adopted| *adopted).await.is_err() {
        return;
    }
    sleep(ctx.config.report.gather).await;
    let mut board = ctx.board.watch();
    let mut accepted = ctx.board.watch_accepted();
    let mut remark = ctx.board.watch_remark();
    let mut observed = ctx.runtime.watch();
    let mut roller = Roller::new(&ctx);
    let mut told: Option<Arc<NodeStatus>> = None;
    let mut backoff = Backoff::local();
    let mut retry = false;
    loop {
        let status = roller.roll(&ctx);
        ctx.meters
            .apps(status.apps.values().filter_map(|app| app.phase));
        if told.as_ref() != Some(&status) {
            match tell(&ctx, &status, told.is_none()).await {
                Ok(()) => {
                    told = Some(status);
                    backoff.reset();
                    retry = false;
                }
                Err(error) => {
                    tracing::debug!(%error, "node does not take the report");
                    retry = true;
                }
            }
        }
        let mut seen = false;
        tokio::select! {
            Ok(()) = board.changed() => {}
            Ok(()) = accepted.changed() => {}
            Ok(()) = remark.changed() => {}
            Ok(()) = observed.changed() => seen = true,
            // Node may have forgotten what it was told.
            Ok(()) = opened.changed() => told = None,
            () = backoff.wait(), if retry => {}
            else => return,
        }
        sleep(ctx.config.report.gather).await;
        if seen || observed.has_changed().unwrap_or(false) {
            observed.mark_unchanged();
            note_observed(&ctx.runtime.observed());
        }
        board.mark_unchanged();
        accepted.mark_unchanged();
        remark.mark_unchanged();
    }
}

fn note_observed(observed: &Observed) {
    let instances = || {
        let workloads = observed.workloads.values();
        workloads.flat_map(|workload| &workload.instances)
    };
    tracing::info!(
        event = "report.observed",
        instances = instances().count(),
        ready = instances().filter(|seen| seen.status.ready).count(),
        unknown = observed.unknown,
        "instances changed"
    );
}

/// Node checks tokens with our key, which it keeps in memory only: it is told again when node may have forgotten it.
async fn tell<P: Ports>(
    ctx: &Context<P>,
    status: &NodeStatus,
    anew: bool,
) -> Result<(), ShadowError> {
    if anew {
        ctx.shadow.trust_app_key(ctx.tokens.public_key()).await?;
    }
    ctx.shadow.put_report(Some(status.clone()), None).await
}

/// Tells the figures of instances once in a while, for ever.
pub(crate) async fn report_stats<P: Ports>(ctx: Arc<Context<P>>) {
    let period = ctx.config.report.stats_period;
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut had_any = false;
    loop {
        ticks.tick().await;
        let (usage, machines) = (ctx.runtime.usage().await, ctx.runtime.machine_stats().await);
        if usage.is_empty() && machines.is_empty() && !had_any {
            continue;
        }
        had_any = !usage.is_empty();
        let instances = usage.into_iter().map(|(id, used)| InstanceStats {
            app: id.workload.app.to_string(),
            instance: id.name,
            cpu_used: used.cpu,
            memory_used: used.memory,
            containers: used.containers,
        });
        let stats = NodeStats {
            time: Some(ctx.clock.now()),
            nodes: machines,
            instances: instances.collect(),
        };
        if let Err(error) = ctx.shadow.put_report(None, Some(stats)).await {
            tracing::debug!(%error, "node does not take the figures");
        }
    }
}

/// Rolls up, and remembers what conditions were before.
pub(crate) struct Roller {
    core: ProgramInfo,
    quarantined: Option<String>,
    /// What was rolled up last.
    last: Arc<NodeStatus>,
}

impl Roller {
    /// Goes on from what is on the board.
    pub(crate) fn new<P: Ports>(ctx: &Context<P>) -> Self {
        Self {
            core: core(),
            quarantined: ctx
                .store
                .quarantined()
                .map(|path| path.display().to_string()),
            last: ctx.board.rolled(),
        }
    }

    /// Hop 8: the status of everything, now; told in the log when it changed.
    pub(crate) fn roll<P: Ports>(&mut self, ctx: &Context<P>) -> Arc<NodeStatus> {
        let status = self.look(ctx);
        if *self.last != status {
            tracing::info!(
                event = "report.rolled",
                apps = status.apps.len(),
                generation = status
                    .observed
                    .as_ref()
                    .map(|header| header.generation.get()),
                "the status changed"
            );
            self.last = Arc::new(status);
            ctx.board.roll(Arc::clone(&self.last));
        }
        Arc::clone(&self.last)
    }

    /// The status of everything, now.
    pub(crate) fn look<P: Ports>(&self, ctx: &Context<P>) -> NodeStatus {
        let observed = ctx.runtime.observed();
        let now = ctx.clock.now();
        let apps: BTreeMap<_, _> = ctx
            .board
            .views()
            .iter()
            .map(|(name, view)| (name.clone(), self.app(&ctx.runtime, view, &observed, now)))
            .collect();
        let header = ctx.board.accepted().map(|accepted| accepted.header);
        let machines = ctx.runtime.machines().unwrap_or_default();
        let mut remarks = ctx.runtime.remarks();
        remarks.extend(ctx.board.watch_remark().borrow().clone());
        NodeStatus {
            conditions: self.node_conditions(header.as_ref(), &apps, remarks, now),
            observed: header,
            apps,
            core: self.core.clone(),
            run_mode: P::Runtime::MODE,
            nodes: (*machines.nodes).clone(),
            mode_info: machines.mode_info,
            ..NodeStatus::default()
        }
    }

    fn app<R: Runtime>(
        &self,
        runtime: &R,
        view: &AppView,
        observed: &Observed,
        now: Timestamp,
    ) -> AppStatus {
        let shape = view.running_shape();
        let keys = workloads(runtime, view);
        let instances = instances(view, observed, keys.as_deref());
        let facts = AppFacts {
            update: &view.update,
            shape: match (shape, &keys) {
                (Some(shape), Some(keys)) => instances::for_rollup(shape, observed, keys),
                _ => rollup::Shape {
                    wanted: 1,
                    job: false,
                },
            },
            deploy_type: shape.map_or("", |shape| shape.workload.as_str()),
            system: view.system,
            instances: instances.as_deref(),
            previous: self.last.apps.get(view.update.app()),
        };
        let mut status = rollup::rollup_app(&facts, now);
        if let (None, Some(key)) = (view.update.running(), view.lost.first()) {
            status.version = Some(key.version.clone());
            "it was found running without a record and is left alone until a desire is accepted"
                .clone_into(&mut status.cause);
        }
        if let Some(why) = &observed.unknown {
            why.clone_into(&mut status.cause);
        } else if status.cause.is_empty() && status.status != RunStatus::Running {
            status.cause = instances::message(observed, keys.as_deref().unwrap_or_default());
        }
        if !view.trouble.is_empty() {
            let blocked = condition(
                "Blocked",
                "CannotProceed",
                &view.trouble,
                status.observed_generation,
            );
            let before = self
                .last
                .apps
                .get(view.update.app())
                .map_or(&[][..], |before| &before.conditions);
            status
                .conditions
                .extend(rollup::transition(before, vec![blocked], now));
        }
        status
    }

    fn node_conditions(
        &self,
        header: Option<&baetyl_model::Header>,
        apps: &BTreeMap<AppName, AppStatus>,
        remarks: Vec<Remark>,
        now: Timestamp,
    ) -> Vec<Condition> {
        let mut conditions = rollup::rollup_node(header, apps.values(), &self.last.conditions, now);
        if let Some(path) = &self.quarantined {
            let generation = header.map(|header| header.generation).unwrap_or_default();
            let message = format!("engine's records were damaged; they are kept as {path}");
            let lost = condition("EngineStateLost", "Quarantined", &message, generation);
            conditions.extend(rollup::transition(&self.last.conditions, vec![lost], now));
        }
        for remark in remarks {
            let generation = header.map(|header| header.generation).unwrap_or_default();
            let told = condition(remark.condition, remark.reason, &remark.message, generation);
            conditions.extend(rollup::transition(&self.last.conditions, vec![told], now));
        }
        conditions
    }
}

fn condition(
    kind: &str,
    reason: &str,
    message: &str,
    generation: baetyl_model::Generation,
) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: Truth::True,
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition: None,
    }
}

/// Workloads of the version that runs; None when it is not known what it consists of.
fn workloads<R: Runtime>(runtime: &R, view: &AppView) -> Option<Vec<WorkloadKey>> {
    let (release, shape) = (view.update.running()?, view.running_shape()?);
    Some(instances::workloads(
        runtime,
        view.update.app(),
        view.system,
        &release.version,
        shape,
    ))
}

/// None: nobody can tell.
fn instances(
    view: &AppView,
    observed: &Observed,
    keys: Option<&[WorkloadKey]>,
) -> Option<Vec<InstanceStatus>> {
    match keys {
        // Nothing was ever started: there are none. Otherwise its content was lost, and what runs is not watched.
        None => (view.update.running().is_none() && view.lost.is_empty()).then(Vec::new),
        Some(_) if observed.unknown.is_some() => None,
        Some(keys) => Some(instances::report_all(observed, keys)),
    }
}

/// What this program is, in the words of container platforms.
fn core() -> ProgramInfo {
    let (arch, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", ""),
        "arm" => ("arm", "v7"),
        other => (other, ""),
    };
    ProgramInfo {
        name: "baetyl-engine".to_owned(),
        version: baetyl_kit::VERSION.to_owned(),
        arch: arch.to_owned(),
        os: std::env::consts::OS.to_owned(),
        variant: variant.to_owned(),
    }
}
