//! Runtimes that come, go, are slow, or talk nonsense.

use baetyl_proto::function::register_request::Message as Up;
use baetyl_proto::function::register_response::Message as Down;
use baetyl_proto::function::{Heartbeat, Result as FunctionResult};
use tonic::Code;

use super::*;

async fn second(world: &World) -> Runtime {
    Runtime::register(world, "greet", "greet.2", &["f"], 4)
        .await
        .unwrap()
}

#[tokio::test]
async fn calls_go_to_the_least_loaded_runtime() {
    let world = World::greet().await;
    let (mut one, mut two) = (world.runtime("greet", 4).await, second(&world).await);
    let calls = async { tokio::join!(world.post("/greet", "a"), world.post("/greet", "b")) };
    let serving = async {
        let (first, second) = (one.invocation().await, two.invocation().await);
        one.answer(first.invocation, "one").await;
        two.answer(second.invocation, "two").await;
    };
    let ((a, b), ()) = tokio::join!(calls, serving);
    let mut bodies = [a.body(), b.body()];
    bodies.sort_unstable();
    assert_eq!(bodies, [b"one", b"two"]);
}

#[tokio::test]
async fn calls_one_after_the_other_go_round() {
    let world = World::greet().await;
    let (mut one, mut two) = (world.runtime("greet", 4).await, second(&world).await);
    for _ in 0..2 {
        for (runtime, name) in [(&mut one, "one"), (&mut two, "two")] {
            let serving = async {
                let invocation = runtime.invocation().await.invocation;
                runtime.answer(invocation, name).await;
            };
            let (answer, ()) = tokio::join!(world.post("/greet", "x"), serving);
            assert_eq!(answer.body(), name.as_bytes());
        }
    }
}

