//! Configuration of sync; every key with its default stands in `services/sync/etc/sync.yaml`.

use std::path::PathBuf;
use std::time::Duration;

use baetyl_kit::config::{ByteSize, duration};
use baetyl_kit::grpc::Endpoint;
use baetyl_kit::listen::Listen;
use serde::{Deserialize, Serialize};

/// All keys.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// For the other core services.
    pub api: Api,
    /// For the init containers of Pods with objects.
    pub apps: Apps,
    /// Who this node is.
    pub identity: Identity,
    /// Where the other core services are.
    pub peers: Peers,
    /// The link to the cloud.
    pub link: Link,
    /// The content store.
    pub store: Store,
    /// Objects on web servers.
    pub web: Web,
    /// Events on their way up.
    pub outbox: Outbox,
}

/// The section `api`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Nothing = `<data-dir>/run/core/sync.sock`.
    pub listen: Option<Listen>,
}

/// The section `apps`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Apps {
    /// Nothing = `<data-dir>/run/apps/sync.sock`.
    pub listen: Option<Listen>,
}

/// The section `identity`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Directory with copies of the identity (`identity.json`) and of the last accepted desire (`desire`), for the day
    /// the volume is lost; nothing = there are none.
    pub mirror: Option<PathBuf>,
}

/// The section `peers`: nothing = the service's socket in `<data-dir>/run/core`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// Owner of the shadow.
    pub node: Option<Endpoint>,
    /// Executes the commands of operators.
    pub engine: Option<Endpoint>,
    /// Executes the invocations of operators.
    pub function_proxy: Option<Endpoint>,
}

/// The section `link`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// Shortest time between two attempts to connect.
    #[serde(with = "duration")]
    pub backoff_min: Duration,
    /// Longest time between two attempts to connect.
    #[serde(with = "duration")]
    pub backoff_max: Duration,
    /// How often a node that the cloud deleted asks again.
    #[serde(with = "duration")]
    pub removed_retry: Duration,
    /// How long one attempt to connect may take.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How often an idle connection is asked whether it is still there; it is given up when it does not answer in the
    /// same time.
    #[serde(with = "duration")]
    pub keepalive: Duration,
    /// How long a connection waits for the node service to say what it holds.
    #[serde(with = "duration")]
    pub node_wait: Duration,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(60),
            removed_retry: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(15),
            node_wait: Duration::from_secs(3),
        }
    }
}

/// The section `store`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Most bytes a second that are fetched, all together; 0 = no limit.
    pub bandwidth: ByteSize,
    /// Above this much in the store, what nobody needs is removed, oldest first …
    pub high_watermark: ByteSize,
    /// … until this much is left.
    pub low_watermark: ByteSize,
    /// Below this much free space on the disk, what nobody needs is removed, too.
    pub min_free: ByteSize,
    /// What would leave less free space than this is not fetched.
    pub reserve: ByteSize,
    /// Longest body of a resource.
    pub max_body: ByteSize,
    /// Longest object whose author gave no size.
    pub max_object: ByteSize,
    /// Silence after which a sender counts as gone.
    #[serde(with = "duration")]
    pub patience: Duration,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            bandwidth: ByteSize(0),
            high_watermark: ByteSize::gib(4),
            low_watermark: ByteSize::gib(3),
            min_free: ByteSize::mib(256),
            reserve: ByteSize::mib(32),
            max_body: ByteSize::mib(16),
            max_object: ByteSize::gib(16),
            patience: Duration::from_secs(60),
        }
    }
}

/// The section `web`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// PEM file with the authorities of https servers that hold objects; nothing = those of the web.
    pub authorities: Option<PathBuf>,
}

/// The section `outbox`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outbox {
    /// Most events that are kept while the cloud is away; the oldest are dropped first.
    pub events: u64,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { events: 1000 }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_example_file_says_what_is_the_default() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/sync.yaml");
        let (_, example) = baetyl_kit::config::load_both::<baetyl_kit::cli::ShellConfig, Config>(
            "sync",
            Some(&file),
            [],
        )
        .unwrap();
        let render = |config: &Config| baetyl_kit::config::render(config).unwrap();
        assert_eq!(render(&example), render(&Config::default()));
    }
}
