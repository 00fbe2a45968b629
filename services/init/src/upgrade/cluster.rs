//! The cluster as it is: the API server, and sync for the link.

use std::collections::BTreeMap;
use std::time::Duration;

use baetyl_kit::Kit;
use baetyl_kit::grpc::{self, Client};
use baetyl_manifests::{FIELD_MANAGER, PART_OF_LABEL, SYSTEM_NAMESPACE};
use baetyl_model::upgrade::{MANIFESTS, RECORD, SECRET};
use baetyl_proto::sync::sync_service_client::SyncServiceClient;
use baetyl_proto::sync::{GetLinkStateRequest, link_state::Phase};
use baetyl_runtime_kube::{CoreObjects, KubeConfig, KubeError, Object};
use serde_json::Value;

use super::{Cluster, Kept, UpgradeError};
use crate::{Config, Service, connect};

/// How long sync may take to say how the link does.
const ANSWER: Duration = Duration::from_secs(5);

/// Kinds an upgrade may list in the namespace of the core services.
const LISTED: [(&str, &str); 6] = [
    ("v1", "ConfigMap"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
];

/// The cluster this Pod runs in.
#[derive(Debug)]
pub struct ApiServer {
    objects: CoreObjects,
    sync: SyncServiceClient<Client>,
}

impl ApiServer {
    /// Finds the ways there; nobody need answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn open(config: &Config, kit: &Kit) -> Result<Self, UpgradeError> {
        let access = KubeConfig {
            field_manager: FIELD_MANAGER.to_owned(),
            ..KubeConfig::default()
        };
        Ok(Self {
            objects: CoreObjects::open(access).await?,
            sync: SyncServiceClient::new(connect(config, kit, Service::Sync)?),
        })
    }
}

fn part_of() -> BTreeMap<String, String> {
    [(PART_OF_LABEL.to_owned(), "baetyl".to_owned())].into()
}

impl Cluster for ApiServer {
    async fn kept(&self) -> Result<Option<Kept>, UpgradeError> {
        let held = self.objects.secret(SYSTEM_NAMESPACE, SECRET).await?;
        let held = held.unwrap_or_default();
        let Some(record) = held.get(RECORD) else {
            return Ok(None);
        };
        let old: Vec<Value> = match held.get(MANIFESTS) {
            Some(old) => serde_json::from_slice(old)?,
            None => Vec::new(),
        };
        Ok(Some(Kept {
            record: serde_json::from_slice(record)?,
            old: old.into_iter().filter_map(Object::read).collect(),
        }))
    }

    async fn keep(&self, kept: &Kept) -> Result<(), UpgradeError> {
        let old: Vec<&Value> = kept.old.iter().map(|object| &object.body).collect();
        let data = BTreeMap::from([
            (RECORD.to_owned(), serde_json::to_vec(&kept.record)?),
            (MANIFESTS.to_owned(), serde_json::to_vec(&old)?),
        ]);
        let (objects, labels) = (&self.objects, part_of());
        Ok(objects
            .put_secret(SYSTEM_NAMESPACE, SECRET, &data, &labels)
            .await?)
    }

    async fn live(&self, object: &Object) -> Result<Option<Value>, KubeError> {
        self.objects.live(object).await
    }

    async fn all(&self) -> Result<Vec<Object>, KubeError> {
        let selector = format!("{PART_OF_LABEL}=baetyl");
        let mut all = Vec::new();
        for (api_version, kind) in LISTED {
            let kind = (api_version, kind);
            let found = self.objects.all(kind, SYSTEM_NAMESPACE, &selector).await?;
            all.extend(found.into_iter().filter_map(|mut body| {
                // Items of a list do not say what they are.
                body["apiVersion"] = kind.0.into();
                body["kind"] = kind.1.into();
                Object::read(body)
            }));
        }
        Ok(all)
    }

    async fn apply(&self, object: &Object, dry_run: bool) -> Result<(), KubeError> {
        self.objects.apply(object, dry_run).await
    }

    async fn replace(&self, object: &Object) -> Result<(), KubeError> {
        self.objects.replace(object).await
    }

    async fn delete(&self, object: &Object) -> Result<(), KubeError> {
        self.objects.delete(object).await
    }

    async fn trouble(&self, service: &str) -> Option<String> {
        let selector = format!("app.kubernetes.io/name={service}");
        let told = self.objects.trouble(SYSTEM_NAMESPACE, &selector).await;
        told.ok().flatten()
    }

    async fn reaches_cloud(&self) -> bool {
        let request = grpc::unary_within(ANSWER, GetLinkStateRequest {});
        match self.sync.clone().get_link_state(request).await {
            Ok(answer) => {
                let state = answer.into_inner().state.unwrap_or_default();
                state.phase() == Phase::Online
            }
            Err(status) => {
                tracing::debug!(code = ?status.code(), "sync does not say how the link does");
                false
            }
        }
    }
}
