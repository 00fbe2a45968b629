//! What follows when an update reached an end.

use std::sync::Arc;

use baetyl_model::report::Phase;
use baetyl_model::update::State;

use super::{App, Retry};
use crate::act::{self, Acted, ClearPlan};
use crate::ports::{CloudEvent, Ports};
use crate::release::namespace_of;

impl<P: Ports> App<P> {
    /// Tells it and clears away what is no longer needed.
    pub(super) async fn ended(&mut self, phase: Phase) {
        self.staging = None;
        match phase {
            Phase::RolledBack => self.ctx.meters.rollbacks.inc(),
            Phase::Failed => self.ctx.meters.failures.inc(),
            _ => {}
        }
        self.tell_end(phase);
        self.begin_clearing().await;
        self.ctx.housekeeping.sweep();
    }

    fn tell_end(&self, phase: Phase) {
        let update = &self.record.update;
        let version = update.target().map(ToString::to_string).unwrap_or_default();
        let why = update
            .failure()
            .map(|failure| failure.reason.as_str())
            .unwrap_or_default();
        let (reason, message) = match phase {
            Phase::RolledBack => {
                let good = update.good().map(ToString::to_string).unwrap_or_default();
                (
                    "AppRolledBack",
                    format!("version {version} failed and version {good} runs again: {why}"),
                )
            }
            Phase::Failed => ("AppFailed", format!("version {version} failed: {why}")),
            _ => ("AppHealthy", format!("version {version} runs well")),
        };
        self.ctx.events.tell(CloudEvent {
            reason,
            message,
            about: format!("app/{}", self.name()),
            warning: phase != Phase::Healthy,
        });
    }

    /// An earlier program may have been interrupted while it cleared away.
    pub(super) async fn clear_leftovers(&mut self) {
        if self.acting.is_none()
            && matches!(
                self.record.update.state(),
                State::Healthy | State::RolledBack
            )
        {
            self.begin_clearing().await;
        }
    }

    /// What is not run again may still run: its program outlives engine.
    pub(super) async fn begin_holding(&mut self) {
        match act::known(&self.ctx, self.name()).await {
            Ok(stop) => {
                let plan = ClearPlan {
                    stop,
                    remove: Vec::new(),
                };
                let clear = act::clear(Arc::clone(&self.ctx), plan);
                self.acting = Some(Box::pin(async move { Acted::Cleared(clear.await) }));
            }
            Err(error) => self.try_again(Retry::Clear, &error.to_string()),
        }
    }

    /// Once a version has proven itself, all others go; of the one that failed last, directory and logs stay.
    pub(super) async fn begin_clearing(&mut self) {
        let update = &self.record.update;
        if update.is_held() {
            return self.begin_holding().await;
        }
        if !matches!(update.state(), State::Healthy | State::RolledBack) {
            return;
        }
        let Some(running) = update.running() else {
            return;
        };
        let system = self
            .record
            .release(running)
            .is_some_and(|stored| stored.desired.system);
        let (namespace, version) = (namespace_of(system), running.version.clone());
        let failed = update
            .failure()
            .map(|failure| failure.release.version.clone());
        let mut others = match act::known(&self.ctx, self.name()).await {
            Ok(known) => known,
            Err(error) => return self.try_again(Retry::Clear, &error.to_string()),
        };
        others.retain(|key| key.version != version || key.namespace != namespace);
        let (stop, remove) = others
            .into_iter()
            .partition(|key| Some(&key.version) == failed.as_ref());
        let plan = ClearPlan { stop, remove };
        if plan.stop.is_empty() && plan.remove.is_empty() {
            return self.cleared();
        }
        let clear = act::clear(Arc::clone(&self.ctx), plan);
        self.acting = Some(Box::pin(async move { Acted::Cleared(clear.await) }));
    }

    /// Others are gone, and so are their ports.
    pub(super) fn cleared(&mut self) {
        self.lost.clear();
        self.calm(Retry::Clear);
        let kept = self.record.update.kept();
        let mut versions: Vec<String> = kept
            .iter()
            .map(|release| format!(".{}.", release.version))
            .collect();
        versions.extend(
            self.record
                .update
                .failure()
                .map(|failure| format!(".{}.", failure.release.version)),
        );
        let name = self.name().to_string();
        // `<ns>.<app>.<version>.<service>.<i>`; an application's name may contain dots, its version may not.
        let is_kept = |instance: &str| {
            let after_app = instance
                .split_once(&format!(".{name}."))
                .map(|(_, rest)| format!(".{rest}"));
            after_app.is_some_and(|rest| versions.iter().any(|version| rest.starts_with(version)))
        };
        self.record.ports.retain(|instance, _| is_kept(instance));
    }
}
