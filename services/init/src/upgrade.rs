//! The Job `baetyl-init upgrade`: puts the core services of this version in the place of those that run, and puts those
//! back when the new ones do not work. See `docs/adr/0017-core-upgrade.md`.
//!
//! Whatever it does next stands in its record before it does it: killed at any point and started again, it goes on from
//! there. Everything it applies may be applied twice.

use std::time::Duration;

use baetyl_kit::Kit;
use baetyl_kit::backoff::Backoff;
use baetyl_model::upgrade::{Core, Phase, Upgrade};
use baetyl_runtime_kube::{KubeError, Object, OpenError};
use tokio::time::{Instant, sleep};

use crate::{Config, Error};

mod cluster;
mod health;
mod owned;
mod sets;
#[cfg(test)]
mod tests;

pub use cluster::ApiServer;
pub use sets::SetError;

use sets::Set;

/// How often applying is begun: a program that ends in the middle again and again is a reason to go back, too.
const MAX_STARTS: u32 = 3;
/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// How long everything must be well without a break.
const SETTLED: Duration = Duration::from_secs(10);

/// What shall run, as engine says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Version, class and registry.
    pub to: Core,
    /// Secret that opens the registry.
    pub pull_secret: Option<String>,
    /// How long the new version may take to work, and after it how long the old.
    pub deadline: Duration,
}

/// How an upgrade ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The new version runs.
    Upgraded,
    /// It does not; why, and what runs now.
    Failed(String),
}

