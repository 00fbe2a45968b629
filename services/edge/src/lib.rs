//! All edge roles in one process ([`run`]), a supervisor of the separate programs ([`supervise`]), and the end of a node
//! ([`decommission`]).
//!
//! One process means the same services with the same contracts over the same sockets: only the number of processes differs.
//! `baetyl-init` stays a program of its own, because it ends.

pub mod decommission;
pub mod supervise;

use baetyl_kit::Kit;
use baetyl_kit::readiness::Readiness;
use serde::{Deserialize, Serialize};

/// The configurations of all roles, each beneath its name.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// As `baetyl-node` reads it.
    pub node: baetyl_node::Config,
    /// As `baetyl-sync` reads it.
    pub sync: baetyl_sync::Config,
    /// As `baetyl-engine` reads it.
    pub engine: baetyl_engine::Config,
    /// As `baetyl-function-proxy` reads it.
    pub function_proxy: baetyl_function_proxy::Config,
}

/// Runs all roles until shutdown. A role that fails ends the process: the service manager starts it again, and no
/// application notices.
///
/// # Errors
/// Never itself; a role's failure is that of the kit.
pub async fn run(config: Config, kit: Kit) -> Result<(), std::convert::Infallible> {
    let begun = kit.readiness().register("roles");
    let tasks = kit.tasks().clone();
    tasks.spawn_required(
        "node",
        Box::pin(baetyl_node::run(config.node, kit.child("node"))),
    );
    tasks.spawn_required(
        "sync",
        Box::pin(baetyl_sync::run(config.sync, kit.child("sync"))),
    );
    tasks.spawn_required(
        "engine",
        Box::pin(baetyl_engine::run(config.engine, kit.child("engine"))),
    );
    let proxy = kit.child("function-proxy");
    tasks.spawn_required(
        "function-proxy",
        Box::pin(baetyl_function_proxy::run(config.function_proxy, proxy)),
    );
    tokio::select! {
        () = until_begun(kit.readiness()) => begun.ready(),
        () = kit.until_shutdown() => {}
    }
    kit.until_shutdown().await;
    Ok(())
}

/// Until every role has told what its readiness depends on: before that nothing is known to be missing.
async fn until_begun(readiness: &Readiness) {
    const ROLES: [&str; 4] = ["node/", "sync/", "engine/", "function-proxy/"];
    let mut changes = readiness.changes();
    loop {
        let latches = readiness.snapshot().latches;
        let has_told = |role: &str| latches.keys().any(|name| name.starts_with(role));
        if ROLES.iter().all(|role| has_told(role)) || changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use baetyl_kit::config;

    use super::*;

    #[test]
    fn the_example_file_shows_defaults() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/edge.yaml");
        let (_, read): (baetyl_kit::cli::ShellConfig, Config) =
            config::load_both("edge", Some(&file), []).unwrap();
        let render = |config: &Config| config::render(config).unwrap();
        assert_eq!(render(&read), render(&Config::default()));
    }
}
