//! Applying: each object by a server-side apply with our field manager, never by force, and not at all when the live copy
//! was made from the same body.

use std::collections::BTreeMap;

use baetyl_model::workload::WorkloadKey;
use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::client::{Call, Resource};
use crate::error::{ApiError, ErrorKind, KubeError};
use crate::inventory;
use crate::ledger::{Applied, Held};
use crate::names;
use crate::object::Object;
use crate::render::{Rendered, Workload};
use crate::runtime::Cluster;
use crate::seen::{APPLIED, Bare, Fields, Meta, Record};

mod conflict;
mod fields;
mod sum;
#[cfg(test)]
mod tests;

use conflict::annotated;
pub(crate) use sum::digest;

/// A server-side apply; YAML, of which JSON is a part.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
/// How often it is looked whether something that is deleted has gone.
const LOOK: Duration = Duration::from_millis(500);
/// How long Kubernetes may take to know a kind that was just defined.
const DEFINED: Duration = Duration::from_secs(10);

/// How an object is applied.
#[derive(Clone, Copy, Default)]
struct How<'a> {
    /// Fields that somebody else has set stay as they are unless a new version changes them.
    preserve: bool,
    /// What was applied before: what others took of it since then is applied again.
    known: Option<&'a Held>,
    /// Whose rights it is done with; None: ours.
    user: Option<&'a str>,
}

impl Cluster {
    /// Applies all objects of a version.
    pub(crate) async fn apply(&self, rendered: &Rendered) -> Result<(), KubeError> {
        if rendered.kind == Workload::Objects {
            return self.apply_authored(rendered).await;
        }
        let known = self.shared.applying(&rendered.key);
        self.drop_scaler(rendered).await?;
        if rendered.exclusive {
            self.drop_other_kinds(rendered).await?;
        }
        let how = How {
            preserve: rendered.preserve,
            known: Some(&known),
            user: None,
        };
        let mut held = Held::new();
        for object in &rendered.objects {
            let put = self.put_as(object, how).await;
            held.extend([put.map_err(|error| error.about(object))?]);
        }
        self.shared.applied(&rendered.key, held);
        Ok(())
    }

    /// A version that became another kind of workload: nobody but us ends the Pods of the kind before, which have what the
    /// new ones need.
    async fn drop_other_kinds(&self, rendered: &Rendered) -> Result<(), KubeError> {
        let key = &rendered.key;
        let own = |kind: &str| rendered.objects.iter().any(|object| object.kind == kind);
        let others = self.belonging(|belongings| {
            let keys = belongings.keys();
            let versions =
                keys.filter(|known| known.namespace == key.namespace && known.app == key.app);
            let controllers = versions.flat_map(|version| belongings.controllers(version));
            controllers
                .map(|(what, meta)| (what.resource(), meta.clone()))
                .filter(|(resource, meta)| {
                    *meta.namespace == *key.namespace.as_str() && !own(&resource.kind)
                })
                .collect::<Vec<_>>()
        });
        for (resource, meta) in others.unwrap_or_default() {
            let path = resource.one(&meta.namespace, &meta.name);
            let deleted = self.delete_and_wait(&path, &meta, None).await;
            deleted.map_err(|error| error.about(format!("{} {}", resource.kind, meta.name)))?;
        }
        Ok(())
    }

    /// Objects an author wrote: with the rights of `baetyl-apply`, all that can be applied, and what cannot be is told of
    /// each.
    async fn apply_authored(&self, rendered: &Rendered) -> Result<(), KubeError> {
        let key = &rendered.key;
        let kinds = inventory::kinds(&rendered.objects);
        let mut data = self.inventory(key).await?;
        let entry = data.entry(key.version.to_string()).or_default();
        let all = inventory::read(entry).union(&kinds).cloned().collect();
        *entry = inventory::write(&all);
        let record = inventory::object(key, key.version.as_str(), &data);
        self.put(&record, None)
            .await
            .map_err(|error| error.about(&record))?;
        let known = self.shared.applying(key);
        let user = applier(key);
        let how = How {
            preserve: rendered.preserve,
            known: Some(&known),
            user: Some(&user),
        };
        let defines = rendered
            .objects
            .iter()
            .any(|object| object.kind == "CustomResourceDefinition");
        let (mut errors, mut held) = (Vec::new(), Held::new());
        for object in &rendered.objects {
            let put = || self.put_as(object, how);
            let mut result = put().await;
            let end = Instant::now() + DEFINED;
            while defines && is_undefined(&result) && Instant::now() < end {
                sleep(LOOK).await;
                result = put().await;
            }
            match result {
                Ok(put) => held.extend([put]),
                Err(error) => errors.push(error.about(format!("{} {}", object.kind, object.name))),
            }
        }
        joined(errors)?;
        self.shared.applied(key, held);
        Ok(())
    }

