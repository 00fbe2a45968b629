use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use baetyl_kit::Kit;
use baetyl_kit::backoff::Backoff;
use baetyl_kit::grpc::{self, Authorize, CallerInfo, Client, Connect, Endpoint, Server};
use baetyl_kit::listen::{Listen, Peer, PeerAddr};
use baetyl_kit::trace::TraceContext;
use baetyl_kit::watch_stream;
use baetyl_testkit::{Capture, PATIENCE, TestDir, eventually, until};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{FILE_DESCRIPTOR_SET, HealthCheckRequest};

use tower::ServiceExt as _;

use crate::echo::{self, Echo};

const DRAIN: Duration = Duration::from_secs(20);

struct World {
    dir: TestDir,
    kit: Kit,
    listen: Listen,
}

impl World {
    fn new() -> Self {
        let dir = TestDir::new();
        let kit = Kit::for_test(dir.path());
        let listen = Listen::Unix(kit.core_socket("echo"));
        Self { dir, kit, listen }
    }

    fn server(&self) -> Server {
        server(&self.kit)
    }

    /// A server on the socket, and a client in the role `sync`.
    async fn with(server: impl FnOnce(Server) -> Server) -> (Self, Client) {
        let world = Self::new();
        server(world.server()).serve(&world.listen).await.unwrap();
        let client = world.client();
        (world, client)
    }

    fn client(&self) -> Client {
        grpc::connect_lazy(&Endpoint::from(&self.listen), "sync").unwrap()
    }

    async fn stop(self) {
        self.kit.stop(DRAIN).await.unwrap();
        drop(self.dir);
    }
}

fn server(kit: &Kit) -> Server {
    Server::new(kit, "echo")
        .add_service(Echo::default())
        .reflection(FILE_DESCRIPTOR_SET)
}

fn allowed(server: Server) -> Server {
    server.authorize(grpc::same_user())
}

fn text(text: &str) -> Request<String> {
    grpc::unary(text.to_owned())
}

async fn say(client: &Client, words: &str) -> Result<String, Status> {
    echo::call(client, "/test.Echo/Say", text(words)).await
}

#[tokio::test]
async fn without_an_authorisation_function_nobody_may_call() {
    let (world, client) = World::with(|server| server).await;
    let status = say(&client, "hello").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    world.stop().await;
}

#[tokio::test]
async fn our_own_user_calls_in_the_role_it_names() {
    let (world, client) = World::with(allowed).await;
    let answer = say(&client, "hello").await.unwrap();
    assert!(
        answer.starts_with("sync||") && answer.ends_with("|hello"),
        "{answer}"
    );
    world.stop().await;
}

