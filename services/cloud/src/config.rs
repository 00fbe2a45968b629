//! The configuration of the cloud. Every key has a default; `etc/cloud.toml` shows them all.
//!
//! `admin` is the REST interface here, therefore the shell's own admin port (health, metrics) is the section `metrics`.

use std::collections::BTreeMap;

use baetyl_kit::admin::AdminConfig;
use baetyl_kit::cli::{LogConfig, ProcessConfig, Shell, ShellConfig};
use baetyl_kit::listen::Listen;
use baetyl_model::Namespace;
use serde::{Deserialize, Serialize};

use crate::install::InstallConfig;
use crate::install::kube::CoreConfig;
use crate::objects::ObjectsConfig;
use crate::pki::PkiConfig;
use crate::report::ReportConfig;

pub(crate) mod checked;

#[cfg(test)]
mod tests;

pub use checked::{CheckError, Host, ServerUrl, TrustDomain};

/// The configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The REST interface for operators.
    pub admin: ListenerConfig,
    /// The link for nodes (mutual TLS).
    pub link: ListenerConfig,
    /// Activation of nodes (server TLS).
    pub activation: ListenerConfig,
    /// How nodes reach this cloud.
    pub public: PublicConfig,
    /// The namespace of the first admin token.
    pub namespace: Namespace,
    /// How callers of the REST interface prove who they are.
    pub auth: AuthConfig,
    /// Functions.
    pub functions: FunctionsConfig,
    /// The core of nodes in mode kube.
    pub core: CoreConfig,
    /// Uploaded files.
    pub objects: ObjectsConfig,
    /// Certificates.
    pub pki: PkiConfig,
    /// Install tokens.
    pub install: InstallConfig,
    /// Reports of nodes.
    pub report: ReportConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            admin: ListenerConfig {
                listen: loopback(9004),
            },
            link: ListenerConfig {
                listen: loopback(9005),
            },
            activation: ListenerConfig {
                listen: loopback(9003),
            },
            public: PublicConfig::default(),
            namespace: Namespace::default(),
            auth: AuthConfig::default(),
            functions: FunctionsConfig::default(),
            core: CoreConfig::default(),
            objects: ObjectsConfig::default(),
            pki: PkiConfig::default(),
            install: InstallConfig::default(),
            report: ReportConfig::default(),
        }
    }
}

fn loopback(port: u16) -> Listen {
    Listen::Tcp(([127, 0, 0, 1], port).into())
}

/// A place to listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerConfig {
    /// "ip:port"; port 0 takes any free one. The bound address is written to `<data-dir>/run/<name>.addr`.
    pub listen: Listen,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            listen: Listen::loopback(),
        }
    }
}

/// How nodes reach this cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublicConfig {
    /// Host name or address nodes connect to; in the server certificate and in install commands.
    pub host: Host,
    /// Further names and addresses for the server certificate.
    pub names: Vec<Host>,
    /// Where nodes activate, when it is not `https://<host>:<port of activation>`.
    pub activation_url: Option<ServerUrl>,
    /// Where the link is, tried in order, when it is not `https://<host>:<port of link>`.
    pub link_urls: Vec<ServerUrl>,
}

impl Default for PublicConfig {
    fn default() -> Self {
        Self {
            host: Host::loopback(),
            names: Vec::new(),
            activation_url: None,
            link_urls: Vec::new(),
        }
    }
}

impl PublicConfig {
    /// Names in the server certificate.
    pub fn certificate_names(&self) -> Vec<String> {
        std::iter::once(&self.host)
            .chain(&self.names)
            .map(Host::to_string)
            .collect()
    }

    /// Where nodes activate, given where activation listens.
    pub fn activation_url(&self, bound: &Listen) -> String {
        match &self.activation_url {
            Some(url) => url.to_string(),
            None => self.url(bound),
        }
    }

    /// Where the link is, given where it listens.
    pub fn link_urls(&self, bound: &Listen) -> Vec<String> {
        if self.link_urls.is_empty() {
            vec![self.url(bound)]
        } else {
            self.link_urls.iter().map(ServerUrl::to_string).collect()
        }
    }

    fn url(&self, bound: &Listen) -> String {
        // An IPv6 address stands in brackets.
        let host = self.host.as_str();
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        match bound {
            Listen::Tcp(address) => format!("https://{host}:{}", address.port()),
            Listen::Unix(_) => format!("https://{host}"),
        }
    }
}

/// How callers prove who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// The one way this release knows.
    pub method: AuthMethod,
}

/// Ways to prove who one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMethod {
    /// Bearer tokens made with `baetyl-cloud token create`.
    #[default]
    Token,
}

/// Functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionsConfig {
    /// Runtimes functions may ask for, and the image each has in kube mode; empty: that of the version and the registry
    /// the node itself has. Native nodes have their own.
    pub runtimes: BTreeMap<String, String>,
}

impl Default for FunctionsConfig {
    fn default() -> Self {
        Self {
            runtimes: BTreeMap::from([("python3".to_owned(), String::new())]),
        }
    }
}

/// The shell's sections, with its admin port under the name `metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShellSections {
    /// Health, readiness and metrics.
    pub metrics: AdminConfig,
    /// Log output.
    pub log: LogConfig,
    /// Threads and shutdown.
    pub process: ProcessConfig,
}

impl Shell for ShellSections {
    fn log_mut(&mut self) -> &mut LogConfig {
        &mut self.log
    }

    fn into_shell(self) -> ShellConfig {
        ShellConfig {
            admin: self.metrics,
            log: self.log,
            process: self.process,
            ..ShellConfig::default()
        }
    }
}