    /// What a YAML application consists of, by version.
    pub(crate) async fn inventory(
        &self,
        key: &WorkloadKey,
    ) -> Result<BTreeMap<String, String>, KubeError> {
        let name = inventory::name(key.app.as_str());
        let path = Resource::CONFIG_MAP.one(key.namespace.as_str(), &name);
        let record: Option<Record> = self.api.find(Call::get(path)).await?;
        Ok(record.map(|record| record.data).unwrap_or_default())
    }

    /// Makes an object what it shall be.
    pub(crate) async fn put(&self, object: &Object, user: Option<&str>) -> Result<(), KubeError> {
        let how = How {
            user,
            ..How::default()
        };
        self.put_as(object, how).await.map(drop)
    }

    /// The same; its path, and what it is now.
    async fn put_as(&self, object: &Object, how: How<'_>) -> Result<(String, Applied), KubeError> {
        let resource = self.api.resource(&object.api_version, &object.kind).await?;
        let path = resource.one(&object.namespace, &object.name);
        let digest = digest(&object.body);
        let before = how.known.and_then(|known| known.get(&path));
        let before = before.filter(|before| before.digest == digest);
        let fields = self.put_at(&path, object, &digest, before, how).await?;
        let applied = Applied::new(object, digest, fields, how.user.is_some());
        Ok((path, applied))
    }

    async fn put_at(
        &self,
        path: &str,
        object: &Object,
        digest: &str,
        before: Option<&Applied>,
        how: How<'_>,
    ) -> Result<Fields, KubeError> {
        let How { preserve, user, .. } = how;
        let live = self.settled(path, user).await?;
        if let Some(live) = &live {
            if is_content(object) {
                return same_content(object, live);
            }
            check_ours(object, live)?;
            let taken = before.is_some_and(|before| live.managed_fields.differ_from(before.fields));
            if live.annotations.applied.as_deref() == Some(digest) && !taken {
                return Ok(live.managed_fields);
            }
            if object.kind == "Job" {
                // Its template stays what it is as long as it lives.
                self.delete_and_wait(path, live, user).await?;
            }
        } else if let Some(before) = before.filter(|_| object.kind == "Job" && user.is_some()) {
            // It has done its work, and is made again with a new version only.
            return Ok(before.fields);
        }
        let mut body = object.body.clone();
        annotated(&mut body, APPLIED, digest);
        if let Some(wanted) = conflict::wanted(object).filter(|_| preserve) {
            annotated(&mut body, conflict::WANTED, &wanted);
        }
        if live.is_some() && user.is_none() {
            self.keep_replicas(object, path, &mut body).await?;
        }
        let sent = Bytes::from(body.to_string());
        match (self.patch(path, sent.clone(), user).await, &live) {
            (Err(ApiError::Status(status)), Some(live))
                if status.is_immutable() && is_replaceable(&object.kind) =>
            {
                tracing::info!(%object, reason = %status, "replaced, because it cannot be changed");
                self.delete_and_wait(path, live, user).await?;
                Ok(self.patch(path, sent, user).await?)
            }
            (Err(ApiError::Status(status)), Some(_)) if status.is_field_conflict() => {
                self.settle(object, path, body, status, preserve, user)
                    .await
            }
            (result, _) => Ok(result?),
        }
    }

    /// The object as it is; waits while it is being deleted: what is applied to it then would go with it.
    async fn settled(&self, path: &str, user: Option<&str>) -> Result<Option<Meta>, KubeError> {
        let end = Instant::now() + self.config.times.gone;
        loop {
            match self.api.meta(path, user).await? {
                Some(live) if live.is_ending() => {}
                live => return Ok(live),
            }
            if Instant::now() >= end {
                return Err(still_there());
            }
            sleep(LOOK).await;
        }
    }

