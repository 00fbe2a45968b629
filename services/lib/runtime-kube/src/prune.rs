//! Taking away: by ownership label only, and only what still carries the label of the version that is to go. A version
//! that took an object over has given it its own label.

use std::collections::BTreeSet;

use baetyl_model::Digest;
use baetyl_model::workload::WorkloadKey;
use http::Method;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::apply::applier;
use crate::client::{Call, Resource, encode};
use crate::error::{ApiError, ErrorKind, KubeError};
use crate::inventory;
use crate::names;
use crate::observe::{self, Belongings};
use crate::runtime::Cluster;
use crate::seen::{Bare, INVENTORY, Meta, Page};
use crate::world::Sight;

/// Objects in a page of a list.
const PAGE: usize = 500;
/// How often a list is looked through again because something changed meanwhile.
const TRIES: u32 = 5;
/// Kinds that run programs, by name: of an author's objects only these are stopped.
const RUNNING: [&str; 9] = [
    "CronJob",
    "DaemonSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Job",
    "Pod",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
];

impl Cluster {
    /// Deletes the workload objects of a version and waits until its Pods are gone.
    pub(crate) async fn stop(&self, key: &WorkloadKey) -> Result<(), KubeError> {
        self.shared.forget(key);
        self.delete_workloads(key).await?;
        self.delete_authored(key, |kind| RUNNING.contains(&kind))
            .await?;
        self.pods_gone(key).await
    }

    /// Deletes everything of a version and waits until its Pods are gone.
    pub(crate) async fn remove(&self, key: &WorkloadKey) -> Result<(), KubeError> {
        self.shared.forget(key);
        self.delete_workloads(key).await?;
        let selector = format!("{},!{INVENTORY}", of_version(key));
        for resource in [Resource::SERVICE, Resource::CONFIG_MAP, Resource::SECRET] {
            self.delete_all(&resource, key.namespace.as_str(), &selector, None)
                .await?;
        }
        self.delete_authored(key, |_| true).await?;
        self.delete_lonely_pods(key).await?;
        self.pods_gone(key).await?;
        self.forget(key).await
    }

    async fn delete_workloads(&self, key: &WorkloadKey) -> Result<(), KubeError> {
        let selector = of_version(key);
        for resource in Resource::WORKLOADS {
            self.delete_all(&resource, key.namespace.as_str(), &selector, None)
                .await?;
        }
        Ok(())
    }

    /// Deletes objects of a YAML application, with the rights they were made with.
    async fn delete_authored(
        &self,
        key: &WorkloadKey,
        which: impl Fn(&str) -> bool,
    ) -> Result<(), KubeError> {
        let data = self.inventory(key).await?;
        let Some(entry) = data.get(key.version.as_str()) else {
            return Ok(());
        };
        let user = applier(key);
        let selector = format!("{},!{INVENTORY}", of_version(key));
        for kind in inventory::read(entry) {
            if !which(&kind.kind) {
                continue;
            }
            let resource = match self.api.resource(&kind.api_version, &kind.kind).await {
                Ok(resource) => resource,
                // Its definition is gone, and with it all of them.
                Err(error) if error.kind == ErrorKind::Refused => continue,
                Err(error) => return Err(error),
            };
            self.delete_all(&resource, &kind.namespace, &selector, Some(&user))
                .await
                .map_err(|error| error.about(format!("{} of {key}", kind.kind)))?;
        }
        Ok(())
    }

    /// Pods nobody controls any more.
    async fn delete_lonely_pods(&self, key: &WorkloadKey) -> Result<(), KubeError> {
        let lonely: Vec<Meta> = {
            let world = self.shared.look();
            let belongings = Belongings::of(&world, &self.config);
            let pods = belongings.pods(key).iter();
            pods.filter(|pod| pod.metadata.controller().is_none() && !pod.metadata.is_ending())
                .map(|pod| pod.metadata.clone())
                .collect()
        };
        for meta in lonely {
            self.delete(&Resource::POD, &meta, None).await?;
        }
        Ok(())
    }

    /// What a YAML application consists of is no longer told of this version.
    async fn forget(&self, key: &WorkloadKey) -> Result<(), KubeError> {
        let mut data = self.inventory(key).await?;
        if data.remove(key.version.as_str()).is_none() {
            return Ok(());
        }
        let name = inventory::name(key.app.as_str());
        let path = Resource::CONFIG_MAP.one(key.namespace.as_str(), &name);
        if data.is_empty() {
            let call = Call::new(Method::DELETE, path).metadata();
            self.api.find::<serde::de::IgnoredAny>(call).await?;
            return Ok(());
        }
        let live = self.api.meta(&path, None).await?;
        let last = live
            .and_then(|live| live.labels.version)
            .filter(|version| data.contains_key(&**version))
            .or_else(|| {
                data.keys()
                    .next_back()
                    .map(|version| version.as_str().into())
            })
            .unwrap_or_default();
        self.put(&inventory::object(key, &last, &data), None).await
    }

    /// Deletes all objects of a kind that carry labels. One that changes meanwhile is looked at again: it may have been
    /// taken over.
    async fn delete_all(
        &self,
        resource: &Resource,
        namespace: &str,
        selector: &str,
        user: Option<&str>,
    ) -> Result<(), KubeError> {
        for _ in 0..TRIES {
            let mut changed = false;
            for meta in self.labelled(resource, namespace, selector, user).await? {
                if meta.is_ending() {
                    continue;
                }
                match self.delete(resource, &meta, user).await {
                    Err(error) if error.code() == 409 => changed = true,
                    result => result?,
                }
            }
            if !changed {
                return Ok(());
            }
        }
        Err(KubeError::new(
            ErrorKind::Later,
            format!(
                "{} in namespace {namespace} change all the time",
                resource.plural
            ),
        ))
    }

