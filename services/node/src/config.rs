//! Configuration of node; every key with its default stands in `services/node/etc/node.yaml`.

use std::time::Duration;

use baetyl_kit::config::duration;
use baetyl_kit::listen::Listen;
use serde::{Deserialize, Serialize};

/// All keys.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// For the core services; nothing = `<data-dir>/run/core/node.sock`.
    pub api: Endpoint,
    /// For applications; nothing = `<data-dir>/run/apps/node.sock`.
    pub apps: Endpoint,
    /// How often figures of the machine are read.
    #[serde(with = "duration")]
    pub stats_period: Duration,
}

/// Where a server listens.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoint {
    /// `unix:/path` or `ip:port`.
    pub listen: Option<Listen>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api: Endpoint::default(),
            apps: Endpoint::default(),
            stats_period: Duration::from_secs(15),
        }
    }
}
