//! One application: a task that drives its update from version to version.
//!
//! What to do is decided by [`baetyl_model::update::Update`]; here its events are gathered (wishes, what came of
//! staging and starting, what is seen of instances, time), its states are made durable before anything is done, and its
//! effects are carried out. Nothing here waits for another application.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_model::desire::{DesiredApp, Release};
use baetyl_model::name::{AppName, Generation, Version};
use baetyl_model::rollup::Restarts;
use baetyl_model::update::{Effect, Event, Update};
use baetyl_model::workload::WorkloadKey;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::act::Acted;
use crate::board::AppView;
use crate::context::Context;
use crate::ports::{ContentError, Ports, Runtime};
use crate::release::NodeIdentity;
use crate::shape::Shape;
use crate::stage::{self, Staged, Staging};
use crate::store::{AppRecord, StoredRelease};

mod durable;
mod restoring;
mod running;
mod settled;
#[cfg(test)]
mod tests;
mod wish;

/// What the accepted desire says of an application.
#[derive(Debug, Clone, Default)]
pub(crate) enum Target {
    /// No desire was accepted since the start: everything stays as it is.
    #[default]
    Unknown,
    /// It shall run.
    Wanted(Arc<Wanted>),
    /// An accepted desire lacks it.
    Unwanted,
}

/// A wish.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// What shall run.
    pub(crate) desired: DesiredApp,
    /// Who the node is.
    pub(crate) node: NodeIdentity,
    /// Generation of the desire.
    pub(crate) generation: Generation,
}

/// What an operator asks.
#[derive(Debug)]
pub(crate) enum Command {
    /// Restart all instances, or try a failed version again.
    Restart(oneshot::Sender<Result<(), String>>),
}

/// The outside of an application's task.
#[derive(Debug)]
pub(crate) struct AppHandle {
    pub(crate) target: watch::Sender<Target>,
    pub(crate) commands: mpsc::Sender<Command>,
}

/// The inside of the same channels.
#[derive(Debug)]
pub(crate) struct Inbox {
    target: watch::Receiver<Target>,
    commands: mpsc::Receiver<Command>,
}

/// Channels between the reconciler and one application.
pub(crate) fn channels(target: Target) -> (AppHandle, Inbox) {
    let (target, target_inside) = watch::channel(target);
    let (commands, commands_inside) = mpsc::channel(4);
    let inbox = Inbox {
        target: target_inside,
        commands: commands_inside,
    };
    (AppHandle { target, commands }, inbox)
}

/// Dropped once what the application ran before the start was taken up again.
pub(crate) type AdoptionGuard = mpsc::Sender<()>;

type Slot<T> = Option<BoxFuture<'static, T>>;

/// The task.
pub(crate) struct App<P: Ports> {
    ctx: Arc<Context<P>>,
    record: AppRecord,
    /// Found on this machine without a record.
    lost: Vec<WorkloadKey>,
    shapes: BTreeMap<Version, Shape>,
    inbox: Inbox,
    observed: watch::Receiver<<P::Runtime as Runtime>::Seen>,
    online: watch::Receiver<bool>,
    told: watch::Sender<Staging>,
    told_seen: watch::Receiver<Staging>,
    began: Instant,
    last_event: Instant,
    /// When this program saw the update enter its state.
    entered: Option<Instant>,
    /// What is not on disk yet is not acted upon.
    unsaved: bool,
    effects: VecDeque<Effect>,
    queue: VecDeque<Event>,
    staging: Slot<(Release, Result<Staged, ContentError>)>,
    acting: Slot<Acted>,
    restart_reply: Option<oneshot::Sender<Result<(), String>>>,
    /// What was handed to the runtime since the start of this program.
    started: Option<Release>,
    /// Restarts of each instance when the running version was started.
    before: Restarts,
    /// All restarts at the last look.
    exits: u64,
    trouble: String,
    retry: Option<(Instant, Retry)>,
    backoff: Backoff,
    restoring: restoring::Restoring,
    adoption: Option<AdoptionGuard>,
    /// What it ran before the start was taken up again, or nobody has to wait for that.
    taken_up: bool,
}

/// What is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// Writing the record.
    Save,
    /// Running the running version.
    Run,
    /// Putting back what others took of the running version.
    Restore,
    /// Removing.
    Remove,
    /// Clearing other versions away.
    Clear,
}

