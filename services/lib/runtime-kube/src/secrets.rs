//! Secrets and Jobs of our own, by name.

use std::collections::BTreeMap;

use baetyl_model::base64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::client::{Call, Resource};
use crate::error::{ErrorKind, KubeError};
use crate::names;
use crate::runtime::Cluster;
use crate::seen::{Controller, Fields, Meta, holds};

/// Label of what belongs to the core services, with the value [`names::MANAGER`].
const PART_OF: &str = "app.kubernetes.io/part-of";

/// How a Job does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It has not ended.
    Active,
    /// It ended well.
    Succeeded,
    /// It ended badly; why, in Kubernetes' words.
    Failed(String),
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Secret {
    metadata: SecretMeta,
    data: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SecretMeta {
    labels: BTreeMap<String, String>,
    managed_fields: Fields,
}

impl Cluster {
    pub(crate) async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, Vec<u8>>>, KubeError> {
        let path = Resource::SECRET.one(namespace, name);
        let Some(secret) = self.api.find::<Secret>(Call::get(path)).await? else {
            return Ok(None);
        };
        let decoded = secret.data.into_iter().map(|(key, value)| {
            let bytes = base64::decode(&value).map_err(|error| {
                KubeError::new(
                    ErrorKind::Refused,
                    format!("Secret {namespace}/{name}: key {key}: {error}"),
                )
            })?;
            Ok((key, bytes))
        });
        decoded.collect::<Result<_, _>>().map(Some)
    }

    pub(crate) async fn put_secret(
        &self,
        namespace: &str,
        name: &str,
        data: &BTreeMap<String, Vec<u8>>,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), KubeError> {
        let about = |error: KubeError| error.about(format!("Secret {namespace}/{name}"));
        let path = Resource::SECRET.one(namespace, name);
        let mut labels = labels.clone();
        labels.insert(names::MANAGED_BY.to_owned(), names::MANAGER.to_owned());
        let data: BTreeMap<&str, String> = data
            .iter()
            .map(|(key, bytes)| (key.as_str(), base64::encode(bytes)))
            .collect();
        let live: Option<Secret> = self
            .api
            .find(Call::get(&path))
            .await
            .map_err(|error| about(error.into()))?;
        let told = |fields: Fields| {
            self.shared
                .wrote_secret((namespace, name), &path, &labels, fields)
        };
        if let Some(live) = live {
            check_ours(&live.metadata.labels).map_err(about)?;
            let has =
                |(label, value): (&String, &String)| live.metadata.labels.get(label) == Some(value);
            let same = live.data.len() == data.len()
                && data
                    .iter()
                    .all(|(key, value)| live.data.get(*key) == Some(value));
            if same && labels.iter().all(has) {
                told(live.metadata.managed_fields);
                return Ok(());
            }
        }
        let body = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "data": data,
        });
        // By force: init and an upgrade write the same Secrets, and the last of ours to write is right.
        let sent = Bytes::from(body.to_string());
        let written = self.patch_with(&path, sent, None, true).await;
        told(written.map_err(|error| about(error.into()))?);
        Ok(())
    }

    pub(crate) async fn delete_secret(&self, namespace: &str, name: &str) -> Result<(), KubeError> {
        let about = |error: KubeError| error.about(format!("Secret {namespace}/{name}"));
        let path = Resource::SECRET.one(namespace, name);
        let Some(live) = self.own(&path).await.map_err(about)? else {
            return Ok(());
        };
        self.delete(&Resource::SECRET, &live, None)
            .await
            .map_err(|error| about(error.into()))
    }

    pub(crate) async fn job(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<JobState>, KubeError> {
        let path = Resource::JOB.one(namespace, name);
        let job: Option<Controller> = self.api.find(Call::get(path)).await?;
        Ok(job.map(|job| {
            let conditions = &job.status.conditions;
            if let Some(failed) = holds(conditions, "Failed") {
                let words = match &*failed.message {
                    "" => failed.reason.to_string(),
                    message => format!("{}: {message}", failed.reason),
                };
                JobState::Failed(words)
            } else if holds(conditions, "Complete").is_some() {
                JobState::Succeeded
            } else {
                JobState::Active
            }
        }))
    }

    pub(crate) async fn delete_job(&self, namespace: &str, name: &str) -> Result<(), KubeError> {
        let about = |error: KubeError| error.about(format!("Job {namespace}/{name}"));
        let path = Resource::JOB.one(namespace, name);
        let Some(live) = self.own(&path).await.map_err(about)? else {
            return Ok(());
        };
        let deleted = self.delete_and_wait(&path, &live, None).await;
        deleted.map_err(about)
    }

    /// An object, if there is one; one that is not ours is an error.
    pub(crate) async fn own(&self, path: &str) -> Result<Option<Meta>, KubeError> {
        let Some(live) = self.api.meta(path, None).await? else {
            return Ok(None);
        };
        let label = |value: &Option<Box<str>>| value.as_deref() == Some(names::MANAGER);
        if label(&live.labels.managed_by) || label(&live.labels.part_of) {
            return Ok(Some(live));
        }
        Err(foreign())
    }
}

fn check_ours(labels: &BTreeMap<String, String>) -> Result<(), KubeError> {
    let ours = [names::MANAGED_BY, PART_OF].iter().any(|label| {
        labels
            .get(*label)
            .is_some_and(|value| value == names::MANAGER)
    });
    if ours { Ok(()) } else { Err(foreign()) }
}

fn foreign() -> KubeError {
    KubeError::new(
        ErrorKind::NotOurs,
        format!(
            "it is there and not ours: it has neither the label {}={m} nor {PART_OF}={m}; delete it",
            names::MANAGED_BY,
            m = names::MANAGER
        ),
    )
}
