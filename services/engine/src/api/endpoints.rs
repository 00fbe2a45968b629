//! Where functions and services run.

use std::sync::Arc;

use baetyl_kit::resume::Resumed;
use baetyl_model::report::InstanceStatus;
use baetyl_model::workload::Observed;
use baetyl_proto::engine::{Endpoint, FunctionInfo, WatchEndpointsResponse};
use futures_util::stream;
use tokio::sync::watch;
use tonic::Status;

use super::Answers;
use crate::board::{AppView, Views};
use crate::context::Context;
use crate::ports::{Ports, Runtime};
use crate::shape::ServiceShape;

/// The whole table, once what ran before the start of engine was taken up again, and at every change. Before that it
/// would lack what runs, and who follows it would forget its functions.
pub(crate) fn watch<P: Ports>(
    ctx: Arc<Context<P>>,
    adopted: watch::Receiver<bool>,
    resumed: Resumed<Vec<Endpoint>>,
) -> Answers<WatchEndpointsResponse> {
    let watches = (ctx.board.watch(), ctx.runtime.watch());
    let state = (ctx, adopted, watches, resumed);
    Box::pin(stream::unfold(
        state,
        |(ctx, mut adopted, (mut board, mut observed), mut resumed)| async move {
            adopted.wait_for(|adopted| *adopted).await.ok()?;
            loop {
                observed.mark_unchanged();
                let views = board.borrow_and_update().clone();
                let now = endpoints(&ctx.runtime, &views, &ctx.runtime.observed());
                if let Some(resume_token) = resumed.news(now.clone()) {
                    let answer = WatchEndpointsResponse {
                        endpoints: now,
                        app_key: ctx.tokens.public_key().to_vec().into(),
                        resume_token,
                    };
                    let state = (ctx, adopted, (board, observed), resumed);
                    return Some((Ok::<_, Status>(answer), state));
                }
                let changed = tokio::select! {
                    changed = board.changed() => changed,
                    changed = observed.changed() => changed,
                };
                changed.ok()?;
            }
        },
    ))
}

/// One entry for each port of each instance; a function service has one entry for each instance, without an address:
/// its runtime registers by itself. A function service without any instance has one entry that names none: its functions
/// are there and wait for somebody to call them.
fn endpoints<R: Runtime>(runtime: &R, views: &Views, observed: &Observed) -> Vec<Endpoint> {
    views
        .values()
        .flat_map(|view| of_app(runtime, view, observed))
        .collect()
}

fn of_app<R: Runtime>(runtime: &R, view: &AppView, observed: &Observed) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for (version, shape) in &view.shapes {
        for service in &shape.services {
            let app = view.update.app();
            let Some(key) = runtime.key_of(app, view.system, version, &service.name) else {
                continue;
            };
            for seen in observed.of(&key) {
                endpoints.extend(of_instance(of_service(view, service), &seen.status));
            }
        }
    }
    let waiting = waiting(view, &endpoints);
    endpoints.extend(waiting);
    endpoints
}

/// One for each port; one without an address for functions.
fn of_instance(service: Endpoint, seen: &InstanceStatus) -> Vec<Endpoint> {
    let base = Endpoint {
        instance: seen.name.clone(),
        ready: seen.ready,
        ..service
    };
    if !base.functions.is_empty() {
        return vec![base];
    }
    let ports = seen.ports.iter().map(|port| Endpoint {
        address: format!("{}:{}", seen.ip, port.port),
        port_name: if port.container_port == 0 {
            port.name.clone()
        } else {
            port.container_port.to_string()
        },
        ..base.clone()
    });
    ports.collect()
}

/// Functions of the version that runs, or of the one that is wished while none does, as long as no instance has them.
fn waiting(view: &AppView, present: &[Endpoint]) -> Vec<Endpoint> {
    let wished = || view.shapes.get(&view.update.target()?.version);
    let shape = view.running_shape().or_else(wished);
    let Some(shape) = shape.filter(|_| !view.removing) else {
        return Vec::new();
    };
    let absent = |service: &&ServiceShape| {
        !service.functions.is_empty()
            && !present
                .iter()
                .any(|endpoint| endpoint.service == service.name)
    };
    let services = shape.services.iter().filter(absent);
    services.map(|service| of_service(view, service)).collect()
}

/// What all entries of a service have in common.
fn of_service(view: &AppView, service: &ServiceShape) -> Endpoint {
    let access = if service.anonymous {
        "anonymous"
    } else {
        "token"
    };
    Endpoint {
        app: view.update.app().to_string(),
        service: service.name.clone(),
        access: access.to_owned(),
        functions: functions(service),
        ..Endpoint::default()
    }
}

fn functions(service: &ServiceShape) -> Vec<FunctionInfo> {
    let functions = service.functions.iter().map(|function| FunctionInfo {
        name: function.name.clone(),
        handler: function.handler.clone(),
    });
    functions.collect()
}
