//! The link of an edge node to its cloud, and the content store.
//!
//! Start at [`run`]. `link.rs` keeps one outbound stream open; `desire.rs` and `report.rs` hold the hops on it;
//! `stage.rs` fetches what is missing into `store.rs`; `identity.rs` is who this node is; `server.rs` is the border to
//! the other services. Nothing here starts a process or opens a file of another service.

mod command;
mod config;
mod db;
mod desire;
mod identity;
mod keep;
mod link;
mod node;
mod outbox;
mod report;
mod server;
mod setup;
mod stage;
mod store;
mod trust;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use baetyl_kit::error::chain;
use baetyl_kit::grpc;
use baetyl_kit::tls::Clients;
use baetyl_kit::{Kit, listen::Listen};
use baetyl_ledger::medium::{Disk, Medium};
use baetyl_proto::shadow::Event;
use baetyl_proto::sync::sync_service_server::SyncServiceServer;

pub use config::Config;
pub use setup::Error;

use outbox::Outbox;
use setup::Parts;

/// Runs sync until shutdown. Without an identity it is alive, serves its socket and waits.
///
/// # Errors
/// When its state cannot be opened or its socket cannot be bound.
pub async fn run(config: Config, kit: Kit) -> Result<(), Error> {
    run_on(Arc::new(Disk), config, kit).await
}

/// As [`run`], with the database on something else than the disk of this machine.
async fn run_on(medium: Arc<dyn Medium>, config: Config, kit: Kit) -> Result<(), Error> {
    let listen = config
        .api
        .listen
        .clone()
        .unwrap_or_else(|| Listen::Unix(kit.core_socket("sync")));
    let latch = kit.readiness().register("identity");
    let Parts {
        server,
        link,
        keeper,
        lost,
    } = setup::open(medium, config, &kit).await?;
    if let Some(reason) = lost {
        latch.not_ready(format!("waiting for identity: {reason}"));
    }
    let (trust, mut installed) = (Arc::clone(&server.trust), server.identity.watch());
    kit.tasks().spawn_until_shutdown("identity", async move {
        // Never withdrawn again, only replaced.
        if installed.wait_for(Option::is_some).await.is_ok() {
            latch.ready();
            std::future::pending::<()>().await;
        }
    });
    grpc::Server::new(&kit, "sync")
        .add_service(SyncServiceServer::new(server).max_decoding_message_size(grpc::MAX_MESSAGE))
        .reflection(baetyl_proto::DESCRIPTORS)
        .authorize(baetyl_callers::core())
        .in_node(Clients::Required)
        .serve(&listen)
        .await?;
    kit.tasks().spawn_until_shutdown("clean", keeper.run());
    kit.tasks().spawn_until_shutdown("link", link.run());
    kit.until_shutdown().await;
    blocking(move || trust.close()).await;
    Ok(())
}

/// Runs what waits for the disk away from the thread that serves.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shut down does not run it, and then nobody runs this either.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Puts an event of sync itself into the outbox; one that cannot be kept is in the log at least.
async fn put_event(outbox: &Outbox, event: Event) {
    let outbox = outbox.clone();
    let (reason, message) = (event.reason.clone(), event.message.clone());
    if let Err(error) = blocking(move || outbox.put(event)).await {
        tracing::error!(reason, message, error = %chain(&error), "an event could not be kept");
    }
}
