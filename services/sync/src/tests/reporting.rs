//! Up the link: status, stats, events, signs of life.

use std::sync::Arc;

use baetyl_kit::clock::Clock;
use baetyl_ledger::medium::FillingDisk;
use baetyl_proto::link::connect_request::Message as Up;
use baetyl_proto::link::connect_response::Message as Down;
use baetyl_proto::link::{EventAck, HeartbeatAck, StatusAck, Welcome};
use baetyl_proto::sync::link_state::Phase;
use baetyl_proto::sync::{PutEventRequest, PutEventResponse};
use baetyl_testkit::{Capture, eventually};
use tonic::{Code, Status};

use super::fake::cloud::CloudStream;
use super::harness::World;
use crate::Config;

fn event(reason: &str) -> PutEventRequest {
    PutEventRequest {
        reason: reason.to_owned(),
        message: format!("{reason} happened"),
        about: "app/a".to_owned(),
        r#type: "Warning".to_owned(),
    }
}

async fn put(world: &World, reason: &str) -> u64 {
    let answer = world.as_role("engine").put_event(event(reason)).await;
    let PutEventResponse { sequence } = answer.unwrap().into_inner();
    sequence
}

async fn status(stream: &mut CloudStream) -> (String, String) {
    match stream.next_news().await {
        Up::Status(envelope) => (envelope.digest, envelope.status.unwrap().run_mode),
        other => panic!("{other:?}"),
    }
}

