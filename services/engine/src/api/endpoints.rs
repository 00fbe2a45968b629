//! Where functions and services run.

use std::sync::Arc;

use baetyl_proto::engine::{Endpoint, FunctionInfo, WatchEndpointsResponse};
use baetyl_runtime_native::Observed;
use futures_util::stream;
use tonic::Status;

use super::Answers;
use crate::board::{AppView, Views};
use crate::context::Context;
use crate::instances;
use crate::ports::{Ports, Runtime as _};
use crate::shape::ServiceShape;

/// The whole table now and at every change.
pub(crate) fn watch<P: Ports>(ctx: Arc<Context<P>>) -> Answers<WatchEndpointsResponse> {
    let watches = (ctx.board.watch(), ctx.runtime.watch());
    let state = (ctx, watches, None::<Vec<Endpoint>>);
    Box::pin(stream::unfold(
        state,
        |(ctx, (mut board, mut observed), mut told)| async move {
            loop {
                let now = endpoints(
                    &board.borrow_and_update().clone(),
                    &observed.borrow_and_update().clone(),
                );
                if told.as_ref() != Some(&now) {
                    let answer = WatchEndpointsResponse {
                        endpoints: now.clone(),
                        app_key: ctx.tokens.public_key().to_vec().into(),
                    };
                    told = Some(now);
                    return Some((Ok::<_, Status>(answer), (ctx, (board, observed), told)));
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
/// its runtime registers by itself.
fn endpoints(views: &Views, observed: &Observed) -> Vec<Endpoint> {
    views
        .values()
        .flat_map(|view| of_app(view, observed))
        .collect()
}

fn of_app(view: &AppView, observed: &Observed) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for (version, shape) in &view.shapes {
        let keys = instances::workloads(view.update.app(), view.system, version, shape);
        for (key, service) in keys.iter().zip(&shape.services) {
            for (id, seen) in observed.of(key) {
                let base = Endpoint {
                    app: view.update.app().to_string(),
                    service: service.name.clone(),
                    instance: id.to_string(),
                    ready: seen.ready,
                    access: if service.anonymous {
                        "anonymous"
                    } else {
                        "token"
                    }
                    .to_owned(),
                    functions: functions(service),
                    ..Endpoint::default()
                };
                if service.functions.is_empty() {
                    endpoints.extend(seen.ports.iter().map(|port| Endpoint {
                        address: format!("127.0.0.1:{}", port.port),
                        port_name: if port.declared == 0 {
                            port.name.clone()
                        } else {
                            port.declared.to_string()
                        },
                        ..base.clone()
                    }));
                } else {
                    endpoints.push(base);
                }
            }
        }
    }
    endpoints
}

fn functions(service: &ServiceShape) -> Vec<FunctionInfo> {
    let functions = service.functions.iter().map(|function| FunctionInfo {
        name: function.name.clone(),
        handler: function.handler.clone(),
    });
    functions.collect()
}
