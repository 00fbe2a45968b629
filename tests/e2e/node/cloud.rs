//! The cloud as `manifests/cloud` has it, in the cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use baetyl_model::jiff::Timestamp;
use baetyl_tests::rest::Rest;
use baetyl_tests::wait::until;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::VERSION;
use crate::cluster::{Cluster, Objects};

const MANIFESTS: &str = include_str!("../../../manifests/rendered/cloud.yaml");
const NAMESPACE: &str = "baetyl-cloud";

/// The cloud in the cluster.
pub(crate) struct Cloud {
    objects: Objects,
    all: Objects,
    /// Where its files are, in the bed, which has no provisioner of volumes.
    directory: Option<PathBuf>,
    registry: String,
}

impl Cloud {
    pub(super) fn of(cluster: &Cluster) -> Result<Self> {
        Ok(Self {
            objects: cluster.objects_in(NAMESPACE),
            all: cluster.objects(),
            directory: cluster.bed_if_any().map(|bed| bed.path("cloud")),
            registry: cluster.registry()?,
        })
    }

    /// Its manifests with everything filled in.
    fn manifests(&self, address: &str) -> String {
        let registry = &self.registry;
        let versions = crate::upgrade::OTHERS.join(", ");
        let settings = [
            address.to_owned(),
            format!("BAETYL_CLOUD__CORE__REGISTRY: {registry}/baetyl"),
            format!("BAETYL_CLOUD__CORE__VERSIONS: '[{versions}]'"),
        ]
        .join("\n  ");
        MANIFESTS
            .replace("REGISTRY/", &format!("{registry}/baetyl/"))
            .replace(":VERSION", &format!(":{VERSION}"))
            .replace("PUBLIC_HOST", &settings)
    }

    /// Makes it, and waits until it answers; gives the token of an administrator.
    pub(super) async fn deploy(&self) -> Result<String> {
        // The address of a Service is known once it is there.
        let service = MANIFESTS
            .split("---\n")
            .filter(|document| {
                document.contains("kind: Namespace") || document.contains("kind: Service\n")
            })
            .collect::<Vec<_>>();
        self.all.apply(&service.join("---\n")).await?;
        if let Some(directory) = &self.directory {
            std::fs::create_dir_all(directory)?;
            self.all.apply(&volume(directory).to_string()).await?;
        }
        let address = self.address_of("baetyl-cloud").await?;
        self.all.apply(&self.manifests(&address)).await?;
        self.objects.wait_for_deployment("baetyl-cloud").await?;
        // A Service may answer later than its Pods are ready.
        let activation = format!("{address}:9003");
        until("the cloud takes connections of nodes", || async {
            Ok(TcpStream::connect(&activation).await?)
        })
        .await?;
        // Nobody can have a token of before: not who runs the tests once more, nor who tries it once more.
        let name = format!("e2e-{}", Timestamp::now().as_microsecond());
        let program = "/usr/bin/baetyl-cloud";
        let create = [program, "token", "create", &name, "--role", "admin"];
        let token = self.objects.exec("deploy/baetyl-cloud", &create).await?;
        Ok(token.trim().to_owned())
    }

    async fn address_of(&self, service: &str) -> Result<String> {
        let service: Value = self.objects.get("service", service).await?;
        let address = service["spec"]["clusterIP"].as_str();
        Ok(address.context("the Service has no address")?.to_owned())
    }

    /// Address of its REST interface.
    pub(super) async fn address(&self) -> Result<String> {
        let address = self.address_of("baetyl-cloud-admin").await?;
        Ok(format!("http://{address}:9004"))
    }

    /// A client with a token, when it answers.
    pub(super) async fn rest(&self, token: &str) -> Result<Rest> {
        let rest = Rest::new(&self.address().await?, Some(token));
        super::until_answers(&rest).await?;
        Ok(rest)
    }

    /// Ends it; its data stay.
    pub(crate) async fn leave(&self) -> Result<()> {
        self.scale(0).await
    }

    /// Starts it again.
    pub(crate) async fn come_back(&self) -> Result<()> {
        self.scale(1).await
    }

    async fn scale(&self, replicas: u32) -> Result<()> {
        self.objects
            .scale("deployment", "baetyl-cloud", replicas)
            .await?;
        self.objects.wait_for_deployment("baetyl-cloud").await?;
        Ok(())
    }
}

fn volume(directory: &Path) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "baetyl-cloud-data"},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": NAMESPACE, "name": "baetyl-cloud-data"},
            "local": {"path": directory},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["edge0"]}
            ]}]}},
        },
    })
}
