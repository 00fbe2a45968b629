//! The service shell: what every Baetyl program does the same way.
//!
//! It knows no domain. A service is a library with one function
//! `run(config, kit)` and a `main` that names it:
//!
//! ```no_run
//! use baetyl_kit::Kit;
//! use baetyl_kit::listen::Listen;
//! use serde::{Deserialize, Serialize};
//!
//! /// `greeter.toml`: `rest.listen = "127.0.0.1:8080"`, or `BAETYL_GREETER__REST__LISTEN`.
//! #[derive(Debug, Default, Serialize, Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Config {
//!     rest: Rest,
//! }
//!
//! #[derive(Debug, Serialize, Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Rest {
//!     listen: Listen,
//! }
//!
//! impl Default for Rest {
//!     fn default() -> Self {
//!         Self { listen: Listen::loopback() }
//!     }
//! }
//!
//! async fn run(config: Config, kit: Kit) -> Result<(), baetyl_kit::serve::ServeError> {
//!     let warm = kit.readiness().register("cache");
//!     let hits = kit.metrics().counter("hits_total", "Greetings given.", &[]);
//!     let router = axum::Router::new().route("/", axum::routing::get(move || async move {
//!         hits.inc();
//!         "hello\n"
//!     }));
//!     baetyl_kit::serve::http(&kit, "rest", &config.rest.listen, None, router).await?;
//!     kit.tasks().spawn_until_shutdown("warm-up", async move {
//!         // … fill the cache …
//!         warm.ready();
//!     });
//!     kit.until_shutdown().await;
//!     Ok(())
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     baetyl_kit::main("baetyl-greeter", "Greets whoever asks", run)
//! }
//! ```
//!
//! A gRPC server adds its services, who may call them, and reflection:
//!
//! ```text
//! kit::grpc::Server::new(&kit, "node-core")
//!     .add_service(NodeServiceServer::new(service))
//!     .authorize(kit::grpc::same_user())          // or a function over (peer, path, headers)
//!     .reflection(baetyl_proto::FILE_DESCRIPTOR_SET)
//!     .serve(&Listen::Unix(kit.core_socket("node")))
//!     .await?;
//! ```
//!
//! and its caller:
//!
//! ```text
//! let endpoint = kit::grpc::Endpoint::unix(kit.core_socket("node"));
//! let mut node = NodeServiceClient::new(kit::grpc::connect_lazy(&endpoint, "sync")?);
//! node.accept_desire(kit::grpc::unary(request)).await?;
//! ```
//!
//! # What the shell does
//!
//! | | where | in short |
//! |---|---|---|
//! | command line, run, exit codes | [`cli`], [`main`], [`run_service`] | 0 stopped as asked, 1 failed, 2 wrong command line or configuration, 128+n second signal |
//! | configuration | [`config`] | defaults < file < environment; all mistakes at once |
//! | logs, metrics, traces | [`telemetry`], [`metrics`], [`trace`] | stderr; Prometheus text; `traceparent` |
//! | readiness, health | [`readiness`], [`admin`] | latches behind `/readyz` and `grpc.health` |
//! | tasks, shutdown | [`tasks`] | named, owned, drained |
//! | servers | [`listen`], [`serve`], [`grpc`] | one loop for HTTP and gRPC, Unix and TCP, with and without TLS |
//! | clients | [`grpc`], [`backoff`], [`watch_stream`] | connect when used, again for ever |
//! | watches | [`resume`], [`watch_stream`] | whole states with resume tokens |
//! | files, crypto, TLS, time | [`fsio`], [`crypto`], [`tls`], [`clock`] | |
//!
//! # Rules
//!
//! - `run` returns when the service is done; for most that is after [`Kit::until_shutdown`]. Returning an
//!   error ends the process with 1.
//! - Spawn through [`Kit::tasks`] only. A task that must not end is *required*.
//! - Tests build a [`Kit::for_test`], listen on port 0 or a socket in a temporary directory, and end with
//!   [`Kit::stop`].

pub mod admin;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod error;
pub mod fsio;
pub mod grpc;
mod kit;
pub mod listen;
pub mod metrics;
pub mod readiness;
pub mod resume;
pub mod serve;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod trace;
pub mod watch_stream;

pub use cli::{RunArgs, Service, main, run_service};
pub use kit::Kit;
pub use tasks::Tasks;
pub use tokio_util::sync::CancellationToken;

/// The version of all programs of this workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
