//! Logs of instances.

use baetyl_proto::engine::{WatchLogsRequest, WatchLogsResponse};
use baetyl_runtime_native::InstanceId;
use futures_util::{StreamExt as _, stream};
use tonic::Status;

use super::Answers;
use crate::act;
use crate::board::AppView;
use crate::context::Context;
use crate::ports::{Ports, Runtime as _};

/// Lines from the end when the caller does not say.
const TAIL: u32 = 200;
/// A message is at most 4 MiB; a piece of log is far below.
const PIECE: usize = 64 * 1024;

/// The last lines of one or all instances, then what follows when asked.
pub(crate) async fn watch<P: Ports>(
    ctx: &Context<P>,
    view: &AppView,
    request: &WatchLogsRequest,
) -> Result<Answers<WatchLogsResponse>, Status> {
    let mut ids = instances(ctx, view).await?;
    if !request.instance.is_empty() {
        ids.retain(|id| id.to_string() == request.instance);
        if ids.is_empty() {
            return Err(Status::not_found(format!(
                "{} has no instance {:?}",
                request.app, request.instance
            )));
        }
    }
    let tail = if request.tail_lines == 0 {
        TAIL
    } else {
        request.tail_lines
    };
    let tail = usize::try_from(tail).unwrap_or(usize::MAX);
    let streams = ids.into_iter().map(|id| {
        let name = id.to_string();
        ctx.runtime
            .logs(&id, tail, request.follow)
            .flat_map(move |piece| {
                let answers: Vec<_> = match piece {
                    Ok(bytes) => pieces(&name, &bytes),
                    Err(error) => vec![Err(Status::internal(format!(
                        "the log of {name} cannot be read: {error}"
                    )))],
                };
                stream::iter(answers)
            })
    });
    Ok(Box::pin(stream::select_all(streams)))
}

fn pieces(instance: &str, bytes: &bytes::Bytes) -> Vec<Result<WatchLogsResponse, Status>> {
    let pieces = bytes.chunks(PIECE).map(|piece| {
        Ok(WatchLogsResponse {
            instance: instance.to_owned(),
            data: bytes.slice_ref(piece),
            time: None,
        })
    });
    pieces.collect()
}

/// Instances the runtime supervises; of a version that failed the log stays readable until another one has settled.
async fn instances<P: Ports>(ctx: &Context<P>, view: &AppView) -> Result<Vec<InstanceId>, Status> {
    let observed = ctx.runtime.watch().borrow().clone();
    let app = view.update.app();
    let mut ids: Vec<InstanceId> = observed
        .instances
        .keys()
        .filter(|id| id.workload.app == *app)
        .cloned()
        .collect();
    let known = act::known(ctx, app)
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let unsupervised = known
        .into_iter()
        .filter(|key| !observed.workloads.contains_key(key));
    ids.extend(unsupervised.map(|key| key.instance(1)));
    Ok(ids)
}
