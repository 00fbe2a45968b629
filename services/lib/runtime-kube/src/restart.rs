//! Starting anew what runs already.

use baetyl_model::jiff::Timestamp;
use baetyl_model::workload::WorkloadKey;
use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value, json};

use crate::apply::applier;
use crate::client::{Call, Resource};
use crate::error::{ErrorKind, KubeError};
use crate::observe::Belongings;
use crate::runtime::Cluster;
use crate::seen::Meta;
use crate::world::What;

/// What `kubectl rollout restart` writes. Another manager than ours owns it: applying neither takes it away nor puts it
/// back.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";
const MANAGER: &str = "baetyl-restart";
/// Labels and fields of a Job that Kubernetes makes for each anew.
const OF_ONE_JOB: [&str; 4] = [
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
];

/// One thing to restart.
struct Target {
    what: What,
    meta: Meta,
}

impl Cluster {
    pub(crate) async fn restart(&self, key: &WorkloadKey) -> Result<(), KubeError> {
        let user = applier(key);
        let authored = !self.inventory(key).await?.is_empty();
        let user = authored.then_some(user.as_str());
        let targets = self.targets(key);
        if targets.is_empty() {
            return Err(KubeError::new(
                ErrorKind::Refused,
                format!("{key}: there is nothing of it that could be started anew"),
            ));
        }
        for Target { what, meta } in targets {
            let resource = what.resource();
            let restarted = match what {
                What::Jobs => self.restart_job(&meta, user).await,
                What::Pods => self.delete_pod(&meta, user).await,
                _ => self.roll(&resource, &meta, user).await,
            };
            restarted.map_err(|error| error.about(format!("{} {}", resource.kind, meta.name)))?;
        }
        Ok(())
    }

    /// The workload objects of a version; where others make its Pods (a chart, a CronJob), the Pods themselves.
    fn targets(&self, key: &WorkloadKey) -> Vec<Target> {
        let world = self.shared.look();
        let belongings = Belongings::of(&world, &self.config);
        let mut targets: Vec<Target> = belongings
            .controllers(key)
            .filter(|(what, _)| *what != What::CronJobs)
            .map(|(what, meta)| Target {
                what,
                meta: meta.clone(),
            })
            .collect();
        if targets.is_empty() {
            let pods = belongings.pods(key).iter();
            targets = pods
                .filter(|pod| !pod.metadata.is_ending() && &*pod.status.phase == "Running")
                .map(|pod| Target {
                    what: What::Pods,
                    meta: pod.metadata.clone(),
                })
                .collect();
        }
        targets
    }

    /// A new template: the workload replaces its Pods in its own way.
    async fn roll(
        &self,
        resource: &Resource,
        meta: &Meta,
        user: Option<&str>,
    ) -> Result<(), KubeError> {
        let now = Timestamp::now().to_string();
        let annotations = json!({ RESTARTED: now });
        let body = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        let path = resource.one(&meta.namespace, &meta.name);
        let call = Call::new(Method::PATCH, format!("{path}?fieldManager={MANAGER}"))
            .metadata()
            .body("application/merge-patch+json", body.to_string())
            .user(user);
        self.api.bytes(call).await?;
        Ok(())
    }

    async fn delete_pod(&self, meta: &Meta, user: Option<&str>) -> Result<(), KubeError> {
        let path = Resource::POD.one(&meta.namespace, &meta.name);
        let call = Call::new(Method::DELETE, path).metadata().user(user);
        self.api.find::<serde::de::IgnoredAny>(call).await?;
        Ok(())
    }

    /// A Job cannot be told to begin again: the same is made once more.
    async fn restart_job(&self, meta: &Meta, user: Option<&str>) -> Result<(), KubeError> {
        let path = Resource::JOB.one(&meta.namespace, &meta.name);
        let Some(live) = self.api.find::<Value>(Call::get(&path).user(user)).await? else {
            return Ok(());
        };
        let again = again(live);
        self.delete_and_wait(&path, meta, user).await?;
        self.patch(&path, Bytes::from(again.to_string()), user)
            .await?;
        Ok(())
    }
}

/// A Job as it was before Kubernetes took it up.
fn again(mut live: Value) -> Value {
    let metadata = &live["metadata"];
    let kept: Map<String, Value> = ["name", "namespace", "labels", "annotations"]
        .into_iter()
        .filter_map(|field| Some((field.to_owned(), metadata.get(field)?.clone())))
        .collect();
    let mut spec = live["spec"].take();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("selector");
        spec.remove("manualSelector");
    }
    for labels in [
        "/template/metadata/labels",
        "/template/metadata/annotations",
    ] {
        if let Some(Value::Object(labels)) = spec.pointer_mut(labels) {
            labels.retain(|label, _| !OF_ONE_JOB.contains(&label.as_str()));
        }
    }
    json!({
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": kept,
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_made_again_without_what_kubernetes_added() {
        let live = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "name": "import", "namespace": "baetyl-edge", "uid": "1", "resourceVersion": "7",
                "labels": {"baetyl-app-name": "import"}, "managedFields": [{}],
            },
            "spec": {
                "backoffLimit": 6, "selector": {"matchLabels": {"controller-uid": "1"}},
                "template": {
                    "metadata": {"labels": {"baetyl-app-name": "import", "controller-uid": "1", "job-name": "import"}},
                    "spec": {"containers": []},
                },
            },
            "status": {"failed": 1},
        });
        assert_eq!(
            again(live),
            json!({
                "apiVersion": "batch/v1", "kind": "Job",
                "metadata": {
                    "name": "import", "namespace": "baetyl-edge",
                    "labels": {"baetyl-app-name": "import"},
                },
                "spec": {
                    "backoffLimit": 6,
                    "template": {
                        "metadata": {"labels": {"baetyl-app-name": "import"}},
                        "spec": {"containers": []},
                    },
                },
            })
        );
    }
}
