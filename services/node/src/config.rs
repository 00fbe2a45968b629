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
    /// `unix:/path` or `ip:port` (beyond loopback this needs the identity that `tls.dir` names).
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use baetyl_kit::config;

    use super::*;

    #[test]
    fn the_example_configuration_is_the_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/node.yaml");
        let (_, read) = config::load_both::<baetyl_kit::cli::ShellConfig, Config>(
            "node",
            Some(&path),
            std::iter::empty(),
        )
        .unwrap();
        assert_eq!(
            config::render(&read).unwrap(),
            config::render(&Config::default()).unwrap()
        );
    }
}
