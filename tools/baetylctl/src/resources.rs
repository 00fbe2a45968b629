//! The kinds of resources: names, paths, order of writing.

use std::fmt;
use std::str::FromStr;

/// A kind of resource of the cloud. The order is the order of writing: what is referenced comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Registry,
    Certificate,
    Secret,
    Config,
    Node,
    App,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Registry,
        Self::Certificate,
        Self::Secret,
        Self::Config,
        Self::Node,
        Self::App,
    ];

    const fn words(self) -> &'static [&'static str] {
        match self {
            Self::Node => &["node", "nodes", "no"],
            Self::App => &["app", "apps", "application", "applications"],
            Self::Config => &["config", "configs", "configuration", "configurations", "cm"],
            Self::Secret => &["secret", "secrets"],
            Self::Registry => &["registry", "registries"],
            Self::Certificate => &["certificate", "certificates", "cert", "certs"],
        }
    }

    /// Path of the list.
    pub(crate) const fn list_path(self) -> &'static str {
        match self {
            Self::Node => "/v1/nodes",
            Self::App => "/v1/apps",
            Self::Config => "/v1/configs",
            Self::Secret => "/v1/secrets",
            Self::Registry => "/v1/registries",
            Self::Certificate => "/v1/certificates",
        }
    }

    /// Path of one resource.
    pub(crate) fn path(self, name: &str) -> String {
        format!("{}/{name}", self.list_path())
    }

    /// Lists that belong to a resource, with their titles.
    pub(crate) fn related(self, name: &str) -> Vec<(&'static str, String)> {
        let path = self.path(name);
        match self {
            Self::Node => vec![("Applications", format!("{path}/apps"))],
            Self::Config | Self::Secret | Self::Registry | Self::Certificate => {
                vec![("Used by", format!("{path}/apps"))]
            }
            Self::App => Vec::new(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words().first().copied().unwrap_or_default())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let lower = word.to_lowercase();
        Self::ALL
            .into_iter()
            .find(|kind| kind.words().contains(&lower.as_str()))
            .ok_or_else(|| {
                format!(
                    "unknown kind {word:?}; use node, app, config, secret, registry or certificate"
                )
            })
    }
}
