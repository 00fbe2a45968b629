//! Time in trust on the wire: wrong clocks, expired certificates, renewals.

use std::collections::BTreeSet;

use baetyl_kit::listen::Listen;
use baetyl_proto::convert::time::to_wire;
use baetyl_proto::link::HeartbeatAck;
use baetyl_proto::link::Welcome;
use baetyl_proto::link::connect_request::Message as Up;
use baetyl_proto::link::connect_response::Message as Down;
use baetyl_proto::sync::link_state::Phase;
use baetyl_testkit::{ClosedPort, Leaf, ManualClock, PATIENCE, TestCa, until};
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};

use super::fake::cloud::CloudStream;
use super::harness::World;
use crate::Config;

const FROM: &str = "2026-06-01T00:00:00Z";
const TO: &str = "2026-09-01T00:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The names of the events the node tells, until this one.
async fn events_until(stream: &mut CloudStream, reason: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    while !seen.contains(reason) {
        if let Up::Event(event) = stream.next_news().await {
            seen.insert(event.reason);
        }
    }
    seen
}

#[tokio::test]
async fn the_link_comes_up_at_any_clock() {
    for wall in ["1970-01-01T00:00:00Z", "2031-11-24T00:00:00Z"] {
        let clock = ManualClock::at(wall);
        let mut world = World::without_sync(Config::default(), clock.clock()).await;
        let server = Leaf::new("localhost").name("127.0.0.1").valid(FROM, TO);
        let server = world.cloud.ca().issue(&server);
        world.address = world
            .cloud
            .serve_as(&world.kit, &server, &Listen::loopback())
            .await;
        world.start_sync().await;
        let identity = world.identity_as(&World::leaf().valid(FROM, TO));
        world.install_as(&identity).await;
        let stream = world.stream().await;
        stream.welcome(Welcome::default()).await;
        assert_eq!(world.until_phase(Phase::Online).await.connects, 1, "{wall}");
    }
}

#[tokio::test]
async fn a_cloud_whose_certificate_ended_before_the_floor_is_refused() {
    let mut world = World::without_sync(Config::default(), ManualClock::at(FROM).clock()).await;
    let server = Leaf::new("localhost")
        .name("127.0.0.1")
        .valid("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z");
    let server = world.cloud.ca().issue(&server);
    world.address = world
        .cloud
        .serve_as(&world.kit, &server, &Listen::loopback())
        .await;
    world.start_sync().await;
    world.install().await;
    let state = eventually_message(&world, "expired").await;
    assert!(state.contains("is not trusted"), "{state}");
}

/// The sentence of a link that does not come up, once it has this word.
async fn eventually_message(world: &World, word: &str) -> String {
    until(PATIENCE, word, || async {
        let message = world.until_phase(Phase::Connecting).await.message;
        if message.contains(word) {
            Ok(message)
        } else {
            Err(message)
        }
    })
    .await
}

