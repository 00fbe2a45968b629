//! Identifiers: newtypes that are parsed once, at the border, and trusted afterwards.
//!
//! Every error names the value and the rule it breaks. Text names order and hash like their text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// A value that breaks the rule of the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{value}\" is not a valid {what}: {rule}")]
pub struct NameError {
    /// What the value should have been, e.g. "node name".
    pub what: &'static str,
    /// The value, shortened to 80 characters.
    pub value: String,
    /// The rule, as a sentence part.
    pub rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, value: &str, rule: &'static str) -> Self {
        let value = if value.chars().count() > 80 {
            value.chars().take(80).chain("…".chars()).collect()
        } else {
            value.to_owned()
        };
        Self { what, value, rule }
    }
}

const RES_RULE: &str =
    "2 to 63 characters of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit";
const APP_RULE: &str =
    "2 to 55 characters of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit";
const SVC_RULE: &str =
    "2 to 63 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit";
const NAMESPACE_RULE: &str =
    "1 to 63 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit";
const KEY_RULE: &str =
    "1 to 253 characters of a-z, A-Z, 0-9, '-', '_' and '.', and neither \".\" nor \"..\"";
const UID_RULE: &str = "1 to 64 characters of a-z, 0-9 and '-', beginning with a letter or digit";
const VERSION_RULE: &str =
    "1 to 64 characters of a-z, A-Z, 0-9, '-' and '_', beginning with a letter or digit";

/// Characters of a Baetyl v2 resource name; `dots` tells whether '.' is one of them.
fn is_name(value: &str, min: usize, max: usize, dots: bool) -> bool {
    let bytes = value.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (min..=max).contains(&bytes.len())
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-' || (dots && *b == b'.')
        })
}

fn is_res_name(value: &str) -> bool {
    is_name(value, 2, 63, true)
}

/// Eight characters shorter than a resource name: "-nodeport" and the like must still fit behind it.
fn is_app_name(value: &str) -> bool {
    is_name(value, 2, 55, true)
}

fn is_svc_name(value: &str) -> bool {
    is_name(value, 2, 63, false)
}

/// No dot: `<namespace>.<node>` is split at the first one.
fn is_namespace(value: &str) -> bool {
    is_name(value, 1, 63, false)
}

/// A key becomes a file name, therefore not "." or "..".
fn is_config_key(value: &str) -> bool {
    (1..=253).contains(&value.len())
        && value != "."
        && value != ".."
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_uid(value: &str) -> bool {
    (1..=64).contains(&value.len())
        && !value.starts_with('-')
        && value
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A version becomes a path component and one of the dot-separated parts of an instance name.
fn is_version(value: &str) -> bool {
    (1..=64).contains(&value.len())
        && value.as_bytes()[0].is_ascii_alphanumeric()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the rule and takes the text.
            pub fn new(value: impl Into<String>) -> Result<Self, NameError> {
                let value = value.into();
                if $check(&value) { Ok(Self(value)) } else { Err(NameError::new($what, &value, $rule)) }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(value: String) -> Result<Self, NameError> {
                Self::new(value)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(value: &str) -> Result<Self, NameError> {
                Self::new(value)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

text_name!(
    /// Name of a node inside its namespace.
    NodeName, "node name", RES_RULE, is_res_name);
text_name!(
    /// Name of an application inside its namespace.
    AppName, "application name", APP_RULE, is_app_name);
text_name!(
    /// Name of a configuration, secret, registry, certificate, volume or batch.
    ResourceName, "resource name", RES_RULE, is_res_name);
text_name!(
    /// Name of a service of an application, and of a custom Kubernetes namespace.
    ServiceName, "service name", SVC_RULE, is_svc_name);
text_name!(
    /// A tenant.
    Namespace, "namespace", NAMESPACE_RULE, is_namespace);
text_name!(
    /// Key of one item of a configuration or secret; the item's file name on the node.
    ConfigKey, "key", KEY_RULE, is_config_key);
text_name!(
    /// Immutable id of a node; survives nothing: a node re-created under the same name has another one.
    NodeUid, "node uid", UID_RULE, is_uid);
text_name!(
    /// Version of a resource: the revision that wrote it, as decimal text. Only ever compared for equality.
    Version, "version", VERSION_RULE, is_version);

impl From<AppName> for ResourceName {
    fn from(name: AppName) -> Self {
        Self(name.0)
    }
}

impl TryFrom<&ResourceName> for AppName {
    type Error = NameError;
    fn try_from(name: &ResourceName) -> Result<Self, NameError> {
        Self::new(name.as_str())
    }
}

impl From<Revision> for Version {
    fn from(revision: Revision) -> Self {
        Self(revision.0.to_string())
    }
}

/// "default": the namespace of an installation with one tenant.
impl Default for Namespace {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// True when a name is reserved for the system: it contains "baetyl", in any case.
pub fn is_system_name(name: &str) -> bool {
    name.to_ascii_lowercase().contains("baetyl")
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number after this one. Stays at the largest: 2^64 changes are not reached.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }

        impl From<$name> for u64 {
            fn from(value: $name) -> u64 {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

counter!(
    /// One counter per namespace; every write that can change a desire takes the next number.
    Revision);
counter!(
    /// Raised by the cloud when its own state went back. Orders before the generation.
    Epoch);
counter!(
    /// The revision a desire was derived at.
    Generation);

impl From<Revision> for Generation {
    fn from(revision: Revision) -> Self {
        Self(revision.0)
    }
}

/// Kind of a versioned resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An application.
    #[serde(alias = "app")]
    Application,
    /// A configuration.
    #[serde(alias = "config")]
    Configuration,
    /// A secret, registry or certificate.
    Secret,
}

impl Kind {
    /// The word on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Configuration => "configuration",
            Self::Secret => "secret",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = NameError;
    fn from_str(value: &str) -> Result<Self, NameError> {
        match value {
            "application" | "app" => Ok(Self::Application),
            "configuration" | "config" => Ok(Self::Configuration),
            "secret" => Ok(Self::Secret),
            _ => Err(NameError::new(
                "kind",
                value,
                "one of application, configuration, secret",
            )),
        }
    }
}
