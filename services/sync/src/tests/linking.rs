//! Down the link: desires, who may sign them, commands, and how streams follow each other.

use std::time::Duration;

use baetyl_kit::clock::Clock;
use baetyl_model::desire::Header;
use baetyl_proto::link::connect_request::Message as Up;
use baetyl_proto::link::connect_response::Message as Down;
use baetyl_proto::link::{
    Command, CommandResult, DesireAck, EventAck, PresentDesire, Removed, StatusAck, Welcome,
};
use baetyl_proto::shadow::{Desire, SignedDesire};
use baetyl_proto::sync::link_state::Phase;
use baetyl_proto::{digest, sign};
use baetyl_testkit::{Capture, eventually};
use prost::Message as _;
use ring::signature::Ed25519KeyPair;
use tonic::{Code, Status};

use super::fake::cloud::CloudStream;
use super::harness::{World, desire, desire_key, signed};
use crate::Config;

fn header(signed: &SignedDesire) -> Header {
    sign::read_desire(signed).unwrap().header()
}

async fn ack(stream: &mut CloudStream) -> DesireAck {
    match stream.next_news().await {
        Up::DesireAck(ack) => ack,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_signed_desire_reaches_node_as_it_came_and_is_acknowledged() {
    let capture = Capture::start();
    let mut world = World::new().await;
    let mut stream = world.online().await;
    assert_eq!(stream.hello.held, None);
    let desire = signed(7, "a");
    stream.say(Down::Desire(desire.clone())).await;
    let ack = ack(&mut stream).await;
    assert_eq!(
        (ack.refused.as_str(), ack.header),
        ("", Some(header(&desire).into()))
    );
    assert_eq!(*world.node.offered.lock().unwrap(), [desire]);
    let events = capture.named("desire.received");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].field("generation"), "7");
}

#[tokio::test]
async fn an_altered_unsigned_foreign_or_unreadable_desire_reaches_nobody_and_is_refused_with_the_reason()
 {
    let mut world = World::new().await;
    let mut stream = world.online().await;
    let good = signed(7, "a");
    let mut altered = good.clone();
    let mut payload = altered.payload.to_vec();
    let last = payload.len() - 1;
    payload[last] ^= 1;
    altered.payload = payload.into();
    let unsigned = SignedDesire {
        signatures: Vec::new(),
        ..good.clone()
    };
    let stranger = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let forged = sign::sign_desire(&stranger, desire(7, "a"));
    let mut foreign = desire(7, "a");
    foreign.node_uid = "another-node".try_into().unwrap();
    let foreign = sign::sign_desire(&desire_key(), digest::complete_desire(foreign));
    let mut unreadable = SignedDesire {
        payload: Desire {
            node_uid: "Not A Uid".to_owned(),
            ..Desire::default()
        }
        .encode_to_vec()
        .into(),
        signatures: Vec::new(),
    };
    sign::add_signature(&desire_key(), &mut unreadable);
    for (desire, word) in [
        (altered, "signature"),
        (unsigned, "signature"),
        (forged, "signature"),
        (foreign, "wrong-node"),
        (unreadable, "malformed"),
    ] {
        stream.say(Down::Desire(desire)).await;
        let (mut refused, mut event) = (None, None);
        while refused.is_none() || event.is_none() {
            match stream.next_news().await {
                Up::DesireAck(ack) => refused = Some(ack),
                Up::Event(told) => event = Some(told),
                other => panic!("{other:?}"),
            }
        }
        let (refused, event) = (refused.unwrap(), event.unwrap());
        assert_eq!(refused.refused, word, "{}", refused.message);
        assert!(!refused.message.is_empty());
        assert_eq!(event.reason, "DesireRefused");
        stream
            .say(Down::EventAck(EventAck {
                sequence: event.sequence,
            }))
            .await;
    }
    assert_eq!(world.node.offered(), 0);
    // The link is as good as before.
    stream.say(Down::Desire(good)).await;
    assert_eq!(ack(&mut stream).await.refused, "");
}

