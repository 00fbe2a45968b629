//! Configuration of init; every key with its default stands in `services/init/etc/init.yaml`.

use std::time::Duration;

use baetyl_kit::config::duration;
use baetyl_kit::grpc::Endpoint;
use baetyl_model::report::RunMode;
use baetyl_proto::callers::Role;
use serde::{Deserialize, Serialize};

/// All keys.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to activate.
    pub activate: Activate,
    /// Install token. Belongs into the environment (`BAETYL_INIT__TOKEN`), not into argv, which everybody can read.
    #[serde(serialize_with = "hidden")]
    pub token: Option<String>,
    /// How this machine runs applications; the cloud refuses a node that is described otherwise.
    pub mode: RunMode,
    /// Where sync listens, if `peers.sync` does not say it.
    pub sync: Option<Endpoint>,
    /// Where the services listen.
    pub peers: Peers,
    /// Services to wait for.
    pub wait_for: Vec<Service>,
    /// How long each step may take.
    #[serde(with = "duration")]
    pub deadline: Duration,
}

/// The activation server of the cloud.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Activate {
    /// `https://host:port`
    pub url: Option<String>,
    /// `sha256:` and 64 hex digits of the authority certificate that signed the server's.
    pub ca_pin: Option<String>,
}

/// A service to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Owner of the shadow.
    Node,
    /// The link and the content store.
    Sync,
    /// The reconciler.
    Engine,
    /// The function proxy.
    FunctionProxy,
}

impl Service {
    /// The role it calls others in, which its certificate names.
    pub(crate) const fn role(self) -> Role {
        match self {
            Self::Node => Role::Node,
            Self::Sync => Role::Sync,
            Self::Engine => Role::Engine,
            Self::FunctionProxy => Role::Proxy,
        }
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Sync => "sync",
            Self::Engine => "engine",
            Self::FunctionProxy => "function-proxy",
        })
    }
}

/// The section `peers`: nothing = the service's socket in `<data-dir>/run/core`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// Owner of the shadow.
    pub node: Option<Endpoint>,
    /// The link and the content store.
    pub sync: Option<Endpoint>,
    /// The reconciler.
    pub engine: Option<Endpoint>,
    /// The gRPC listener of the function proxy.
    pub function_proxy: Option<Endpoint>,
}

impl Config {
    /// Where a service listens, if it is configured.
    pub(crate) fn peer(&self, service: Service) -> Option<&Endpoint> {
        match service {
            Service::Node => self.peers.node.as_ref(),
            Service::Sync => self.peers.sync.as_ref().or(self.sync.as_ref()),
            Service::Engine => self.peers.engine.as_ref(),
            Service::FunctionProxy => self.peers.function_proxy.as_ref(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            activate: Activate::default(),
            token: None,
            mode: RunMode::Native,
            sync: None,
            peers: Peers::default(),
            wait_for: vec![
                Service::Node,
                Service::Sync,
                Service::Engine,
                Service::FunctionProxy,
            ],
            deadline: Duration::from_secs(300),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("activate", &self.activate)
            .field("mode", &self.mode)
            .field("wait_for", &self.wait_for)
            .finish_non_exhaustive()
    }
}

/// What is shown of a token: whether there is one.
#[expect(clippy::ref_option, reason = "the signature serde wants")]
fn hidden<S: serde::Serializer>(token: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    match token {
        Some(_) => to.serialize_str("(set)"),
        None => to.serialize_none(),
    }
}
