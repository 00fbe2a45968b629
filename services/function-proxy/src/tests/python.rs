//! The whole way: a caller, the proxy, the runtime host, a Python worker and back.

use std::sync::Arc;
use std::time::Duration;

use baetyl_proto::function::InvokeRequest;
use baetyl_runtime_host::{Args, DoorArgs};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::*;

const CODE: &str = "
import os, time

def hello(event, context):
    return {'hello': event['name'], 'by': context['functionName'], 'method': context.get('httpMethod')}

def reverse(event, context):
    return event[::-1]

def nothing(event, context):
    context['http.status'] = 204

def fail(event, context):
    raise ValueError('no %s today' % event['what'])

def pid(event, context):
    return os.getpid()

def slow(event, context):
    print('begun', flush=True)
    time.sleep(600)

def crash(event, context):
    os._exit(7)

def count(event, context):
    for number in range(event):
        yield {'number': number}
";

const FUNCTIONS: [&str; 8] = [
    "hello", "reverse", "nothing", "fail", "pid", "slow", "crash", "count",
];

/// A runtime with the code above, as application `py`.
struct Python {
    log: std::path::PathBuf,
    stop: CancellationToken,
    running: Option<AbortOnDropHandle<()>>,
}

impl Python {
    async fn start(world: &World, workers: u16) -> Self {
        let dir = &world.dir;
        dir.write("py/code/index.py", CODE);
        let functions: Vec<_> = FUNCTIONS
            .map(|name| serde_json::json!({"name": name, "handler": format!("index.{name}"), "codedir": "."}))
            .into();
        let functions = serde_json::json!({ "functions": functions });
        let log = dir.write("py/log", "");
        let args = Args {
            door: DoorArgs {
                socket: Some(world.kit.app_socket("function-proxy")),
                address: None,
                ca_file: None,
                cert_file: None,
                key_file: None,
                service: None,
                instance: None,
                token_file: dir.write("py/token", world.token("py")),
                functions_file: dir.write("py/conf.yml", functions.to_string()),
                drain_seconds: 10,
                log: String::new(),
            },
            code: dir.join("py/code"),
            workers,
            load_seconds: 60,
        };
        let file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let stop = stop.clone();
            async move {
                let language = baetyl_runtime_python::language("python3", Some(file));
                baetyl_runtime_host::run(&args, language, &stop)
                    .await
                    .unwrap();
            }
        });
        Self {
            log,
            stop,
            running: Some(AbortOnDropHandle::new(running)),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn until_slow_runs(&self) {
        eventually!(self.log().contains("begun"), "the function runs");
    }
}

async fn world(workers: u16) -> (World, Python) {
    let world = World::silent(|_| ()).await;
    world.tell(vec![endpoint("py", &FUNCTIONS, "anonymous")]);
    world.kit.readiness().until_ready().await;
    let python = Python::start(&world, workers).await;
    (world, python)
}

