//! Reconciler of an edge node: what an accepted desire wants is made to run, watched, and undone when it fails.
//!
//! Start at [`run`]. `desire.rs` follows the desire and has one task for each application (`app.rs`), which drives
//! [`baetyl_model::update`]; `stage.rs` makes a version complete, the runtime turns it into workloads, `act.rs` tells it
//! what to run; `report.rs` rolls up what is seen. [`ports`] is all it needs of others, [`store`] all it must not forget.
//!
//! Needs nobody to start: what it ran before is taken up again from its own store. Without an accepted desire nothing is
//! ever stopped. Never talks to the cloud, never opens a file of another service.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baetyl_callers::connect;
use baetyl_kit::backoff::Backoff;
use baetyl_kit::crypto::CryptoError;
use baetyl_kit::grpc::Endpoint;
use baetyl_kit::listen::Listen;
use baetyl_kit::tls::Clients;
use baetyl_kit::{Kit, fsio, grpc};
use baetyl_model::report::RunMode;
use baetyl_proto::callers::Role;
use baetyl_proto::engine::engine_service_server::EngineServiceServer;
use tokio::sync::watch;

mod act;
mod api;
mod app;
mod board;
pub mod bodies;
pub mod certificates;
mod config;
mod content;
mod context;
mod desire;
mod events;
mod housekeeping;
mod instances;
#[cfg(feature = "kube")]
mod kube;
mod meters;
mod native;
pub mod objects;
pub mod ports;
pub mod registry;
pub mod release;
mod report;
mod shadow;
pub mod shape;
mod stage;
pub mod store;
#[cfg(test)]
mod testing;
pub mod token;

pub use config::{Config, FunctionRuntime};

use crate::board::Board;
use crate::certificates::{Authority, CertificateError};
use crate::context::Context;
use crate::desire::{Apps, Beginning, Reconciler};
use crate::events::Events;
use crate::housekeeping::Housekeeping;
use crate::meters::Meters;
use crate::objects::Objects;
use crate::ports::{CloudEvent, Ports, Runtime};
use crate::registry::Registry;
use crate::store::{Store, StoreError};
use crate::token::TokenIssuer;

