//! Configurations: named texts and objects (large files that are fetched by digest).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{is_default, label, time};

/// Prefix of the keys whose value describes an object instead of being the content.
pub const OBJECT_PREFIX: &str = "_object_";

/// A configuration as it is stored and delivered.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Configuration {
    /// Name inside the namespace.
    pub name: String,
    /// Written by the cloud.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// Free labels and those of [`super::label`].
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Content by key; a key with [`OBJECT_PREFIX`] holds an [`ObjectItem`] as JSON text.
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
    /// True for configurations of the system.
    #[serde(skip_serializing_if = "is_default")]
    pub system: bool,
}

/// A file that is fetched: the value of a key with [`OBJECT_PREFIX`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectItem {
    /// Hex; what Baetyl v2 checks.
    #[serde(skip_serializing_if = "is_default")]
    pub md5: String,
    /// 64 hex digits; what we check.
    #[serde(skip_serializing_if = "is_default")]
    pub sha256: String,
    /// Bytes; 0 when the author did not say.
    #[serde(skip_serializing_if = "is_default")]
    pub size: u64,
    /// Where it is, when it is not in the cloud's own store.
    #[serde(skip_serializing_if = "is_default")]
    pub url: String,
    /// Bearer token for the URL.
    #[serde(skip_serializing_if = "is_default")]
    pub token: String,
    /// "", `zip`, `tar`, `tgz`.
    #[serde(skip_serializing_if = "is_default")]
    pub unpack: String,
    /// What the author gave; the cloud's own (credentials), never delivered.
    #[serde(skip_serializing_if = "is_default")]
    pub metadata: BTreeMap<String, String>,
}

/// An object item that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("item {key} is not a JSON description of an object")]
pub struct ObjectItemError {
    /// The key, without prefix.
    pub key: String,
    /// What is wrong with it.
    #[source]
    pub source: serde_json::Error,
}

impl Configuration {
    /// The plain items: key and content.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        let plain = self
            .data
            .iter()
            .filter(|(key, _)| !key.starts_with(OBJECT_PREFIX));
        plain.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The object items: file name and description.
    pub fn objects(&self) -> impl Iterator<Item = Result<(&str, ObjectItem), ObjectItemError>> {
        let objects = self
            .data
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(OBJECT_PREFIX)?, value)));
        objects.map(|(key, value)| match serde_json::from_str(value) {
            Ok(item) => Ok((key, item)),
            Err(source) => Err(ObjectItemError {
                key: key.to_owned(),
                source,
            }),
        })
    }

    /// Puts an object item in.
    pub fn insert_object(&mut self, file_name: &str, item: &ObjectItem) {
        // A struct of texts and numbers always serialises.
        let text = serde_json::to_string(item).unwrap_or_default();
        self.data
            .insert(format!("{OBJECT_PREFIX}{file_name}"), text);
    }

    /// The kind of configuration, e.g. `baetyl-program`; empty when it is a plain one.
    pub fn config_type(&self) -> &str {
        self.labels
            .get(label::CONFIG_TYPE)
            .map_or("", String::as_str)
    }
}

/// A configuration as the REST interface reads and shows it: data is a list of typed items.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigurationView {
    /// Name inside the namespace.
    pub name: String,
    /// Written by the cloud.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// Free labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Items in order of key.
    #[serde(skip_serializing_if = "is_default")]
    pub data: Vec<ConfigItem>,
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
    /// True for configurations of the system.
    #[serde(skip_serializing_if = "is_default")]
    pub system: bool,
}

/// One item of a [`ConfigurationView`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigItem {
    /// Key; becomes the file name.
    pub key: String,
    /// `type` is `kv` (with `value`), `object` (with `source`, and `url` or bucket fields) or `function`.
    pub value: BTreeMap<String, String>,
}
