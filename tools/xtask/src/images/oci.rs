//! What an image is made of, as the OCI image specification 1.1 writes it down: the fields that are used here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::arch::Arch;

/// An image for several platforms.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image for one platform.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// How its processes are started.
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An archive of files, compressed with gzip.
pub(crate) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// An archive of files, compressed with zstd.
pub(crate) const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The tag of a manifest in a layout.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name of an image in an archive, as containerd reads it.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Digest(String);

impl Digest {
    /// Of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
    }

    /// From the 32 bytes of a sum.
    pub(crate) fn from_sha256(sum: &[u8]) -> Self {
        let mut text = String::from("sha256:");
        for byte in sum {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// The whole.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits.
    pub(crate) fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let digits = text.strip_prefix("sha256:").unwrap_or_default();
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if digits.len() != 64 || !digits.chars().all(hex) {
            bail!("{text:?} is no sha256 digest");
        }
        Ok(Self(text))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a piece of content is and how it is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    /// Its kind.
    pub(crate) media_type: String,
    /// Its sum.
    pub(crate) digest: Digest,
    /// Its bytes.
    pub(crate) size: u64,
    /// For which machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// For which machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    /// `amd64`, `arm64`, `arm`.
    pub(crate) architecture: String,
    /// `linux`.
    pub(crate) os: String,
    /// `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

impl From<Arch> for Platform {
    fn from(arch: Arch) -> Self {
        Self {
            architecture: arch.oci().to_owned(),
            os: "linux".to_owned(),
            variant: arch.variant().map(str::to_owned),
        }
    }
}

impl Platform {
    /// The architecture it means.
    ///
    /// # Errors
    /// When it is none of ours.
    pub(crate) fn arch(&self) -> Result<Arch> {
        match &self.variant {
            Some(variant) if self.architecture == "arm" => format!("arm/{variant}").parse(),
            _ => self.architecture.parse(),
        }
    }
}

/// A list of manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    /// 2.
    pub(crate) schema_version: u32,
    /// [`INDEX`]; layouts of others leave it out.
    #[serde(default)]
    pub(crate) media_type: String,
    /// One for each platform; in the `index.json` of a layout one for each image.
    pub(crate) manifests: Vec<Descriptor>,
    /// Labels of the whole.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Index {
    /// Of these.
    pub(crate) fn new(manifests: Vec<Descriptor>, annotations: BTreeMap<String, String>) -> Self {
        Self {
            schema_version: 2,
            media_type: INDEX.to_owned(),
            manifests,
            annotations,
        }
    }
}

/// An image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    /// 2.
    pub(crate) schema_version: u32,
    /// [`MANIFEST`].
    pub(crate) media_type: String,
    /// Its configuration.
    pub(crate) config: Descriptor,
    /// Its files, lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

/// How the processes of an image are started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageConfig {
    /// When it was made.
    pub(crate) created: String,
    /// For which machines.
    #[serde(flatten)]
    pub(crate) platform: Platform,
    /// What is started and how.
    pub(crate) config: Process,
    /// Its layers before compression.
    pub(crate) rootfs: RootFs,
    /// How each layer came about.
    pub(crate) history: Vec<History>,
}

/// What is started and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Process {
    /// `uid:gid`.
    pub(crate) user: String,
    /// `NAME=value`.
    pub(crate) env: Vec<String>,
    /// The program.
    pub(crate) entrypoint: Vec<String>,
    /// Its arguments, when no others are given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) cmd: Vec<String>,
    /// Where it starts.
    pub(crate) working_dir: String,
    /// What the image says of itself.
    pub(crate) labels: BTreeMap<String, String>,
}

/// Layers before compression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Sums of the archives before compression.
    pub(crate) diff_ids: Vec<Digest>,
}

/// How a layer came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct History {
    /// When.
    pub(crate) created: String,
    /// By what.
    pub(crate) created_by: String,
}

/// As JSON. Fields have a fixed order and maps are sorted, so the same value always gives the same bytes.
///
/// # Errors
/// Never for the types of this module.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).context("cannot be written as JSON")
}
