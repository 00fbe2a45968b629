//! A cloud that says what the test says, over real mutual TLS.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use baetyl_kit::Kit;
use baetyl_kit::grpc::{CallerInfo, Server};
use baetyl_kit::listen::{Listen, Peer};
use baetyl_kit::tls;
use baetyl_model::Digest;
use baetyl_proto::digest;
use baetyl_proto::link::connect_request::Message as Up;
use baetyl_proto::link::connect_response::Message as Down;
use baetyl_proto::link::link_service_server::{LinkService, LinkServiceServer};
use baetyl_proto::link::{
    Command, ConnectRequest, ConnectResponse, FetchObjectRequest, FetchObjectResponse,
    FetchResourcesRequest, FetchResourcesResponse, Hello, RenewCertificateRequest,
    RenewCertificateResponse, TunnelRequest, TunnelResponse, Welcome,
};
use baetyl_testkit::{Leaf, PATIENCE, TestCa, TestIdentity};
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The cloud.
#[derive(Clone)]
pub(crate) struct Cloud {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) ca: TestCa,
    streams: mpsc::Sender<CloudStream>,
    script: Mutex<Script>,
}

/// What it has and how it behaves.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) bodies: HashMap<Digest, Vec<u8>>,
    pub(crate) objects: HashMap<Digest, Vec<u8>>,
    /// Instead of what FetchResources would answer.
    pub(crate) refuse_fetch: Option<Status>,
    /// Breaks the next object off after so many bytes.
    pub(crate) cut_object: Option<usize>,
    /// Objects wait here before their first byte.
    pub(crate) hold_objects: Option<Arc<tokio::sync::Semaphore>>,
    /// The fingerprint of a certificate that is past its end: it may renew and nothing else.
    pub(crate) expired: Option<String>,
    /// What renewed certificates say; None refuses.
    pub(crate) renew_as: Option<Leaf>,
    /// Signs renewed certificates instead of the cloud's own authority.
    pub(crate) renew_by: Option<TestCa>,
    /// Digests of each FetchResources.
    pub(crate) fetches: Vec<Vec<String>>,
    /// Offsets of each FetchObject.
    pub(crate) offsets: Vec<u64>,
    pub(crate) renewals: usize,
}

/// A stream of a node.
pub(crate) struct CloudStream {
    pub(crate) hello: Hello,
    /// sha256 of the certificate the node showed.
    pub(crate) fingerprint: String,
    requests: mpsc::Receiver<ConnectRequest>,
    responses: mpsc::Sender<Result<ConnectResponse, Status>>,
}

impl Cloud {
    /// A cloud that is not served yet, and its streams as they come.
    pub(crate) fn new() -> (Self, mpsc::Receiver<CloudStream>) {
        let (streams, receiver) = mpsc::channel(8);
        let inner = Arc::new(Inner {
            ca: TestCa::new("cloud"),
            streams,
            script: Mutex::default(),
        });
        (Self { inner }, receiver)
    }

    /// Serves it with the usual certificate; gives its address.
    pub(crate) async fn serve(&self, kit: &Kit) -> String {
        self.serve_as(kit, &self.ca().server(), &Listen::loopback())
            .await
    }

    /// Serves it with this certificate.
    pub(crate) async fn serve_as(
        &self,
        kit: &Kit,
        server: &TestIdentity,
        listen: &Listen,
    ) -> String {
        let clients = self.ca().clients_required();
        let tls = tls::server_config(server.identity(), &clients, Some(Arc::new(Any))).unwrap();
        let listen = Server::new(kit, "cloud")
            .add_service(LinkServiceServer::new(self.clone()))
            .tls(tls)
            .authorize(Arc::new(|_, _, _| Ok(CallerInfo::new("device"))))
            .serve(listen)
            .await
            .unwrap();
        format!("https://{listen}")
    }

    /// Serves it without TLS.
    pub(crate) async fn serve_plain(&self, kit: &Kit) -> String {
        let listen = Server::new(kit, "cloud")
            .add_service(LinkServiceServer::new(self.clone()))
            .authorize(Arc::new(|_, _, _| Ok(CallerInfo::new("device"))))
            .serve(&Listen::loopback())
            .await
            .unwrap();
        format!("http://{listen}")
    }

    pub(crate) fn ca(&self) -> &TestCa {
        &self.inner.ca
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.inner.script.lock().unwrap()
    }

    /// Has this body; gives its digest.
    pub(crate) fn put_body(&self, body: &[u8]) -> Digest {
        let digest = digest::of(body);
        self.script().bodies.insert(digest, body.to_vec());
        digest
    }

    /// Has this object; gives its digest.
    pub(crate) fn put_object(&self, object: &[u8]) -> Digest {
        let digest = digest::of(object);
        self.script().objects.insert(digest, object.to_vec());
        digest
    }
}

/// Judges clients at a time at which they are valid: what the cloud thinks of time is not under test here.
#[derive(Debug)]
struct Any;

impl tls::CertTime for Any {
    fn judge_at(&self, chain: tls::Validity, _: i64) -> i64 {
        chain.not_before
    }
}

impl CloudStream {
    /// The next message of the node; panics when none comes.
    pub(crate) async fn next(&mut self) -> Up {
        let next = tokio::time::timeout(PATIENCE, self.requests.recv()).await;
        let message = next.expect("a message in time").expect("an open stream");
        message.message.expect("a message we know")
    }

    /// The next message that is neither a heartbeat nor stats.
    pub(crate) async fn next_news(&mut self) -> Up {
        loop {
            match self.next().await {
                Up::Heartbeat(_) | Up::Stats(_) => {}
                news => return news,
            }
        }
    }