/// Why an upgrade could not go on. Another start goes on with it.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// No way to the cluster.
    #[error("the cluster cannot be reached as configured")]
    Open(#[from] OpenError),
    /// No way to sync.
    #[error(transparent)]
    Peer(#[from] Error),
    /// The cluster does not answer, or refuses what an upgrade needs in any case.
    #[error("the cluster does not do what an upgrade needs")]
    Cluster(#[from] KubeError),
    /// The record is none.
    #[error("the record of the upgrade cannot be read or written")]
    Record(#[from] serde_json::Error),
    /// Nobody wants this.
    #[error("no upgrade to {0} is recorded: it was called off")]
    CalledOff(Core),
    /// The process is to end.
    #[error("interrupted; the next start goes on from here")]
    Interrupted,
}

/// The record, and what was applied before.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kept {
    record: Upgrade,
    old: Vec<Object>,
}

/// What an upgrade needs of the cluster and of sync.
pub(crate) trait Cluster {
    /// The record and what was applied before.
    async fn kept(&self) -> Result<Option<Kept>, UpgradeError>;
    /// Keeps both.
    async fn keep(&self, kept: &Kept) -> Result<(), UpgradeError>;
    /// An object as it is, whole.
    async fn live(&self, object: &Object) -> Result<Option<serde_json::Value>, KubeError>;
    /// Everything labelled as the core's, of the kinds an upgrade may list.
    async fn all(&self) -> Result<Vec<Object>, KubeError>;
    /// Applies, or asks what would be said to it.
    async fn apply(&self, object: &Object, dry_run: bool) -> Result<(), KubeError>;
    /// Deletes and applies.
    async fn replace(&self, object: &Object) -> Result<(), KubeError>;
    /// Deletes.
    async fn delete(&self, object: &Object) -> Result<(), KubeError>;
    /// What a Pod of a service waits for or died of.
    async fn trouble(&self, service: &str) -> Option<String>;
    /// Whether the node is in contact with the cloud.
    async fn reaches_cloud(&self) -> bool;
}

/// Brings the upgrade of the record to its end.
///
/// # Errors
/// [`UpgradeError`]; another start goes on where this one stopped.
pub async fn run(config: Config, kit: Kit, wanted: Wanted) -> Result<Ended, UpgradeError> {
    let cluster = ApiServer::open(&config, &kit).await?;
    tokio::select! {
        ended = upgrade(&cluster, &wanted) => ended,
        () = kit.until_shutdown() => Err(UpgradeError::Interrupted),
    }
}

async fn upgrade<C: Cluster>(cluster: &C, wanted: &Wanted) -> Result<Ended, UpgradeError> {
    let kept = cluster.kept().await?;
    let kept = kept.filter(|kept| kept.record.to == wanted.to);
    let kept = kept.ok_or_else(|| UpgradeError::CalledOff(wanted.to.clone()))?;
    let phase = kept.record.phase;
    let mut way = Way {
        cluster,
        wanted,
        kept,
    };
    tracing::info!(from = %way.kept.record.from, to = %wanted.to, ?phase, "upgrading the core services");
    if phase == Phase::Begun
        && let Err(stop) = way.prepare().await
    {
        return way.stop(stop).await;
    }
    match way.kept.record.phase {
        Phase::Upgraded => Ok(Ended::Upgraded),
        Phase::Failed => Ok(Ended::Failed(way.kept.record.message)),
        Phase::RollingBack => way.put_back().await,
        Phase::Begun | Phase::Applying => match way.apply().await {
            Ok(ended) => Ok(ended),
            Err(stop) => way.roll_back(stop).await,
        },
    }
}

/// Why it does not go on forwards.
enum Stop {
    /// For a reason that stays.
    Reason(String),
    /// Nothing can be said; another start may go on.
    Later(UpgradeError),
}

impl<E: Into<UpgradeError>> From<E> for Stop {
    fn from(error: E) -> Self {
        match error.into() {
            UpgradeError::Cluster(error) if !error.is_later() => Self::Reason(error.to_string()),
            other => Self::Later(other),
        }
    }
}

/// An upgrade under way.
struct Way<'a, C> {
    cluster: &'a C,
    wanted: &'a Wanted,
    kept: Kept,
}

impl<C: Cluster> Way<'_, C> {
    async fn write(&self) -> Result<(), UpgradeError> {
        let deadline = self.end();
        again(deadline, async || self.cluster.keep(&self.kept).await).await
    }

    fn end(&self) -> Instant {
        Instant::now() + self.wanted.deadline
    }

    async fn new_set(&self) -> Result<Set, Stop> {
        let facts = again(self.end(), async || {
            Ok(self.cluster.live(&sets::cloud()).await?)
        });
        Set::render(self.wanted, facts.await?.as_ref())
            .map_err(|error| Stop::Reason(error.to_string()))
    }

    /// Everything that can be known beforehand is asked beforehand: nothing is changed here.
    async fn prepare(&mut self) -> Result<(), Stop> {
        let end = self.end();
        let set = self.new_set().await?;
        for object in &set.verified {
            let live = again(end, async || Ok(self.cluster.live(object).await?)).await?;
            sets::verify(object, live.as_ref()).map_err(Stop::Reason)?;
        }
        for object in &set.applied {
            again(end, async || Ok(self.cluster.apply(object, true).await?)).await?;
        }
        self.kept.old = again(end, async || self.what_is_applied().await).await?;
        if self.kept.old.is_empty() {
            let words = "nothing here was applied as baetyl-core, so nothing could be put back; install the node with its install command";
            return Err(Stop::Reason(words.to_owned()));
        }
        self.kept.record.online = self.cluster.reaches_cloud().await;
        self.kept.record.phase = Phase::Applying;
        Ok(self.write().await?)
    }

    /// What installation or the last upgrade applied: of each live object the fields that are theirs.
    async fn what_is_applied(&self) -> Result<Vec<Object>, UpgradeError> {
        let mut old = Vec::new();
        let listed = self.cluster.all().await?;
        for object in sets::known(self.wanted, &listed) {
            let live = self.cluster.live(&object).await?;
            old.extend(live.and_then(|live| owned::owned(&live, baetyl_manifests::FIELD_MANAGER)));
        }
        Ok(old)
    }

    async fn apply(&mut self) -> Result<Ended, Stop> {
        if self.kept.record.starts >= MAX_STARTS {
            let words = format!("it was interrupted {MAX_STARTS} times");
            return Err(Stop::Reason(words));
        }
        self.kept.record.starts += 1;
        self.write().await?;
        let end = self.end();
        let set = self.new_set().await?;
        for object in &set.applied {
            again(end, async || self.put(object).await).await?;
        }
        tracing::info!(objects = set.applied.len(), "the new version is applied");
        let well = health::until_well(self.cluster, &set.applied, self.kept.record.online, end);
        well.await.map_err(Stop::Reason)?;
        for object in sets::left_over(&self.kept.old, &set.applied) {
            // What cannot go does no harm, and the new version runs.
            if let Err(error) = self.cluster.delete(object).await {
                tracing::warn!(%error, "what the new version lacks could not be removed");
            }
        }
        self.kept.record.phase = Phase::Upgraded;
        self.write().await?;
        Ok(Ended::Upgraded)
    }

    /// A Job cannot be changed: one that is other than it should be is made anew.
    async fn put(&self, object: &Object) -> Result<(), UpgradeError> {
        if object.kind != "Job" {
            return Ok(self.cluster.apply(object, false).await?);
        }
        let live = self.cluster.live(object).await?;
        if live.is_some_and(|live| sets::difference(&object.body, &live).is_none()) {
            return Ok(());
        }
        Ok(self.cluster.replace(object).await?)
    }

    async fn roll_back(&mut self, stop: Stop) -> Result<Ended, UpgradeError> {
        let reason = match stop {
            Stop::Reason(reason) => reason,
            Stop::Later(error) => return Err(error),
        };
        tracing::warn!(reason, "the version before is put back");
        self.kept.record.phase = Phase::RollingBack;
        self.kept.record.message = reason;
        self.write().await?;
        self.put_back().await
    }

    async fn put_back(&mut self) -> Result<Ended, UpgradeError> {
        let end = self.end();
        let mut wrong = Vec::new();
        for object in &self.kept.old {
            match again(end, async || self.put(object).await).await {
                Ok(()) => {}
                Err(UpgradeError::Cluster(error)) if !error.is_later() => {
                    wrong.push(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        // When it cannot be rendered, nothing of it was applied.
        if let Ok(set) = self.new_set().await {
            for object in sets::left_over(&set.applied, &self.kept.old) {
                if let Err(error) = self.cluster.delete(object).await {
                    tracing::warn!(%error, "what the version before lacks could not be removed");
                }
            }
        }
        // Whether the cloud is reached says nothing about the old version, which reached it before.
        if let Err(why) = health::until_well(self.cluster, &self.kept.old, false, end).await {
            wrong.push(why);
        }
        let Upgrade { from, message, .. } = &self.kept.record;
        let after = if wrong.is_empty() {
            format!("{} was put back", from.version)
        } else {
            format!("putting {} back failed: {}", from.version, wrong.join("; "))
        };
        let message = format!("{message}; {after}");
        self.fail(message).await
    }

    /// Before anything was changed.
    async fn stop(&mut self, stop: Stop) -> Result<Ended, UpgradeError> {
        match stop {
            Stop::Reason(reason) => self.fail(format!("{reason}; nothing was changed")).await,
            Stop::Later(error) => Err(error),
        }
    }

    async fn fail(&mut self, message: String) -> Result<Ended, UpgradeError> {
        self.kept.record.phase = Phase::Failed;
        self.kept.record.message.clone_from(&message);
        self.write().await?;
        Ok(Ended::Failed(message))
    }
}

/// Again and again while the cluster does not answer, until the deadline.
async fn again<T>(
    end: Instant,
    mut attempt: impl AsyncFnMut() -> Result<T, UpgradeError>,
) -> Result<T, UpgradeError> {
    let mut backoff = Backoff::local();
    loop {
        match attempt().await {
            Err(UpgradeError::Cluster(error)) if error.is_later() && Instant::now() < end => {
                tracing::warn!(%error, "asking the cluster again");
                sleep(backoff.next_delay()).await;
            }
            result => return result,
        }
    }
}
