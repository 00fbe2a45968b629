//! Volumes: what services mount.

use serde::{Deserialize, Serialize};

use super::is_default;

/// A named source of files; exactly one source is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    /// Name inside the application.
    pub name: String,
    /// A directory or file of the machine.
    #[serde(skip_serializing_if = "is_default")]
    pub host_path: Option<HostPath>,
    /// A configuration.
    #[serde(skip_serializing_if = "is_default")]
    pub config: Option<Reference>,
    /// A secret.
    #[serde(skip_serializing_if = "is_default")]
    pub secret: Option<Reference>,
    /// A directory that lives as long as the instance.
    #[serde(skip_serializing_if = "is_default")]
    pub empty_dir: Option<EmptyDir>,
    /// Kube: a PersistentVolumeClaim that is there already.
    #[serde(skip_serializing_if = "is_default")]
    pub persistent_volume_claim: Option<Claim>,
    /// REST only: a certificate; stored as a secret volume.
    #[serde(skip_serializing_if = "is_default")]
    pub certificate: Option<NamedRef>,
}

/// The one source of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeSource<'a> {
    /// A directory or file of the machine.
    HostPath(&'a HostPath),
    /// A configuration.
    Config(&'a Reference),
    /// A secret.
    Secret(&'a Reference),
    /// A directory that lives as long as the instance.
    EmptyDir(&'a EmptyDir),
    /// A PersistentVolumeClaim (kube).
    Claim(&'a Claim),
    /// A certificate (REST only).
    Certificate(&'a NamedRef),
}

impl Volume {
    /// The sources that are set; a valid volume has exactly one.
    pub fn sources(&self) -> Vec<VolumeSource<'_>> {
        let all = [
            self.host_path.as_ref().map(VolumeSource::HostPath),
            self.config.as_ref().map(VolumeSource::Config),
            self.secret.as_ref().map(VolumeSource::Secret),
            self.empty_dir.as_ref().map(VolumeSource::EmptyDir),
            self.persistent_volume_claim
                .as_ref()
                .map(VolumeSource::Claim),
            self.certificate.as_ref().map(VolumeSource::Certificate),
        ];
        all.into_iter().flatten().collect()
    }

    /// The source, when there is exactly one.
    pub fn source(&self) -> Option<VolumeSource<'_>> {
        match self.sources().as_slice() {
            [source] => Some(*source),
            _ => None,
        }
    }
}

/// A directory or file of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HostPath {
    /// Absolute, or relative to the node's own host directory.
    pub path: String,
    /// Kubernetes host path type, e.g. `DirectoryOrCreate`.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: String,
}

/// A resource at a version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Reference {
    /// Name of the resource.
    pub name: String,
    /// Written by the cloud: the version in use.
    #[serde(skip_serializing_if = "is_default")]
    pub version: String,
}

/// A directory that lives as long as the instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EmptyDir {
    /// "" (disk) or `Memory`.
    #[serde(skip_serializing_if = "is_default")]
    pub medium: String,
    /// Quantity.
    #[serde(skip_serializing_if = "is_default")]
    pub size_limit: String,
}

/// A PersistentVolumeClaim in the application's Kubernetes namespace; nobody makes or removes it for the application.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Claim {
    /// Name of the claim.
    pub claim_name: String,
    /// Refuse writes of every service.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
}

/// A resource by name alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NamedRef {
    /// Name of the resource.
    pub name: String,
}

/// A registry of an application, as the REST interface shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RegistryRef {
    /// Name of the registry.
    pub name: String,
    /// Shown, not read.
    #[serde(skip_serializing_if = "is_default")]
    pub address: String,
    /// Shown, not read.
    #[serde(skip_serializing_if = "is_default")]
    pub username: String,
}