    /// Asks something that is answered at once, to learn what would have been said before the answer.
    pub(crate) async fn ask(&self) {
        self.say(Down::Command(Command {
            id: "ask".to_owned(),
            kind: "nothing".to_owned(),
            ..Command::default()
        }))
        .await;
    }

    /// The answer to [`ask`](Self::ask) is the next message.
    pub(crate) async fn say_nothing_before_the_answer(&mut self) {
        match self.next().await {
            Up::CommandResult(result) => assert_eq!(result.command_id, "ask"),
            other => panic!("{other:?}"),
        }
    }

    /// Says something; nothing happens when the node is gone.
    pub(crate) async fn say(&self, message: Down) {
        let message = ConnectResponse {
            message: Some(message),
        };
        let _ = self.responses.send(Ok(message)).await;
    }

    /// Says a Welcome with long periods, as the given one otherwise.
    pub(crate) async fn welcome(&self, welcome: Welcome) {
        self.say(Down::Welcome(Welcome {
            protocol: 1,
            heartbeat_period_ms: 3_600_000,
            stats_period_ms: 3_600_000,
            ..welcome
        }))
        .await;
    }

    /// Ends the stream with this status.
    pub(crate) async fn end(self, status: Status) {
        let _ = self.responses.send(Err(status)).await;
    }

    /// Returns when the node has ended the stream.
    pub(crate) async fn ended(&mut self) {
        let end = async { while self.requests.recv().await.is_some() {} };
        tokio::time::timeout(PATIENCE, end)
            .await
            .expect("the end of the stream in time");
    }
}

#[tonic::async_trait]
impl LinkService for Cloud {
    type ConnectStream = Answers<ConnectResponse>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let peer = request.extensions().get::<Peer>().unwrap();
        let fingerprint = tls::fingerprint(&peer.certificates[0]);
        if self.script().expired.as_ref() == Some(&fingerprint) {
            return Err(Status::unauthenticated("expired; call RenewCertificate"));
        }
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.and_then(|first| first.message);
        let Some(Up::Hello(hello)) = first else {
            return Err(Status::invalid_argument("no Hello"));
        };
        let (requests, received) = mpsc::channel(64);
        let (responses, sent) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(Some(message)) = inbound.message().await {
                if requests.send(message).await.is_err() {
                    return;
                }
            }
        });
        let stream = CloudStream {
            hello,
            fingerprint,
            requests: received,
            responses,
        };
        let _ = self.inner.streams.send(stream).await;
        Ok(Response::new(Box::pin(ReceiverStream::new(sent))))
    }

    type FetchResourcesStream = Answers<FetchResourcesResponse>;

    async fn fetch_resources(
        &self,
        request: Request<FetchResourcesRequest>,
    ) -> Result<Response<Self::FetchResourcesStream>, Status> {
        let digests = request.into_inner().digests;
        let mut script = self.script();
        script.fetches.push(digests.clone());
        if let Some(status) = &script.refuse_fetch {
            return Err(status.clone());
        }
        let mut parts = Vec::new();
        for digest in digests {
            let key: Digest = digest.parse().unwrap();
            let Some(body) = script.bodies.get(&key) else {
                return Err(Status::not_found(format!("{digest} does not exist")));
            };
            // In small parts, so that putting them together is tested.
            let mut chunks = body.chunks(7).peekable();
            while let Some(chunk) = chunks.next() {
                parts.push(Ok(FetchResourcesResponse {
                    digest: digest.clone(),
                    chunk: chunk.to_vec().into(),
                    last: chunks.peek().is_none(),
                }));
            }
        }
        Ok(Response::new(Box::pin(futures_util::stream::iter(parts))))
    }

    type FetchObjectStream = Answers<FetchObjectResponse>;

    async fn fetch_object(
        &self,
        request: Request<FetchObjectRequest>,
    ) -> Result<Response<Self::FetchObjectStream>, Status> {
        let FetchObjectRequest { digest, offset } = request.into_inner();
        let (object, cut, hold) = {
            let mut script = self.script();
            script.offsets.push(offset);
            let object = script.objects.get(&digest.parse().unwrap()).cloned();
            (
                object,
                script.cut_object.take(),
                script.hold_objects.clone(),
            )
        };
        let object = object.ok_or_else(|| Status::not_found(format!("{digest} does not exist")))?;
        if let Some(hold) = hold {
            hold.acquire().await.unwrap().forget();
        }
        let rest = object
            .get(usize::try_from(offset).unwrap()..)
            .ok_or_else(|| Status::out_of_range("beyond the end"))?;
        let sent = cut.map_or(rest, |cut| &rest[..cut]);
        let mut parts: Vec<_> = sent
            .chunks(1000)
            .map(|chunk| {
                Ok(FetchObjectResponse {
                    chunk: chunk.to_vec().into(),
                    total_size: object.len() as u64,
                })
            })
            .collect();
        if cut.is_some() {
            parts.push(Err(Status::unavailable("cut off")));
        }
        Ok(Response::new(Box::pin(futures_util::stream::iter(parts))))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        let mut script = self.script();
        script.renewals += 1;
        let leaf = script
            .renew_as
            .clone()
            .ok_or_else(|| Status::permission_denied("no renewal"))?;
        let issuer = script.renew_by.as_ref().unwrap_or(self.ca());
        let certificate = issuer.sign_request(&request.into_inner().csr, &leaf);
        Ok(Response::new(RenewCertificateResponse {
            certificate_chain: vec![certificate.to_vec().into()],
            trusted_authorities: vec![self.ca().certificate().to_vec().into()],
        }))
    }

    type TunnelStream = Answers<TunnelResponse>;

    async fn tunnel(
        &self,
        _: Request<Streaming<TunnelRequest>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        Err(Status::unimplemented("no tunnels here"))
    }
}