#[tokio::test]
async fn the_authorisation_function_sees_uid_path_and_metadata_and_its_answer_reaches_the_handler()
{
    let own = rustix::process::geteuid().as_raw();
    let authorize: Authorize = Arc::new(move |peer, path, headers| {
        if peer.uid() != Some(own) || path != "/test.Echo/Say" {
            return Err(Status::permission_denied("not this one"));
        }
        let token = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        match token {
            Some("Bearer t0ken") => Ok(CallerInfo::new("app").subject("shop/web")),
            _ => Err(Status::unauthenticated("a token is wanted")),
        }
    });
    let world = World::new();
    world
        .server()
        .authorize(authorize)
        .open_to_apps()
        .serve(&world.listen)
        .await
        .unwrap();
    let connect = Connect::new(Endpoint::from(&world.listen));
    let anonymous = connect.clone().lazy().unwrap();
    let app = connect.bearer("t0ken").lazy().unwrap();
    assert_eq!(
        say(&anonymous, "x").await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert!(say(&app, "x").await.unwrap().starts_with("app|shop/web|"));
    let other = echo::call(&app, "/test.Echo/Panic", text("x")).await;
    assert_eq!(other.unwrap_err().code(), Code::PermissionDenied);
    world.stop().await;
}

#[tokio::test]
async fn health_follows_the_latches_and_needs_no_permission() {
    let (world, client) = World::with(|server| server).await;
    let mut health = HealthClient::new(client);
    let ask = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let latch = world.kit.readiness().register("identity");
    let mut watch = health.watch(ask("test.Echo")).await.unwrap().into_inner();
    let mut seen = async || watch.next().await.unwrap().unwrap().status();
    assert_eq!(seen().await, ServingStatus::NotServing);
    for service in ["", "test.Echo"] {
        let status = health.check(ask(service)).await.unwrap().into_inner();
        assert_eq!(status.status(), ServingStatus::NotServing);
    }
    latch.ready();
    assert_eq!(seen().await, ServingStatus::Serving);
    let status = health.check(ask("")).await.unwrap().into_inner();
    assert_eq!(status.status(), ServingStatus::Serving);
    let unknown = health.check(ask("test.Other")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    drop(watch);
    world.stop().await;
}

macro_rules! reflected {
    ($client:expr, $version:ident) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new($client);
        let requests = tokio_stream::once(request);
        let mut answers = client
            .server_reflection_info(requests)
            .await
            .unwrap()
            .into_inner();
        match answers.next().await.unwrap().unwrap().message_response {
            Some(MessageResponse::ListServicesResponse(list)) => list
                .service
                .into_iter()
                .map(|service| service.name)
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn reflection_answers_in_both_versions_and_needs_no_permission() {
    let (world, client) = World::with(|server| server).await;
    let v1 = reflected!(client.clone(), v1);
    let v1alpha = reflected!(client, v1alpha);
    for names in [v1, v1alpha] {
        assert!(
            names.contains(&"grpc.health.v1.Health".to_owned()),
            "{names:?}"
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn the_trace_of_the_caller_goes_on_in_the_service() {
    let (world, client) = World::with(allowed).await;
    let trace = TraceContext::root();
    let answer = trace.scope(say(&client, "x")).await.unwrap();
    assert!(
        answer.contains(&format!("|{}|", trace.trace_id())),
        "{answer}"
    );
    let alone = say(&client, "x").await.unwrap();
    let own = alone.split('|').nth(2).unwrap();
    assert!(own.len() == 32 && own != trace.trace_id(), "{alone}");
    world.stop().await;
}

/// How many calls ended with this status.
fn ended(kit: &Kit, code: &str) -> String {
    let start = format!("baetyl_test_grpc_server_calls_total{{server=\"echo\",code=\"{code}\"}} ");
    let page = kit.metrics().render();
    let line = page.lines().find_map(|line| line.strip_prefix(&start));
    line.expect("every status is on the page").to_owned()
}

/// A call as it comes in. No client, which would give up at the same moment.
async fn hang(server: Server, timeout: Option<&str>) -> Code {
    let addr = PeerAddr::Tcp(([127, 0, 0, 1], 1).into());
    let mut request = http::Request::post("/test.Echo/Hang")
        .header("content-type", "application/grpc")
        .extension(Peer::new(addr));
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    // An empty message: five bytes of frame.
    let request = request.body(axum::body::Body::from(vec![0; 5])).unwrap();
    let authorize: Authorize = Arc::new(|_, _, _| Ok(CallerInfo::new("admin")));
    let router = server.authorize(authorize).into_router();
    let response = router.oneshot(request).await.unwrap();
    let status = response.headers().get("grpc-status").unwrap();
    Code::from_bytes(status.as_bytes())
}

#[tokio::test(start_paused = true)]
async fn a_call_past_its_deadline_is_given_up_by_the_server() {
    let dir = TestDir::new();
    let kit = Kit::for_test(dir.path());
    let code = hang(server(&kit), Some("20S")).await;
    assert_eq!(code, Code::DeadlineExceeded);
    assert_eq!(ended(&kit, "DeadlineExceeded"), "1");
}

/// Says that `test.Echo/Hang` is unary.
fn descriptors() -> &'static [u8] {
    use prost::Message as _;
    use prost_types::{
        FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
    };
    let method = MethodDescriptorProto {
        name: Some("Hang".to_owned()),
        ..MethodDescriptorProto::default()
    };
    let service = ServiceDescriptorProto {
        name: Some("Echo".to_owned()),
        method: vec![method],
        ..ServiceDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        package: Some("test".to_owned()),
        service: vec![service],
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }
        .encode_to_vec()
        .leak()
}

#[tokio::test(start_paused = true)]
async fn a_unary_call_without_a_deadline_is_given_up_unless_its_method_has_one_of_its_own() {
    let dir = TestDir::new();
    let kit = Kit::for_test(dir.path());
    let described = || server(&kit).reflection(descriptors());
    let begin = tokio::time::Instant::now();
    assert_eq!(hang(described(), None).await, Code::DeadlineExceeded);
    assert_eq!(begin.elapsed(), grpc::UNANSWERED_DEADLINE);

    let own = hang(described().own_deadlines(&["/test.Echo/Hang"]), None);
    let waited = tokio::time::timeout(grpc::UNANSWERED_DEADLINE * 10, own).await;
    assert!(waited.is_err(), "the shell gave up: {waited:?}");
}

#[tokio::test]
async fn every_call_is_counted_once_by_how_it_ended() {
    let (world, client) = World::with(allowed).await;
    say(&client, "x").await.unwrap();
    let missing = echo::call(&client, "/test.Echo/Missing", text("x")).await;
    assert_eq!(missing.unwrap_err().code(), Code::Unimplemented);
    let unknown = echo::call(&client, "/test.Nowhere/Say", text("x")).await;
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
    let mut stream = echo::watch(&client).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    eventually!(ended(&world.kit, "Cancelled") == "1");
    assert_eq!(ended(&world.kit, "Ok"), "1");
    assert_eq!(ended(&world.kit, "Unimplemented"), "2");
    world.stop().await;
}

#[tokio::test]
async fn a_panicking_handler_costs_its_call_and_nothing_else() {
    let capture = Capture::start();
    let (world, client) = World::with(allowed).await;
    let status = echo::call(&client, "/test.Echo/Panic", text("x"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(capture.text().contains("the handler broke"), "{capture:?}");
    say(&client, "still there").await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn stopping_ends_watches_and_does_not_wait_for_them() {
    let (world, client) = World::with(allowed).await;
    let mut stream = echo::watch(&client).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "first");
    world.kit.stop(DRAIN).await.unwrap();
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(!world.kit.core_socket("echo").exists());
}

#[tokio::test]
async fn the_drain_deadline_ends_calls_that_hang() {
    let world = World::new();
    let echo = Echo::default();
    let server = Server::new(&world.kit, "echo").add_service(echo.clone());
    allowed(server).serve(&world.listen).await.unwrap();
    let client = world.client();
    let request = grpc::unary_within(Duration::from_secs(3600), String::new());
    let hanging =
        tokio::spawn(async move { echo::call(&client, "/test.Echo/Hang", request).await });
    eventually!(echo.hanging.load(Ordering::Relaxed) == 1);
    let failure = world.kit.stop(Duration::from_millis(50)).await.unwrap_err();
    assert!(failure.to_string().ends_with("test/echo"), "{failure}");
    let ended = tokio::time::timeout(PATIENCE, hanging).await;
    assert!(ended.expect("the call ends").unwrap().is_err());
    assert!(world.kit.tasks().running().is_empty());
    eventually!(
        Arc::strong_count(&echo.hanging) == 1,
        "nothing of the server is left"
    );
}

#[tokio::test]
async fn a_client_and_a_watch_survive_the_restart_of_their_server() {
    let world = World::new();
    let client = world.client();
    assert_eq!(
        say(&client, "too early").await.unwrap_err().code(),
        Code::Unavailable
    );
    let watcher = client.clone();
    let backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(20));
    let mut events = watch_stream::events(
        world.kit.tasks(),
        "watch-echo",
        backoff,
        16,
        move |_: Option<()>| {
            let client = watcher.clone();
            async move { echo::watch(&client).await }
        },
        |_| None,
    );
    for round in 0..2 {
        let role = world.kit.child("role");
        allowed(server(&role)).serve(&world.listen).await.unwrap();
        let answer = until(PATIENCE, "the client reconnects", || say(&client, "hello")).await;
        assert!(answer.ends_with("|hello"), "round {round}: {answer}");
        loop {
            match events.recv().await.unwrap() {
                watch_stream::Event::Item(item) => break assert_eq!(item, "first"),
                watch_stream::Event::Opened { .. } | watch_stream::Event::Lost(_) => {}
            }
        }
        role.stop(DRAIN).await.unwrap();
    }
    world.stop().await;
}

#[tokio::test]
async fn a_tcp_server_writes_its_address_and_serves_http_beside_grpc() {
    let dir = TestDir::new();
    let kit = Kit::for_test(dir.path());
    let router = Router::new().route("/hello", get(|| async { "hello" }));
    let authorize: Authorize = Arc::new(|_, _, _| Ok(CallerInfo::new("admin")));
    let bound = server(&kit)
        .authorize(authorize)
        .http(router)
        .serve(&Listen::loopback())
        .await
        .unwrap();
    let written = std::fs::read_to_string(dir.join("run/echo.addr")).unwrap();
    assert_eq!(written.trim(), bound.to_string());
    let client = grpc::connect_lazy(&Endpoint::from(&bound), "admin").unwrap();
    say(&client, "over tcp").await.unwrap();
    let page = crate::process::http_get(written.trim(), "/hello")
        .await
        .unwrap();
    assert!(
        page.starts_with("HTTP/1.1 200") && page.ends_with("hello"),
        "{page}"
    );
    let missing = crate::process::http_get(written.trim(), "/other")
        .await
        .unwrap();
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    kit.stop(DRAIN).await.unwrap();
}