#[tokio::test]
async fn a_runtime_is_never_given_more_than_it_offers_and_calls_keep_their_order() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let first = world.post("/greet", "1");
    let serving = async {
        let running = runtime.invocation().await;
        let later = async {
            let two = world.post("/greet", "2");
            let three = async {
                world
                    .until_metric(r#"baetyl_function_proxy_calls_queued{app="greet"} 1"#)
                    .await;
                world.post("/greet", "3").await
            };
            tokio::join!(two, three)
        };
        let rest = async {
            world
                .until_metric(r#"baetyl_function_proxy_calls_queued{app="greet"} 2"#)
                .await;
            let mut running = running;
            for expected in ["1", "2", "3"] {
                assert_eq!(running.payload, expected);
                // Nothing else has come: the next message is the one after the answer.
                runtime.answer(running.invocation, expected).await;
                if expected != "3" {
                    running = runtime.invocation().await;
                }
            }
        };
        let ((two, three), ()) = tokio::join!(later, rest);
        assert_eq!((two.body(), three.body()), (&b"2"[..], &b"3"[..]));
    };
    let (first, ()) = tokio::join!(first, serving);
    assert_eq!(first.body(), b"1");
    world
        .until_metric(r#"baetyl_function_proxy_calls_in_flight{app="greet"} 0"#)
        .await;
}

#[tokio::test]
async fn when_a_runtime_goes_its_calls_fail_and_are_not_repeated() {
    let world = World::greet().await;
    let mut one = world.runtime("greet", 4).await;
    let calling = world.post("/greet", "once");
    let serving = async {
        one.invocation().await;
        let two = second(&world).await;
        drop(one);
        two
    };
    let (answer, mut two) = tokio::join!(calling, serving);
    let (status, code, message) = answer.error();
    assert_eq!((status, code.as_str()), (502, "ERR_FUNCTION_CALL"));
    assert!(
        message.contains("function f") && message.contains("went away"),
        "{message}"
    );
    // The first thing the other runtime hears is the next call.
    let serving = async {
        let invocation = two.invocation().await;
        assert_eq!(invocation.payload, "next");
        two.answer(invocation.invocation, "").await;
    };
    let (answer, ()) = tokio::join!(world.post("/greet", "next"), serving);
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn over_grpc_a_lost_runtime_is_unavailable() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let (mut client, _) = world.grpc(None);
    let request = baetyl_proto::function::InvokeRequest {
        service: "greet".to_owned(),
        ..Default::default()
    };
    let serving = async {
        runtime.invocation().await;
        drop(runtime);
    };
    let (answer, ()) = tokio::join!(client.invoke(request), serving);
    assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_function_only_one_version_has_goes_to_that_version() {
    let world = World::greet().await;
    world.tell(vec![endpoint("greet", &["f", "new"], "anonymous")]);
    let _old = world.runtime("greet", 4).await;
    let mut new = Runtime::register(&world, "greet", "greet.2", &["f", "new"], 1)
        .await
        .unwrap();
    let serving = async {
        let invocation = new.invocation().await;
        assert_eq!(invocation.function, "new");
        new.answer(invocation.invocation, "").await;
    };
    let (answer, ()) = tokio::join!(world.post("/greet/new", ""), serving);
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn an_instance_that_registers_again_replaces_its_old_connection() {
    let world = World::greet().await;
    let mut old = world.runtime("greet", 1).await;
    let _new = world.runtime("greet", 1).await.echo();
    assert_eq!(old.next().await.unwrap_err().code(), Code::Aborted);
    assert_eq!(world.post("/greet", "hi").await.body(), b"hi");
    world
        .until_metric(r#"baetyl_function_proxy_runtimes{app="greet"} 1"#)
        .await;
}

#[tokio::test]
async fn a_runtime_that_is_about_to_stop_gets_no_more_calls_but_ends_those_it_has() {
    let world = World::greet().await;
    let mut stopping = world.runtime("greet", 4).await;
    let calling = world.post("/greet", "last");
    let serving = async {
        let last = stopping.invocation().await;
        stopping
            .say(Up::Registration(runtime::registration(
                "greet",
                "greet.1",
                &["f"],
                0,
            )))
            .await;
        let _echo = second(&world).await.echo();
        // Least loaded would be the first after its answer; it takes no more all the same.
        for _ in 0..3 {
            assert_eq!(world.post("/greet", "next").await.body(), b"next");
        }
        stopping.answer(last.invocation, "done").await;
        stopping.hang_up();
        assert_eq!(stopping.next().await.unwrap_err().code(), Code::Ok);
    };
    let (answer, ()) = tokio::join!(calling, serving);
    assert_eq!(answer.body(), b"done");
}

#[tokio::test]
async fn heartbeats_flow_and_a_silent_runtime_is_given_up() {
    let period = std::time::Duration::from_millis(100);
    let world = World::new(&[("greet", "anonymous")], |config| {
        config.runtime.heartbeat = period
    })
    .await;
    let mut runtime = world.runtime("greet", 1).await;
    assert_eq!(runtime.registered.heartbeat_period_ms, 100);
    assert_eq!(
        runtime.next().await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
    world
        .until_metric(r#"baetyl_function_proxy_runtimes{app="greet"} 0"#)
        .await;
}

#[tokio::test]
async fn a_runtime_that_sends_heartbeats_stays() {
    let period = std::time::Duration::from_millis(100);
    let world = World::new(&[("greet", "anonymous")], |config| {
        config.runtime.heartbeat = period
    })
    .await;
    let mut runtime = world.runtime("greet", 1).await;
    let mut beat = tokio::time::interval(period);
    for _ in 0..6 {
        beat.tick().await;
        runtime.say(Up::Heartbeat(Heartbeat {})).await;
    }
    let serving = async {
        let invocation = runtime.invocation().await;
        runtime.answer(invocation.invocation, "").await;
    };
    let (answer, ()) = tokio::join!(world.post("/greet", ""), serving);
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn answers_nobody_asked_for_change_nothing() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    runtime.answer(4711, "who asked?").await;
    runtime.chunk(4711, "part").await;
    runtime.say(Up::Result(FunctionResult::default())).await;
    let serving = async {
        let invocation = runtime.invocation().await;
        runtime.answer(invocation.invocation, "right").await;
        runtime.answer(invocation.invocation, "twice").await;
    };
    let (answer, ()) = tokio::join!(world.post("/greet", ""), serving);
    assert_eq!(answer.body(), b"right");
    world
        .until_metric(r#"baetyl_function_proxy_calls_in_flight{app="greet"} 0"#)
        .await;
}

#[tokio::test]
async fn a_runtime_that_sends_garbage_is_hung_up_on() {
    use baetyl_kit::grpc::{Connect, Endpoint};
    use baetyl_proto::faas::Message;
    let world = World::greet().await;
    let token = world.token("greet");
    let socket = Endpoint::unix(world.kit.app_socket("function-proxy"));
    let mut raw = tonic::client::Grpc::new(Connect::new(socket).bearer(&token).lazy().unwrap());
    // Another message at the same path: its first field is a number where a registration should be.
    raw.ready().await.unwrap();
    let garbage = tokio_stream::iter([Message {
        id: u64::MAX,
        ..Message::default()
    }]);
    let path = "/baetyl.function.v1.RuntimeService/Register"
        .parse()
        .unwrap();
    let codec = tonic_prost::ProstCodec::<Message, Message>::default();
    let refused = raw
        .streaming(tonic::Request::new(garbage), path, codec)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused}");
    let huge = baetyl_proto::function::Registration {
        runtime: "x".repeat(6 << 20),
        ..runtime::registration("greet", "greet.1", &["f"], 1)
    };
    let refused = Runtime::connect(&world, Some(&token), Up::Registration(huge))
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    // The proxy is well.
    let _echo = world.runtime("greet", 1).await.echo();
    assert_eq!(world.post("/greet", "hi").await.body(), b"hi");
}

#[tokio::test]
async fn a_stopping_proxy_ends_the_calls_it_has_and_takes_no_more() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let calling = world.post("/greet", "last");
    let serving = async {
        let running = runtime.invocation().await;
        let waiting = world.post("/greet", "too late");
        let stopping = async {
            world
                .until_metric(r#"baetyl_function_proxy_calls_queued{app="greet"} 1"#)
                .await;
            let stop = world.kit.stop(PATIENCE);
            let answering = async {
                world
                    .until_metric(r#"baetyl_function_proxy_calls_queued{app="greet"} 0"#)
                    .await;
                runtime.answer(running.invocation, "done").await;
            };
            tokio::join!(stop, answering).0.unwrap();
        };
        let (waited, ()) = tokio::join!(waiting, stopping);
        let (status, code, _) = waited.error();
        assert_eq!((status, code.as_str()), (503, "ERR_STOPPING"));
    };
    let (answer, ()) = tokio::join!(calling, serving);
    assert_eq!(answer.body(), b"done");
    assert!(runtime.next().await.is_err());
}

#[tokio::test]
async fn after_a_restart_of_the_proxy_a_runtime_registers_again() {
    let mut world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    world.restart().await;
    assert!(!matches!(runtime.next().await, Ok(Down::Invoke(_))));
    world.kit.readiness().until_ready().await;
    let _echo = world.runtime("greet", 1).await.echo();
    assert_eq!(world.post("/greet", "hi").await.body(), b"hi");
}
