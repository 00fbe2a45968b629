//! gRPC border: `EngineService`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::resume::Revisions;
use baetyl_model::report::{AppStatus, RunStatus};
use baetyl_proto::engine::engine_service_server::EngineService;
use baetyl_proto::engine::{
    DescribeRequest, DescribeResponse, Endpoint, EnsureRunningRequest, EnsureRunningResponse,
    GetAppRequest, GetAppResponse, ListAppsRequest, ListAppsResponse, RestartAppRequest,
    RestartAppResponse, WatchEndpointsRequest, WatchEndpointsResponse, WatchLogsRequest,
    WatchLogsResponse,
};
use futures_util::Stream;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::Engine;
use crate::app::Command;
use crate::board::AppView;
use crate::ports::{Ports, Runtime as _};
use crate::report::Roller;

mod describe;
mod endpoints;
mod logs;
#[cfg(test)]
mod tests;

/// A boxed stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Applications on one page when the caller does not say, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// Longest wait of `EnsureRunning`; callers usually set a shorter deadline.
const ENSURE_DEADLINE: Duration = Duration::from_secs(60);

/// The service over engine.
pub(crate) struct Api<P: Ports>(pub(crate) Arc<Engine<P>>, Watched);

/// For resume tokens.
struct Watched {
    endpoints: Revisions<Vec<Endpoint>>,
    logs: logs::Start,
}

impl<P: Ports> Api<P> {
    pub(crate) fn new(engine: Engine<P>) -> Self {
        let watched = Watched {
            endpoints: Revisions::new(),
            logs: logs::Start::new(),
        };
        Self(Arc::new(engine), watched)
    }

    fn view(&self, name: &str) -> Result<Arc<AppView>, Status> {
        let views = self.0.ctx.board.views();
        let view = views
            .iter()
            .find(|(known, _)| known.as_str() == name)
            .map(|(_, view)| Arc::clone(view));
        view.ok_or_else(|| not_found(name))
    }

    fn statuses(&self) -> Vec<AppStatus> {
        Roller::new(&self.0.ctx)
            .look(&self.0.ctx)
            .apps
            .into_values()
            .collect()
    }

    fn status(&self, name: &str) -> Result<AppStatus, Status> {
        self.statuses()
            .into_iter()
            .find(|app| app.name == *name)
            .ok_or_else(|| not_found(name))
    }
}

fn not_found(name: &str) -> Status {
    Status::not_found(format!(
        "no application {name:?} is desired on this node; list them with ListApps"
    ))
}

#[tonic::async_trait]
impl<P: Ports> EngineService for Api<P> {
    async fn list_apps(
        &self,
        request: Request<ListAppsRequest>,
    ) -> Result<Response<ListAppsResponse>, Status> {
        let ListAppsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let size = match usize::try_from(page_size).unwrap_or(MAX_PAGE) {
            0 => PAGE,
            size => size.min(MAX_PAGE),
        };
        // The token is the last name of the page before: names are ordered and unique.
        let mut apps = self.statuses();
        apps.retain(|app| page_token.is_empty() || app.name.as_str() > page_token.as_str());
        let more = apps.len() > size;
        apps.truncate(size);
        let last = apps
            .last()
            .map(|app| app.name.to_string())
            .unwrap_or_default();
        Ok(Response::new(ListAppsResponse {
            apps: apps.into_iter().map(Into::into).collect(),
            next_page_token: if more { last } else { String::new() },
        }))
    }

    async fn get_app(
        &self,
        request: Request<GetAppRequest>,
    ) -> Result<Response<GetAppResponse>, Status> {
        let name = request.into_inner().name;
        let (view, status) = (self.view(&name)?, self.status(&name)?);
        let version = |release: Option<&baetyl_model::desire::Release>| {
            release
                .map(|release| release.version.to_string())
                .unwrap_or_default()
        };
        Ok(Response::new(GetAppResponse {
            app: Some(status.into()),
            last_good_version: version(view.update.good()),
            candidate_version: version(view.update.candidate()),
        }))
    }

    async fn restart_app(
        &self,
        request: Request<RestartAppRequest>,
    ) -> Result<Response<RestartAppResponse>, Status> {
        let name = request.into_inner().name;
        let commands = self
            .0
            .apps
            .commands(&name)
            .ok_or_else(|| not_found(&name))?;
        let (reply, answer) = oneshot::channel();
        let gone = |_| Status::aborted(format!("{name} changed meanwhile; try again"));
        commands
            .send(Command::Restart(reply))
            .await
            .map_err(|error| gone(error.to_string()))?;
        match answer.await.map_err(|error| gone(error.to_string()))? {
            Ok(()) => Ok(Response::new(RestartAppResponse {})),
            Err(why) => Err(Status::failed_precondition(format!(
                "{name} cannot be restarted now: {why}"
            ))),
        }
    }

    type WatchEndpointsStream = Answers<WatchEndpointsResponse>;

    async fn watch_endpoints(
        &self,
        request: Request<WatchEndpointsRequest>,
    ) -> Result<Response<Self::WatchEndpointsStream>, Status> {
        let resumed = self
            .1
            .endpoints
            .resume(&request.into_inner().resume_token)?;
        Ok(Response::new(endpoints::watch(
            Arc::clone(&self.0.ctx),
            self.0.adopted.clone(),
            resumed,
        )))
    }

    /// Everything desired is started anyway: this waits until it serves.
    async fn ensure_running(
        &self,
        request: Request<EnsureRunningRequest>,
    ) -> Result<Response<EnsureRunningResponse>, Status> {
        let name = request.into_inner().name;
        self.view(&name)?;
        let (mut board, mut observed) = (self.0.ctx.board.watch(), self.0.ctx.runtime.watch());
        let serving = async {
            loop {
                let status = self.status(&name)?;
                match status.status {
                    RunStatus::Running | RunStatus::Succeeded => return Ok(()),
                    RunStatus::Failed => {
                        return Err(Status::failed_precondition(format!(
                            "{name}: {}",
                            status.cause
                        )));
                    }
                    RunStatus::Pending | RunStatus::Unknown => {}
                }
                let changed = tokio::select! {
                    changed = board.changed() => changed,
                    changed = observed.changed() => changed,
                };
                changed.map_err(|_| Status::unavailable("engine is stopping"))?;
            }
        };
        let late = |_| Status::deadline_exceeded(format!("{name} is not ready yet"));
        tokio::time::timeout(ENSURE_DEADLINE, serving)
            .await
            .map_err(late)??;
        Ok(Response::new(EnsureRunningResponse {}))
    }

    type WatchLogsStream = Answers<WatchLogsResponse>;

    async fn watch_logs(
        &self,
        request: Request<WatchLogsRequest>,
    ) -> Result<Response<Self::WatchLogsStream>, Status> {
        let request = request.into_inner();
        let view = self.view(&request.app)?;
        logs::watch(&self.0.ctx, &self.1.logs, &view, &request)
            .await
            .map(Response::new)
    }

    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let name = request.into_inner().name;
        let text = describe::render(&self.0.ctx, &*self.view(&name)?, &self.status(&name)?);
        Ok(Response::new(DescribeResponse { text }))
    }
}
