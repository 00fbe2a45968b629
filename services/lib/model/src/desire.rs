//! What travels down: the whole desired state of one node at one generation, and the rule which one is accepted.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{
    AppName, ConfigKey, Epoch, Generation, Kind, NameError, Namespace, NodeName, NodeUid,
    ResourceName, Version,
};

#[cfg(test)]
mod tests;

/// Names one version of one resource: what is asked for by it is exactly what is got.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRef {
    /// Application, configuration or secret.
    pub kind: Kind,
    /// Name inside the namespace.
    pub name: ResourceName,
    /// Opaque version.
    pub version: Version,
    /// sha256 of the body's bytes.
    pub digest: Digest,
    /// Bytes of the body.
    pub size: u64,
}

/// A [`ResourceRef`] of kind application: its name is an application name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppRef {
    /// Name inside the namespace.
    pub name: AppName,
    /// Opaque version.
    pub version: Version,
    /// sha256 of the body's bytes.
    pub digest: Digest,
    /// Bytes of the body.
    pub size: u64,
}

impl From<AppRef> for ResourceRef {
    fn from(app: AppRef) -> Self {
        Self {
            kind: Kind::Application,
            name: app.name.into(),
            version: app.version,
            digest: app.digest,
            size: app.size,
        }
    }
}

/// A reference that should name an application and does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppRefError {
    /// Of another kind.
    #[error("{kind} {name} stands where an application is wanted")]
    Kind {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: ResourceName,
    },
    /// Its name is too long for an application.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl TryFrom<ResourceRef> for AppRef {
    type Error = AppRefError;
    fn try_from(reference: ResourceRef) -> Result<Self, AppRefError> {
        let ResourceRef {
            kind,
            name,
            version,
            digest,
            size,
        } = reference;
        if kind != Kind::Application {
            return Err(AppRefError::Kind { kind, name });
        }
        Ok(Self {
            name: AppName::try_from(&name)?,
            version,
            digest,
            size,
        })
    }
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.kind, self.name, self.version)
    }
}

impl fmt::Display for AppRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "application/{}@{}", self.name, self.version)
    }
}

/// How an object is unpacked, next to its file, after verification.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Unpack {
    /// Left as it is.
    #[default]
    #[serde(rename = "")]
    None,
    /// Zip archive.
    Zip,
    /// Tape archive.
    Tar,
    /// Tape archive, gzip compressed.
    Tgz,
}

/// A word that names no archive format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an archive format; one of zip, tar, tgz or nothing is wanted")]
pub struct UnpackError(pub String);

impl Unpack {
    /// The word on the wire; empty for none.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Zip => "zip",
            Self::Tar => "tar",
            Self::Tgz => "tgz",
        }
    }
}

impl std::str::FromStr for Unpack {
    type Err = UnpackError;
    fn from_str(word: &str) -> Result<Self, UnpackError> {
        match word {
            "" => Ok(Self::None),
            "zip" => Ok(Self::Zip),
            "tar" => Ok(Self::Tar),
            "tgz" | "tar.gz" => Ok(Self::Tgz),
            _ => Err(UnpackError(word.to_owned())),
        }
    }
}

/// A large file that a configuration names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// sha256 of the file's bytes.
    pub digest: Digest,
    /// Bytes; 0 when the author did not say.
    pub size: u64,
    /// Where to fetch it when it is not in the cloud's own store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The configuration that names it.
    pub configuration: ResourceName,
    /// Version of that configuration.
    pub configuration_version: Version,
    /// Name it gets in the configuration's directory.
    pub file_name: ConfigKey,
    /// How it is unpacked.
    #[serde(default)]
    pub unpack: Unpack,
}

/// An application a node shall run, with everything it references.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredApp {
    /// The application.
    pub app: AppRef,
    /// Configurations and secrets, sorted by (kind, name).
    #[serde(default)]
    pub resources: Vec<ResourceRef>,
    /// Sorted by (configuration, file name).
    #[serde(default)]
    pub objects: Vec<ObjectRef>,
    /// True for applications of the system.
    #[serde(default)]
    pub system: bool,
}

/// Identity of what an application consists of: its version, and the digests of its body and of everything it
/// references. Two releases are the same when nothing that runs would differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Release {
    /// Version of the application.
    pub version: Version,
    /// Sorted, each once.
    pub digests: Vec<Digest>,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.version.fmt(f)
    }
}

impl DesiredApp {
    /// What it consists of.
    pub fn release(&self) -> Release {
        let mut digests: Vec<_> = self.digests().collect();
        digests.sort_unstable();
        digests.dedup();
        Release {
            version: self.app.version.clone(),
            digests,
        }
    }

