use std::path::Path;
use std::sync::{Arc, Mutex};

use baetyl_kit::Kit;
use baetyl_kit::grpc::{Server, same_user};
use baetyl_kit::listen::{Listen, Peer};
use baetyl_proto::function::register_response::Message as Down;
use baetyl_proto::function::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use baetyl_proto::function::{
    Cancel, FunctionSpec, Invocation, RegisterResponse, Registered, Registration,
};
use baetyl_proto::token::{Claims, issue};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::link::{Door, Executor, Profile, Way, serve};

type Downstream = ReceiverStream<Result<RegisterResponse, Status>>;

/// A proxy whose every connection is handed to the test.
#[derive(Clone)]
pub(super) struct FakeProxy {
    pub(super) connections: mpsc::Sender<Connection>,
    pub(super) heartbeat_ms: u32,
}

pub(super) struct Connection {
    pub(super) authorization: String,
    pub(super) registration: Registration,
    pub(super) peer: Peer,
    up: Streaming<RegisterRequest>,
    down: mpsc::Sender<Result<RegisterResponse, Status>>,
}

#[tonic::async_trait]
impl RuntimeService for FakeProxy {
    type RegisterStream = Downstream;

    async fn register(
        &self,
        request: Request<Streaming<RegisterRequest>>,
    ) -> Result<Response<Downstream>, Status> {
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.unwrap().to_str().unwrap().to_owned();
        let peer = request.extensions().get::<Peer>().unwrap().clone();
        let mut up = request.into_inner();
        let Some(Up::Registration(registration)) = up.message().await?.unwrap().message else {
            return Err(Status::invalid_argument("not a registration"));
        };
        let (down, stream) = mpsc::channel(16);
        let registered = Registered {
            protocol: 1,
            heartbeat_period_ms: self.heartbeat_ms,
            ..Registered::default()
        };
        down.try_send(Ok(wire(Down::Registered(registered))))
            .unwrap();
        let connection = Connection {
            authorization,
            registration,
            peer,
            up,
            down,
        };
        self.connections.send(connection).await.unwrap();
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn wire(message: Down) -> RegisterResponse {
    RegisterResponse {
        message: Some(message),
    }
}

impl Connection {
    async fn send(&self, message: Down) {
        self.down.send(Ok(wire(message))).await.unwrap();
    }

    async fn invoke(&self, invocation: u64, payload: &'static [u8]) {
        let invocation = Invocation {
            invocation,
            function: "f".to_owned(),
            payload: Bytes::from_static(payload),
            ..Invocation::default()
        };
        self.send(Down::Invoke(invocation)).await;
    }

    /// The next message; None when the runtime has ended the stream.
    async fn next(&mut self) -> Option<Up> {
        let next = tokio::time::timeout(PATIENCE, self.up.message()).await;
        next.expect("nothing came")
            .ok()
            .flatten()
            .map(|m| m.message.unwrap())
    }
}

/// Echoes, except for a payload "hold": that call is kept.
#[derive(Clone, Default)]
pub(super) struct Echo {
    held: Arc<Mutex<Vec<Call>>>,
}

impl Executor for Echo {
    async fn start(&self, call: Call) {
        if call.payload == "hold" {
            self.held.lock().unwrap().push(call);
        } else {
            call.answer.result(call.payload, call.metadata).await;
        }
    }
}

struct World {
    dir: TestDir,
    kit: Kit,
    connections: mpsc::Receiver<Connection>,
    sender: mpsc::Sender<Connection>,
    echo: Echo,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl World {
    async fn new(heartbeat_ms: u32) -> Self {
        let dir = TestDir::new();
        let claims = Claims {
            app: "shop".to_owned(),
            service: "web".to_owned(),
            instance: "baetyl-edge.shop.1.web.1".to_owned(),
            iat: 0,
        };
        let token = issue(&claims, |_| [7; 64]);
        dir.write("token", format!("{token}\n"));
        let (sender, connections) = mpsc::channel(4);
        let kit = proxy(dir.path(), &sender, heartbeat_ms).await;
        let door = Door {
            way: Way::Socket(dir.path().join("proxy.sock")),
            service: String::new(),
            instance: String::new(),
            token_file: dir.path().join("token"),
            drain: PATIENCE,
        };
        let profile = profile();
        let (echo, stop) = (Echo::default(), CancellationToken::new());
        let running = tokio::spawn({
            let (echo, stop) = (echo.clone(), stop.clone());
            async move { serve(&door, &profile, &echo, &stop).await }
        });
        Self {
            dir,
            kit,
            connections,
            sender,
            echo,
            stop,
            running,
        }
    }

    async fn connection(&mut self) -> Connection {
        let connection = tokio::time::timeout(PATIENCE, self.connections.recv()).await;
        connection.expect("nobody connected").unwrap()
    }

    async fn held(&self) -> Call {
        until(PATIENCE, "the call to come", async || {
            self.echo.held.lock().unwrap().pop().ok_or("not yet")
        })
        .await
    }
}

pub(super) fn profile() -> Profile {
    Profile {
        runtime: "echo".to_owned(),
        version: "1".to_owned(),
        functions: vec![FunctionSpec {
            name: "f".to_owned(),
            ..FunctionSpec::default()
        }],
        concurrency: 4,
    }
}

async fn proxy(dir: &Path, connections: &mpsc::Sender<Connection>, heartbeat_ms: u32) -> Kit {
    let kit = Kit::for_test(dir);
    let fake = FakeProxy {
        connections: connections.clone(),
        heartbeat_ms,
    };
    Server::new(&kit, "proxy")
        .add_service(RuntimeServiceServer::new(fake))
        .authorize(same_user())
        .serve(&Listen::Unix(dir.join("proxy.sock")))
        .await
        .unwrap();
    kit
}

#[tokio::test]
async fn the_runtime_registers_as_its_token_says_and_answers() {
    let mut world = World::new(60_000).await;
    let mut connection = world.connection().await;
    assert!(connection.authorization.starts_with("Bearer v1."));
    let registration = &connection.registration;
    assert_eq!(
        (registration.app.as_str(), registration.service.as_str()),
        ("shop", "web")
    );
    assert_eq!(registration.instance, "baetyl-edge.shop.1.web.1");
    assert_eq!(
        (registration.concurrency, registration.functions.len()),
        (4, 1)
    );
    connection.invoke(9, b"hello").await;
    match connection.next().await {
        Some(Up::Result(result)) => {
            assert_eq!((result.invocation, &result.payload[..]), (9, &b"hello"[..]))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_cancel_reaches_the_invocation_and_a_dropped_one_is_a_failure() {
    let mut world = World::new(60_000).await;
    let mut connection = world.connection().await;
    connection.invoke(1, b"hold").await;
    let call = world.held().await;
    assert!(!call.cancelled.is_cancelled());
    connection
        .send(Down::Cancel(Cancel { invocation: 1 }))
        .await;
    tokio::time::timeout(PATIENCE, call.cancelled.cancelled())
        .await
        .unwrap();
    drop(call);
    match connection.next().await {
        Some(Up::Failure(failure)) => assert_eq!(failure.kind, i32::from(Kind::Worker)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn when_the_proxy_goes_open_invocations_are_cancelled_and_the_runtime_comes_back() {
    let mut world = World::new(60_000).await;
    let connection = world.connection().await;
    connection.invoke(1, b"hold").await;
    let call = world.held().await;
    drop(connection);
    world.kit.stop(PATIENCE).await.unwrap();
    tokio::time::timeout(PATIENCE, call.cancelled.cancelled())
        .await
        .unwrap();
    let _again = proxy(world.dir.path(), &world.sender, 60_000).await;
    let mut connection = world.connection().await;
    connection.invoke(1, b"hello").await;
    assert!(matches!(connection.next().await, Some(Up::Result(_))));
}

#[tokio::test]
async fn heartbeats_flow_and_a_silent_proxy_is_left() {
    let mut world = World::new(100).await;
    let mut connection = world.connection().await;
    assert!(matches!(connection.next().await, Some(Up::Heartbeat(_))));
    // This proxy never says a word: the runtime hangs up and comes again.
    let second = world.connection().await;
    assert_eq!(second.registration.app, "shop");
}

#[tokio::test]
async fn asked_to_stop_it_takes_no_more_but_finishes_what_it_has() {
    let mut world = World::new(60_000).await;
    let mut connection = world.connection().await;
    connection.invoke(1, b"hold").await;
    let call = world.held().await;
    world.stop.cancel();
    match connection.next().await {
        Some(Up::Registration(registration)) => assert_eq!(registration.concurrency, 0),
        other => panic!("{other:?}"),
    }
    assert!(!call.cancelled.is_cancelled() && !world.running.is_finished());
    call.answer
        .result(Bytes::from_static(b"last"), BTreeMap::new())
        .await;
    match connection.next().await {
        Some(Up::Result(result)) => assert_eq!(&result.payload[..], b"last"),
        other => panic!("{other:?}"),
    }
    tokio::time::timeout(PATIENCE, world.running)
        .await
        .unwrap()
        .unwrap();
}