#[tokio::test]
async fn what_node_refuses_is_told_with_nodes_reason() {
    let mut world = World::new().await;
    let mut stream = world.online().await;
    for (status, word) in [
        (Status::failed_precondition("STALE: older"), "stale"),
        (
            Status::failed_precondition("CONFLICT: other content"),
            "conflict",
        ),
    ] {
        *world.node.refuse.lock().unwrap() = Some(status);
        stream.say(Down::Desire(signed(7, "a"))).await;
        let refused = loop {
            if let Up::DesireAck(ack) = stream.next_news().await {
                break ack;
            }
        };
        assert_eq!(refused.refused, word);
    }
}

#[tokio::test]
async fn a_desire_waits_for_a_node_that_is_away() {
    let mut world = World::new().await;
    let mut stream = world.online().await;
    world.stop_node().await;
    stream.say(Down::Desire(signed(7, "a"))).await;
    stream.ask().await;
    stream.say_nothing_before_the_answer().await;
    world.start_node().await;
    assert_eq!(ack(&mut stream).await.refused, "");
    assert!(world.node.offered() >= 1);
}

#[tokio::test]
async fn a_new_stream_with_nothing_changed_says_nothing_but_hello() {
    let mut world = World::new().await;
    let status = world.node.put_status("native");
    world.node.put_stats(1);
    let mut stream = world.online().await;
    stream.say(Down::Desire(signed(7, "a"))).await;
    let mut open = 2;
    while open > 0 {
        match stream.next_news().await {
            Up::Status(envelope) => {
                let digest = envelope.digest;
                stream.say(Down::StatusAck(StatusAck { digest })).await;
                open -= 1;
            }
            Up::DesireAck(_) => open -= 1,
            other => panic!("{other:?}"),
        }
    }
    stream.end(Status::unavailable("restart")).await;

    let mut stream = world.stream().await;
    let held = Header::try_from(stream.hello.held.clone().unwrap()).unwrap();
    assert_eq!(held, header(&signed(7, "a")));
    assert_eq!(stream.hello.status_digest, status);
    stream
        .welcome(Welcome {
            status_digest: status,
            ..Welcome::default()
        })
        .await;
    world.until_phase(Phase::Online).await;
    stream.ask().await;
    stream.say_nothing_before_the_answer().await;
}

#[tokio::test]
async fn messages_that_come_twice_late_or_for_no_reason_do_no_harm() {
    let mut world = World::new().await;
    let mut stream = world.online().await;
    let (old, new) = (signed(7, "a"), signed(8, "b"));
    for desire in [&new, &new, &old, &new] {
        stream.say(Down::Desire(desire.clone())).await;
    }
    stream.welcome(Welcome::default()).await;
    stream
        .say(Down::StatusAck(StatusAck {
            digest: "nonsense".to_owned(),
        }))
        .await;
    stream.say(Down::EventAck(EventAck { sequence: 99 })).await;
    stream.say(Down::PresentDesire(PresentDesire {})).await;
    loop {
        if let Up::DesireAck(ack) = stream.next_news().await
            && ack.header == Some(header(&new).into())
        {
            break;
        }
    }
    let held = world.node.held.borrow().clone().unwrap();
    assert!(held == new || held == old);
    stream.say(Down::Desire(signed(9, "c"))).await;
    eventually!(world.node.held.borrow().as_ref() == Some(&signed(9, "c")));
    assert_eq!(world.phase().await, Phase::Online);
}

