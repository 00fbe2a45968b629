//! Deadlines, cancellation, what may wait, and applications that have to be started.

use std::time::Duration;

use baetyl_kit::grpc::unary_within;
use baetyl_proto::function::failure::Kind;
use baetyl_proto::function::register_request::Message as Up;
use baetyl_proto::function::{InvokeRequest, InvokeStreamRequest};
use tonic::{Code, Status};

use super::*;

fn invoke() -> InvokeRequest {
    InvokeRequest {
        service: "greet".to_owned(),
        ..InvokeRequest::default()
    }
}

#[tokio::test]
async fn a_caller_is_answered_at_its_deadline_and_the_place_is_free_when_the_runtime_says_so() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let calling = world.send(
        Method::POST,
        "/greet",
        &[("x-baetyl-timeout-ms", "50")],
        "slow",
    );
    let (answer, slow) = tokio::join!(calling, runtime.invocation());
    assert!((1..=50).contains(&slow.deadline_ms));
    let (status, code, message) = answer.error();
    assert_eq!((status, code.as_str()), (504, "ERR_DEADLINE"));
    assert!(
        message.contains("function f of service greet") && message.contains("50ms"),
        "{message}"
    );
    let serving = async {
        world
            .until_metric(r#"baetyl_function_proxy_calls_queued{app="greet"} 1"#)
            .await;
        // No cancellation came: the runtime knew the deadline.
        runtime.fail(slow.invocation, Kind::Deadline, "").await;
        let next = runtime.invocation().await;
        runtime.answer(next.invocation, "next").await;
    };
    let (answer, ()) = tokio::join!(world.post("/greet", ""), serving);
    assert_eq!(answer.body(), b"next");
}

#[tokio::test]
async fn a_deadline_also_ends_a_wait() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let serving = async {
        let running = runtime.invocation().await;
        let waiting = world.send(Method::POST, "/greet", &[("x-baetyl-timeout-ms", "30")], "");
        assert_eq!(waiting.await.error().0, 504);
        runtime.answer(running.invocation, "").await;
    };
    tokio::join!(world.post("/greet", ""), serving);
    world
        .until_metric(r#"baetyl_function_proxy_calls_queued{app="greet"} 0"#)
        .await;
    world
        .until_metric(r#"baetyl_function_proxy_calls_total{app="greet",outcome="deadline"} 1"#)
        .await;
}

#[tokio::test]
async fn the_functions_own_limit_bounds_what_callers_ask_for() {
    let world = World::new(&[("greet", "anonymous")], |config| {
        config.call.timeout = Duration::from_secs(7);
        config.call.max_timeout = Duration::from_secs(70);
    })
    .await;
    let mut registration = runtime::registration("greet", "greet.1", &["f", "g"], 4);
    registration.functions[1].timeout_ms = 3000;
    let token = world.token("greet");
    let mut runtime = Runtime::connect(&world, Some(&token), Up::Registration(registration))
        .await
        .unwrap();
    let cases = [
        ("/greet/f", None, 7_000),
        ("/greet/f", Some("2000"), 2_000),
        ("/greet/f", Some("60000"), 60_000),
        ("/greet/f", Some("600000"), 70_000),
        ("/greet/g", None, 3_000),
        ("/greet/g", Some("60000"), 3_000),
        ("/greet/g", Some("1000"), 1_000),
    ];
    for (path, asked, expected) in cases {
        let headers: Vec<_> = asked
            .map(|asked| ("x-baetyl-timeout-ms", asked))
            .into_iter()
            .collect();
        let serving = async {
            let invocation = runtime.invocation().await;
            runtime.answer(invocation.invocation, "").await;
            invocation.deadline_ms
        };
        let (_, told) = tokio::join!(world.send(Method::GET, path, &headers, ""), serving);
        assert!(
            told <= expected && told > expected - 900,
            "{path} {asked:?}: {told}"
        );
    }
}

#[tokio::test]
async fn over_grpc_the_callers_deadline_counts_and_names_the_function() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let (mut client, _) = world.grpc(None);
    let calling = client.invoke(unary_within(Duration::from_millis(400), invoke()));
    let (answer, seen) = tokio::join!(calling, runtime.invocation());
    assert!(seen.deadline_ms <= 400);
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(
        status.message().contains("function f of service greet"),
        "{}",
        status.message()
    );
}

