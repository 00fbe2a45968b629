//! Hops 5 and 6: watches the desire that node accepted, plans, and hands each application its wish.
//!
//! Without a desire nothing is planned. An application is removed only because an accepted desire lacks it. How one
//! application gets what it is wished is its own task's business (`app.rs`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baetyl_kit::CancellationToken;
use baetyl_kit::backoff::Backoff;
use baetyl_model::desire::{Accept, Desire, Release, accept_desire};
use baetyl_model::name::AppName;
use baetyl_model::plan::{self, Memory, Observed, Seen, Step};
use baetyl_model::workload::WorkloadKey;
use baetyl_proto::shadow;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

use crate::app::{AdoptionGuard, App, AppHandle, Command, Target, Wanted, channels};
use crate::board::{AppView, Views};
use crate::context::Context;
use crate::ports::{Ports, Shadow as _, ShadowEvent};
use crate::release::NodeIdentity;
use crate::store::{Accepted, AppRecord};

#[cfg(test)]
mod tests;

/// The tasks of all applications, as the API reaches them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Apps(Arc<Mutex<BTreeMap<AppName, AppHandle>>>);

impl Apps {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<AppName, AppHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where an application takes commands; None: there is no such application.
    pub(crate) fn commands(&self, name: &str) -> Option<mpsc::Sender<Command>> {
        self.lock().get(name).map(|handle| handle.commands.clone())
    }

    /// Tells an application what is wished of it; false: its task is gone.
    fn tell(&self, name: &AppName, target: Target) -> bool {
        self.lock()
            .get(name)
            .is_some_and(|handle| handle.target.send(target).is_ok())
    }
}

/// What the store and the machine know at the start.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    /// Records of the store.
    pub(crate) records: Vec<AppRecord>,
    /// Workloads on this machine.
    pub(crate) found: Vec<WorkloadKey>,
}

/// Owns the tasks of all applications and the desire they act on.
pub(crate) struct Reconciler<P: Ports> {
    ctx: Arc<Context<P>>,
    apps: Apps,
    desire: Option<Desire>,
    tasks: JoinSet<()>,
    names: HashMap<Id, AppName>,
    /// Counts how often node was reached: what it forgot must be told anew.
    opened: watch::Sender<u64>,
}

impl<P: Ports> Reconciler<P> {
    pub(crate) fn new(ctx: Arc<Context<P>>, apps: Apps, opened: watch::Sender<u64>) -> Self {
        Self {
            ctx,
            apps,
            desire: None,
            tasks: JoinSet::new(),
            names: HashMap::new(),
            opened,
        }
    }

