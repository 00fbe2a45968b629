//! Fields that somebody else owns. What an application wants and somebody else has set otherwise is its failure, in
//! Kubernetes' words, but for two: what its own autoscaler has left behind, and what shall be preserved.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fields;
use crate::client::{Call, Resource};
use crate::error::{ApiError, KubeError, Status};
use crate::object::Object;
use crate::render::{Rendered, Workload};
use crate::runtime::Cluster;
use crate::seen::{Fields, Page, or_none};

/// Annotation of what is preserved: the fields as we wanted them last, to tell which of them a new version changes.
pub(super) const WANTED: &str = "baetyl.io/wanted";
/// Longest such annotation; all of an object together have at most 256 KiB.
const MAX_WANTED: usize = 128 << 10;
/// The field an autoscaler sets, and who sets it for it.
const REPLICAS: &str = ".spec.replicas";
const SCALED_BY: &str = "conflict with \"kube-controller-manager\" with subresource \"scale\"";

/// Who set which fields of an object.
#[derive(Deserialize)]
struct Owned {
    metadata: Owners,
    #[serde(default)]
    spec: Replicas,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owners {
    #[serde(default, deserialize_with = "or_none")]
    managed_fields: Vec<Owner>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Owner {
    manager: String,
    operation: String,
    #[serde(rename = "fieldsV1")]
    fields: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Replicas {
    replicas: Option<u64>,
}

#[derive(Deserialize)]
struct Scaler {
    spec: ScalerSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScalerSpec {
    scale_target_ref: Target,
}

#[derive(Deserialize)]
struct Target {
    kind: String,
    name: String,
}

impl Cluster {
    /// An application that is scaled no more has no autoscaler any more, before anybody else says how many Pods there are.
    pub(super) async fn drop_scaler(&self, rendered: &Rendered) -> Result<(), KubeError> {
        let mut objects = rendered.objects.iter();
        if !matches!(rendered.kind, Workload::Deployment | Workload::StatefulSet)
            || objects.any(|object| object.kind == Resource::SCALER.kind)
        {
            return Ok(());
        }
        let key = &rendered.key;
        let path = Resource::SCALER.one(key.namespace.as_str(), key.app.as_str());
        let Some(live) = self.api.meta(&path, None).await? else {
            return Ok(());
        };
        let ours = live.is_managed() && live.labels.app.as_deref() == Some(key.app.as_str());
        if !ours {
            return Ok(());
        }
        let deleted = self.delete_and_wait(&path, &live, None).await;
        deleted.map_err(|error| error.about(format!("HorizontalPodAutoscaler {}", key.app)))
    }

    /// How many Pods there are goes on as it is when an application is scaled from now on: the field would fall back to
    /// one if we just let go of it.
    pub(super) async fn keep_replicas(
        &self,
        object: &Object,
        path: &str,
        body: &mut Value,
    ) -> Result<(), KubeError> {
        let scalable = matches!(object.kind.as_str(), "Deployment" | "StatefulSet");
        if !scalable || !body["spec"]["replicas"].is_null() {
            return Ok(());
        }
        let Some(live) = self.api.find::<Owned>(Call::get(path)).await? else {
            return Ok(());
        };
        let own = live.metadata.managed_fields.iter().any(|owner| {
            owner.manager == self.config.field_manager
                && owner.operation == "Apply"
                && !owner.fields["f:spec"]["f:replicas"].is_null()
        });
        if let (true, Some(replicas)) = (own, live.spec.replicas) {
            body["spec"]["replicas"] = replicas.into();
        }
        Ok(())
    }

    /// After a refusal because of fields of others: applies what can be.
    pub(super) async fn settle(
        &self,
        object: &Object,
        path: &str,
        mut body: Value,
        conflict: Box<Status>,
        preserve: bool,
        user: Option<&str>,
    ) -> Result<Fields, KubeError> {
        let of_scaler = |conflict: &Status| {
            let mut causes = conflict.causes().iter();
            causes.all(|cause| cause.field == REPLICAS && cause.message.starts_with(SCALED_BY))
        };
        if user.is_none() && of_scaler(&conflict) && !self.is_scaled(object).await? {
            tracing::info!(%object, "its autoscaler is gone: the number of its Pods is the application's again");
            let body = Bytes::from(body.to_string());
            return Ok(self.patch_with(path, body, user, true).await?);
        }
        if !preserve {
            return Err(ApiError::Status(conflict).into());
        }
        let live: Option<Owned> = self.api.find(Call::get(path).user(user)).await?;
        let before = live
            .and_then(|live| serde_json::from_str(live.metadata.annotations.get(WANTED)?).ok())
            .unwrap_or(Value::Null);
        let Some(left) = leave_out(&mut body, &before, &conflict) else {
            return Err(ApiError::Status(conflict).into());
        };
        tracing::info!(%object, fields = left.join(" "), "fields that somebody else has set stay as they are");
        let body = Bytes::from(body.to_string());
        Ok(self.patch(path, body, user).await?)
    }

    /// Whether an autoscaler, whoever made it, says how many Pods an object has.
    async fn is_scaled(&self, object: &Object) -> Result<bool, KubeError> {
        let path = Resource::SCALER.list(&object.namespace);
        let all: Page<Scaler> = self.api.call(Call::get(path)).await?;
        Ok(all.items.iter().any(|scaler| {
            let target = &scaler.spec.scale_target_ref;
            target.kind == object.kind && target.name == object.name
        }))
    }
}

/// The annotation that tells later what was wanted now; None: it is too long, or none of what is preserved.
pub(super) fn wanted(object: &Object) -> Option<String> {
    // Content has no fields others would set.
    if matches!(object.kind.as_str(), "ConfigMap" | "Secret") {
        return None;
    }
    let mut fields = object.body.clone();
    for own in ["apiVersion", "kind", "metadata"] {
        fields.as_object_mut()?.remove(own);
    }
    Some(fields.to_string()).filter(|text| text.len() <= MAX_WANTED)
}

/// Leaves fields of others out of a body, and says which. None: one of them is wanted otherwise than `before`, so that
/// somebody has to decide.
fn leave_out(body: &mut Value, before: &Value, conflict: &Status) -> Option<Vec<String>> {
    let mut left = Vec::new();
    for cause in conflict.causes() {
        let pointer = fields::pointer(body, &cause.field)?;
        let now = body.pointer(&pointer);
        let then = fields::pointer(before, &cause.field);
        let then = then.and_then(|pointer| before.pointer(&pointer));
        if !before.is_null() && then != now {
            return None;
        }
        fields::remove(body, &pointer);
        left.push(cause.field.clone());
    }
    (!left.is_empty()).then_some(left)
}

/// The body with an annotation more.
pub(super) fn annotated(body: &mut Value, name: &str, text: &str) {
    let annotations = &mut body["metadata"]["annotations"];
    if annotations.is_null() {
        *annotations = json!({});
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(name.to_owned(), text.into());
    }
}
