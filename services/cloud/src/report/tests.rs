//! Reports against a real database, with a clock that is moved by hand.

use baetyl_model::Digest;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::pki::testing::{Fixture, fixture};

struct Setup {
    fixture: Fixture,
    reports: Reports,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn setup() -> Setup {
    let fixture = fixture().await;
    fixture.add_node("edge-1").await;
    let (reports, task) = Reports::new(
        fixture.store.clone(),
        ReportConfig::default(),
        fixture.clock.clock(),
    );
    let stop = CancellationToken::new();
    let task = tokio::spawn(task.run(stop.clone()));
    Setup {
        fixture,
        reports,
        stop,
        task,
    }
}

impl Setup {
    fn names(&self) -> (Namespace, NodeUid) {
        (
            self.fixture.namespace.clone(),
            "uid-edge-1".parse().unwrap(),
        )
    }

    async fn report(&self) -> NodeReport {
        let (namespace, uid) = self.names();
        self.reports.report(&namespace, &uid).await.unwrap()
    }

    async fn ready(&self) -> Ready {
        let (namespace, uid) = self.names();
        let listed = self.reports.summaries(&namespace).await.unwrap();
        let one = self.report().await.summary;
        assert_eq!(
            listed
                .get(&uid)
                .map_or(Ready::Uninstalled, |summary| summary.ready),
            one.ready
        );
        one.ready
    }

    async fn reasons(&self) -> Vec<String> {
        let (namespace, uid) = self.names();
        let events = self
            .reports
            .events(&namespace, &uid, None, 100)
            .await
            .unwrap();
        events.into_iter().rev().map(|event| event.reason).collect()
    }

