//! Owner of the node shadow: the desire ledger, properties, node information.
//!
//! Start at [`run`]. `desire.rs` and `report.rs` hold the hops; `api.rs` and `local.rs` are their gRPC borders;
//! `ledger.rs` is the only code that touches `node.redb`. This crate never talks to the cloud and starts no process.

mod api;
mod config;
pub mod desire;
pub mod ledger;
mod local;
pub mod machine;
pub mod report;
pub mod shadow;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::listen::Listen;
use baetyl_kit::tls::Clients;
use baetyl_kit::{Kit, grpc};
use baetyl_proto::node::local_service_server::LocalServiceServer;
use baetyl_proto::node::node_service_server::NodeServiceServer;

pub use config::{Config, Endpoint};

use crate::ledger::{Ledger, LedgerError};
use crate::machine::Machine;
use crate::shadow::{Counts, Shadow};

/// Why node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its directory cannot be made.
    #[error("the directory of node cannot be made")]
    Directory(#[from] std::io::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A listener.
    #[error(transparent)]
    Serve(#[from] baetyl_kit::serve::ServeError),
}

/// Runs node until shutdown.
///
/// # Errors
/// When the ledger cannot be opened or a socket cannot be bound.
pub async fn run(config: Config, kit: Kit) -> Result<(), Error> {
    let listening = kit.readiness().register("listeners");
    let mut machine = Machine::new(Path::new("/"));
    let failed = kit.metrics().counter(
        "ledger_writes_failed_total",
        "Writes to the ledger that failed, on a full disk for instance.",
        &[],
    );
    let ledger = Ledger::open(&kit.state_dir()?)?.counting(failed);
    let shadow = Shadow::load(ledger, vec![machine.read_info()])?;
    let shadow = Arc::new(shadow.counting(Counts::new(kit.metrics())));
    machine.read_stats();
    let watched = Arc::clone(&shadow);
    let period = config.stats_period.max(Duration::from_millis(100));
    kit.tasks().spawn_until_shutdown("machine", async move {
        watch_machine(machine, &watched, period).await
    });

    let core = config
        .api
        .listen
        .unwrap_or_else(|| Listen::Unix(kit.core_socket("node")));
    grpc::Server::new(&kit, "node")
        .add_service(NodeServiceServer::new(api::Node(Arc::clone(&shadow))))
        .add_service(LocalServiceServer::new(local::Local(Arc::clone(&shadow))))
        .reflection(baetyl_proto::DESCRIPTORS)
        .authorize(baetyl_callers::core())
        .in_node(Clients::Required)
        .serve(&core)
        .await?;
    let apps = config
        .apps
        .listen
        .unwrap_or_else(|| Listen::Unix(kit.app_socket("node")));
    let keys = Arc::clone(&shadow);
    grpc::Server::new(&kit, "node-apps")
        .add_service(LocalServiceServer::new(local::Local(shadow)))
        .reflection(baetyl_proto::DESCRIPTORS)
        .authorize(baetyl_callers::apps(move || keys.app_key()))
        .open_to_apps()
        .in_node(Clients::Optional)
        .serve(&apps)
        .await?;
    listening.ready();
    kit.until_shutdown().await;
    drop(listening);
    Ok(())
}

/// Reads the machine now and then. What it cannot write is told and tried again at the next turn.
async fn watch_machine(mut machine: Machine, shadow: &Shadow, period: Duration) {
    loop {
        let (info, figures) = (machine.read_info(), machine.read_stats());
        if let Err(error) = report::accept_machine(shadow, info, figures) {
            tracing::error!(
                error = baetyl_kit::error::chain(&error),
                "machine information could not be written"
            );
        }
        tokio::time::sleep(period).await;
    }
}