    /// Everything whose body is needed: the application itself, then its configurations and secrets.
    pub fn references(&self) -> Vec<ResourceRef> {
        std::iter::once(ResourceRef::from(self.app.clone()))
            .chain(self.resources.iter().cloned())
            .collect()
    }

    /// The digests that must stay in the local store while this version is in use.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        let bodies = std::iter::once(self.app.digest)
            .chain(self.resources.iter().map(|reference| reference.digest));
        bodies.chain(self.objects.iter().map(|object| object.digest))
    }
}

/// The whole desired state of one node at one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Desire {
    /// Tenant.
    pub namespace: Namespace,
    /// Name of the node.
    pub node_name: NodeName,
    /// Immutable id of the node.
    pub node_uid: NodeUid,
    /// Orders before the generation.
    pub epoch: Epoch,
    /// The revision this was derived at.
    pub generation: Generation,
    /// Over the content without epoch and generation: equal content, equal digest.
    pub digest: Digest,
    /// Sorted by name.
    #[serde(default)]
    pub apps: Vec<DesiredApp>,
    /// Properties the operator wishes.
    #[serde(default)]
    pub node_properties: BTreeMap<String, String>,
    /// What the core services shall be; absent: nobody wishes anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<DesiredCore>,
}

/// What the core services of a node in kube mode shall be. An empty text is no wish: it stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DesiredCore {
    /// Version of the images, e.g. "0.2.0".
    pub version: String,
    /// Node class, whose manifests are applied.
    pub class: String,
    /// Registry, with path, of the images.
    pub registry: String,
}

impl Desire {
    /// What identifies it without its content.
    pub fn header(&self) -> Header {
        Header {
            node_uid: self.node_uid.clone(),
            epoch: self.epoch,
            generation: self.generation,
            digest: self.digest,
        }
    }

    /// The application of that name.
    pub fn app(&self, name: &str) -> Option<&DesiredApp> {
        self.apps.iter().find(|app| app.app.name == *name)
    }

    /// Puts apps, resources and objects into the order the contract fixes, so that equal content has equal bytes.
    pub fn sort(&mut self) {
        for app in &mut self.apps {
            app.resources
                .sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
            app.objects.sort_by(|a, b| {
                (&a.configuration, &a.file_name).cmp(&(&b.configuration, &b.file_name))
            });
        }
        self.apps.sort_by(|a, b| a.app.name.cmp(&b.app.name));
    }
}

/// What identifies a desire without its content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Whose desire it is.
    pub node_uid: NodeUid,
    /// Orders before the generation.
    pub epoch: Epoch,
    /// The revision it was derived at.
    pub generation: Generation,
    /// Over its content.
    pub digest: Digest,
}

impl Header {
    /// What orders two desires of one node.
    pub fn order(&self) -> (Epoch, Generation) {
        (self.epoch, self.generation)
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {} generation {}", self.epoch, self.generation)
    }
}

/// What becomes of an offered desire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// It is newer: write it to disk, then tell watchers.
    New,
    /// It is the one that is held: nothing to do, nobody to wake.
    Same,
    /// It is refused; what is held stays untouched.
    Refused(Refusal),
}

/// Why a desire is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Older than what is held.
    #[error("the offered desire is older than the one this node holds")]
    Stale,
    /// The same (epoch, generation) with another content.
    #[error("the offered desire has the epoch and generation of the held one and another content")]
    Conflict,
    /// For another node.
    #[error("the offered desire is for another node")]
    WrongNode,
}

impl Refusal {
    /// The word of `DesireAck.refused`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Conflict => "conflict",
            Self::WrongNode => "wrong-node",
        }
    }
}

/// Hop 4: decides by (epoch, generation). `identity` is this node's uid when it is known; without it, the uid of what
/// is held decides. A held desire of another uid than the identity belongs to a former life of this machine and does
/// not count.
pub fn accept_desire(
    identity: Option<&NodeUid>,
    held: Option<&Header>,
    offered: &Header,
) -> Accept {
    if let Some(identity) = identity.or(held.map(|held| &held.node_uid))
        && *identity != offered.node_uid
    {
        return Accept::Refused(Refusal::WrongNode);
    }
    let Some(held) = held.filter(|held| held.node_uid == offered.node_uid) else {
        return Accept::New;
    };
    match offered.order().cmp(&held.order()) {
        std::cmp::Ordering::Greater => Accept::New,
        std::cmp::Ordering::Less => Accept::Refused(Refusal::Stale),
        std::cmp::Ordering::Equal if offered.digest == held.digest => Accept::Same,
        std::cmp::Ordering::Equal => Accept::Refused(Refusal::Conflict),
    }
}