#[tokio::test]
async fn the_held_desire_is_presented_as_it_was_signed() {
    let mut world = World::new().await;
    world.node.held.send_replace(Some(signed(7, "a")));
    let mut stream = world.online().await;
    assert!(stream.hello.held.is_some());
    stream.say(Down::PresentDesire(PresentDesire {})).await;
    match stream.next_news().await {
        Up::Presented(presented) => assert_eq!(presented, signed(7, "a")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_that_lost_its_ledger_is_told_to_the_cloud_with_a_new_hello() {
    let mut world = World::new().await;
    world.node.held.send_replace(Some(signed(7, "a")));
    let mut stream = world.online().await;
    world.node.held.send_replace(None);
    stream.ended().await;
    assert_eq!(world.stream().await.hello.held, None);
}

#[tokio::test]
async fn a_deleted_node_reports_removed_keeps_what_it_has_and_asks_again() {
    let mut config = Config::default();
    config.link.removed_retry = Duration::from_millis(50);
    let mut world = World::with(config, Clock::system()).await;
    world.node.held.send_replace(Some(signed(7, "a")));
    let mut stream = world.online().await;
    let reason = "deleted by an operator".to_owned();
    stream.say(Down::Removed(Removed { reason })).await;
    let state = world.until_phase(Phase::Removed).await;
    assert_eq!(state.message, "deleted by an operator");
    stream.ended().await;
    let again = world.stream().await;
    assert_eq!(
        world.phase().await,
        Phase::Removed,
        "until the cloud says otherwise"
    );
    again.welcome(Welcome::default()).await;
    world.until_phase(Phase::Online).await;
    assert_eq!(*world.node.held.borrow(), Some(signed(7, "a")));
}

#[tokio::test]
async fn a_stream_that_another_one_took_over_is_tried_again() {
    let mut world = World::new().await;
    let stream = world.online().await;
    stream.end(Status::aborted("a newer stream")).await;
    let stream = world.stream().await;
    stream.welcome(Welcome::default()).await;
    let state = world.until_phase(Phase::Online).await;
    assert_eq!((state.connects, state.message.as_str()), (2, ""));
}

async fn result(stream: &mut CloudStream) -> CommandResult {
    match stream.next_news().await {
        Up::CommandResult(result) => result,
        other => panic!("{other:?}"),
    }
}

fn command(id: &str, kind: &str, arguments: &str) -> Down {
    Down::Command(Command {
        id: id.to_owned(),
        kind: kind.to_owned(),
        arguments: arguments.as_bytes().to_vec().into(),
        timeout_ms: 30_000,
    })
}

#[tokio::test]
async fn a_command_is_executed_once_and_its_result_is_told_as_often_as_it_is_asked_for() {
    let mut world = World::new().await;
    let mut stream = world.online().await;
    for _ in 0..2 {
        stream
            .say(command("c1", "restart-app", r#"{"name":"app"}"#))
            .await;
        assert_eq!(result(&mut stream).await.code, i32::from(Code::Ok));
    }
    drop(stream);
    world.stop_sync().await;
    world.start_sync().await;
    let mut stream = world.stream().await;
    stream.welcome(Welcome::default()).await;
    stream
        .say(command("c1", "restart-app", r#"{"name":"app"}"#))
        .await;
    assert_eq!(result(&mut stream).await.code, i32::from(Code::Ok));
    assert_eq!(*world.workers.restarts.lock().unwrap(), ["app"]);
}

#[tokio::test]
async fn an_invocation_goes_to_the_function_proxy_and_its_answer_back() {
    let mut world = World::new().await;
    let mut stream = world.online().await;
    let arguments = r#"{"service":"fn","function":"f","payload":"AAEC","metadata":{"k":"v"}}"#;
    stream.say(command("c1", "invoke", arguments)).await;
    let result = result(&mut stream).await;
    let answer: serde_json::Value = serde_json::from_slice(&result.payload).unwrap();
    assert_eq!(
        answer,
        serde_json::json!({"payload": "AAEC", "metadata": {"k": "v"}, "invokeId": "fn/f"})
    );
}

#[tokio::test]
async fn a_command_that_is_unknown_or_cannot_be_read_is_answered_with_the_reason() {
    let mut world = World::new().await;
    let mut stream = world.online().await;
    stream.say(command("c1", "self-destruct", "{}")).await;
    let answer = result(&mut stream).await;
    assert_eq!(answer.code, i32::from(Code::Unimplemented));
    assert!(answer.message.contains("self-destruct"));
    stream.say(command("c2", "restart-app", "not json")).await;
    assert_eq!(
        result(&mut stream).await.code,
        i32::from(Code::InvalidArgument)
    );
}