/// Why engine cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its directory cannot be made or read.
    #[error("the directory of engine cannot be used")]
    Directory(#[from] std::io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key of application tokens.
    #[error("the key of application tokens cannot be used")]
    Key(#[from] CryptoError),
    /// The authority of this node.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The runtime.
    #[error("the runtime cannot be opened")]
    Runtime(#[source] baetyl_kit::error::BoxError),
    /// Engine's own identity.
    #[error("engine cannot use its own identity")]
    Identity(#[from] baetyl_kit::tls::TlsError),
    /// This program has no runtime for Kubernetes.
    #[error("this program was built without kube mode; set runtime to native")]
    NoKube,
    /// A peer that cannot be one.
    #[error("a peer cannot be reached as configured")]
    Peer(#[from] baetyl_kit::grpc::ConnectError),
    /// A listener.
    #[error(transparent)]
    Serve(#[from] baetyl_kit::serve::ServeError),
    /// The process ends.
    #[error("engine was interrupted while it started")]
    Interrupted,
}

/// Engine between the real things.
struct Real<R>(std::marker::PhantomData<R>);

impl<R: Runtime> Ports for Real<R> {
    type Runtime = R;
    type Content = content::SyncClient;
    type Shadow = shadow::NodeClient;
}

/// Runs engine until shutdown.
///
/// # Errors
/// When its files cannot be opened or its socket cannot be bound.
pub async fn run(config: Config, kit: Kit) -> Result<(), Error> {
    match config.runtime {
        RunMode::Native => {
            let runtime = native::Native::open(&config, &kit, kit.shutdown().clone()).await;
            let runtime = runtime.map_err(|error| Error::Runtime(error.into()))?;
            run_with(config, &kit, runtime, |_| Ok(())).await
        }
        #[cfg(feature = "kube")]
        RunMode::Kube => kube::run(config, &kit).await,
        #[cfg(not(feature = "kube"))]
        RunMode::Kube => Err(Error::NoKube),
    }
}

/// Runs engine over one runtime until shutdown; `beside` is told once engine is at work.
async fn run_with<R: Runtime>(
    config: Config,
    kit: &Kit,
    runtime: R,
    beside: impl FnOnce(&Arc<Context<Real<R>>>) -> Result<(), Error>,
) -> Result<(), Error> {
    let listening = kit.readiness().register("listeners");
    let peer = |given: &Option<Endpoint>, to| connect(kit, given.as_ref(), to, Role::Engine);
    let joined = Joined::<Real<R>> {
        runtime,
        content: content::SyncClient::new(peer(&config.peers.sync, Role::Sync)?),
        shadow: shadow::NodeClient::new(peer(&config.peers.node, Role::Node)?),
    };
    let listen = config
        .api
        .listen
        .clone()
        .unwrap_or_else(|| Listen::Unix(kit.core_socket("engine")));
    let engine = begin(config, kit, joined).await?;
    beside(&engine.ctx)?;
    serve(kit, &listen, engine).await?;
    listening.ready();
    kit.until_shutdown().await;
    drop(listening);
    Ok(())
}

/// Serves the API.
pub(crate) async fn serve<P: Ports>(
    kit: &Kit,
    listen: &Listen,
    engine: Engine<P>,
) -> Result<Listen, Error> {
    let server = grpc::Server::new(kit, "engine")
        .add_service(EngineServiceServer::new(api::Api::new(engine)))
        .reflection(baetyl_proto::DESCRIPTORS)
        .own_deadlines(&["/baetyl.engine.v1.EngineService/EnsureRunning"])
        .authorize(baetyl_callers::core())
        .in_node(Clients::Required);
    Ok(server.serve(listen).await?)
}

/// What engine is joined to.
pub(crate) struct Joined<P: Ports> {
    pub(crate) runtime: P::Runtime,
    pub(crate) content: P::Content,
    pub(crate) shadow: P::Shadow,
}

/// Engine at work: what the API needs.
pub(crate) struct Engine<P: Ports> {
    pub(crate) ctx: Arc<Context<P>>,
    pub(crate) apps: Apps,
    /// True once what ran before the start was taken up again.
    pub(crate) adopted: watch::Receiver<bool>,
}

/// Opens what engine owns and spawns its tasks. Ready once what ran before was taken up again.
pub(crate) async fn begin<P: Ports>(
    config: Config,
    kit: &Kit,
    joined: Joined<P>,
) -> Result<Engine<P>, Error> {
    let ready = kit.readiness().register("adoption");
    let (ctx, beginning, queues) = open(config, kit, joined).await?;
    let (opened, opened_seen) = watch::channel(0);
    let (adopted, adopted_seen) = watch::channel(false);
    let (tasks, apps) = (kit.tasks(), Apps::default());
    tasks.spawn_until_shutdown(
        "housekeeping",
        housekeeping::keep(Arc::clone(&ctx), queues.asked, adopted_seen.clone()),
    );
    tasks.spawn_until_shutdown(
        "events",
        events::deliver_events(ctx.content.clone(), queues.events),
    );
    tasks.spawn_until_shutdown(
        "report",
        report::report(Arc::clone(&ctx), opened_seen, adopted_seen.clone()),
    );
    tasks.spawn_until_shutdown("report-stats", report::report_stats(Arc::clone(&ctx)));
    let reconciler = Reconciler::new(Arc::clone(&ctx), apps.clone(), opened);
    tasks.spawn_required(
        "reconciler",
        reconciler.run(beginning, adopted, kit.shutdown().clone()),
    );
    let (adopted, mut adopted_seen) = (adopted_seen.clone(), adopted_seen);
    tasks.spawn_until_shutdown("adoption", async move {
        if adopted_seen.wait_for(|adopted| *adopted).await.is_ok() {
            ready.ready();
        }
        // The latch stays for whoever looks at /readyz.
        std::future::pending::<()>().await;
    });
    Ok(Engine { ctx, apps, adopted })
}

/// Ends of queues that tasks read.
struct Queues {
    asked: tokio::sync::mpsc::Receiver<housekeeping::Ask>,
    events: tokio::sync::mpsc::Receiver<CloudEvent>,
}

async fn open<P: Ports>(
    config: Config,
    kit: &Kit,
    joined: Joined<P>,
) -> Result<(Arc<Context<P>>, Beginning, Queues), Error> {
    let shares = joined.runtime.shares_directory();
    // Instances lie in engine's directory: their users must be able to pass it. All else in it is closed by itself.
    let dir = kit.state_dir_with(if shares { 0o711 } else { 0o700 })?;
    if shares {
        // The sockets of applications are beneath.
        fsio::create_dir_mode(&kit.data_dir().join("run"), 0o755)?;
    }
    let max_unpacked = config.objects.max_unpacked.0;
    let files = open_when_free(dir, max_unpacked).await?;
    // Before anybody is given anything, everybody has what he had.
    for record in &files.records {
        let app = record.update.app();
        joined.runtime.bring_back(app, &record.handed());
    }
    let found = joined.runtime.found().await.unwrap_or_else(|error| {
        // Unknown, not absent: records go on as they are.
        tracing::error!(%error, "what is on this machine cannot be listed");
        Vec::new()
    });
    let (events, events_queue) = Events::new();
    let (housekeeping, asked) = Housekeeping::new();
    if let Some(path) = files.store.quarantined() {
        events.tell(CloudEvent {
            reason: "EngineStateLost",
            message: format!(
                "engine's records were damaged and are kept as {}",
                path.display()
            ),
            about: "node".to_owned(),
            warning: true,
        });
    }
    let ctx = Context {
        config,
        clock: kit.clock().clone(),
        tasks: kit.tasks().clone(),
        board: Board::new(files.accepted),
        store: files.store,
        objects: files.objects,
        registry: Registry::default(),
        tokens: files.tokens,
        certificates: files.certificates,
        meters: Meters::new(kit.metrics()),
        runtime: joined.runtime,
        content: joined.content,
        shadow: joined.shadow,
        events,
        housekeeping,
        online: watch::Sender::new(false),
    };
    let beginning = Beginning {
        records: files.records,
        found,
    };
    let queues = Queues {
        asked,
        events: events_queue,
    };
    Ok((Arc::new(ctx), beginning, queues))
}

/// What lies in engine's directory.
struct Files {
    store: Store,
    objects: Objects,
    tokens: TokenIssuer,
    certificates: Authority,
    records: Vec<store::AppRecord>,
    accepted: Option<store::Accepted>,
}

/// An engine that ends in this process may still be writing its last record.
async fn open_when_free(dir: PathBuf, max_unpacked: u64) -> Result<Files, Error> {
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
    loop {
        let dir = dir.clone();
        let opened = tokio::task::spawn_blocking(move || open_files(&dir, max_unpacked));
        match opened.await.map_err(|_| Error::Interrupted)? {
            Err(Error::Store(error)) if error.is_in_use() && backoff.attempt() < 20 => {
                backoff.wait().await
            }
            other => return other,
        }
    }
}

fn open_files(dir: &Path, max_unpacked: u64) -> Result<Files, Error> {
    let store = Store::open(dir)?;
    Ok(Files {
        records: store.apps()?,
        accepted: store.accepted()?,
        objects: Objects::open(dir.join("objects"), max_unpacked)?,
        tokens: TokenIssuer::open(&dir.join("app.key"))?,
        certificates: Authority::open(&dir.join("ca.pem"))?,
        store,
    })
}
