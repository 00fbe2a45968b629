//! Starting a version, and seeing how it does.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use baetyl_model::Digest;
use baetyl_model::desire::Release;
use baetyl_model::rollup;
use baetyl_model::update::{Event, Health, State};
use baetyl_model::workload::WorkloadKey;

use super::{App, Retry};
use crate::act::{self, Acted, StartPlan};
use crate::bodies::Bodies;
use crate::instances;
use crate::ports::{ContentError, Ports, Runtime};
use crate::release::{Contents, Resolved, namespace_of};
use crate::shape::{Shape, Strategy};
use crate::stage;
use crate::store::StoredRelease;

/// What the runtime of a node runs.
type WorkloadOf<P> = <<P as Ports>::Runtime as Runtime>::Workload;

/// Why a version cannot be started.
enum Unstartable {
    /// Its content was lost: it has to be fetched again.
    Incomplete,
    /// It cannot run here.
    Refused(String),
}

impl<P: Ports> App<P> {
    /// Makes sure that this version runs.
    pub(super) async fn begin_run(&mut self, release: Release) {
        // A newer wish pre-empts whatever is being done.
        self.acting = None;
        let planned = self.plan_start(&release).await;
        match planned {
            Ok(plan) => {
                // These may take minutes.
                self.taken_up |= !plan.init.is_empty();
                let start = act::start(Arc::clone(&self.ctx), plan);
                self.acting = Some(Box::pin(async move {
                    let result = start.await;
                    Acted::Started { release, result }
                }));
            }
            Err(Unstartable::Incomplete) => self.begin_refetch(release),
            Err(Unstartable::Refused(reason)) => self.refused(release, reason),
        }
    }

    /// The machine decides while the version is on probation; otherwise it is tried again later.
    fn refused(&mut self, release: Release, reason: String) {
        self.taken_up = true;
        if matches!(
            self.record.update.state(),
            State::Applying { .. } | State::Probing { .. }
        ) {
            self.queue.push_back(Event::ApplyFailed { release, reason });
        } else {
            self.try_again(Retry::Run, &reason);
        }
    }

    pub(super) async fn run_again(&mut self) {
        if let Some(release) = self.record.update.running().cloned() {
            self.begin_run(release).await;
            self.feed(Event::Tick).await;
        }
    }

    /// What ran before and cannot be started for want of its content is fetched again.
    fn begin_refetch(&mut self, release: Release) {
        self.taken_up = true;
        let Some(stored) = self.stored(&release) else {
            return;
        };
        let after = self.backoff.next_delay();
        "its content was lost on this node and is being fetched again"
            .clone_into(&mut self.trouble);
        let fetch = stage::stage(
            Arc::clone(&self.ctx),
            stored.desired,
            after,
            self.told.clone(),
        );
        self.acting = Some(Box::pin(async move {
            let result = fetch.await;
            Acted::Refetched { release, result }
        }));
    }

    async fn plan_start(
        &mut self,
        release: &Release,
    ) -> Result<StartPlan<WorkloadOf<P>>, Unstartable> {
        let stored = self
            .stored(release)
            .ok_or_else(|| Unstartable::Refused("it is not in the record".to_owned()))?;
        let handed_before = self.record.handed();
        let resolved = self.resolve(&stored).await?;
        let mut plan = StartPlan {
            run: resolved.services,
            ..StartPlan::default()
        };
        if P::Runtime::IN_PLACE {
            return Ok(plan);
        }
        if !stored.initialised {
            plan.init = resolved.init;
        }
        let rolling = resolved.shape.strategy == Strategy::Rolling;
        self.plan_others(release, &stored, rolling, &mut plan)
            .await?;
        if self.record.handed() != handed_before {
            self.keep_handed().await.map_err(Unstartable::Refused)?;
        }
        Ok(plan)
    }

