//! A gRPC service written by hand, and its client: the shell is tested without any contract of the product.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use baetyl_kit::grpc::{CallerInfo, Client};
use baetyl_kit::trace::TraceContext;
use http::uri::PathAndQuery;
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

type Codec = ProstCodec<String, String>;
type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Texts = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

/// `Say` answers who calls, in which trace, and what was said. `Watch` says "first" and then nothing more.
/// `Hang` never answers, `Panic` panics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Echo {
    /// How many calls hang.
    pub(crate) hanging: Arc<AtomicUsize>,
}

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

struct Say;

impl UnaryService<String> for Say {
    type Response = String;
    type Future = Answer<String>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        Box::pin(async move {
            let caller = CallerInfo::of(&request)?;
            let trace = TraceContext::current().map_or_else(String::new, |trace| trace.trace_id());
            let subject = caller.subject.clone().unwrap_or_default();
            let text = format!("{}|{subject}|{trace}|{}", caller.role, request.get_ref());
            Ok(Response::new(text))
        })
    }
}

struct Watch;

impl ServerStreamingService<String> for Watch {
    type Response = String;
    type ResponseStream = Texts;
    type Future = Answer<Texts>;

    fn call(&mut self, _: Request<String>) -> Self::Future {
        Box::pin(async {
            let stream = tokio_stream::once(Ok("first".to_owned())).chain(tokio_stream::pending());
            Ok(Response::new(Box::pin(stream) as Texts))
        })
    }
}

struct Hang(Arc<AtomicUsize>);

impl UnaryService<String> for Hang {
    type Response = String;
    type Future = Answer<String>;

    fn call(&mut self, _: Request<String>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::pending())
    }
}

struct Panic;

impl UnaryService<String> for Panic {
    type Response = String;
    type Future = Answer<String>;

    fn call(&mut self, _: Request<String>) -> Self::Future {
        Box::pin(async { panic!("the handler broke") })
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let hanging = Arc::clone(&self.hanging);
        Box::pin(async move {
            let mut grpc = Grpc::new(Codec::default());
            Ok(match request.uri().path() {
                "/test.Echo/Say" => grpc.unary(Say, request).await,
                "/test.Echo/Watch" => grpc.server_streaming(Watch, request).await,
                "/test.Echo/Hang" => grpc.unary(Hang(hanging), request).await,
                "/test.Echo/Panic" => grpc.unary(Panic, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// Calls a unary method.
pub(crate) async fn call(
    client: &Client,
    method: &'static str,
    request: Request<String>,
) -> Result<String, Status> {
    let mut grpc = ready(client).await?;
    let path = PathAndQuery::from_static(method);
    let response = grpc.unary(request, path, Codec::default()).await?;
    Ok(response.into_inner())
}

/// Opens the stream of `Watch`.
pub(crate) async fn watch(client: &Client) -> Result<tonic::Streaming<String>, Status> {
    let mut grpc = ready(client).await?;
    let path = PathAndQuery::from_static("/test.Echo/Watch");
    let request = Request::new(String::new());
    let response = grpc
        .server_streaming(request, path, Codec::default())
        .await?;
    Ok(response.into_inner())
}

async fn ready(client: &Client) -> Result<tonic::client::Grpc<Client>, Status> {
    let mut grpc = tonic::client::Grpc::new(client.clone());
    grpc.ready()
        .await
        .map_err(|error| Status::unknown(format!("not ready: {error}")))?;
    Ok(grpc)
}
