//! Taking a chart away again: a Job runs `helm uninstall` to its end before anything else of the application goes. And
//! clearing away what a Helm left that was killed.

use baetyl_model::workload::WorkloadKey;
use tokio::time::{Instant, timeout_at};

use crate::apply::digest;
use crate::client::{Call, Resource, causes};
use crate::error::{ErrorKind, KubeError};
use crate::names;
use crate::object::Object;
use crate::observe::{last_words, words};
use crate::render::{self, Place};
use crate::runtime::Cluster;
use crate::seen::{Controller, Meta, holds};
use crate::world::What;

/// What Helm calls a release that is being worked on.
const PENDING: [&str; 3] = ["pending-install", "pending-upgrade", "pending-rollback"];

impl Cluster {
    /// Forgets the revisions of a release on which a Helm was at work that is no more; gives their names. What it had put
    /// into the cluster stays, and the next Helm takes it over.
    pub(crate) async fn forget_pending(
        &self,
        namespace: &str,
        release: &str,
    ) -> Result<Vec<String>, KubeError> {
        let mut forgotten = Vec::new();
        for status in PENDING {
            let selector = format!("owner=helm,name={release},status={status}");
            let secrets = self
                .labelled(&Resource::SECRET, namespace, &selector, None)
                .await?;
            for secret in secrets {
                let deleted = self.delete(&Resource::SECRET, &secret, None).await;
                deleted.map_err(|error| {
                    KubeError::from(error).about(format!("Secret {namespace}/{}", secret.name))
                })?;
                forgotten.push(secret.name);
            }
        }
        Ok(forgotten)
    }

    /// Takes away what a version of a Helm application installed, and waits until that is done. Does nothing for other
    /// applications, and for a version after which another one was installed.
    pub(crate) async fn uninstall(
        &self,
        key: &WorkloadKey,
        place: &Place,
    ) -> Result<(), KubeError> {
        self.shared.forget(key);
        let path = Resource::JOB.one(key.namespace.as_str(), key.app.as_str());
        let job: Option<Controller> = self.api.find(Call::get(&path)).await?;
        let job = job.filter(|job| is_of(&job.metadata, key));
        let target = match job.as_ref().and_then(Controller::helm_target) {
            Some(target) => Some(target.to_owned()),
            None => match self.released_in(key)? {
                Some(target) => Some(target),
                None => self.was_put_into(key).await?,
            },
        };
        let Some(target) = target else {
            return Ok(());
        };
        let object = render::uninstall(key, &target, place)
            .map_err(|error| KubeError::new(ErrorKind::Refused, causes(&error)))?;
        let about =
            |error: KubeError| error.about(format!("the chart of {} is still there", key.app));
        if let Some(job) = job
            && is_from(&job, &object)
            && holds(&job.status.conditions, "Failed").is_some()
        {
            // It was told why; now it is tried again.
            let deleted = self.delete_and_wait(&path, &job.metadata, None).await;
            deleted.map_err(about)?;
        }
        self.put(&object, None).await.map_err(about)?;
        let live = self.api.meta(&path, None).await?;
        let uid = live.map(|live| live.uid).unwrap_or_default();
        self.ended(&object, &uid).await.map_err(about)
    }

    /// Where the release is that a version installed, if the newest one is its.
    fn released_in(&self, key: &WorkloadKey) -> Result<Option<String>, KubeError> {
        let found = self.belonging(|belongings| belongings.release(key).map(str::to_owned));
        found.ok_or_else(|| {
            KubeError::new(
                ErrorKind::Later,
                "it cannot be seen whether a chart is installed: the API server does not tell",
            )
        })
    }

    /// Where a version was put, as its own Secret has it: in a namespace of others nothing of it may be seen.
    async fn was_put_into(&self, key: &WorkloadKey) -> Result<Option<String>, KubeError> {
        let secret = names::identity(key.app.as_str());
        let path = Resource::SECRET.one(key.namespace.as_str(), &secret);
        let live = self.api.meta(&path, None).await?;
        let live = live.filter(|live| is_of(live, key));
        Ok(live
            .and_then(|live| live.labels.helm_namespace)
            .map(String::from))
    }

    /// Waits until a Job is seen to have ended; by its uid, because one that failed before was called the same.
    async fn ended(&self, object: &Object, uid: &str) -> Result<(), KubeError> {
        let end = Instant::now() + self.config.times.gone;
        let mut changes = self.shared.changes();
        loop {
            changes.mark_unchanged();
            if let Some(ended) = self.end_of(object, uid) {
                return ended;
            }
            if !matches!(timeout_at(end, changes.changed()).await, Ok(Ok(()))) {
                return Err(KubeError::new(ErrorKind::Later, "Helm is still at work"));
            }
        }
    }

    fn end_of(&self, object: &Object, uid: &str) -> Option<Result<(), KubeError>> {
        let world = self.shared.look();
        let (_, entry) = world.controllers.iter().find(|(place, entry)| {
            place.what == What::Jobs
                && *place.namespace == *object.namespace
                && *place.name == *object.name
                && entry.item.metadata.uid == uid
        })?;
        let job = &entry.item;
        if holds(&job.status.conditions, "Complete").is_some() {
            return Some(Ok(()));
        }
        let failed = holds(&job.status.conditions, "Failed")?;
        let mut pods = world.pods.values().map(|entry| &entry.item);
        let said = pods.find_map(|pod| {
            let owner = pod.metadata.controller()?;
            let own = *pod.metadata.namespace == *object.namespace && *owner.name == *object.name;
            last_words(pod).filter(|_| own && &*owner.kind == "Job")
        });
        let why = said.unwrap_or_else(|| words(&failed.reason, &failed.message));
        let why = format!("Helm could not take it away: {why}");
        Some(Err(KubeError::new(ErrorKind::Refused, why)))
    }
}

fn is_of(live: &Meta, key: &WorkloadKey) -> bool {
    let labels = &live.labels;
    live.is_managed()
        && labels.app.as_deref() == Some(key.app.as_str())
        && labels.version.as_deref() == Some(key.version.as_str())
}

fn is_from(job: &Controller, object: &Object) -> bool {
    job.metadata.annotations.applied.as_deref() == Some(digest(&object.body).as_str())
}

#[cfg(test)]
mod tests;