    /// What becomes of the versions before: one may go on beside the new one, all others are stopped before it or after.
    async fn plan_others(
        &mut self,
        release: &Release,
        stored: &StoredRelease,
        rolling: bool,
        plan: &mut StartPlan<WorkloadOf<P>>,
    ) -> Result<(), Unstartable> {
        let update = &self.record.update;
        let forward = matches!(
            update.state(),
            State::Applying { back: false } | State::Probing { back: false }
        );
        let good = update.good().filter(|good| *good != release).cloned();
        if let Some(good) = good.filter(|_| forward && rolling) {
            plan.beside = self.resolve_beside(&good).await;
        }
        let others = self
            .others(release, stored, &plan.beside)
            .await
            .map_err(|error| Unstartable::Refused(error.to_string()))?;
        if !matches!(
            self.record.update.state(),
            State::Applying { .. } | State::Probing { .. }
        ) {
            return Ok(());
        }
        if forward && rolling {
            plan.stop_last = others
                .into_iter()
                .filter(|key| !self.lost.contains(key))
                .collect();
        } else {
            plan.stop_first = others;
        }
        Ok(())
    }

    /// Ports and user are on disk before an instance has them. Going back does not wait for the disk: what is lost with
    /// engine is found again at the instance that has it.
    async fn keep_handed(&mut self) -> Result<(), String> {
        let Err(error) = self.ctx.store.persist_app(&self.record).await else {
            return Ok(());
        };
        self.unsaved = true;
        let reason = baetyl_kit::error::chain(&error);
        match self.record.update.state() {
            State::Applying { back: true } | State::Probing { back: true } => {
                self.try_again(Retry::Save, &reason);
                Ok(())
            }
            _ => Err(reason),
        }
    }

    /// What runs of the version before; without its content it runs on unwatched.
    async fn resolve_beside(&mut self, good: &Release) -> Vec<WorkloadOf<P>> {
        let Some(stored) = self.stored(good) else {
            return Vec::new();
        };
        match self.resolve(&stored).await {
            Ok(resolved) => resolved.services,
            Err(_) => Vec::new(),
        }
    }

    /// Workloads of this application that are neither of this version nor of the one beside it.
    async fn others(
        &mut self,
        release: &Release,
        stored: &StoredRelease,
        beside: &[WorkloadOf<P>],
    ) -> Result<Vec<WorkloadKey>, crate::ports::RuntimeError> {
        let namespace = namespace_of(stored.desired.system);
        let mut others = act::known(&self.ctx, self.name()).await?;
        others.retain(|key| {
            let own = key.version == release.version && key.namespace == namespace;
            !own && !beside.iter().any(|beside| P::Runtime::key(beside) == key)
        });
        Ok(others)
    }

    /// Turns a release into workloads, from what is on this node alone.
    async fn resolve(
        &mut self,
        stored: &StoredRelease,
    ) -> Result<Resolved<WorkloadOf<P>>, Unstartable> {
        let held = match stage::stored_bodies(&self.ctx, &stored.desired).await {
            Ok(held) => held,
            Err(error) => return Err(Unstartable::Refused(error.to_string())),
        };
        self.learn_shape(stored, &held);
        let mut objects = stored.desired.objects.iter();
        let complete =
            !P::Runtime::TAKES_OBJECTS || objects.all(|object| self.ctx.objects.has(object));
        let bodies = match Bodies::parse(&stored.desired, |digest| held.get(digest).cloned()) {
            Ok(bodies) if complete => bodies,
            Ok(_) => return Err(Unstartable::Incomplete),
            Err(error) if error.is_missing() => return Err(Unstartable::Incomplete),
            Err(error) => return Err(Unstartable::Refused(baetyl_kit::error::chain(&error))),
        };
        let ctx = Arc::clone(&self.ctx);
        let reachable: Vec<Digest> = self.record.objects().map(|object| object.digest).collect();
        let contents = Contents {
            release: &stored.desired,
            bodies: &bodies,
            objects: &ctx.objects,
            node: &stored.node,
            tokens: &ctx.tokens,
            authority: &ctx.certificates,
            reachable: &reachable,
            taken_at: stored.taken_at,
        };
        let mut handed = self.record.handed();
        let resolved = ctx.runtime.resolve(&contents, &mut handed);
        // Also of what is refused: nobody else is given it meanwhile.
        (self.record.ports, self.record.user) = (handed.ports, handed.user);
        let resolved = resolved.map_err(Unstartable::Refused)?;
        self.shapes
            .insert(stored.desired.app.version.clone(), resolved.shape.clone());
        Ok(resolved)
    }

