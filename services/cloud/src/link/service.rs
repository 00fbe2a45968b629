//! The calls of `baetyl.link.v1`.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use baetyl_kit::listen::{Peer, PeerAddr};
use baetyl_model::link::PROTOCOL;
use baetyl_proto::link::connect_request::Message as Up;
use baetyl_proto::link::connect_response::Message as Down;
use baetyl_proto::link::link_service_server::LinkService;
use baetyl_proto::link::{
    ConnectRequest, ConnectResponse, FetchObjectRequest, FetchObjectResponse,
    FetchResourcesRequest, FetchResourcesResponse, Hello, Removed, RenewCertificateRequest,
    RenewCertificateResponse, TunnelRequest, TunnelResponse,
};
use baetyl_proto::meta::ProtocolRange;
use futures_util::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};

use super::admit::{Admission, DELETED, admit, admit_node, peer_of};
use super::session::Session;
use super::{LinkDeps, fetch, renew};

/// A node that has not said Hello by then is not going to.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Service(pub(super) LinkDeps);

/// Where a request comes from; none over a Unix socket.
fn address_of<T>(request: &Request<T>) -> Option<IpAddr> {
    match request.extensions().get::<Peer>()?.addr {
        PeerAddr::Tcp(address) => Some(address.ip().to_canonical()),
        PeerAddr::Unix { .. } => None,
    }
}

#[tonic::async_trait]
impl LinkService for Service {
    type ConnectStream = Answers<ConnectResponse>;
    type FetchResourcesStream = Answers<FetchResourcesResponse>;
    type FetchObjectStream = Answers<FetchObjectResponse>;
    type TunnelStream = Answers<TunnelResponse>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let peer = peer_of(&request)?;
        let address = address_of(&request);
        let mut inbound = request.into_inner();
        let hello = first_message(&mut inbound).await?;
        let protocol = negotiate(hello.protocol.as_ref())?;
        let node = match admit(&self.0.store, &peer).await? {
            Admission::Node(node) => node,
            Admission::Deleted => return Ok(Response::new(removed())),
        };
        let (store, admitted) = (self.0.store.clone(), peer.clone());
        let (namespace, uid) = (node.namespace.clone(), node.uid.clone());
        let session = Session::open(self.0.clone(), node, peer, protocol, hello, inbound).await?;
        // Once more, now that the stream has its place and can be ended from outside: the key may have been replaced
        // since, and who replaced it found no stream to end.
        admit_node(&store, &admitted).await?;
        if let Some(address) = address {
            self.0.reports.put_address(&namespace, &uid, address);
        }
        Ok(Response::new(Box::pin(session.into_stream())))
    }

    async fn fetch_resources(
        &self,
        request: Request<FetchResourcesRequest>,
    ) -> Result<Response<Self::FetchResourcesStream>, Status> {
        let node = admit_node(&self.0.store, &peer_of(&request)?).await?;
        let bodies = fetch::resources(&self.0, node, &request.into_inner().digests).await?;
        Ok(Response::new(Box::pin(bodies)))
    }

    async fn fetch_object(
        &self,
        request: Request<FetchObjectRequest>,
    ) -> Result<Response<Self::FetchObjectStream>, Status> {
        let node = admit_node(&self.0.store, &peer_of(&request)?).await?;
        let request = request.into_inner();
        let bytes = fetch::object(&self.0, &node, &request.digest, request.offset).await?;
        Ok(Response::new(Box::pin(bytes)))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        let peer = peer_of(&request)?;
        let node = admit_node(&self.0.store, &peer).await?;
        renew::renew(&self.0, &peer, &node, &request.into_inner().csr)
            .await
            .map(Response::new)
    }

    async fn tunnel(
        &self,
        _request: Request<Streaming<TunnelRequest>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        Err(Status::unimplemented(
            "no command of this release opens a tunnel",
        ))
    }
}

async fn first_message(inbound: &mut Streaming<ConnectRequest>) -> Result<Hello, Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello within 10 seconds"))??;
    match first.and_then(|first| first.message) {
        Some(Up::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument(
            "the first message of a stream is Hello",
        )),
    }
}

/// The highest number both sides speak.
fn negotiate(offered: Option<&ProtocolRange>) -> Result<u32, Status> {
    let offered = offered.ok_or_else(|| {
        Status::invalid_argument("Hello needs the range of protocols the node speaks")
    })?;
    let range = baetyl_model::link::ProtocolRange {
        min: offered.min,
        max: offered.max,
    };
    PROTOCOL.common(range).ok_or_else(|| {
        Status::failed_precondition(format!(
            "the node speaks link protocols {} to {}, this cloud {} to {}; update the older one",
            offered.min, offered.max, PROTOCOL.min, PROTOCOL.max
        ))
    })
}

fn removed() -> Answers<ConnectResponse> {
    let removed = Down::Removed(Removed {
        reason: DELETED.to_owned(),
    });
    Box::pin(stream::iter([Ok(ConnectResponse {
        message: Some(removed),
    })]))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn both_sides_use_the_highest_protocol_they_share() {
        let (min, max) = (PROTOCOL.min, PROTOCOL.max);
        assert_eq!(negotiate(Some(&ProtocolRange { min, max })).unwrap(), max);
        assert_eq!(
            negotiate(Some(&ProtocolRange {
                min: 0,
                max: max + 5
            }))
            .unwrap(),
            max
        );
    }

    #[test]
    fn without_a_common_protocol_both_ranges_are_said() {
        let max = PROTOCOL.max;
        for range in [
            ProtocolRange {
                min: max + 1,
                max: max + 2,
            },
            ProtocolRange { min: 0, max: 0 },
            ProtocolRange { min: 2, max: 1 },
        ] {
            let status = negotiate(Some(&range)).unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert!(
                status
                    .message()
                    .contains(&format!("{} to {}", range.min, range.max)),
                "{status}"
            );
        }
        assert_eq!(negotiate(None).unwrap_err().code(), Code::InvalidArgument);
    }
}