#[tokio::test]
async fn a_caller_that_goes_cancels_what_runs_and_leaves_the_queue() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let caller = |payload: &'static str| {
        let mut client = world.grpc(None).0;
        let request = InvokeRequest {
            payload: Bytes::from_static(payload.as_bytes()),
            ..invoke()
        };
        tokio::spawn(async move { client.invoke(request).await })
    };
    let running = caller("running");
    let invocation = runtime.invocation().await;
    let waiting = caller("waiting");
    world
        .until_metric(r#"baetyl_function_proxy_calls_queued{app="greet"} 1"#)
        .await;
    waiting.abort();
    world
        .until_metric(r#"baetyl_function_proxy_calls_queued{app="greet"} 0"#)
        .await;
    running.abort();
    assert_eq!(runtime.cancelled().await, invocation.invocation);
    // Its place is taken until the runtime has ended it.
    world
        .until_metric(r#"baetyl_function_proxy_calls_in_flight{app="greet"} 1"#)
        .await;
    runtime
        .fail(invocation.invocation, Kind::Cancelled, "")
        .await;
    world
        .until_metric(r#"baetyl_function_proxy_calls_in_flight{app="greet"} 0"#)
        .await;
    world
        .until_metric(r#"baetyl_function_proxy_calls_total{app="greet",outcome="abandoned"} 2"#)
        .await;
}

#[tokio::test]
async fn an_http_caller_that_hangs_up_cancels_its_call() {
    use tokio::io::AsyncWriteExt as _;
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let mut stream = tokio::net::TcpStream::connect(world.address("http"))
        .await
        .unwrap();
    stream
        .write_all(b"GET /greet HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let invocation = runtime.invocation().await;
    drop(stream);
    assert_eq!(runtime.cancelled().await, invocation.invocation);
}

#[tokio::test]
async fn a_full_queue_is_said_at_once() {
    let world = World::new(&[("greet", "anonymous")], |config| config.queue.length = 1).await;
    let mut runtime = world.runtime("greet", 1).await;
    let running = world.post("/greet", "");
    let serving = async {
        let invocation = runtime.invocation().await;
        let rest = async {
            world
                .until_metric(r#"baetyl_function_proxy_calls_queued{app="greet"} 1"#)
                .await;
            let refused = world.post("/greet", "").await;
            assert_eq!(refused.header("retry-after"), "1");
            let (status, code, message) = refused.error();
            assert_eq!((status, code.as_str()), (429, "ERR_QUEUE_FULL"));
            assert!(message.contains("greet"), "{message}");
            let refused = world.grpc(None).0.invoke(invoke()).await.unwrap_err();
            assert_eq!(refused.code(), Code::ResourceExhausted);
            runtime.answer(invocation.invocation, "").await;
            let next = runtime.invocation().await;
            runtime.answer(next.invocation, "").await;
        };
        let (waited, ()) = tokio::join!(world.post("/greet", ""), rest);
        assert_eq!(waited.status(), 200);
    };
    tokio::join!(running, serving);
}

#[tokio::test]
async fn payloads_have_room_of_a_fixed_size() {
    let world = World::new(&[("greet", "anonymous")], |config| {
        config.queue.memory.0 = 1000
    })
    .await;
    let mut runtime = world.runtime("greet", 4).await;
    let serving = async {
        let invocation = runtime.invocation().await;
        let (status, code, _) = world.post("/greet", vec![0; 500]).await.error();
        assert_eq!((status, code.as_str()), (429, "ERR_QUEUE_FULL"));
        runtime.answer(invocation.invocation, "").await;
    };
    tokio::join!(world.post("/greet", vec![0; 600]), serving);
    // The room is free again.
    let _echo = runtime.echo();
    assert_eq!(world.post("/greet", vec![b'x'; 1000]).await.status(), 200);
    assert_eq!(world.post("/greet", vec![b'x'; 1001]).await.status(), 429);
}

#[tokio::test]
async fn a_slow_reader_does_not_hold_up_the_others_for_ever() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 2).await;
    let mut client = world.grpc(None).0;
    let pieces = client
        .invoke_stream(InvokeStreamRequest {
            request: Some(invoke()),
        })
        .await
        .unwrap()
        .into_inner();
    let id = runtime.invocation().await.invocation;
    // Fills what lies between: the caller reads nothing.
    let flooding = async {
        for _ in 0..40 {
            runtime.chunk(id, vec![0; 1 << 20]).await;
        }
        runtime.cancelled().await
    };
    assert_eq!(tokio::time::timeout(PATIENCE, flooding).await.unwrap(), id);
    runtime.fail(id, Kind::Cancelled, "").await;
    let _echo = runtime.echo();
    assert_eq!(world.post("/greet", "hi").await.body(), b"hi");
    drop(pieces);
}

#[tokio::test]
async fn an_application_without_runtime_is_started_once_and_waited_for() {
    let world = World::greet().await;
    let calls = async { tokio::join!(world.post("/greet", "a"), world.post("/greet", "b")) };
    let starting = async {
        world
            .until_metric(r#"baetyl_function_proxy_calls_queued{app="greet"} 2"#)
            .await;
        eventually!(!world.engine.started.lock().unwrap().is_empty());
        world.runtime("greet", 1).await.echo()
    };
    let ((a, b), _echo) = tokio::join!(calls, starting);
    assert_eq!((a.body(), b.body()), (&b"a"[..], &b"b"[..]));
    assert_eq!(*world.engine.started.lock().unwrap(), ["greet"]);
}

#[tokio::test]
async fn the_wait_for_a_runtime_has_an_end_that_says_why() {
    let world = World::new(&[("greet", "anonymous")], |config| {
        config.call.start_wait = Duration::from_millis(50)
    })
    .await;
    *world.engine.refuse_start.lock().unwrap() = Some(Status::unavailable("busy with an update"));
    eventually!({
        let (status, code, message) = world.post("/greet", "").await.error();
        assert_eq!((status, code.as_str()), (503, "ERR_GET_GRPC_CONN"));
        assert!(message.contains("no runtime of service greet"), "{message}");
        message.contains("busy with an update")
    });
}

#[tokio::test]
async fn what_engine_cannot_start_is_not_waited_for() {
    let world = World::new(&[("greet", "anonymous")], |config| {
        config.call.start_wait = PATIENCE * 10
    })
    .await;
    *world.engine.refuse_start.lock().unwrap() = Some(Status::failed_precondition("it crashes"));
    let (status, _, message) = world.post("/greet", "").await.error();
    assert_eq!(status, 503);
    assert!(
        message.contains("cannot be started") && message.contains("it crashes"),
        "{message}"
    );
    let status = world.grpc(None).0.invoke(invoke()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn functions_without_an_instance_are_known_and_started() {
    let world = World::new(&[], |_| ()).await;
    *world.engine.refuse_start.lock().unwrap() =
        Some(Status::failed_precondition("it is being fetched"));
    world.tell(vec![AppEndpoint {
        instance: String::new(),
        ready: false,
        ..endpoint("greet", &["f"], "anonymous")
    }]);
    // 404 until the table is there, then what engine says.
    eventually!(world.post("/greet", "").await.status() != 404);
    let (status, _, message) = world.post("/greet", "").await.error();
    assert_eq!(status, 503);
    assert!(message.contains("it is being fetched"), "{message}");
    assert_eq!(
        world.engine.started.lock().unwrap().first().unwrap(),
        "greet"
    );
}

#[tokio::test]
async fn many_callers_at_once_each_get_their_own_answer() {
    let world = World::greet().await;
    let _one = world.runtime("greet", 3).await.echo();
    let _two = Runtime::register(&world, "greet", "greet.2", &["f"], 2)
        .await
        .unwrap()
        .echo();
    let calls = (0..64).map(|number| {
        let world = &world;
        async move {
            let text = format!("call {number}");
            assert_eq!(
                world.post("/greet", text.clone()).await.body(),
                text.as_bytes()
            );
        }
    });
    futures_util::future::join_all(calls).await;
    world
        .until_metric(r#"baetyl_function_proxy_calls_total{app="greet",outcome="ok"} 64"#)
        .await;
    world
        .until_metric(r#"baetyl_function_proxy_calls_in_flight{app="greet"} 0"#)
        .await;
}
