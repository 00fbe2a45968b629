//! `baetyl.function.v1.FunctionService` and Baetyl v2's `faas.Function`, on all gRPC listeners.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::grpc::deadline_of;
use baetyl_kit::trace::{TRACEPARENT, TraceContext};
use baetyl_proto::faas;
use baetyl_proto::function::function_service_server::FunctionService;
use baetyl_proto::function::{
    FunctionEntry, InvokeRequest, InvokeResponse, InvokeStreamRequest, InvokeStreamResponse,
    ListFunctionsRequest, ListFunctionsResponse,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::app::Call;
use crate::auth;
use crate::call::{Held, Proxy, Target};
use crate::error::CallError;
use crate::http::MAX_METADATA;
use crate::reply::{Answer, MAX_PAYLOAD, Part};

/// A payload with its metadata and the frame around them.
pub(crate) const MAX_MESSAGE: usize = MAX_PAYLOAD + 2 * MAX_METADATA;

/// A caller's own timer starts earlier than ours: by this much we are done earlier, so that it is told which function
/// was too slow instead of just giving up.
const EARLIER: Duration = Duration::from_millis(20);

/// Functions on one page, unless told otherwise, and at most.
const PAGE: (usize, usize) = (100, 1000);

/// Serves both contracts.
#[derive(Clone, Debug)]
pub(crate) struct Functions(pub(crate) Arc<Proxy>);

/// A request that may be made.
struct Prepared {
    target: Target,
    call: Call,
    held: Held,
    invoke_id: String,
}

impl Functions {
    fn prepare<T>(
        &self,
        request: &Request<T>,
        invoke: InvokeRequest,
    ) -> Result<Prepared, CallError> {
        let began = Instant::now();
        let caller = auth::of(request)
            .map_err(|status| CallError::Unauthenticated(status.message().to_owned()))?;
        let InvokeRequest {
            service,
            function,
            payload,
            mut metadata,
        } = invoke;
        let target = self.0.admit(&service, &caller)?;
        if metadata
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>()
            > MAX_METADATA
        {
            return Err(CallError::MetadataTooLong {
                limit: MAX_METADATA,
            });
        }
        let invoke_id = metadata
            .entry("invokeId".to_owned())
            .or_insert_with(crate::id::invocation)
            .clone();
        if let Some(trace) = TraceContext::current() {
            metadata
                .entry(TRACEPARENT.to_owned())
                .or_insert_with(|| trace.to_string());
        }
        let held = self.0.memory.hold(&payload)?;
        let timeout =
            deadline_of(request.metadata().as_ref()).map(|asked| asked - EARLIER.min(asked / 10));
        Ok(Prepared {
            target,
            call: Call {
                function,
                payload,
                metadata,
                began,
                timeout,
            },
            held,
            invoke_id,
        })
    }
}

type Pieces = Pin<Box<dyn Stream<Item = Result<InvokeStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl FunctionService for Functions {
    async fn invoke(
        &self,
        mut request: Request<InvokeRequest>,
    ) -> Result<Response<InvokeResponse>, Status> {
        let invoke = std::mem::take(request.get_mut());
        let Prepared {
            target,
            call,
            held: _held,
            invoke_id,
        } = self.prepare(&request, invoke)?;
        let Answer { payload, metadata } = self.0.call(&target, call).await?;
        Ok(Response::new(InvokeResponse {
            payload,
            metadata,
            invoke_id,
        }))
    }

    type InvokeStreamStream = Pieces;

    async fn invoke_stream(
        &self,
        mut request: Request<InvokeStreamRequest>,
    ) -> Result<Response<Pieces>, Status> {
        let invoke = request.get_mut().request.take().unwrap_or_default();
        let Prepared {
            target, call, held, ..
        } = self.prepare(&request, invoke)?;
        let parts = self.0.call_in_pieces(&target, call, held)?;
        Ok(Response::new(Box::pin(
            parts.flat_map(|part| stream::iter(pieces(part))),
        )))
    }

    async fn list_functions(
        &self,
        request: Request<ListFunctionsRequest>,
    ) -> Result<Response<ListFunctionsResponse>, Status> {
        let ListFunctionsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let size = match usize::try_from(page_size).unwrap_or(PAGE.1) {
            0 => PAGE.0,
            size => size.min(PAGE.1),
        };
        let mut functions = entries(&self.0);
        functions.retain(|entry| page_token.is_empty() || position(entry) > page_token);
        let more = functions.len() > size;
        functions.truncate(size);
        let next_page_token = functions
            .last()
            .filter(|_| more)
            .map(position)
            .unwrap_or_default();
        Ok(Response::new(ListFunctionsResponse {
            functions,
            next_page_token,
        }))
    }
}

/// Where an entry is in the list; names have no slash.
fn position(entry: &FunctionEntry) -> String {
    format!("{}/{}", entry.service, entry.function)
}

/// The end comes as a chunk, if anything is left, and then the metadata alone: the last message has no part of the payload.
fn pieces(part: Part) -> Vec<Result<InvokeStreamResponse, Status>> {
    let chunk = |chunk: Bytes| {
        Ok(InvokeStreamResponse {
            chunk,
            metadata: BTreeMap::new(),
        })
    };
    match part {
        Part::Chunk(bytes) => vec![chunk(bytes)],
        Part::End(Err(error)) => vec![Err(error.into())],
        Part::End(Ok(Answer { payload, metadata })) => {
            let last = Ok(InvokeStreamResponse {
                chunk: Bytes::new(),
                metadata,
            });
            if payload.is_empty() {
                vec![last]
            } else {
                vec![chunk(payload), last]
            }
        }
    }
}

/// All functions, sorted by service and then by name.
pub(crate) fn entries(proxy: &Proxy) -> Vec<FunctionEntry> {
    let directory = proxy.known.get().ok();
    let mut entries = Vec::new();
    for app in proxy.apps.all() {
        let load = app.load();
        let entry = directory
            .as_ref()
            .and_then(|directory| directory.app(&app.name));
        let mut names = entry
            .map(|entry| entry.functions.clone())
            .unwrap_or_default();
        names.extend(
            load.functions
                .iter()
                .filter(|name| !entry.is_some_and(|e| e.functions.contains(name)))
                .cloned(),
        );
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        entries.extend(names.into_iter().map(|function| {
            FunctionEntry {
                service: app.name.clone(),
                function,
                runtime: load.kinds.join(","),
                runtimes: count(load.runtimes),
                in_flight: count(load.in_flight),
                queued: count(load.queued),
                access: entry
                    .map_or("token", |entry| entry.access.as_str())
                    .to_owned(),
            }
        }));
    }
    entries.sort_by_cached_key(position);
    entries
}

/// Key of Baetyl v2's metadata with the application's name.
const SERVICE: &str = "serviceName";
const FUNCTION: &str = "functionName";

#[tonic::async_trait]
impl faas::function_server::Function for Functions {
    /// Answers the request itself with another payload, as Baetyl v2's runtimes do.
    async fn call(
        &self,
        mut request: Request<faas::Message>,
    ) -> Result<Response<faas::Message>, Status> {
        let faas::Message {
            id,
            metadata,
            payload,
        } = std::mem::take(request.get_mut());
        let name = |key: &str| metadata.get(key).cloned().unwrap_or_default();
        let invoke = InvokeRequest {
            service: name(SERVICE),
            function: name(FUNCTION),
            payload,
            metadata: metadata.clone(),
        };
        let prepared = self
            .prepare(&request, invoke)
            .map_err(|error| error.faas())?;
        let Prepared {
            target,
            call,
            held: _held,
            invoke_id,
        } = prepared;
        let answer = self
            .0
            .call(&target, call)
            .await
            .map_err(|error| error.faas())?;
        let mut metadata = metadata;
        metadata.entry("invokeId".to_owned()).or_insert(invoke_id);
        metadata.extend(answer.metadata);
        Ok(Response::new(faas::Message {
            id,
            metadata,
            payload: answer.payload,
        }))
    }
}