impl<P: Ports> App<P> {
    /// From what the store and the machine say of it.
    pub(crate) fn new(
        ctx: Arc<Context<P>>,
        name: AppName,
        record: Option<AppRecord>,
        lost: Vec<WorkloadKey>,
        inbox: Inbox,
        adoption: Option<AdoptionGuard>,
    ) -> Self {
        let limits = ctx.config.update.limits();
        let record = record.unwrap_or_else(|| AppRecord::new(Update::new(name, limits)));
        let (observed, online) = (ctx.runtime.watch(), ctx.online.subscribe());
        let (told, told_seen) = watch::channel(Staging::default());
        Self {
            ctx,
            record,
            lost,
            shapes: BTreeMap::new(),
            inbox,
            observed,
            online,
            told,
            told_seen,
            began: Instant::now(),
            last_event: Instant::now(),
            entered: None,
            unsaved: false,
            effects: VecDeque::new(),
            queue: VecDeque::new(),
            staging: None,
            acting: None,
            restart_reply: None,
            started: None,
            before: Restarts::new(),
            exits: 0,
            trouble: String::new(),
            retry: None,
            // A disk that is full or a port range that is used up does not change within moments.
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(60)),
            restoring: restoring::Restoring::new(),
            adoption,
            taken_up: false,
        }
    }

    fn name(&self) -> &AppName {
        self.record.update.app()
    }

    /// Runs until the application is removed or the other end is dropped.
    pub(crate) async fn run(mut self) {
        self.resume().await;
        if self.wish().await.is_break() {
            return;
        }
        loop {
            self.publish();
            if self.taken_up {
                // Only now: whoever waits for it looks at what was published.
                self.adoption = None;
            }
            if self.turn().await.is_break() {
                return;
            }
        }
    }

    /// Waits for one thing to happen and deals with it.
    async fn turn(&mut self) -> ControlFlow<()> {
        let wake = self.wake_at();
        tokio::select! {
            changed = self.inbox.target.changed() => {
                if changed.is_err() {
                    return ControlFlow::Break(());
                }
                return self.wish().await;
            }
            Some(command) = self.inbox.commands.recv() => self.command(command).await,
            (release, staged) = filled(&mut self.staging) => {
                self.staging = None;
                self.staged(release, staged).await;
            }
            acted = filled(&mut self.acting) => {
                self.acting = None;
                return self.acted(acted).await;
            }
            Ok(()) = self.observed.changed() => self.look().await,
            Ok(()) = self.online.changed() => {
                if *self.online.borrow_and_update() {
                    self.feed(Event::Online).await;
                }
            }
            Ok(()) = self.told_seen.changed() => {}
            () = sleep_until(wake) => self.tick().await,
        }
        ControlFlow::Continue(())
    }

    /// After a start of the program: what should run is told to the runtime again.
    async fn resume(&mut self) {
        self.ctx
            .registry
            .set(self.record.update.app(), self.record.needs());
        if self.record.removing {
            // Nobody waits for it: what goes is not taken up again.
            self.taken_up = true;
            self.begin_removal().await;
            return;
        }
        self.feed(Event::Resume).await;
        if self.record.update.is_held() {
            self.taken_up = true;
            self.begin_holding().await;
        }
        if let Some(generation) = self.acted_on() {
            let target = self.record.update.target().cloned();
            if let Some(release) = target {
                self.feed(Event::Want {
                    release,
                    generation,
                })
                .await;
            }
        }
        if self.acting.is_none() {
            self.taken_up = true;
        }
    }

    /// The generation of the last accepted desire, when this application acted on it before the start.
    fn acted_on(&self) -> Option<Generation> {
        let accepted = self.ctx.board.accepted()?;
        let wanted = accepted.versions.get(self.name())?;
        let target = self.record.update.target()?;
        (*wanted == target.version).then_some(accepted.header.generation)
    }

    /// Gives an event to the update, and deals with everything that follows.
    async fn feed(&mut self, event: Event) {
        self.queue.push_back(event);
        while let Some(event) = self.queue.pop_front() {
            let now = self.began.elapsed();
            let (next, effects) = self.record.update.clone().next(event, now);
            self.last_event = Instant::now();
            self.advance(next);
            self.effects.extend(effects);
            self.commit().await;
        }
    }

    fn begin_staging(&mut self, release: Release, after: Duration) {
        let Some(stored) = self.record.release(&release) else {
            tracing::error!(app = %self.name(), version = %release, "a version to stage is not in the record");
            return;
        };
        let staging = stage::stage(
            Arc::clone(&self.ctx),
            stored.desired.clone(),
            after,
            self.told.clone(),
        );
        self.staging = Some(Box::pin(async move { (release, staging.await) }));
    }

    async fn staged(&mut self, release: Release, result: Result<Staged, ContentError>) {
        let event = match result {
            Ok(staged) => {
                let limits = Some(staged.limits);
                match self.keep_bodies(&release, staged).await {
                    Ok(()) => Event::Staged { release, limits },
                    Err(reason) => Event::StageFailed {
                        release,
                        reason,
                        permanent: false,
                    },
                }
            }
            Err(error) => Event::StageFailed {
                release,
                permanent: error.is_permanent(),
                reason: error.to_string(),
            },
        };
        self.feed(event).await;
    }

    /// Writes the bodies of a staged release, so that it can be run without anybody's help from now on.
    async fn keep_bodies(&mut self, release: &Release, staged: Staged) -> Result<(), String> {
        let Some(stored) = self.record.release(release) else {
            // Something newer is wished.
            return Ok(());
        };
        let needed = stored
            .desired
            .references()
            .iter()
            .map(|reference| reference.digest)
            .collect();
        self.shapes.insert(release.version.clone(), staged.shape);
        let written = self
            .ctx
            .store
            .persist_staged(&self.record, staged.fresh, &needed)
            .await;
        written.map_err(|error| baetyl_kit::error::chain(&error))
    }

    /// When time alone will change something.
    fn wake_at(&self) -> Option<Instant> {
        let update = self
            .record
            .update
            .wake_in()
            .map(|after| self.last_event + after);
        let retry = self.retry.map(|(at, _)| at);
        update.into_iter().chain(retry).min()
    }

    async fn tick(&mut self) {
        if let Some((at, retry)) = self.retry
            && at <= Instant::now()
        {
            self.retry = None;
            match retry {
                Retry::Save => self.commit().await,
                Retry::Run => self.run_again().await,
                Retry::Restore => self.restore().await,
                Retry::Remove => self.begin_removal().await,
                Retry::Clear => self.begin_clearing().await,
            }
        }
        if self.ctx.runtime.observed().unknown.is_some() && !self.record.update.is_settled() {
            // Nobody can tell how it does: this time does not count.
            self.began += self.last_event.elapsed();
            self.last_event = Instant::now();
        } else if !self.record.removing {
            self.feed(Event::Tick).await;
        }
    }

    /// Something could not be done: says so and tries again later.
    fn try_again(&mut self, what: Retry, why: &str) {
        let after = self.backoff.next_delay();
        tracing::warn!(app = %self.name(), ?what, why, ?after, "engine cannot go on with an application; it tries again");
        why.clone_into(&mut self.trouble);
        self.retry = Some((Instant::now() + after, what));
    }

    /// What failed before works again.
    fn calm(&mut self, what: Retry) {
        if self.retry.is_none_or(|(_, pending)| pending == what) {
            self.retry = None;
            self.trouble.clear();
            self.backoff.reset();
        }
    }

    fn stored(&self, release: &Release) -> Option<StoredRelease> {
        self.record.release(release).cloned()
    }

    /// Puts the state where report, endpoints and API see it.
    fn publish(&mut self) {
        let staging = self.told_seen.borrow_and_update().clone();
        if let Some((version, shape)) = staging.shape {
            self.shapes.entry(version).or_insert(shape);
        }
        let kept = self.record.update.kept();
        self.shapes
            .retain(|version, _| kept.iter().any(|release| release.version == *version));
        let newest = self.record.update.running().or(self.record.update.target());
        let system = newest
            .and_then(|release| self.record.release(release))
            .is_some_and(|stored| stored.desired.system);
        let lost_system = self
            .lost
            .iter()
            .any(|key| key.namespace.as_str() == crate::release::SYSTEM_NAMESPACE);
        self.ctx.board.put(AppView {
            update: self.record.update.clone(),
            system: system || lost_system,
            shapes: self.shapes.clone(),
            lost: self.lost.clone(),
            progress: self.staging.is_some().then_some(staging.progress),
            removing: self.record.removing,
            trouble: self.trouble.clone(),
        });
    }
}

/// What is in a slot, once it is done; never when there is nothing in it.
async fn filled<T>(slot: &mut Slot<T>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