    /// Waits until everything that was queued is on disk.
    async fn written(&self) {
        let (namespace, uid) = self.names();
        let now = self.fixture.clock.clock().now();
        self.reports
            .write_durably(&namespace, &uid, What::LastSeen(now))
            .await
            .unwrap();
    }
}

fn status(property: &str) -> shadow::NodeStatus {
    let properties = vec![shadow::Property {
        key: "door".to_owned(),
        value: property.to_owned(),
    }];
    shadow::NodeStatus {
        properties,
        run_mode: "native".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_node_is_uninstalled_then_online_then_offline_after_two_and_a_half_periods() {
    let setup = setup().await;
    let (namespace, uid) = setup.names();
    assert_eq!(setup.ready().await, Ready::Uninstalled);
    setup.reports.connected(&namespace, &uid).await.unwrap();
    assert_eq!(setup.ready().await, Ready::Online);
    // The heartbeat period is 15 s.
    setup.fixture.clock.advance(Duration::from_secs(37));
    assert_eq!(setup.ready().await, Ready::Online);
    setup.fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(setup.ready().await, Ready::Offline);
    setup.reports.seen(&namespace, &uid).await;
    assert_eq!(setup.ready().await, Ready::Online);
    assert_eq!(
        [Ready::Uninstalled, Ready::Online, Ready::Offline].map(Ready::code),
        [0, 1, 2]
    );
}

#[tokio::test]
async fn setting_the_wall_clock_makes_no_node_offline() {
    let setup = setup().await;
    let (namespace, uid) = setup.names();
    setup.reports.connected(&namespace, &uid).await.unwrap();
    setup
        .fixture
        .clock
        .set_wall("2031-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(setup.ready().await, Ready::Online);
}

#[tokio::test]
async fn going_away_and_coming_back_are_events_once_each() {
    let setup = setup().await;
    let (namespace, uid) = setup.names();
    setup.reports.connected(&namespace, &uid).await.unwrap();
    setup.reports.sweep().await;
    setup.fixture.clock.advance(Duration::from_secs(60));
    setup.reports.sweep().await;
    setup.reports.sweep().await;
    setup.reports.seen(&namespace, &uid).await;
    setup.reports.seen(&namespace, &uid).await;
    setup.written().await;
    assert_eq!(setup.reasons().await, ["NodeOffline", "NodeOnline"]);
}

#[tokio::test]
async fn the_latest_status_wins_and_survives_a_restart() {
    let setup = setup().await;
    let (namespace, uid) = setup.names();
    setup.reports.connected(&namespace, &uid).await.unwrap();
    for property in ["open", "shut"] {
        setup
            .reports
            .store_status(&namespace, &uid, property, status(property))
            .await
            .unwrap();
    }
    setup.stop.cancel();
    setup.task.await.unwrap();
    let (again, _task) = Reports::new(
        setup.fixture.store.clone(),
        ReportConfig::default(),
        setup.fixture.clock.clock(),
    );
    let report = again.report(&namespace, &uid).await.unwrap();
    assert_eq!(report.status.unwrap().properties["door"], "shut");
    assert_eq!(
        report.summary.ready,
        Ready::Offline,
        "not seen by this process"
    );
    assert!(report.summary.last_seen.is_some() && report.status_time.is_some());
    assert_eq!(
        again
            .connected(&namespace, &uid)
            .await
            .unwrap()
            .status_digest,
        "shut"
    );
}

#[tokio::test]
async fn a_status_that_cannot_be_read_becomes_an_event_and_leaves_the_last_one() {
    let setup = setup().await;
    let (namespace, uid) = setup.names();
    setup.reports.connected(&namespace, &uid).await.unwrap();
    setup
        .reports
        .store_status(&namespace, &uid, "good", status("open"))
        .await
        .unwrap();
    let broken = shadow::NodeStatus {
        apps: vec![shadow::AppStatus {
            name: "Not A Name".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    setup
        .reports
        .store_status(&namespace, &uid, "broken", broken)
        .await
        .unwrap();
    assert_eq!(
        setup.report().await.status.unwrap().properties["door"],
        "open"
    );
    assert_eq!(setup.reasons().await, ["StatusUnreadable"]);
}

#[tokio::test]
async fn an_event_that_is_sent_twice_is_stored_once() {
    let setup = setup().await;
    let (namespace, uid) = setup.names();
    setup.reports.connected(&namespace, &uid).await.unwrap();
    for (sequence, reason) in [(1, "A"), (2, "B"), (1, "A"), (2, "B"), (5, "C")] {
        let event = shadow::Event {
            sequence,
            reason: reason.to_owned(),
            ..Default::default()
        };
        setup
            .reports
            .store_event(&namespace, &uid, event)
            .await
            .unwrap();
    }
    assert_eq!(setup.reasons().await, ["A", "B", "C"]);
    assert_eq!(
        setup
            .reports
            .connected(&namespace, &uid)
            .await
            .unwrap()
            .event_sequence,
        5
    );
}

#[tokio::test]
async fn acknowledgements_and_refusals_are_kept() {
    let setup = setup().await;
    let (namespace, uid) = setup.names();
    setup.reports.connected(&namespace, &uid).await.unwrap();
    let header = Header {
        node_uid: uid.clone(),
        epoch: Epoch(1),
        generation: Generation(7),
        digest: Digest::from_sha256([7; 32]),
    };
    setup
        .reports
        .refused(&namespace, &uid, "signature", "the key is not trusted")
        .await;
    setup.written().await;
    assert_eq!(setup.report().await.summary.refused, "signature");
    setup.reports.acknowledged(&namespace, header.clone()).await;
    setup.written().await;
    let summary = setup.report().await.summary;
    assert_eq!(
        (summary.acknowledged, summary.refused.as_str()),
        (Some(header), "")
    );
    assert_eq!(setup.reasons().await, ["DesireRefused"]);
}

#[tokio::test]
async fn an_epoch_only_rises_and_lost_versions_are_never_given_out_again() {
    let setup = setup().await;
    let (namespace, uid) = setup.names();
    setup.reports.connected(&namespace, &uid).await.unwrap();
    let presented = |generation| Header {
        node_uid: uid.clone(),
        epoch: Epoch(0),
        generation: Generation(generation),
        digest: Digest::from_sha256([7; 32]),
    };
    setup
        .reports
        .raise_epoch(&namespace, &uid, Epoch(5), &presented(400))
        .await
        .unwrap();
    setup
        .reports
        .raise_epoch(&namespace, &uid, Epoch(3), &presented(1))
        .await
        .unwrap();
    assert_eq!(
        setup
            .reports
            .connected(&namespace, &uid)
            .await
            .unwrap()
            .epoch,
        Epoch(5)
    );
    assert_eq!(
        setup
            .fixture
            .store
            .revision(&namespace)
            .await
            .unwrap()
            .get(),
        400
    );
}

#[tokio::test]
async fn reports_of_a_deleted_node_go_with_it_and_later_ones_are_dropped() {
    let setup = setup().await;
    let (namespace, uid) = setup.names();
    setup.reports.connected(&namespace, &uid).await.unwrap();
    setup
        .reports
        .store_status(&namespace, &uid, "d", status("open"))
        .await
        .unwrap();
    setup.fixture.delete_node("edge-1").await;
    setup
        .reports
        .store_status(&namespace, &uid, "e", status("shut"))
        .await
        .unwrap();
    setup.reports.forget(&namespace, &uid);
    let report = setup.report().await;
    assert_eq!(
        (report.summary.ready, report.status),
        (Ready::Uninstalled, None)
    );
}

#[tokio::test]
async fn stats_live_in_memory_and_times_are_written_at_the_end() {
    let setup = setup().await;
    let (namespace, uid) = setup.names();
    setup.reports.connected(&namespace, &uid).await.unwrap();
    let machine = shadow::MachineStats {
        hostname: "box".to_owned(),
        memory_used: 5,
        ..Default::default()
    };
    setup.reports.put_stats(
        &namespace,
        &uid,
        &shadow::NodeStats {
            nodes: vec![machine],
            ..Default::default()
        },
    );
    assert_eq!(setup.report().await.stats.unwrap().nodes[0].memory_used, 5);
    setup.fixture.clock.advance(Duration::from_secs(7));
    setup.reports.seen(&namespace, &uid).await;
    setup.stop.cancel();
    setup.task.await.unwrap();
    let stored = rows::one(&setup.fixture.store, &namespace, &uid)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored.last_seen, Some(setup.fixture.clock.clock().now()));
    let refused = setup
        .reports
        .store_status(&namespace, &uid, "d", status("open"))
        .await;
    assert!(refused.is_err(), "after the end nothing is acknowledged");
}

#[tokio::test]
async fn a_node_that_vanished_while_the_cloud_was_down_goes_offline_once() {
    let setup = setup().await;
    let (namespace, uid) = setup.names();
    setup.reports.connected(&namespace, &uid).await.unwrap();
    setup.stop.cancel();
    setup.task.await.unwrap();
    let store = &setup.fixture.store;
    for _ in 0..2 {
        let (again, task) = Reports::new(
            store.clone(),
            ReportConfig::default(),
            setup.fixture.clock.clock(),
        );
        again.remember().await;
        let before = again.report(&namespace, &uid).await.unwrap().summary;
        assert_eq!(before.ready, Ready::Offline, "it was not heard of yet");
        again.sweep().await;
        setup.fixture.clock.advance(Duration::from_secs(60));
        again.sweep().await;
        let stop = CancellationToken::new();
        stop.cancel();
        task.run(stop).await;
    }
    let events = crate::events::list(store, &namespace, &uid, None, 100)
        .await
        .unwrap();
    let reasons: Vec<_> = events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["NodeOffline"]);
}
