//! The core services another version is wished of: engine makes one Job, `baetyl-init upgrade` of that version, and tells
//! how it does. What it does next is decided in [`baetyl_model::upgrade`], from what is wished, what runs, the record in a
//! Secret and the Job. See `docs/adr/0017-core-upgrade.md`.

use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_model::upgrade::{Core, Job, Next, Phase, RECORD, SECRET, Upgrade, next};
use baetyl_runtime_kube::{JobState, Object};
use tokio::time::{Instant, sleep};

use super::core::labels;
use super::secrets::{Data, Secrets};
use crate::board::Board;
use crate::config::Kube as Settings;
use crate::ports::{Remark, RuntimeError};
use crate::release::SYSTEM_NAMESPACE;

mod job;
#[cfg(test)]
mod tests;

/// Between two looks at a Job.
const LOOK: Duration = Duration::from_secs(3);

/// The condition of the node.
const CONDITION: &str = "CoreUpgrade";

/// The Job of upgrades, and the Secret with their record.
pub(crate) trait Jobs: Secrets {
    /// How it does; None: there is none.
    fn job(&self) -> impl Future<Output = Result<Option<JobState>, RuntimeError>> + Send;

    /// What its Pod waits for or died of.
    fn trouble(&self) -> impl Future<Output = Result<Option<String>, RuntimeError>> + Send;

    /// Makes it.
    fn start(&self, job: Object) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Deletes it, and waits until its Pods are gone.
    fn delete(&self) -> impl Future<Output = Result<(), RuntimeError>> + Send;
}

/// What runs, as the manifests told this engine: the image of sync has registry and version of all of ours.
fn running(settings: &Settings) -> Option<Core> {
    let image = settings.sync_image.as_deref()?;
    let (image, version) = image.rsplit_once(':')?;
    let (registry, _) = image.rsplit_once('/')?;
    Some(Core {
        version: version.to_owned(),
        class: settings.class.clone()?,
        registry: registry.to_owned(),
    })
}

