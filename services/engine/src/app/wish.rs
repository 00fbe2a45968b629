//! What the desire and operators wish of an application.

use std::ops::ControlFlow;
use std::sync::Arc;

use baetyl_model::update::{Event, Update};
use baetyl_model::workload::WorkloadKey;

use super::{App, Command, Retry, Target, Wanted};
use crate::act::{self, Acted, ClearPlan};
use crate::ports::{Ports, Runtime as _};
use crate::store::{AppRecord, StoredRelease};

impl<P: Ports> App<P> {
    /// Turns to what is wished now.
    pub(super) async fn wish(&mut self) -> ControlFlow<()> {
        let target = self.inbox.target.borrow_and_update().clone();
        match target {
            Target::Unknown => {}
            // A removal that began is finished first.
            _ if self.record.removing => {}
            Target::Wanted(wanted) => self.want(&wanted).await,
            Target::Unwanted => {
                if self.is_nothing() {
                    return self.forget().await;
                }
                self.begin_removal().await;
            }
        }
        ControlFlow::Continue(())
    }

    async fn want(&mut self, wanted: &Arc<Wanted>) {
        let release = wanted.desired.release();
        if self.record.release(&release).is_none() {
            self.record.releases.push(StoredRelease {
                desired: wanted.desired.clone(),
                node: wanted.node.clone(),
                taken_at: self.ctx.clock.now(),
                initialised: false,
            });
            self.unsaved = true;
            // Registered before anything of it is fetched.
            self.ctx
                .registry
                .set(self.record.update.app(), self.record.needs());
        }
        let generation = wanted.generation;
        if self.record.update.target() != Some(&release) {
            // What was being fetched for another wish is of no use.
            self.staging = None;
        }
        self.feed(Event::Want {
            release,
            generation,
        })
        .await;
    }

    /// Nothing of it is on this node.
    fn is_nothing(&self) -> bool {
        self.record.update.target().is_none() && self.lost.is_empty()
    }

    pub(super) async fn begin_removal(&mut self) {
        self.staging = None;
        self.acting = None;
        self.effects.clear();
        self.record.removing = true;
        if self.record.update.target().is_some()
            && let Err(error) = self.ctx.store.persist_app(&self.record).await
        {
            return self.try_again(Retry::Remove, &baetyl_kit::error::chain(&error));
        }
        self.unsaved = false;
        match act::known(&self.ctx, self.name()).await {
            Ok(remove) => {
                let plan = ClearPlan {
                    stop: Vec::new(),
                    remove,
                };
                let removal = act::clear(Arc::clone(&self.ctx), plan);
                self.acting = Some(Box::pin(async move { Acted::Removed(removal.await) }));
            }
            Err(error) => self.try_again(Retry::Remove, &error.to_string()),
        }
    }

    /// Everything is removed: forgets the application, unless it is wished again meanwhile.
    pub(super) async fn removed(&mut self) -> ControlFlow<()> {
        if let Err(error) = self.ctx.store.forget_app(self.record.update.app()).await {
            self.try_again(Retry::Remove, &baetyl_kit::error::chain(&error));
            return ControlFlow::Continue(());
        }
        tracing::info!(event = "desire.applied", app = %self.name(), "the application was removed");
        self.ctx.runtime.release(self.name());
        self.ctx.certificates.forget(self.name());
        let update = Update::new(self.name().clone(), self.ctx.config.update.limits());
        self.record = AppRecord::new(update);
        self.lost.clear();
        self.shapes.clear();
        self.started = None;
        self.before.clear();
        self.calm(Retry::Remove);
        if matches!(*self.inbox.target.borrow(), Target::Wanted(_)) {
            return self.wish().await;
        }
        self.forget().await
    }

    async fn forget(&mut self) -> ControlFlow<()> {
        self.taken_up = true;
        self.ctx.registry.remove(self.record.update.app());
        self.ctx.board.remove(self.record.update.app());
        self.ctx.housekeeping.sweep();
        ControlFlow::Break(())
    }

    pub(super) async fn command(&mut self, command: Command) {
        let Command::Restart(reply) = command;
        let update = &self.record.update;
        if self.record.removing {
            let _ = reply.send(Err("it is being removed".to_owned()));
        } else if update.is_settled() && (update.target() != update.running() || update.is_held()) {
            // The wanted version failed: restarting means trying it again.
            let _ = reply.send(Ok(()));
            self.feed(Event::Retry).await;
        } else if self.acting.is_some() || update.running().is_none() {
            let _ = reply.send(Err("an update is under way".to_owned()));
        } else {
            let keys = self.running_workloads();
            let restart = act::restart(Arc::clone(&self.ctx), keys);
            self.restart_reply = Some(reply);
            self.acting = Some(Box::pin(async move { Acted::Restarted(restart.await) }));
        }
    }

    /// Workloads of the running version.
    pub(super) fn keys_of_running(&self) -> Vec<WorkloadKey> {
        let Some(release) = self.record.update.running() else {
            return Vec::new();
        };
        let (Some(stored), Some(shape)) = (
            self.record.release(release),
            self.shapes.get(&release.version),
        ) else {
            return Vec::new();
        };
        crate::instances::workloads(
            &self.ctx.runtime,
            &stored.desired.app.name,
            stored.desired.system,
            &release.version,
            shape,
        )
    }

    /// Those of them that the runtime has.
    pub(super) fn running_workloads(&self) -> Vec<WorkloadKey> {
        let observed = self.ctx.runtime.observed();
        let mut keys = self.keys_of_running();
        keys.retain(|key| observed.workloads.contains_key(key));
        keys
    }
}