    /// Takes up what ran before, then follows the desire until shutdown.
    pub(crate) async fn run(
        mut self,
        beginning: Beginning,
        adopted: watch::Sender<bool>,
        shutdown: CancellationToken,
    ) {
        self.adopt(beginning).await;
        adopted.send_replace(true);
        let mut desires = self.ctx.shadow.watch(&self.ctx.tasks);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(event) = desires.recv() => match event {
                    ShadowEvent::Opened => self.opened.send_modify(|count| *count += 1),
                    ShadowEvent::Desire(Some(payload)) => self.accept(&payload).await,
                    ShadowEvent::Desire(None) => {
                        tracing::info!("node knows no desire; everything stays as it is");
                    }
                },
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended).await,
            }
        }
    }

    /// Everything with a record goes on as recorded; everything else that is found is left as it is.
    async fn adopt(&mut self, beginning: Beginning) {
        let (guard, mut adopted) = mpsc::channel(1);
        let mut lost: BTreeMap<AppName, Vec<WorkloadKey>> = BTreeMap::new();
        for key in beginning.found {
            lost.entry(key.app.clone()).or_default().push(key);
        }
        for record in beginning.records {
            let name = record.update.app().clone();
            lost.remove(&name);
            self.spawn(
                name,
                Some(record),
                Vec::new(),
                Target::Unknown,
                Some(guard.clone()),
            );
        }
        for (name, keys) in lost {
            tracing::warn!(app = %name, workloads = keys.len(), "found on this machine without a record; it is left alone");
            self.spawn(name, None, keys, Target::Unknown, Some(guard.clone()));
        }
        drop(guard);
        // Nothing is ever sent: the channel closes when the last application has taken up what it ran.
        while adopted.recv().await.is_some() {}
    }

    fn spawn(
        &mut self,
        name: AppName,
        record: Option<AppRecord>,
        lost: Vec<WorkloadKey>,
        target: Target,
        adoption: Option<AdoptionGuard>,
    ) {
        let (handle, inbox) = channels(target);
        let app = App::new(
            Arc::clone(&self.ctx),
            name.clone(),
            record,
            lost,
            inbox,
            adoption,
        );
        let task = self.tasks.spawn(app.run());
        self.names.insert(task.id(), name.clone());
        self.apps.lock().insert(name, handle);
    }

    /// Decides by (epoch, generation). The same desire again is dispatched again: it changes nothing where it was
    /// acted on, and mends what an interruption left out.
    async fn accept(&mut self, payload: &[u8]) {
        let desire = match decode(payload) {
            Ok(desire) => desire,
            Err(reason) => {
                tracing::error!(
                    reason,
                    "the desire of node cannot be read; everything stays as it is"
                );
                return;
            }
        };
        let offered = desire.header();
        let held = self.ctx.board.accepted().map(|accepted| accepted.header);
        // Node knows who it is; a header of another uid is of a former life of this machine.
        if let Accept::Refused(refusal) =
            accept_desire(Some(&offered.node_uid), held.as_ref(), &offered)
        {
            tracing::warn!(%refusal, held = ?held, offered = %offered, "the desire of node is not acted on");
            return;
        }
        let accepted = accepted_of(&desire);
        self.persist(&accepted).await;
        self.ctx.board.accept(accepted);
        self.desire = Some(desire);
        self.apply().await;
    }

    /// Nothing is done before it is durable; a full disk is waited for.
    async fn persist(&self, accepted: &Accepted) {
        if self.ctx.board.accepted().as_ref() == Some(accepted) {
            return;
        }
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        while let Err(error) = self.ctx.store.persist_accepted(accepted).await {
            tracing::error!(
                error = baetyl_kit::error::chain(&error),
                "the accepted desire cannot be written"
            );
            backoff.wait().await;
        }
    }

    /// Hop 6: plans, and hands each application what is wished of it.
    async fn apply(&mut self) {
        let steps = plan::plan(self.desire.as_ref(), &observe(&self.ctx.board.views()));
        for step in &steps {
            tracing::info!(%step, "planned");
        }
        for step in steps {
            if let Step::Stop { app, .. } = step {
                self.apps.tell(&app, Target::Unwanted);
            }
        }
        let Some(desire) = self.desire.clone() else {
            return;
        };
        let node = identity_of(&desire);
        for desired in desire.apps {
            let wanted = Wanted {
                node: node.clone(),
                generation: desire.generation,
                desired,
            };
            self.want(wanted);
        }
    }

    fn want(&mut self, wanted: Wanted) {
        let name = wanted.desired.app.name.clone();
        let target = Target::Wanted(Arc::new(wanted));
        if !self.apps.tell(&name, target.clone()) {
            self.spawn(name, None, Vec::new(), target, None);
        }
    }

    /// A task ended: its application is removed, or it panicked and goes on from its record.
    async fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some(name) = self.names.remove(&id) else {
            return;
        };
        let target = self
            .apps
            .lock()
            .remove(&name)
            .map(|handle| handle.target.borrow().clone());
        if let Err(error) = ended {
            tracing::error!(app = %name, %error, "the task of an application panicked; it begins again");
            return self.begin_again(name, target.unwrap_or_default()).await;
        }
        // Wished again in the moment in which it went.
        let desired = self
            .desire
            .as_ref()
            .and_then(|desire| desire.app(name.as_str()).cloned());
        if let (Some(desired), Some(desire)) = (desired, &self.desire) {
            let wanted = Wanted {
                desired,
                node: identity_of(desire),
                generation: desire.generation,
            };
            self.want(wanted);
        }
    }

    async fn begin_again(&mut self, name: AppName, target: Target) {
        // A fault that comes back at once must not burn the CPU.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let store = self.ctx.store.clone();
        let records = tokio::task::spawn_blocking(move || store.apps()).await;
        let record = match records {
            Ok(Ok(records)) => records
                .into_iter()
                .find(|record| *record.update.app() == name),
            Ok(Err(error)) => {
                tracing::error!(app = %name, error = baetyl_kit::error::chain(&error), "its record cannot be read");
                None
            }
            Err(_) => return,
        };
        self.spawn(name, record, Vec::new(), target, None);
    }
}

fn decode(payload: &[u8]) -> Result<Desire, String> {
    let wire = shadow::Desire::decode(payload).map_err(|error| error.to_string())?;
    Desire::try_from(wire).map_err(|error| baetyl_kit::error::chain(&error))
}

fn identity_of(desire: &Desire) -> NodeIdentity {
    NodeIdentity {
        namespace: desire.namespace.to_string(),
        name: desire.node_name.to_string(),
    }
}

fn accepted_of(desire: &Desire) -> Accepted {
    let versions = desire
        .apps
        .iter()
        .map(|app| (app.app.name.clone(), app.app.version.clone()));
    Accepted {
        header: desire.header(),
        node: identity_of(desire),
        versions: versions.collect(),
        core: desire.core.clone(),
    }
}

/// What the plan is told: every application engine has a task for.
fn observe(views: &Views) -> Observed {
    let mut observed = Observed {
        complete: true,
        ..Observed::default()
    };
    for (name, view) in views.iter() {
        observed.apps.insert(name.clone(), seen(view));
        observed
            .memory
            .insert(name.clone(), Memory::from(&view.update));
        let kept = view.update.kept();
        observed.stored.extend(
            kept.into_iter()
                .flat_map(|release| release.digests.iter().copied()),
        );
    }
    observed
}

fn seen(view: &AppView) -> Seen {
    match (view.update.running(), view.lost.first()) {
        (Some(release), _) => Seen::Present(release.clone()),
        // Something of this version is there; what it consists of is not known.
        (None, Some(key)) => Seen::Present(Release {
            version: key.version.clone(),
            digests: Vec::new(),
        }),
        (None, None) => Seen::Absent,
    }
}
