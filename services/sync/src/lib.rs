//! The link of an edge node to its cloud, and the content store.
//!
//! Start at [`run`]. `link.rs` keeps one outbound stream open; `desire.rs` and `report.rs` hold the hops on it;
//! `stage.rs` fetches what is missing into `store.rs`; `identity.rs` is who this node is; `server.rs` is the border to
//! the other services, `objects.rs` that to the Pods of applications, whose side of it is [`hostdir`]. Nothing here starts a process or opens a file of another service.

mod command;
mod config;
mod db;
mod desire;
pub mod hostdir;
mod identity;
mod keep;
mod link;
mod mirror;
mod node;
mod objects;
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
use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_kit::error::chain;
use baetyl_kit::grpc;
use baetyl_kit::readiness::ReadinessHandle;
use baetyl_kit::tls::Clients;
use baetyl_kit::{Kit, listen::Listen};
use baetyl_ledger::medium::{Disk, Medium};
use baetyl_proto::shadow::Event;
use baetyl_proto::sync::object_service_server::ObjectServiceServer;
use baetyl_proto::sync::sync_service_server::SyncServiceServer;
use tokio::sync::watch;

pub use config::Config;
pub use setup::Error;

use identity::Identity;
use mirror::{Restorer, offer_desire};
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
    let core = config.api.listen.clone();
    let core = core.unwrap_or_else(|| Listen::Unix(kit.core_socket("sync")));
    let apps = config.apps.listen.clone();
    let apps = apps.unwrap_or_else(|| Listen::Unix(kit.app_socket("sync")));
    let latch = kit.readiness().register("identity");
    let Parts {
        server,
        link,
        keeper,
        missing,
        copies,
    } = setup::open(medium, config, &kit).await?;
    if let Some(reason) = missing {
        wait_for_identity(&latch, &reason);
    }
    let (trust, installed) = (Arc::clone(&server.trust), server.identity.watch());
    let restorer = copies.as_ref().map(|copies| copies.restorer.clone());
    kit.tasks()
        .spawn_until_shutdown("identity", note_identity(latch, installed, restorer));
    let (objects, key) = (server.objects(), Arc::clone(&server.app_key));
    grpc::Server::new(&kit, "sync")
        .add_service(SyncServiceServer::new(server).max_decoding_message_size(grpc::MAX_MESSAGE))
        .reflection(baetyl_proto::DESCRIPTORS)
        .authorize(baetyl_callers::core())
        .in_node(Clients::Required)
        .serve(&core)
        .await?;
    grpc::Server::new(&kit, "sync-apps")
        .add_service(ObjectServiceServer::new(objects))
        .reflection(baetyl_proto::DESCRIPTORS)
        .authorize(baetyl_callers::tickets(move || key.get()))
        .open_to_apps()
        .in_node(Clients::Optional)
        .serve(&apps)
        .await?;
    kit.tasks().spawn_until_shutdown("clean", keeper.run());
    kit.tasks().spawn_until_shutdown("link", link.run());
    if let Some(copies) = copies {
        kit.tasks()
            .spawn_until_shutdown("restore-desire", offer_desire(copies.offering));
    }
    kit.until_shutdown().await;
    blocking(move || trust.close()).await;
    Ok(())
}

/// Ready once an identity is installed: never withdrawn again, only replaced. While there is none, its copy is looked at
/// now and then: it may be mounted, mended or fit on the disk later.
async fn note_identity(
    latch: ReadinessHandle,
    mut installed: watch::Receiver<Option<Arc<Identity>>>,
    restorer: Option<Restorer>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
    loop {
        let pause = tokio::time::sleep(backoff.next_delay());
        let is_there = async { installed.wait_for(Option::is_some).await.is_ok() };
        tokio::select! {
            is_there = is_there => {
                if is_there {
                    latch.ready();
                }
                return std::future::pending().await;
            }
            () = pause, if restorer.is_some() => {}
        }
        let Some(restorer) = &restorer else { continue };
        if let Err(reason) = restorer.restore().await {
            wait_for_identity(&latch, &reason);
        }
    }
}

fn wait_for_identity(latch: &ReadinessHandle, reason: &str) {
    let reason = format!("waiting for identity: {reason}");
    tracing::warn!(reason, "this node cannot say who it is");
    latch.not_ready(reason);
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