#[tokio::test]
async fn json_and_bytes_go_in_and_come_out() {
    let (world, _python) = world(1).await;
    let answer = world.post("/py", r#"{"name": "Ada"}"#).await;
    let json: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    let expected = serde_json::json!({"hello": "Ada", "by": "hello", "method": "POST"});
    assert_eq!(
        (json, answer.header("content-type")),
        (expected, "application/json")
    );
    let answer = world.post("/py/reverse", &b"\x01\x02\xff"[..]).await;
    assert_eq!(
        (answer.status(), answer.body()),
        (200, &b"\xff\x02\x01"[..])
    );
    let answer = world.post("/py/nothing", "").await;
    assert_eq!((answer.status(), answer.body()), (204, &b""[..]));
    assert_eq!(world.post("/py/other", "").await.status(), 404);
}

#[tokio::test]
async fn the_same_over_grpc_and_for_callers_of_v2() {
    let (world, _python) = world(1).await;
    let (mut own, mut v2) = world.grpc(None);
    let request = InvokeRequest {
        service: "py".to_owned(),
        function: "reverse".to_owned(),
        payload: Bytes::from_static(b"\x00\xff"),
        ..InvokeRequest::default()
    };
    let answer = own.invoke(request).await.unwrap().into_inner();
    assert_eq!(&answer.payload[..], b"\xff\x00");
    let metadata = |function: &str| pairs(&[("serviceName", "py"), ("functionName", function)]);
    let message = |function: &str, payload: &'static [u8]| baetyl_proto::faas::Message {
        id: 1,
        metadata: metadata(function),
        payload: Bytes::from_static(payload),
    };
    let answer = v2
        .call(message("hello", br#"{"name": "Bob"}"#))
        .await
        .unwrap()
        .into_inner();
    assert!(answer.payload.starts_with(br#"{"hello": "Bob""#));
    let status = v2
        .call(message("fail", br#"{"what": "luck"}"#))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    assert_eq!(
        status.message(),
        "[UserCodeInvoke] function fail of service py failed: ValueError: no luck today"
    );
}

#[tokio::test]
async fn an_exception_is_named_to_the_caller_and_traced_in_the_log_only() {
    let (world, python) = world(1).await;
    let (status, code, message) = world.post("/py/fail", r#"{"what": "luck"}"#).await.error();
    assert_eq!((status, code.as_str()), (500, "ERR_FUNCTION_CALL"));
    assert_eq!(
        message,
        "function fail of service py failed: ValueError: no luck today"
    );
    assert!(python.log().contains("Traceback") && python.log().contains("index.py"));
}

#[tokio::test]
async fn past_the_deadline_the_worker_is_replaced() {
    let (world, _python) = world(1).await;
    let before = world.post("/py/pid", "").await;
    let slow = world
        .send(
            Method::POST,
            "/py/slow",
            &[("x-baetyl-timeout-ms", "200")],
            "",
        )
        .await;
    let (status, _, message) = slow.error();
    assert!(
        status == 504 && message.contains("function slow of service py"),
        "{message}"
    );
    let after = world.post("/py/pid", "").await;
    assert_eq!(after.status(), 200);
    assert_ne!(before.body(), after.body());
}

#[tokio::test]
async fn when_the_caller_goes_the_handler_is_interrupted_and_the_worker_stays() {
    let (world, python) = world(1).await;
    let before = world.post("/py/pid", "").await;
    let mut client = world.grpc(None).0;
    let request = InvokeRequest {
        service: "py".to_owned(),
        function: "slow".to_owned(),
        ..InvokeRequest::default()
    };
    let calling = AbortOnDropHandle::new(tokio::spawn(async move { client.invoke(request).await }));
    python.until_slow_runs().await;
    drop(calling);
    assert_eq!(world.post("/py/pid", "").await.body(), before.body());
}

#[tokio::test]
async fn a_crash_fails_one_call() {
    let (world, _python) = world(1).await;
    let (status, _, message) = world.post("/py/crash", "").await.error();
    assert!(
        status == 502 && message.contains("exit status 7"),
        "{message}"
    );
    assert_eq!(world.post("/py/reverse", "[1, 2]").await.body(), b"[2, 1]");
}

#[tokio::test]
async fn workers_share_the_calls() {
    let (world, python) = world(2).await;
    let slow = world.send(
        Method::POST,
        "/py/slow",
        &[("x-baetyl-timeout-ms", "3000")],
        "",
    );
    let others = async {
        python.until_slow_runs().await;
        for _ in 0..10 {
            assert_eq!(world.post("/py/reverse", "[1, 2]").await.body(), b"[2, 1]");
        }
    };
    let (slow, ()) = tokio::join!(slow, others);
    assert_eq!(slow.status(), 504);
}

#[tokio::test]
async fn a_generator_streams_to_a_caller_that_streams() {
    use baetyl_proto::function::InvokeStreamRequest;
    let (world, _python) = world(1).await;
    let request = InvokeRequest {
        service: "py".to_owned(),
        function: "count".to_owned(),
        payload: Bytes::from_static(b"50"),
        ..InvokeRequest::default()
    };
    let request = InvokeStreamRequest {
        request: Some(request),
    };
    let mut pieces = world
        .grpc(None)
        .0
        .invoke_stream(request)
        .await
        .unwrap()
        .into_inner();
    for number in 0..50 {
        let piece = pieces.message().await.unwrap().unwrap();
        assert_eq!(piece.chunk, format!("{{\"number\": {number}}}"));
    }
    assert!(pieces.message().await.unwrap().unwrap().chunk.is_empty());
    assert!(pieces.message().await.unwrap().is_none());
}

#[tokio::test]
async fn four_mebibytes_go_through_python_and_back() {
    let (world, _python) = world(1).await;
    let most = vec![0xfe; crate::reply::MAX_PAYLOAD];
    let answer = world.post("/py/reverse", most.clone()).await;
    assert_eq!((answer.status(), answer.body().len()), (200, most.len()));
}

#[tokio::test]
async fn after_a_restart_of_the_proxy_the_runtime_comes_back_with_the_same_worker() {
    let (mut world, _python) = world(1).await;
    let before = world.post("/py/pid", "").await;
    world.restart().await;
    world.kit.readiness().until_ready().await;
    let after = world.post("/py/pid", "").await;
    assert_eq!((after.status(), after.body()), (200, before.body()));
}

#[tokio::test]
async fn a_runtime_that_is_stopped_ends_what_it_runs_first() {
    let (world, mut python) = world(1).await;
    assert_eq!(world.post("/py/nothing", "").await.status(), 204);
    let world = Arc::new(world);
    let slow = tokio::spawn({
        let world = Arc::clone(&world);
        async move {
            world
                .send(
                    Method::POST,
                    "/py/slow",
                    &[("x-baetyl-timeout-ms", "1000")],
                    "",
                )
                .await
        }
    });
    python.until_slow_runs().await;
    python.stop.cancel();
    assert_eq!(slow.await.unwrap().status(), 504);
    let ended = tokio::time::timeout(Duration::from_secs(9), python.running.take().unwrap()).await;
    ended.expect("it waited for its drain deadline").unwrap();
}
