//! The link's server with small buffers for `Connect`.
//!
//! The generated server gives every call 8 KiB to read into and 8 KiB to write into. A thousand open streams that say
//! something every 15 seconds would keep 16 MiB for nothing; here they begin with 1 KiB each and grow as needed.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use baetyl_proto::link::link_service_server::{LinkService, LinkServiceServer};
use baetyl_proto::link::{ConnectRequest, ConnectResponse};
use http::Request;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service as Tower;

use super::service::Service;

const CONNECT: &str = "/baetyl.link.v1.LinkService/Connect";

/// Most messages have less than 100 bytes.
const BUFFER: usize = 1024;

/// tonic's own value: bytes after which a message that is written is handed on.
const YIELD: usize = 32 * 1024;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The generated server, but for `Connect`.
#[derive(Clone, Debug)]
pub(super) struct LinkServer {
    service: Service,
    generated: LinkServiceServer<Service>,
}

impl LinkServer {
    pub(super) fn new(service: Service) -> Self {
        Self {
            generated: LinkServiceServer::new(service.clone()),
            service,
        }
    }
}

impl NamedService for LinkServer {
    const NAME: &'static str = <LinkServiceServer<Service> as NamedService>::NAME;
}

impl Tower<Request<Body>> for LinkServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != CONNECT {
            return self.generated.call(request);
        }
        let connect = Connect(self.service.clone());
        Box::pin(async move { Ok(Grpc::new(SmallCodec).streaming(connect, request).await) })
    }
}

struct Connect(Service);

impl StreamingService<ConnectRequest> for Connect {
    type Response = ConnectResponse;
    type ResponseStream = <Service as LinkService>::ConnectStream;
    type Future = BoxFuture<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<ConnectRequest>>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.connect(request).await })
    }
}

/// As the generated code encodes, with small buffers.
struct SmallCodec;

type Prost = ProstCodec<ConnectResponse, ConnectRequest>;

impl Codec for SmallCodec {
    type Encode = ConnectResponse;
    type Decode = ConnectRequest;
    type Encoder = <Prost as Codec>::Encoder;
    type Decoder = <Prost as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        Prost::raw_encoder(BufferSettings::new(BUFFER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        Prost::raw_decoder(BufferSettings::new(BUFFER, YIELD))
    }
}
