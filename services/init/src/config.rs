//! Configuration of init; every key with its default stands in `services/init/etc/init.yaml`.

use std::time::Duration;

use baetyl_kit::config::duration;
use baetyl_kit::grpc::Endpoint;
use baetyl_model::report::RunMode;
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
    /// Where sync listens; nothing = `<data-dir>/run/core/sync.sock`.
    pub sync: Option<Endpoint>,
    /// Services to wait for, by the name of their core socket.
    pub wait_for: Vec<String>,
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

impl Default for Config {
    fn default() -> Self {
        Self {
            activate: Activate::default(),
            token: None,
            mode: RunMode::Native,
            sync: None,
            wait_for: ["node", "sync", "engine", "function-proxy"]
                .map(ToOwned::to_owned)
                .to_vec(),
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
