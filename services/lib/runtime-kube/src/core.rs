//! The core services' own objects, for whoever installs or upgrades them: read whole, applied as they are written, in the
//! name of another field manager than that of applications. Nothing is watched.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::apply::APPLY;
use crate::client::{Api, Call, Resource, encode};
use crate::config::{KubeConfig, OpenError};
use crate::error::{ApiError, KubeError};
use crate::object::Object;
use crate::runtime::Cluster;
use crate::seen::{self, Condition, Page};

#[cfg(test)]
mod tests;

/// The objects of the core services; cheap to clone.
#[derive(Clone)]
pub struct CoreObjects(Cluster);

impl std::fmt::Debug for CoreObjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CoreObjects({})", self.0.api.server())
    }
}

impl CoreObjects {
    /// Finds the way to the API server, which need not answer. What is applied belongs to the field manager of `config`.
    ///
    /// # Errors
    /// When there is no way: no service account, no usable kubeconfig.
    pub async fn open(config: KubeConfig) -> Result<Self, OpenError> {
        let api = Api::open(&config).await?;
        Ok(Self::over(api, config))
    }

    pub(crate) fn over(api: Api, config: KubeConfig) -> Self {
        Self(Cluster {
            api,
            config: Arc::new(config),
            shared: Arc::default(),
        })
    }

    /// The live object, whole, with who manages which fields; None: there is none.
    ///
    /// # Errors
    /// In Kubernetes' words, with the object.
    pub async fn live(&self, object: &Object) -> Result<Option<Value>, KubeError> {
        let found = async {
            let path = self.path(object).await?;
            Ok(self.0.api.find(Call::get(path)).await?)
        };
        found.await.map_err(|error: KubeError| error.about(object))
    }

    /// All live objects of a kind in a namespace that carry labels, as [`Self::live`]; without their kind, as lists have
    /// them.
    ///
    /// # Errors
    /// In Kubernetes' words, with the kind.
    pub async fn all(
        &self,
        (api_version, kind): (&str, &str),
        namespace: &str,
        selector: &str,
    ) -> Result<Vec<Value>, KubeError> {
        let found = async {
            let resource = self.0.api.resource(api_version, kind).await?;
            let list = resource.list(namespace);
            let mut next = String::new();
            let mut found = Vec::new();
            loop {
                let path = format!("{list}?limit=100&labelSelector={}{next}", encode(selector));
                let page: Page<Value> = self.0.api.call(Call::get(path)).await?;
                found.extend(page.items);
                if page.metadata.next.is_empty() {
                    return Ok(found);
                }
                next = format!("&continue={}", encode(&page.metadata.next));
            }
        };
        found
            .await
            .map_err(|error: KubeError| error.about(format!("{kind} in {namespace}")))
    }

    /// Applies an object as it is written, never by force. With `dry_run` nothing is changed: the API server says what it
    /// would say.
    ///
    /// # Errors
    /// In Kubernetes' words, with the object. That a Job cannot be changed is no error of a dry run: [`Self::replace`] it.
    pub async fn apply(&self, object: &Object, dry_run: bool) -> Result<(), KubeError> {
        let applied = async {
            let path = self.path(object).await?;
            let manager = encode(&self.0.config.field_manager);
            let dry = if dry_run { "&dryRun=All" } else { "" };
            let call = Call::new(
                Method::PATCH,
                format!("{path}?fieldManager={manager}&force=false{dry}"),
            )
            .metadata()
            .body(APPLY, Bytes::from(object.body.to_string()));
            match self.0.api.bytes(call).await {
                Err(ApiError::Status(status))
                    if dry_run && object.kind == "Job" && status.is_immutable() =>
                {
                    Ok(())
                }
                answer => Ok(answer.map(drop)?),
            }
        };
        applied
            .await
            .map_err(|error: KubeError| error.about(object))
    }

    /// Deletes what is there of that name with everything it made, and applies the object: for what cannot be changed.
    ///
    /// # Errors
    /// In Kubernetes' words, with the object.
    pub async fn replace(&self, object: &Object) -> Result<(), KubeError> {
        self.remove(object, true).await?;
        self.apply(object, false).await
    }