    /// What others are told of a version (its functions) follows from the application alone, also while the rest of its
    /// content is missing.
    fn learn_shape(&mut self, stored: &StoredRelease, held: &BTreeMap<Digest, Vec<u8>>) {
        let body = held.get(&stored.desired.app.digest);
        if let Some(shape) = body.and_then(|body| Shape::of_body(body)) {
            self.shapes
                .insert(stored.desired.app.version.clone(), shape);
        }
    }

    /// What came of an act.
    pub(super) async fn acted(&mut self, acted: Acted) -> ControlFlow<()> {
        match acted {
            Acted::Started { release, result } => self.started(release, result).await,
            Acted::Refetched { release, result } => self.refetched(release, result).await,
            Acted::Cleared(Ok(())) => self.cleared(),
            Acted::Cleared(Err(error)) => self.try_again(Retry::Clear, &error.to_string()),
            Acted::Removed(Ok(())) => return self.removed().await,
            Acted::Removed(Err(error)) => self.try_again(Retry::Remove, &error.to_string()),
            Acted::Restarted(result) => {
                if let Some(reply) = self.restart_reply.take() {
                    let _ = reply.send(result.map_err(|error| error.to_string()));
                }
            }
        }
        ControlFlow::Continue(())
    }

    async fn started(&mut self, release: Release, result: Result<(), crate::ports::RuntimeError>) {
        self.taken_up = true;
        if let Err(error) = result {
            self.refused(release, error.to_string());
            return self.feed(Event::Tick).await;
        }
        self.calm(Retry::Run);
        if let Some(stored) = self
            .record
            .releases
            .iter_mut()
            .find(|stored| stored.desired.release() == release)
            && !stored.initialised
        {
            stored.initialised = true;
            self.unsaved = true;
        }
        let keys = self.running_workloads();
        let observed = self.ctx.runtime.observed();
        if self.started.as_ref() != Some(&release) {
            self.before = rollup::restarts(&instances::report_all(&observed, &keys));
            self.started = Some(release.clone());
        }
        tracing::info!(event = "desire.applied", app = %self.name(), version = %release,
            generation = self.record.update.generation().get(), "the version was started");
        self.feed(Event::Applied { release }).await;
        self.look().await;
        self.clear_leftovers().await;
    }

    async fn refetched(&mut self, release: Release, result: Result<stage::Staged, ContentError>) {
        let kept = match result {
            Ok(staged) => self.keep_bodies(&release, staged).await,
            Err(error) => Err(error.to_string()),
        };
        match kept {
            Ok(()) => {
                self.calm(Retry::Run);
                self.begin_run(release).await;
                self.feed(Event::Tick).await;
            }
            Err(reason) => self.try_again(
                Retry::Run,
                &format!("its content was lost on this node: {reason}"),
            ),
        }
    }

    /// Tells the update how the running version does.
    pub(super) async fn look(&mut self) {
        self.observed.mark_unchanged();
        let observed = self.ctx.runtime.observed();
        if observed.unknown.is_some() {
            // What was seen last says nothing about now.
            return;
        }
        let Some(release) = self.record.update.running().cloned() else {
            return;
        };
        if self.started.as_ref() != Some(&release) || self.record.removing {
            return;
        }
        let Some(shape) = self.shapes.get(&release.version) else {
            return;
        };
        let (keys, is_job) = (self.keys_of_running(), shape.is_job());
        let (mut exits, before) = (0, std::mem::take(&mut self.exits));
        for seen in keys.iter().flat_map(|key| observed.of(key)) {
            exits += u64::from(seen.status.restarts);
        }
        self.ctx.meters.restarts.add(exits.saturating_sub(before));
        self.exits = exits;
        let health = instances::health(shape, &observed, &keys, &self.before);
        if !is_job {
            // A job that is gone has done its work.
            self.miss(&observed, &keys);
        }
        if exits > before && health == Health::Ready {
            // It ended and runs again since the last look: what counts is how long it runs now.
            let health = Health::Starting { why: String::new() };
            self.feed(Event::Observed {
                release: release.clone(),
                health,
            })
            .await;
        }
        self.feed(Event::Observed { release, health }).await;
    }
}