/// Does what the accepted desire wishes of the core services, for ever. Asks nothing of anybody while nothing is under way.
pub(crate) async fn keep<J: Jobs>(cluster: J, settings: Settings, board: Board) {
    let mut accepted = board.watch_accepted();
    let runs = running(&settings);
    let mut keeper = Keeper {
        cluster,
        settings,
        board,
        begun: None,
    };
    let mut backoff = Backoff::local();
    loop {
        let wish = {
            let accepted = accepted.borrow_and_update();
            // Who accepted nothing knows of no wish, and not that there is none.
            accepted.as_ref().map(|accepted| accepted.core.clone())
        };
        let pause = match (wish, &runs) {
            (Some(wish), Some(runs)) => match keeper.step(wish.as_ref(), runs).await {
                Ok(goes_on) => {
                    backoff.reset();
                    goes_on.then_some(LOOK)
                }
                Err(error) => {
                    tracing::warn!(%error, "an upgrade of the core services cannot be looked after");
                    Some(backoff.next_delay())
                }
            },
            (Some(Some(_)), None) => {
                keeper.tell("Failed", "the core services were applied by somebody else than the cloud's install command; upgrade them the same way".to_owned());
                None
            }
            _ => None,
        };
        tokio::select! {
            changed = accepted.changed() => if changed.is_err() {
                return;
            },
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

struct Keeper<J> {
    cluster: J,
    settings: Settings,
    board: Board,
    /// Since when a Job is seen that has not got to work.
    begun: Option<Instant>,
}

impl<J: Jobs> Keeper<J> {
    fn tell(&self, reason: &'static str, message: String) {
        self.board.remark(Some(Remark {
            condition: CONDITION,
            reason,
            message,
        }));
    }

    fn tell_of(&self, record: Option<&Upgrade>, trouble: Option<String>) {
        match record {
            Some(record) => {
                let (reason, mut message) = record.tell();
                if let Some(trouble) = trouble {
                    message = format!("{message}: {trouble}");
                }
                self.tell(reason, message);
            }
            None => self.board.remark(None),
        }
    }

    /// One look, and what follows from it; true: something is under way.
    async fn step(
        &mut self,
        wish: Option<&baetyl_model::DesiredCore>,
        runs: &Core,
    ) -> Result<bool, RuntimeError> {
        let record = self.record().await?;
        let (job, trouble) = self.job(record.as_ref()).await?;
        self.tell_of(record.as_ref(), trouble);
        let step = next(wish, runs, record.as_ref(), &job);
        if !matches!(step, Next::Rest | Next::Look) {
            tracing::info!(?step, ?job, "the core services of this node");
        }
        match step {
            Next::Rest => return Ok(false),
            Next::Look => {}
            Next::Begin(to) => {
                self.cluster.delete().await?;
                // With what the upgrade before kept.
                self.cluster.remove(SYSTEM_NAMESPACE, SECRET).await?;
                let record = Upgrade::new(runs.clone(), to);
                self.write(&record).await?;
                // Before this engine may be replaced.
                self.tell_of(Some(&record), None);
                self.start(&record).await?;
            }
            Next::Resume => {
                self.cluster.delete().await?;
                if let Some(record) = self.record().await? {
                    self.start(&record).await?;
                }
            }
            Next::Forget => {
                if self.call_off().await?.is_some() {
                    self.cluster.remove(SYSTEM_NAMESPACE, SECRET).await?;
                }
            }
            Next::GiveUp(why) => {
                if let Some(mut record) = self.call_off().await? {
                    record.phase = Phase::Failed;
                    record.message = format!("{why}; nothing was changed");
                    self.write(&record).await?;
                }
            }
        }
        Ok(true)
    }

    /// Deletes the Job; then nobody writes the record any more. None: something was changed after all.
    async fn call_off(&self) -> Result<Option<Upgrade>, RuntimeError> {
        self.cluster.delete().await?;
        let record = self.record().await?;
        Ok(record.filter(|record| matches!(record.phase, Phase::Begun | Phase::Failed)))
    }

    async fn record(&self) -> Result<Option<Upgrade>, RuntimeError> {
        let held = self.cluster.get(SYSTEM_NAMESPACE, SECRET).await?;
        let record = held.unwrap_or_default().remove(RECORD);
        record
            .map(|record| serde_json::from_slice(&record))
            .transpose()
            .map_err(|error| {
                RuntimeError::Failed(format!(
                    "Secret {SYSTEM_NAMESPACE}/{SECRET}: its key {RECORD} is no record of an upgrade: {error}; delete it"
                ))
            })
    }

    async fn write(&self, record: &Upgrade) -> Result<(), RuntimeError> {
        let text = serde_json::to_vec(record);
        let text = text.map_err(|error| RuntimeError::Failed(error.to_string()))?;
        let data = Data::from([(RECORD.to_owned(), text)]);
        self.cluster
            .put(SYSTEM_NAMESPACE, SECRET, &labels(), &data)
            .await
    }

    async fn start(&mut self, record: &Upgrade) -> Result<(), RuntimeError> {
        self.begun = None;
        self.cluster
            .start(job::job(&self.settings, &record.to))
            .await
    }

    /// How the Job does, and what its Pod waits for while it has not got to work.
    async fn job(
        &mut self,
        record: Option<&Upgrade>,
    ) -> Result<(Job, Option<String>), RuntimeError> {
        let state = self.cluster.job().await?;
        let waits = state == Some(JobState::Active)
            && record.is_some_and(|record| record.phase == Phase::Begun);
        if !waits {
            self.begun = None;
        }
        let job = match state {
            None => Job::Absent,
            Some(JobState::Succeeded) => Job::Ended("the Job ended without a record".to_owned()),
            Some(JobState::Failed(why)) => Job::Ended(format!("the Job failed: {why}")),
            Some(JobState::Active) if waits => {
                let trouble = self.cluster.trouble().await?;
                let since = *self.begun.get_or_insert_with(Instant::now);
                if since.elapsed() < self.settings.upgrade_start_deadline {
                    return Ok((Job::Active, trouble));
                }
                let why = trouble.unwrap_or_else(|| "its Pod does nothing".to_owned());
                Job::Overdue(format!("the Job did not get to work: {why}"))
            }
            Some(JobState::Active) => Job::Active,
        };
        Ok((job, None))
    }
}