    /// Forgets the revisions of a release on which a Helm was at work; gives their names. Only for who knows that no Helm is
    /// at work on it: Helm itself refuses to go on where another seems to be.
    ///
    /// # Errors
    /// In Kubernetes' words.
    pub async fn forget_pending_release(
        &self,
        namespace: &str,
        release: &str,
    ) -> Result<Vec<String>, KubeError> {
        self.0.forget_pending(namespace, release).await
    }

    /// Deletes an object of ours; that there is none is fine.
    ///
    /// # Errors
    /// In Kubernetes' words, with the object.
    pub async fn delete(&self, object: &Object) -> Result<(), KubeError> {
        self.remove(object, false).await
    }

    async fn remove(&self, object: &Object, wait: bool) -> Result<(), KubeError> {
        let removed = async {
            let resource = self.resource(object).await?;
            let path = resource.one(&object.namespace, &object.name);
            match self.0.own(&path).await? {
                None => Ok(()),
                Some(live) if wait => self.0.delete_and_wait(&path, &live, None).await,
                Some(live) => Ok(self.0.delete(&resource, &live, None).await?),
            }
        };
        removed
            .await
            .map_err(|error: KubeError| error.about(object))
    }

    async fn resource(&self, object: &Object) -> Result<Resource, KubeError> {
        self.0.api.resource(&object.api_version, &object.kind).await
    }

    async fn path(&self, object: &Object) -> Result<String, KubeError> {
        let resource = self.resource(object).await?;
        Ok(resource.one(&object.namespace, &object.name))
    }

    /// See [`crate::KubeRuntime::secret`].
    ///
    /// # Errors
    /// As there.
    pub async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, Vec<u8>>>, KubeError> {
        self.0.secret(namespace, name).await
    }

    /// See [`crate::KubeRuntime::put_secret`].
    ///
    /// # Errors
    /// As there.
    pub async fn put_secret(
        &self,
        namespace: &str,
        name: &str,
        data: &BTreeMap<String, Vec<u8>>,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), KubeError> {
        self.0.put_secret(namespace, name, data, labels).await
    }

    /// See [`crate::KubeRuntime::trouble`].
    ///
    /// # Errors
    /// As there.
    pub async fn trouble(
        &self,
        namespace: &str,
        selector: &str,
    ) -> Result<Option<String>, KubeError> {
        self.0.trouble(namespace, selector).await
    }
}

impl Cluster {
    /// What the newest Pod with these labels waits for or died of, in Kubernetes' words.
    pub(crate) async fn trouble(
        &self,
        namespace: &str,
        selector: &str,
    ) -> Result<Option<String>, KubeError> {
        let list = Resource::POD.list(namespace);
        let path = format!("{list}?labelSelector={}", encode(selector));
        let page: Page<seen::Pod> = self.api.call(Call::get(path)).await?;
        let pods = page.items.iter();
        let newest = pods
            .filter(|pod| !pod.metadata.is_ending())
            .max_by_key(|pod| pod.metadata.creation_timestamp);
        Ok(newest.and_then(|pod| words_of(&pod.status)))
    }
}

fn words_of(status: &seen::PodStatus) -> Option<String> {
    let both = |reason: &str, message: &str| match (reason, message) {
        ("" | "ContainerCreating" | "PodInitializing", "") => None,
        (reason, "") => Some(reason.to_owned()),
        (reason, message) => Some(format!("{reason}: {message}")),
    };
    let containers = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses);
    for container in containers {
        let waits = container.state.waiting.as_ref();
        let died = container
            .state
            .terminated
            .as_ref()
            .or(container.last_state.terminated.as_ref())
            .filter(|died| died.exit_code != 0 || died.signal != 0);
        let died = died.map(|died| {
            let how = format!("{}, exit code {}", died.reason, died.exit_code);
            both(&how, &died.message).unwrap_or(how)
        });
        let waits = waits.and_then(|waits| both(&waits.reason, &waits.message));
        let words: Vec<String> = waits.into_iter().chain(died).collect();
        if !words.is_empty() {
            return Some(words.join("; "));
        }
    }
    let fails = |condition: &&Condition| &*condition.status == "False";
    let unscheduled = status
        .conditions
        .iter()
        .filter(fails)
        .find(|condition| &*condition.kind == "PodScheduled");
    unscheduled
        .and_then(|condition| both(&condition.reason, &condition.message))
        .or_else(|| both(&status.reason, &status.message))
}
