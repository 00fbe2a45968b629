//! Function proxy: HTTP and gRPC in, registered runtimes out.
//!
//! Start at [`run`]. A call comes in at `http.rs` or `grpc.rs`, is admitted and waited for in `call.rs`, and meets its
//! runtime in `app.rs`; runtimes come in at `runtimes.rs`; what engine knows is in `directory.rs` and `engine.rs`.
//!
//! The proxy keeps nothing on disk, starts no process and never repeats a call: a function may have run.

mod app;
mod apps;
mod auth;
mod call;
mod config;
mod directory;
mod engine;
mod error;
mod grpc;
mod http;
mod id;
mod meters;
mod reply;
mod runtimes;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::grpc::{ConnectError, Server};
use baetyl_kit::listen::Listen;
use baetyl_kit::serve::{self, ServeError};
use baetyl_kit::tls::ServiceIdentity;
use baetyl_kit::{Kit, tasks};
use baetyl_proto::callers::Role;
use baetyl_proto::engine::engine_service_client::EngineServiceClient;
use baetyl_proto::faas::function_server::FunctionServer;
use baetyl_proto::function::function_service_server::FunctionServiceServer;
use baetyl_proto::function::runtime_service_server::RuntimeServiceServer;

pub use config::{
    CallConfig, Config, EngineConfig, GrpcConfig, HttpConfig, QueueConfig, RuntimeConfig,
    ShellSections, TlsConfig,
};
pub use tls::ListenError;

use crate::app::Limits;
use crate::apps::Apps;
use crate::call::{Memory, Proxy};
use crate::directory::Known;
use crate::engine::Starter;
use crate::grpc::{Functions, MAX_MESSAGE};
use crate::runtimes::Runtimes;
use crate::tls::Tls;

/// How often a stopping proxy looks whether calls are still in progress.
const DRAIN_CHECK: Duration = Duration::from_millis(20);
/// How long runtimes may take to hang up after the last call.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// What the configuration says of the listeners.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The configured way to engine.
    #[error("engine cannot be reached that way")]
    Engine(#[from] ConnectError),
}

/// Runs the proxy until shutdown; calls in progress may end.
///
/// # Errors
/// When a listener cannot be bound.
pub async fn run(config: Config, kit: Kit) -> Result<(), Error> {
    let kit = match &config.tls.dir {
        Some(dir) => kit.with_identity(ServiceIdentity::mounted(&kit, dir)),
        None => kit,
    };
    let tls = tls::servers(&config, &kit)?;
    let known = kit.readiness().register("functions");
    known.not_ready("waiting for engine to tell which functions there are");
    let engine = config.engine.endpoint.as_ref();
    let engine = baetyl_callers::connect(&kit, engine, Role::Engine, Role::Proxy)?;
    let engine = EngineServiceClient::new(engine);
    let proxy = Arc::new(make(&config, &kit, engine.clone()));
    engine::follow(&kit, engine, Arc::clone(&proxy), known);
    // Carries the answers of calls in progress, so it ends after them.
    let inner = kit.detached();
    serve(&config, &kit, &inner, &proxy, tls).await?;
    kit.tasks()
        .spawn_required("runtimes", until_drained(kit.clone(), inner, proxy));
    kit.until_shutdown().await;
    Ok(())
}

fn make(
    config: &Config,
    kit: &Kit,
    engine: EngineServiceClient<baetyl_kit::grpc::Client>,
) -> Proxy {
    let limits = Limits {
        timeout: config.call.timeout,
        max_timeout: config.call.max_timeout,
        queue: config.queue.length,
    };
    Proxy {
        known: Known::default(),
        apps: Apps::new(kit.metrics(), limits),
        memory: Memory::new(usize::try_from(config.queue.memory.0).unwrap_or(usize::MAX)),
        starter: Starter::new(kit.tasks(), engine, config.call.start_wait),
        start_wait: config.call.start_wait,
    }
}

async fn serve(
    config: &Config,
    kit: &Kit,
    inner: &Kit,
    proxy: &Arc<Proxy>,
    tls: Tls,
) -> Result<(), ServeError> {
    let functions = Functions(Arc::clone(proxy));
    let outside = auth::outside(Arc::clone(proxy));
    let runtimes = Runtimes {
        proxy: Arc::clone(proxy),
        tasks: inner.tasks().clone(),
        heartbeat: config.runtime.heartbeat,
    };
    let runtimes = RuntimeServiceServer::new(runtimes)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    server(inner, "function-proxy-apps", &functions)
        .add_service(runtimes.clone())
        .authorize(Arc::clone(&outside))
        .open_to_apps()
        .serve(&Listen::Unix(kit.app_socket("function-proxy")))
        .await?;
    server(kit, "function-proxy-core", &functions)
        .authorize(auth::core())
        .serve(&Listen::Unix(kit.core_socket("function-proxy")))
        .await?;
    let grpc = match tls.grpc {
        // Runtimes of other Pods come this way: it ends after their last answer.
        Some(tls) => server(inner, "function-proxy-grpc", &functions)
            .add_service(runtimes)
            .tls(tls),
        None => server(kit, "function-proxy-grpc", &functions),
    };
    grpc.authorize(outside).serve(&config.grpc.listen).await?;
    serve::http(
        kit,
        "function-proxy-http",
        &config.http.listen,
        tls.http,
        http::router(Arc::clone(proxy)),
    )
    .await?;
    Ok(())
}

/// What all gRPC listeners serve.
fn server(kit: &Kit, name: &str, functions: &Functions) -> Server {
    let own = FunctionServiceServer::new(functions.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let v2 = FunctionServer::new(functions.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    Server::new(kit, name)
        .add_service(own)
        .add_service(v2)
        .reflection(baetyl_proto::DESCRIPTORS)
        .own_deadlines(&[
            "/baetyl.function.v1.FunctionService/Invoke",
            "/faas.Function/Call",
        ])
}

/// Keeps the runtimes' side running until the proxy stops and the last call has its answer.
async fn until_drained(kit: Kit, inner: Kit, proxy: Arc<Proxy>) -> Result<(), tasks::Failure> {
    // At the drain deadline this task is dropped in the middle.
    let _abort = AbortOnDrop(inner.tasks().clone());
    tokio::select! {
        () = kit.until_shutdown() => {}
        () = inner.until_shutdown() => return inner.tasks().failure().map_or(Ok(()), Err),
    }
    proxy.stop();
    let mut check = tokio::time::interval(DRAIN_CHECK);
    while !proxy.is_idle() {
        check.tick().await;
    }
    // What is left then are runtimes that are slow to hang up.
    let _ = inner.stop(FAREWELL).await;
    Ok(())
}

struct AbortOnDrop(baetyl_kit::Tasks);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
