//! Hops 7 and 8: what the runtime observes is rolled up into the status of each application and of the node, and told
//! to node when it changes. Figures of instances travel on their own period and are never on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use baetyl_kit::backoff::Backoff;
use baetyl_model::name::AppName;
use baetyl_model::report::{
    AppStatus, Condition, InstanceStats, NodeStats, NodeStatus, ProgramInfo, RunMode, Truth,
};
use baetyl_model::rollup::{self, AppFacts};
use baetyl_runtime_native::Observed;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::board::AppView;
use crate::context::Context;
use crate::instances;
use crate::ports::{Ports, Runtime as _, Shadow as _, ShadowError};
use crate::shape::Shape;

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
            Ok(()) = observed.changed() => seen = true,
            // Node may have forgotten what it was told.
            Ok(()) = opened.changed() => told = None,
            () = backoff.wait(), if retry => {}
            else => return,
        }
        sleep(ctx.config.report.gather).await;
        if seen || observed.has_changed().unwrap_or(false) {
            note_observed(&observed.borrow_and_update());
        }
        board.mark_unchanged();
        accepted.mark_unchanged();
    }
}

fn note_observed(observed: &Observed) {
    let ready = observed
        .instances
        .values()
        .filter(|seen| seen.ready)
        .count();
    tracing::info!(
        event = "report.observed",
        instances = observed.instances.len(),
        ready,
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
        let usage = ctx.runtime.usage().await;
        if usage.is_empty() && !had_any {
            continue;
        }
        had_any = !usage.is_empty();
        let instances = usage.into_iter().map(|(id, used)| InstanceStats {
            app: id.workload.app.to_string(),
            instance: id.to_string(),
            cpu_used: used.cpu,
            memory_used: used.memory,
            ..InstanceStats::default()
        });
        let stats = NodeStats {
            time: Some(ctx.clock.now()),
            nodes: Vec::new(),
            instances: instances.collect(),
        };
        if let Err(error) = ctx.shadow.put_report(None, Some(stats)).await {
            tracing::debug!(%error, "node does not take the figures");
        }
    }
}

/// Rolls up, and remembers what conditions were before.
pub(crate) struct Roller {
    hostname: String,
    core: ProgramInfo,
    quarantined: Option<String>,
    shared_user: Option<String>,
    /// What was rolled up last.
    last: Arc<NodeStatus>,
}

impl Roller {
    /// Goes on from what is on the board.
    pub(crate) fn new<P: Ports>(ctx: &Context<P>) -> Self {
        Self {
            hostname: hostname(),
            core: core(),
            quarantined: ctx
                .store
                .quarantined()
                .map(|path| path.display().to_string()),
            shared_user: shared_user(ctx),
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
        let observed = ctx.runtime.watch().borrow().clone();
        let now = ctx.clock.now();
        let apps: BTreeMap<_, _> = ctx
            .board
            .views()
            .iter()
            .map(|(name, view)| (name.clone(), self.app(view, &observed, now)))
            .collect();
        let header = ctx.board.accepted().map(|accepted| accepted.header);
        NodeStatus {
            conditions: self.node_conditions(header.as_ref(), &apps, now),
            observed: header,
            apps,
            core: self.core.clone(),
            run_mode: RunMode::Native,
            ..NodeStatus::default()
        }
    }

    fn app(&self, view: &AppView, observed: &Observed, now: Timestamp) -> AppStatus {
        let shape = view.running_shape();
        let instances = self.instances(view, shape, observed);
        let facts = AppFacts {
            update: &view.update,
            shape: shape.map_or(
                rollup::Shape {
                    wanted: 1,
                    job: false,
                },
                Shape::for_rollup,
            ),
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

    /// None: nobody can tell.
    fn instances(
        &self,
        view: &AppView,
        shape: Option<&Shape>,
        observed: &Observed,
    ) -> Option<Vec<baetyl_model::InstanceStatus>> {
        let (Some(release), Some(shape)) = (view.update.running(), shape) else {
            // Nothing was ever started: there are none. Otherwise its content was lost, and what runs is not watched.
            let none = view.update.running().is_none() && view.lost.is_empty();
            return none.then(Vec::new);
        };
        let keys = instances::workloads(view.update.app(), view.system, &release.version, shape);
        Some(instances::report_all(observed, &keys, &self.hostname))
    }

    fn node_conditions(
        &self,
        header: Option<&baetyl_model::Header>,
        apps: &BTreeMap<AppName, AppStatus>,
        now: Timestamp,
    ) -> Vec<Condition> {
        let mut conditions = rollup::rollup_node(header, apps.values(), &self.last.conditions, now);
        if let Some(path) = &self.quarantined {
            let generation = header.map(|header| header.generation).unwrap_or_default();
            let message = format!("engine's records were damaged; they are kept as {path}");
            let lost = condition("EngineStateLost", "Quarantined", &message, generation);
            conditions.extend(rollup::transition(&self.last.conditions, vec![lost], now));
        }
        if let Some(why) = &self.shared_user {
            let generation = header.map(|header| header.generation).unwrap_or_default();
            let shared = condition("AppsShareUser", "CannotSeparate", why, generation);
            conditions.extend(rollup::transition(&self.last.conditions, vec![shared], now));
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

/// Why applications run as the user of engine, or some of them, although each should have its own.
fn shared_user<P: Ports>(ctx: &Context<P>) -> Option<String> {
    let private = &ctx.place.private_runtimes;
    let of_runtimes = || {
        let ids: Vec<&str> = private.iter().map(String::as_str).collect();
        format!(
            "functions run as the user of engine, because the programs of these runtimes are closed to others: {}",
            ids.join(", ")
        )
    };
    let shared = ctx.runtime.users().shared().map(str::to_owned);
    shared.or_else(|| (!private.is_empty()).then(of_runtimes))
}

fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
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
