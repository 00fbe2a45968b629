//! The way up.

use baetyl_proto::link::{CommandResult, EventAck, StatusAck, StatusEnvelope};
use baetyl_proto::{digest, shadow};
use baetyl_testkit::{Capture, eventually};
use tonic::Code;

use super::*;
use crate::report::Ready;

fn status(value: &str) -> StatusEnvelope {
    let properties = vec![shadow::Property {
        key: "door".to_owned(),
        value: value.to_owned(),
    }];
    let status = shadow::NodeStatus {
        properties,
        run_mode: "native".to_owned(),
        ..Default::default()
    };
    StatusEnvelope {
        digest: digest::of_status(&status).to_string(),
        status: Some(status),
    }
}

fn event(sequence: u64, reason: &str, dropped: u64) -> Up {
    Up::Event(shadow::Event {
        sequence,
        reason: reason.to_owned(),
        dropped,
        ..Default::default()
    })
}

#[tokio::test]
async fn a_status_is_stored_before_it_is_acknowledged_and_its_digest_is_in_the_next_welcome() {
    let capture = Capture::start();
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let mut stream = cloud.connect(&node, None).await;
    assert_eq!(stream.welcome.status_digest, "");
    stream.desire().await;
    let sent = status("open");
    stream.send(Up::Status(sent.clone())).await;
    assert_eq!(
        stream.next().await,
        Down::StatusAck(StatusAck {
            digest: sent.digest.clone()
        })
    );
    assert_eq!(
        cloud.report(&node).await.status.unwrap().properties["door"],
        "open"
    );
    // The same once more is acknowledged and not stored.
    stream.send(Up::Status(sent.clone())).await;
    assert!(matches!(stream.next().await, Down::StatusAck(_)));
    assert_eq!(capture.named("report.stored").len(), 1);
    let again = cloud.connect(&node, None).await;
    assert_eq!(again.welcome.status_digest, sent.digest);
}

#[tokio::test]
async fn events_are_stored_in_order_once_and_the_next_welcome_says_how_far() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let mut stream = cloud.connect(&node, None).await;
    stream.desire().await;
    let sent = [
        (1, "A", 0, 1),
        (2, "B", 0, 2),
        (1, "A", 0, 2),
        (4, "D", 0, 2),
        (4, "D", 1, 4),
    ];
    for (sequence, reason, dropped, acknowledged) in sent {
        stream.send(event(sequence, reason, dropped)).await;
        assert_eq!(
            stream.next().await,
            Down::EventAck(EventAck {
                sequence: acknowledged
            })
        );
    }
    assert_eq!(cloud.reasons(&node).await, ["A", "B", "D"]);
    assert_eq!(cloud.connect(&node, None).await.welcome.event_sequence, 4);
}

#[tokio::test]
async fn a_database_put_back_takes_events_again_and_says_how_many_are_lost() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let older = copy_of(&cloud).await;
    let cloud = cloud_with(older, ReportConfig::default()).await;
    let mut stream = cloud.connect(&node, None).await;
    stream.desire().await;
    // Seven events were acknowledged before, and the node keeps none of them.
    stream.send(event(8, "H", 0)).await;
    assert_eq!(
        stream.next().await,
        Down::EventAck(EventAck { sequence: 8 })
    );
    let (namespace, uid) = (&node.identity.namespace, &node.identity.uid);
    let events = cloud
        .deps
        .reports
        .events(namespace, uid, None, 1)
        .await
        .unwrap();
    assert_eq!((events[0].sequence, events[0].dropped), (Some(8), 7));
}

#[tokio::test]
async fn stats_and_signs_of_life_make_a_node_online_with_figures() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    assert_eq!(cloud.report(&node).await.summary.ready, Ready::Uninstalled);
    let mut stream = cloud.connect(&node, None).await;
    stream.desire().await;
    let machine = shadow::MachineStats {
        hostname: "box".to_owned(),
        cpu_total: 4.0,
        ..Default::default()
    };
    stream
        .send(Up::Stats(shadow::NodeStats {
            nodes: vec![machine],
            ..Default::default()
        }))
        .await;
    stream.is_quiet().await;
    let report = cloud.report(&node).await;
    assert_eq!(report.summary.ready, Ready::Online);
    assert_eq!(
        report.address,
        Some("127.0.0.1".parse().unwrap()),
        "where its link comes from"
    );
    assert_eq!(
        report.summary.last_seen,
        Some(cloud.fixture.clock.clock().now())
    );
    assert!((report.stats.unwrap().nodes[0].cpu_total - 4.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_silent_stream_is_taken_for_dead() {
    let config = ReportConfig {
        heartbeat_period_ms: 20,
        ..ReportConfig::default()
    };
    let cloud = cloud_with(fixture().await, config).await;
    let node = cloud.node("edge-1").await;
    let status = cloud.connect(&node, None).await.end().await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    eventually!(cloud.deps.links.is_empty());
}

#[tokio::test]
async fn what_is_not_in_the_contract_ends_the_stream_with_a_clear_status() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let no_content = StatusEnvelope {
        digest: status("x").digest,
        status: None,
    };
    let no_digest = StatusEnvelope {
        digest: "abc".to_owned(),
        ..status("x")
    };
    for message in [hello(None), Up::Status(no_content), Up::Status(no_digest)] {
        let mut stream = cloud.connect(&node, None).await;
        stream.send(message).await;
        let status = stream.end().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
}

#[tokio::test]
async fn a_stream_begins_with_hello_and_a_protocol_both_speak() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let first = cloud.open(&node, Up::Heartbeat(Heartbeat {})).await;
    assert_eq!(first.err().unwrap().code(), Code::InvalidArgument);
    let future = Up::Hello(Hello {
        protocol: Some(ProtocolRange { min: 8, max: 9 }),
        ..Default::default()
    });
    let status = cloud.open(&node, future).await.err().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("8 to 9"), "{status}");
    assert!(cloud.deps.links.is_empty());
}

#[tokio::test]
async fn a_command_goes_down_and_its_result_comes_back() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let (namespace, uid) = (&node.identity.namespace, &node.identity.uid);
    let links = cloud.deps.links.clone();
    let nobody = links
        .command(namespace, uid, "restart-app", b"{}".to_vec(), PATIENCE)
        .await;
    assert_eq!(nobody, Err(CommandError::NotConnected));
    let mut stream = cloud.connect(&node, None).await;
    stream.desire().await;
    let answer = links.command(
        namespace,
        uid,
        "restart-app",
        b"{\"app\":\"a\"}".to_vec(),
        PATIENCE,
    );
    let node_side = async {
        let Down::Command(command) = stream.next().await else {
            panic!("no command")
        };
        assert_eq!(
            (command.kind.as_str(), command.arguments.as_ref()),
            ("restart-app", b"{\"app\":\"a\"}".as_slice())
        );
        let result = CommandResult {
            command_id: command.id,
            message: "done".to_owned(),
            ..Default::default()
        };
        stream.send(Up::CommandResult(result)).await;
        stream
    };
    let (result, mut stream) = tokio::join!(answer, node_side);
    assert_eq!(result.unwrap().message, "done");
    let late = links.command(
        namespace,
        uid,
        "restart-app",
        Vec::new(),
        Duration::from_millis(20),
    );
    let (late, _) = tokio::join!(late, stream.next());
    assert_eq!(late, Err(CommandError::NoAnswer));
}
