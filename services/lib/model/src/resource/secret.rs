//! Secrets, and the registries and certificates that are secrets too.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{is_default, label, time};
use crate::base64;

/// Bytes that are never printed. JSON: standard base64.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretBytes(pub Vec<u8>);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

impl From<&str> for SecretBytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        base64::decode(&text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

/// A secret as it is stored and delivered. `Debug` shows no data.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Secret {
    /// Name inside the namespace.
    pub name: String,
    /// Written by the cloud.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// Free labels; `secret-type` tells the kind.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Free annotations.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// Content by key.
    #[serde(skip_serializing_if = "is_default")]
    pub data: BTreeMap<String, SecretBytes>,
    /// Written by the cloud.
    #[serde(with = "time", skip_serializing_if = "is_default")]
    pub create_time: Option<Timestamp>,
    /// Written by the cloud.
    #[serde(with = "time", skip_serializing_if = "is_default")]
    pub update_time: Option<Timestamp>,
    /// For people.
    #[serde(skip_serializing_if = "is_default")]
    pub description: String,
    /// Written by the cloud; opaque.
    #[serde(skip_serializing_if = "is_default")]
    pub version: String,
    /// True for secrets of the system.
    #[serde(skip_serializing_if = "is_default")]
    pub system: bool,
    /// 16 random bytes the cloud puts in, so that a digest of the body tells nothing about the content.
    #[serde(skip_serializing_if = "is_default")]
    pub salt: SecretBytes,
}

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretKind {
    /// Arbitrary keys; the default.
    Config,
    /// `address`, `username`, `password`.
    Registry,
    /// `key`, `certificate` and what was read from it.
    Certificate,
}

impl SecretKind {
    /// The value of the label `secret-type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Registry => "registry",
            Self::Certificate => "certificate",
        }
    }
}

impl Secret {
    /// What it is for; a secret without label or with an unknown one is a plain one.
    pub fn kind(&self) -> SecretKind {
        match self.labels.get(label::SECRET_TYPE).map(String::as_str) {
            Some("registry") => SecretKind::Registry,
            Some("certificate" | "custom-certificate") => SecretKind::Certificate,
            _ => SecretKind::Config,
        }
    }

    /// A value as text; empty when it is absent or no text.
    pub fn text(&self, key: &str) -> &str {
        self.data
            .get(key)
            .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
            .unwrap_or_default()
    }
}

/// A secret as the REST interface reads and shows it: data is plain text.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecretView {
    /// Name inside the namespace.
    pub name: String,
    /// Written by the cloud.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// Free labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Free annotations.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// Content by key; left out of lists.
    #[serde(skip_serializing_if = "is_default")]
    pub data: BTreeMap<String, String>,
    /// Written by the cloud.
    #[serde(with = "time", skip_serializing_if = "is_default")]
    pub create_time: Option<Timestamp>,
    /// Written by the cloud.
    #[serde(with = "time", skip_serializing_if = "is_default")]
    pub update_time: Option<Timestamp>,
    /// For people.
    #[serde(skip_serializing_if = "is_default")]
    pub description: String,
    /// Written by the cloud; opaque.
    #[serde(skip_serializing_if = "is_default")]
    pub version: String,
}

impl fmt::Debug for SecretView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.data.keys().collect();
        f.debug_struct("SecretView")
            .field("name", &self.name)
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

/// A registry as the REST interface reads and shows it (the password is only read).
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Registry {
    /// Name inside the namespace.
    pub name: String,
    /// Written by the cloud.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// Free labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// `host[:port]`
    #[serde(skip_serializing_if = "is_default")]
    pub address: String,
    /// User name.
    #[serde(skip_serializing_if = "is_default")]
    pub username: String,
    /// Never shown.
    #[serde(skip_serializing_if = "is_default")]
    pub password: String,
    /// Written by the cloud.
    #[serde(with = "time", skip_serializing_if = "is_default")]
    pub create_time: Option<Timestamp>,
    /// Written by the cloud.
    #[serde(with = "time", skip_serializing_if = "is_default")]
    pub update_time: Option<Timestamp>,
    /// For people.
    #[serde(skip_serializing_if = "is_default")]
    pub description: String,
    /// Written by the cloud; opaque.
    #[serde(skip_serializing_if = "is_default")]
    pub version: String,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A certificate as the REST interface reads and shows it (the key is only read).
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Certificate {
    /// Name inside the namespace.
    pub name: String,
    /// Written by the cloud.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// Free labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// PEM; never shown.
    #[serde(skip_serializing_if = "is_default")]
    pub key: String,
    /// PEM; not shown.
    #[serde(skip_serializing_if = "is_default")]
    pub certificate: String,
    /// Read from the certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub signature_algorithm: String,
    /// Read from the certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub effective_time: String,
    /// Read from the certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub expired_time: String,
    /// Read from the certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub serial_number: String,
    /// Read from the certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub issuer: String,
    /// Read from the certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub finger_print: String,
    /// Written by the cloud.
    #[serde(with = "time", skip_serializing_if = "is_default")]
    pub create_time: Option<Timestamp>,
    /// Written by the cloud.
    #[serde(with = "time", skip_serializing_if = "is_default")]
    pub update_time: Option<Timestamp>,
    /// For people.
    #[serde(skip_serializing_if = "is_default")]
    pub description: String,
    /// Written by the cloud; opaque.
    #[serde(skip_serializing_if = "is_default")]
    pub version: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("name", &self.name)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}