    /// Deletes an object as it was seen, and in the background what it made.
    pub(crate) async fn delete(
        &self,
        resource: &Resource,
        meta: &Meta,
        user: Option<&str>,
    ) -> Result<(), ApiError> {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": meta.uid, "resourceVersion": meta.resource_version},
        });
        let call = Call::new(Method::DELETE, resource.one(&meta.namespace, &meta.name))
            .metadata()
            .body("application/json", options.to_string())
            .user(user);
        self.api.find::<serde::de::IgnoredAny>(call).await.map(drop)
    }

    /// Metadata of all objects of a kind that carry labels.
    pub(crate) async fn labelled(
        &self,
        resource: &Resource,
        namespace: &str,
        selector: &str,
        user: Option<&str>,
    ) -> Result<Vec<Meta>, KubeError> {
        let path = format!(
            "{}?limit={PAGE}&labelSelector={}",
            resource.list(namespace),
            encode(selector)
        );
        let mut found = Vec::new();
        let mut next = String::new();
        loop {
            let call = Call::get(format!("{path}{next}"))
                .metadata_list(false)
                .user(user);
            let page: Page<Bare> = self.api.call(call).await?;
            found.extend(page.items.into_iter().map(|item| item.metadata));
            if page.metadata.next.is_empty() {
                return Ok(found);
            }
            next = format!("&continue={}", encode(&page.metadata.next));
        }
    }

    /// Waits until no Pod of a version is seen.
    async fn pods_gone(&self, key: &WorkloadKey) -> Result<(), KubeError> {
        let end = Instant::now() + self.config.times.gone;
        let mut changes = self.shared.changes();
        loop {
            changes.mark_unchanged();
            let left = self.pods_left(key);
            if left.as_ref().is_some_and(Vec::is_empty) {
                return Ok(());
            }
            let waited = timeout_at(end, changes.changed()).await;
            if !matches!(waited, Ok(Ok(()))) {
                let what = match left {
                    None => "it cannot be seen whether its Pods are gone".to_owned(),
                    Some(pods) => format!("its Pods are not gone yet: {}", pods.join(", ")),
                };
                return Err(KubeError::new(ErrorKind::Later, format!("{key}: {what}")));
            }
        }
    }

    /// Names of the Pods of a version; None: they cannot be seen.
    fn pods_left(&self, key: &WorkloadKey) -> Option<Vec<String>> {
        self.belonging(|belongings| {
            let pods = belongings.pods(key).iter();
            pods.map(|pod| pod.metadata.name.clone()).collect()
        })
    }

    /// Something of what belongs to whom; None: it cannot be seen.
    pub(crate) fn belonging<T>(&self, what: impl FnOnce(&Belongings<'_>) -> T) -> Option<T> {
        let world = self.shared.look();
        let sees = |sight: &Sight| sight.listed && sight.broken.is_none();
        let all =
            observe::needed(&self.config).all(|watch| world.sights.get(&watch).is_some_and(sees));
        all.then(|| what(&Belongings::of(&world, &self.config)))
    }

    /// Every version there is something of, by the labels of live objects: of what is watched, and of the few kinds that
    /// are not (six requests).
    pub(crate) async fn found(&self) -> Result<Vec<WorkloadKey>, KubeError> {
        let selector = format!(
            "{}={},{},!{INVENTORY}",
            names::MANAGED_BY,
            names::MANAGER,
            names::APP_NAME
        );
        let mut found = BTreeSet::new();
        for namespace in self.config.namespaces() {
            for resource in [Resource::SERVICE, Resource::CONFIG_MAP, Resource::SECRET] {
                for meta in self.labelled(&resource, namespace, &selector, None).await? {
                    let labels = (&meta.labels.app, &meta.labels.version);
                    if let (Some(app), Some(version)) = labels {
                        found.extend(observe::key(&meta.namespace, app, version));
                    }
                }
            }
        }
        let watched = self.belonging(|belongings| belongings.keys().cloned().collect::<Vec<_>>());
        found.extend(watched.ok_or_else(|| {
            KubeError::new(
                ErrorKind::Later,
                "it cannot be seen what there is: the API server does not tell",
            )
        })?);
        Ok(found.into_iter().collect())
    }

    /// Deletes the content of configurations and secrets that nobody needs.
    pub(crate) async fn sweep(&self, needed: &BTreeSet<Digest>) -> Result<(), KubeError> {
        let needed: BTreeSet<String> = needed
            .iter()
            .map(|digest| {
                let mut digits = digest.hex();
                digits.truncate(names::DIGEST_LABEL_DIGITS);
                digits
            })
            .collect();
        let selector = format!("{}={},{}", names::MANAGED_BY, names::MANAGER, names::DIGEST);
        for namespace in self.config.namespaces() {
            for resource in [Resource::CONFIG_MAP, Resource::SECRET] {
                for meta in self.labelled(&resource, namespace, &selector, None).await? {
                    let digits = meta.labels.digest.as_deref().unwrap_or_default();
                    if !needed.contains(digits) && !meta.is_ending() {
                        self.delete(&resource, &meta, None).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Selector of what belongs to one version of an application.
pub(crate) fn of_version(key: &WorkloadKey) -> String {
    format!(
        "{}={},{}={},{}={}",
        names::MANAGED_BY,
        names::MANAGER,
        names::APP_NAME,
        key.app,
        names::APP_VERSION,
        key.version
    )
}
