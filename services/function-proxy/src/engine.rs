//! Engine as the proxy sees it: a table of functions that is followed, and applications that are started on request.

use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_kit::grpc::{Client, unary_within};
use baetyl_kit::readiness::ReadinessHandle;
use baetyl_kit::{Kit, Tasks, watch_stream};
use baetyl_proto::engine::engine_service_client::EngineServiceClient;
use baetyl_proto::engine::{EnsureRunningRequest, WatchEndpointsRequest};
use tonic::Code;

use crate::app::App;
use crate::call::Proxy;
use crate::error::CallError;

/// Keeps the proxy's directory as engine's table is, for ever.
pub(crate) fn follow(
    kit: &Kit,
    engine: EngineServiceClient<Client>,
    proxy: Arc<Proxy>,
    known: ReadinessHandle,
) {
    let open = move |token: Option<String>| {
        let mut engine = engine.clone();
        let resume_token = token.unwrap_or_default();
        async move {
            engine
                .watch_endpoints(WatchEndpointsRequest { resume_token })
                .await
                .map(tonic::Response::into_inner)
        }
    };
    let mut tables =
        watch_stream::latest(kit.tasks(), "endpoints", Backoff::local(), open, |table| {
            watch_stream::token(&table.resume_token)
        });
    kit.tasks().spawn_until_shutdown("directory", async move {
        while tables.changed().await.is_ok() {
            let table = tables.borrow_and_update().clone();
            if let Some(table) = table {
                let directory = proxy.known.set(table);
                proxy.apps.follow(&directory);
                tracing::info!(
                    applications = directory.apps().count(),
                    "engine told where functions are"
                );
                known.ready();
            }
        }
    });
}

/// Asks engine to start applications that are called and have no runtime.
#[derive(Debug)]
pub(crate) struct Starter {
    tasks: Tasks,
    engine: EngineServiceClient<Client>,
    wait: Duration,
}

impl Starter {
    pub(crate) fn new(tasks: &Tasks, engine: EngineServiceClient<Client>, wait: Duration) -> Self {
        Self {
            tasks: tasks.clone(),
            engine,
            wait,
        }
    }

    /// Asks once, however many calls wait for it.
    pub(crate) fn start(&self, app: &Arc<App>) {
        if !app.begin_start() {
            return;
        }
        let (app, mut engine) = (Arc::clone(app), self.engine.clone());
        let request = unary_within(
            self.wait,
            EnsureRunningRequest {
                name: app.name.clone(),
            },
        );
        self.tasks.spawn_until_shutdown("start an application", async move {
            let result = match engine.ensure_running(request).await {
                Ok(_) => "engine says that it runs, but its runtime has not registered; its log may say why".to_owned(),
                Err(status) => {
                    let reason = format!("engine says: {}", status.message());
                    tracing::warn!(app = app.name, code = ?status.code(), reason, "an application cannot be started");
                    // Engine knows that it will not come; for all else waiting may help.
                    if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) {
                        let error = CallError::NotStarted { service: app.name.clone(), reason: reason.clone() };
                        app.fail_cold(|| error.clone());
                    }
                    reason
                }
            };
            app.end_start(result);
        });
    }
}