#[tokio::test]
async fn a_cloud_of_another_authority_or_name_is_refused_and_the_next_address_is_used() {
    let mut world = World::new().await;
    let stranger = TestCa::new("stranger").server();
    let stranger = world
        .cloud
        .serve_as(&world.kit, &stranger, &Listen::loopback())
        .await;
    let elsewhere = world
        .cloud
        .ca()
        .issue(&Leaf::new("x").name("elsewhere.example"));
    let elsewhere = world
        .cloud
        .serve_as(&world.kit, &elsewhere, &Listen::loopback())
        .await;
    let mut identity = world.identity_as(&World::leaf());
    let closed = ClosedPort::take();
    let nobody = format!("https://{}", closed.addr());
    identity.link_addresses = vec![nobody, stranger, elsewhere];
    world.install_as(&identity).await;
    let message = eventually_message(&world, "does not answer").await;
    assert!(message.matches("is not trusted").count() == 2, "{message}");
    identity.link_addresses.push(world.address.clone());
    world.install_as(&identity).await;
    world.stream().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_at_two_thirds_of_its_life_by_the_clouds_clock() {
    let clock = ManualClock::at("1970-01-01T00:00:00Z");
    let mut world = World::with(Config::default(), clock.clock()).await;
    let old = world.identity_as(&World::leaf().valid(FROM, TO));
    world.install_as(&old).await;
    world.cloud.script().renew_as = Some(World::leaf());
    let stream = world.stream().await;
    let early = Some(to_wire(at("2026-07-01T00:00:00Z")));
    stream
        .welcome(Welcome {
            time: early,
            ..Welcome::default()
        })
        .await;
    world.until_phase(Phase::Online).await;
    assert_eq!(world.cloud.script().renewals, 0);
    let late = Some(to_wire(at("2026-08-20T00:00:00Z")));
    stream
        .say(Down::HeartbeatAck(HeartbeatAck { time: late }))
        .await;

    let mut renewed = world.stream().await;
    assert_ne!(renewed.fingerprint, stream.fingerprint);
    renewed.welcome(Welcome::default()).await;
    events_until(&mut renewed, "CertificateRenewed").await;
    // What init once got is not taken back.
    world.install_as(&old).await;
    world.stop_sync().await;
    world.start_sync().await;
    assert_eq!(world.stream().await.fingerprint, renewed.fingerprint);
    assert_eq!(world.cloud.script().renewals, 1);
    let keys = std::fs::read_dir(world.dir.join("sync/sealed")).unwrap();
    assert_eq!(keys.count(), 1, "the old key is gone");
}

#[tokio::test]
async fn a_renewed_certificate_that_does_not_work_is_given_up_and_the_old_one_stays() {
    let mut world = World::with(Config::default(), ManualClock::at(TO).clock()).await;
    let stranger = TestCa::new("stranger");
    {
        let mut script = world.cloud.script();
        script.renew_as = Some(World::leaf());
        script.renew_by = Some(stranger);
    }
    world
        .install_as(&world.identity_as(&World::leaf().valid(FROM, TO)))
        .await;
    let stream = world.stream().await;
    let old = stream.fingerprint.clone();
    stream
        .welcome(Welcome {
            time: Some(to_wire(at("2026-08-20T00:00:00Z"))),
            ..Welcome::default()
        })
        .await;
    let mut stream = world.stream().await;
    assert_eq!(
        stream.fingerprint, old,
        "a stranger's certificate opens nothing"
    );
    stream.welcome(Welcome::default()).await;
    events_until(&mut stream, "CertificateRenewFailed").await;
    assert_eq!(world.phase().await, Phase::Online);
    assert_eq!(world.cloud.script().renewals, 1, "no storm of renewals");
}

#[tokio::test]
async fn a_renewed_certificate_that_was_merely_out_of_reach_has_another_turn() {
    let mut world = World::with(Config::default(), ManualClock::at(TO).clock()).await;
    world.cloud.script().renew_as = Some(World::leaf());
    // The second connection is the successor's first.
    let gate = gate(&world.address, 1).await;
    let mut identity = world.identity_as(&World::leaf().valid(FROM, TO));
    identity.link_addresses = vec![gate];
    world.install_as(&identity).await;
    let stream = world.stream().await;
    let old = stream.fingerprint.clone();
    let late = Welcome {
        time: Some(to_wire(at("2026-08-20T00:00:00Z"))),
        ..Welcome::default()
    };
    stream.welcome(late).await;
    let again = world.stream().await;
    assert_eq!(again.fingerprint, old, "the successor did not get through");
    again.welcome(Welcome::default()).await;
    world.until_phase(Phase::Online).await;
    again.end(tonic::Status::unavailable("deployed anew")).await;
    let mut renewed = world.stream().await;
    assert_ne!(renewed.fingerprint, old);
    renewed.welcome(Welcome::default()).await;
    events_until(&mut renewed, "CertificateRenewed").await;
    assert_eq!(world.cloud.script().renewals, 1);
}

/// A way to the cloud on which connection number `closed` (from zero) ends before its first byte.
async fn gate(cloud: &str, closed: usize) -> String {
    let cloud = cloud.trim_start_matches("https://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut node, _) = listener.accept().await.unwrap();
            if number == closed {
                continue;
            }
            let mut cloud = TcpStream::connect(&cloud).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut node, &mut cloud).await });
        }
    });
    format!("https://{address}")
}

#[tokio::test]
async fn a_node_whose_certificate_expired_in_the_dark_renews_it_and_is_back() {
    let clock = ManualClock::at("1970-01-01T00:00:00Z");
    let mut world = World::without_sync(Config::default(), clock.clock()).await;
    let expired = world.identity_as(&World::leaf().valid(FROM, TO));
    let certificate =
        rustls::pki_types::CertificateDer::from(expired.certificate_chain[0].to_vec());
    let old = baetyl_kit::tls::fingerprint(&certificate);
    {
        let mut script = world.cloud.script();
        script.expired = Some(old.clone());
        script.renew_as = Some(World::leaf());
    }
    world.start_sync().await;
    world.install_as(&expired).await;
    let mut stream = world.stream().await;
    assert_ne!(stream.fingerprint, old);
    stream.welcome(Welcome::default()).await;
    events_until(&mut stream, "CertificateRenewed").await;
}
