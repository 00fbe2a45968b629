//! What happens around each call: span, authorisation, deadline, panics, the end at shutdown.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};
use tracing::Instrument as _;

use super::{Authorize, UNANSWERED_DEADLINE};
use crate::listen::Peer;
use crate::metrics::{Counter, Histogram, Metrics, SECONDS};
use crate::tasks::panic_message;
use crate::trace::TraceContext;

const CODES: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

#[derive(Clone)]
pub(super) struct Calls {
    pub(super) authorize: Authorize,
    pub(super) token: CancellationToken,
    pub(super) metrics: CallMetrics,
    /// Unary methods that end after [`UNANSWERED_DEADLINE`] when their caller sets no deadline.
    pub(super) capped: Arc<HashSet<String>>,
}

#[derive(Clone)]
pub(super) struct CallMetrics {
    metrics: Metrics,
    server: Arc<str>,
    seconds: Histogram,
}

impl CallMetrics {
    pub(super) fn new(metrics: &Metrics, server: &str) -> Self {
        let seconds = metrics.histogram(
            "grpc_server_seconds",
            "Time until the answer to a gRPC call began.",
            &[("server", server)],
            SECONDS,
        );
        Self {
            metrics: metrics.clone(),
            server: server.into(),
            seconds,
        }
    }

    fn ended(&self, code: Code) -> Counter {
        let name = format!("{code:?}");
        self.metrics.counter(
            "grpc_server_calls_total",
            "gRPC calls that ended, by their status.",
            &[("server", &self.server), ("code", &name)],
        )
    }
}

/// Counts a call that is dropped before it has an answer, because its caller left.
struct Unanswered(Option<CallMetrics>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(metrics) = &self.0 {
            metrics.ended(Code::Cancelled).inc();
        }
    }
}

/// The layer around all services of a server.
pub(super) async fn around(
    State(calls): State<Calls>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let began = Instant::now();
    let mut unanswered = Unanswered(Some(calls.metrics.clone()));
    let context = TraceContext::from_headers(request.headers())
        .map_or_else(TraceContext::root, |context| context.child());
    let path = request.uri().path().to_owned();
    let span = tracing::info_span!("call", rpc = %path, trace_id = %context.trace_id());
    let answered = context.scope(answer(&calls, &path, request, next));
    let response = answered.instrument(span).await;
    unanswered.0 = None;
    calls.metrics.seconds.observe_duration(began.elapsed());
    let mut metrics = Some(calls.metrics);
    // A call that fails before its first message says so in the headers; others in their trailers.
    if let Some(status) = response.headers().get("grpc-status")
        && let Some(metrics) = metrics.take()
    {
        metrics.ended(Code::from_bytes(status.as_bytes())).inc();
    }
    response.map(|inner| {
        Body::new(CallBody {
            inner,
            stopping: calls.token.cancelled_owned(),
            metrics,
            code: Code::Unknown,
            done: false,
        })
    })
}

async fn answer(calls: &Calls, path: &str, mut request: Request<Body>, next: Next) -> Response {
    if !open_to_all(path) {
        let Some(peer) = request.extensions().get::<Peer>() else {
            return refuse(&Status::internal("the transport did not name its peer"));
        };
        match (calls.authorize)(peer, path, request.headers()) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
            }
            Err(status) => {
                tracing::info!(peer = %peer.addr, code = ?status.code(), reason = status.message(), "call refused");
                return refuse(&status);
            }
        }
    }
    let capped = || calls.capped.contains(path).then_some(UNANSWERED_DEADLINE);
    let deadline = deadline_of(request.headers()).or_else(capped);
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let answered = match deadline {
        Some(deadline) => match tokio::time::timeout(deadline, answer).await {
            Ok(answered) => answered,
            Err(_) => {
                return refuse(&Status::deadline_exceeded(
                    "the deadline of the call has passed",
                ));
            }
        },
        None => answer.await,
    };
    answered.unwrap_or_else(|panic| {
        tracing::error!(panic = panic_message(panic.as_ref()), "a handler panicked");
        refuse(&Status::internal(
            "the service failed on this call; its log says how",
        ))
    })
}

/// Health and reflection tell nothing that is worth protecting beyond the transport check.
fn open_to_all(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/")
        || path.starts_with("/grpc.reflection.v1.ServerReflection/")
        || path.starts_with("/grpc.reflection.v1alpha.ServerReflection/")
}

fn refuse(status: &Status) -> Response {
    status.clone().into_http::<Body>()
}

fn code_of(value: Option<&http::HeaderValue>) -> Code {
    value.map_or(Code::Unknown, |value| Code::from_bytes(value.as_bytes()))
}

/// How long the caller waits, from the `grpc-timeout` header: up to eight digits and a unit.
pub fn deadline_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

pin_project! {
    /// The answer of a call: counts its status, and ends a stream that waits when the service stops (a watch
    /// would otherwise hold up the graceful end until the drain deadline).
    struct CallBody {
        #[pin]
        inner: Body,
        #[pin]
        stopping: WaitForCancellationFutureOwned,
        metrics: Option<CallMetrics>,
        code: Code,
        done: bool,
    }

    impl PinnedDrop for CallBody {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(metrics) = this.metrics.take() {
                let code = if *this.done { *this.code } else { Code::Cancelled };
                metrics.ended(code).inc();
            }
        }
    }
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.project();
        if *this.done {
            return Poll::Ready(None);
        }
        match this.inner.poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    *this.code = code_of(trailers.get("grpc-status"));
                    *this.done = true;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                *this.done = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Pending => match this.stopping.poll(context) {
                Poll::Ready(()) => {
                    *this.done = true;
                    *this.code = Code::Unavailable;
                    Poll::Ready(Some(Ok(Frame::trailers(stopping_trailers()))))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn stopping_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Fails only for a message that is no header value; this one is.
    let _ = Status::unavailable("the service is stopping").add_header(&mut trailers);
    trailers
}

/// Registers every status once, so that the page has them from the first scrape on.
pub(super) fn register_codes(metrics: &CallMetrics) {
    for code in CODES {
        metrics.ended(code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(text: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", http::HeaderValue::from_static(text));
        deadline_of(&headers)
    }

    #[test]
    fn a_deadline_is_read_in_every_unit() {
        assert_eq!(timeout("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(timeout("3M"), Some(Duration::from_secs(180)));
        assert_eq!(timeout("4S"), Some(Duration::from_secs(4)));
        assert_eq!(timeout("5m"), Some(Duration::from_millis(5)));
        assert_eq!(timeout("6u"), Some(Duration::from_micros(6)));
        assert_eq!(timeout("7n"), Some(Duration::from_nanos(7)));
    }

    #[test]
    fn a_malformed_deadline_is_no_deadline() {
        for text in ["", "S", "5", "5X", "+5S", "123456789S"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }

    #[test]
    fn only_health_and_reflection_are_open() {
        assert!(open_to_all("/grpc.health.v1.Health/Check"));
        assert!(open_to_all(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        ));
        assert!(!open_to_all("/grpc.health.v1.HealthX/Check"));
        assert!(!open_to_all("/grpc.reflection.v9.Other/Do"));
        assert!(!open_to_all("/baetyl.node.v1.NodeService/AcceptDesire"));
    }
}