    /// Sends a server-side apply; what is ours then.
    pub(crate) async fn patch(
        &self,
        path: &str,
        body: Bytes,
        user: Option<&str>,
    ) -> Result<Fields, ApiError> {
        self.patch_with(path, body, user, false).await
    }

    pub(crate) async fn patch_with(
        &self,
        path: &str,
        body: Bytes,
        user: Option<&str>,
        force: bool,
    ) -> Result<Fields, ApiError> {
        let manager = crate::client::encode(&self.config.field_manager);
        let path = format!("{path}?fieldManager={manager}&force={force}");
        let call = Call::new(Method::PATCH, path)
            .metadata()
            .body(APPLY, body)
            .user(user);
        let applied: Bare = self.api.call(call).await?;
        Ok(applied.metadata.managed_fields)
    }

    /// Deletes an object and everything it made, and waits until they are gone.
    pub(crate) async fn delete_and_wait(
        &self,
        path: &str,
        live: &Meta,
        user: Option<&str>,
    ) -> Result<(), KubeError> {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": live.uid},
        });
        let call = Call::new(Method::DELETE, path)
            .metadata()
            .body("application/json", options.to_string())
            .user(user);
        self.api.find::<serde::de::IgnoredAny>(call).await?;
        let end = Instant::now() + self.config.times.gone;
        loop {
            let left = self.api.meta(path, user).await?;
            if left.is_none_or(|left| left.uid != live.uid) {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(still_there());
            }
            sleep(LOOK).await;
        }
    }
}

fn still_there() -> KubeError {
    KubeError::new(
        ErrorKind::Later,
        "it is being deleted and has not gone yet; see its finalizers and its Pods",
    )
}

/// Whose rights what an author wrote is applied with.
pub(crate) fn applier(key: &WorkloadKey) -> String {
    applier_in(key.namespace.as_str())
}

/// The same for a namespace of ours.
pub(crate) fn applier_in(namespace: &str) -> String {
    format!("system:serviceaccount:{namespace}:{}", names::APPLY_ACCOUNT)
}

fn is_undefined<T>(result: &Result<T, KubeError>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.message.contains("no matches for kind"))
}

/// One error of all: it is worth trying again only if all are.
fn joined(errors: Vec<KubeError>) -> Result<(), KubeError> {
    let Some(kind) = errors.iter().map(|error| error.kind).max() else {
        return Ok(());
    };
    let messages: Vec<String> = errors.into_iter().map(|error| error.message).collect();
    Err(KubeError::new(kind, messages.join("; ")))
}

/// Kinds that may be deleted and made again when a field of theirs cannot be changed. What holds data is not among them.
fn is_replaceable(kind: &str) -> bool {
    matches!(
        kind,
        "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "Service"
    )
}

fn label<'a>(object: &'a Object, label: &str) -> Option<&'a str> {
    object
        .body
        .get("metadata")?
        .get("labels")?
        .get(label)?
        .as_str()
}

/// Whether an object is the immutable content of a configuration or secret.
fn is_content(object: &Object) -> bool {
    label(object, names::DIGEST).is_some()
}

/// Content is called by its digest: what is there already is it.
fn same_content(object: &Object, live: &Meta) -> Result<Fields, KubeError> {
    if live.is_managed() && live.labels.digest.as_deref() == label(object, names::DIGEST) {
        return Ok(live.managed_fields);
    }
    Err(not_ours(live))
}

/// Only what carries our labels is changed.
fn check_ours(object: &Object, live: &Meta) -> Result<(), KubeError> {
    if !live.is_managed() {
        return Err(not_ours(live));
    }
    match (label(object, names::APP_NAME), live.labels.app.as_deref()) {
        (Some(app), Some(other)) if app != other => Err(KubeError::new(
            ErrorKind::NotOurs,
            format!(
                "it is there and belongs to application \"{other}\"; give one of them another name"
            ),
        )),
        _ => Ok(()),
    }
}

fn not_ours(live: &Meta) -> KubeError {
    let manager = match live.labels.managed_by.as_deref() {
        None => format!("has no label {}", names::MANAGED_BY),
        Some(other) => format!("is labelled {}={other}", names::MANAGED_BY),
    };
    KubeError::new(
        ErrorKind::NotOurs,
        format!(
            "it is there and not ours: it {manager}; delete it, or give the application another name"
        ),
    )
}