async fn told(stream: &mut CloudStream) -> (u64, String, u64) {
    match stream.next_news().await {
        Up::Event(event) => (event.sequence, event.reason, event.dropped),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_status_is_sent_whole_when_the_cloud_has_another_one_and_again_when_it_changes() {
    let capture = Capture::start();
    let mut world = World::new().await;
    let first = world.node.put_status("one");
    let mut stream = world.online().await;
    assert_eq!(status(&mut stream).await, (first.clone(), "one".to_owned()));
    stream
        .say(Down::StatusAck(StatusAck { digest: first }))
        .await;
    eventually!(!capture.named("report.stored").is_empty());
    // Stats alone are no news.
    world.node.put_stats(5);
    let second = world.node.put_status("two");
    assert_eq!(status(&mut stream).await, (second, "two".to_owned()));
}

#[tokio::test]
async fn a_status_that_was_never_acknowledged_is_sent_again_on_the_next_stream() {
    let mut world = World::new().await;
    let digest = world.node.put_status("one");
    let mut stream = world.online().await;
    status(&mut stream).await;
    stream.end(Status::unavailable("cut")).await;
    let mut stream = world.stream().await;
    stream.welcome(Welcome::default()).await;
    assert_eq!(status(&mut stream).await.0, digest);
}

#[tokio::test]
async fn figures_travel_in_their_own_time_and_signs_of_life_between_them() {
    let mut world = World::new().await;
    world.node.put_stats(1);
    world.install().await;
    let mut stream = world.stream().await;
    let welcome = Welcome {
        protocol: 1,
        heartbeat_period_ms: 100,
        stats_period_ms: 100,
        ..Welcome::default()
    };
    stream.say(Down::Welcome(welcome)).await;
    let (mut stats, mut heartbeats) = (0, 0);
    while stats < 3 || heartbeats < 3 {
        match stream.next().await {
            Up::Stats(figures) => {
                stats += 1;
                world.node.put_stats(figures.time.unwrap().seconds + 1);
            }
            Up::Heartbeat(_) => {
                heartbeats += 1;
                stream
                    .say(Down::HeartbeatAck(HeartbeatAck { time: None }))
                    .await;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.phase().await, Phase::Online);
}

#[tokio::test]
async fn a_cloud_that_falls_silent_is_given_up_after_three_heartbeats() {
    let mut world = World::new().await;
    world.install().await;
    let mut stream = world.stream().await;
    let welcome = Welcome {
        protocol: 1,
        heartbeat_period_ms: 100,
        stats_period_ms: 100,
        ..Welcome::default()
    };
    stream.say(Down::Welcome(welcome)).await;
    stream.ended().await;
    world.stream().await;
}

#[tokio::test]
async fn events_wait_for_the_cloud_over_a_restart_and_arrive_in_order() {
    let mut world = World::new().await;
    world.until_phase(Phase::WaitingForIdentity).await;
    assert_eq!(put(&world, "First").await, 1);
    world.stop_sync().await;
    world.start_sync().await;
    world.until_phase(Phase::WaitingForIdentity).await;
    assert_eq!(put(&world, "Second").await, 2);
    let mut stream = world.online().await;
    assert_eq!(told(&mut stream).await, (1, "First".to_owned(), 0));
    assert_eq!(told(&mut stream).await, (2, "Second".to_owned(), 0));
    stream.say(Down::EventAck(EventAck { sequence: 1 })).await;
    put(&world, "Third").await;
    assert_eq!(told(&mut stream).await.0, 3);
    stream.end(Status::unavailable("cut")).await;

    let mut stream = world.stream().await;
    stream
        .welcome(Welcome {
            event_sequence: 2,
            ..Welcome::default()
        })
        .await;
    assert_eq!(told(&mut stream).await, (3, "Third".to_owned(), 0));
}

#[tokio::test]
async fn a_full_outbox_drops_the_oldest_and_says_how_many() {
    let mut config = Config::default();
    config.outbox.events = 2;
    let mut world = World::with(config, Clock::system()).await;
    world.until_phase(Phase::WaitingForIdentity).await;
    for reason in ["A", "B", "C", "D", "E"] {
        put(&world, reason).await;
    }
    let mut stream = world.online().await;
    assert_eq!(told(&mut stream).await, (4, "D".to_owned(), 3));
    assert_eq!(told(&mut stream).await, (5, "E".to_owned(), 0));
}

#[tokio::test]
async fn an_outbox_that_was_lost_goes_on_after_the_numbers_of_the_cloud() {
    let mut world = World::new().await;
    world.until_phase(Phase::WaitingForIdentity).await;
    put(&world, "New").await;
    world.install().await;
    let mut stream = world.stream().await;
    stream
        .welcome(Welcome {
            event_sequence: 40,
            ..Welcome::default()
        })
        .await;
    assert_eq!(told(&mut stream).await, (41, "New".to_owned(), 0));
}

#[tokio::test]
async fn an_event_without_a_word_or_a_known_type_is_refused() {
    let world = World::new().await;
    world.until_phase(Phase::WaitingForIdentity).await;
    let mut client = world.as_role("engine");
    let faulty = [
        event("not a word"),
        event(""),
        PutEventRequest {
            r#type: "Fatal".to_owned(),
            ..event("Good")
        },
    ];
    for faulty in faulty {
        let refused = client.put_event(faulty).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn nothing_is_said_while_nothing_happens() {
    let mut world = World::new().await;
    let mut stream = world.online().await;
    // The answer to this is the first thing that is said at all.
    stream.ask().await;
    stream.say_nothing_before_the_answer().await;
}

/// Everybody, with the database of sync on this disk.
async fn world_on(disk: &FillingDisk) -> World {
    let mut world = World::without_sync(Config::default(), Clock::system()).await;
    world.medium = Arc::new(disk.clone());
    world.start_sync().await;
    world
}

#[tokio::test]
async fn on_a_full_disk_an_acknowledgement_that_cannot_be_kept_does_not_end_the_stream() {
    let disk = FillingDisk::default();
    let mut world = world_on(&disk).await;
    let mut stream = world.online().await;
    put(&world, "A").await;
    assert_eq!(told(&mut stream).await.0, 1);
    disk.refuse_next();
    stream.say(Down::EventAck(EventAck { sequence: 1 })).await;
    stream.ask().await;
    assert!(matches!(stream.next_news().await, Up::CommandResult(_)));
    put(&world, "B").await;
    assert_eq!(told(&mut stream).await, (2, "B".to_owned(), 0));
    // The next stream learns again what the cloud has.
    stream.end(Status::unavailable("cut")).await;
    let mut stream = world.stream().await;
    stream
        .welcome(Welcome {
            event_sequence: 1,
            ..Welcome::default()
        })
        .await;
    assert_eq!(told(&mut stream).await, (2, "B".to_owned(), 0));
}

#[tokio::test]
async fn on_a_full_disk_events_whose_numbers_the_cloud_has_wait_and_desires_and_commands_do_not() {
    let disk = FillingDisk::default();
    let mut world = world_on(&disk).await;
    put(&world, "A").await;
    world.install().await;
    let mut stream = world.stream().await;
    let welcome = Welcome {
        event_sequence: 40,
        ..Welcome::default()
    };
    disk.refuse_next();
    stream.welcome(welcome.clone()).await;
    world.until_phase(Phase::Online).await;
    stream.ask().await;
    assert!(matches!(stream.next_news().await, Up::CommandResult(_)));
    // There is room again, as the next event shows.
    put(&world, "B").await;
    let mut stream = world.stream().await;
    stream.welcome(welcome).await;
    assert_eq!(told(&mut stream).await, (41, "A".to_owned(), 0));
    assert_eq!(told(&mut stream).await, (42, "B".to_owned(), 0));
}
