//! The way down.

use baetyl_model::{Epoch, Generation};
use baetyl_testkit::{Capture, eventually};
use tonic::Code;

use super::*;

#[tokio::test]
async fn a_node_is_welcomed_and_sent_the_signed_desire_of_its_labels() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    cloud.app_for("edge-1", "{}").await;
    let revision = cloud.app_for("edge-2", "{}").await;
    let mut stream = cloud.connect(&node, None).await;
    assert_eq!(
        (
            stream.welcome.namespace.as_str(),
            stream.welcome.node_name.as_str()
        ),
        ("default", "edge-1")
    );
    assert_eq!(
        (stream.welcome.protocol, stream.welcome.heartbeat_period_ms),
        (1, 15_000)
    );
    assert!(stream.welcome.time.is_some());
    let desire = cloud.read(&stream.desire().await).await;
    assert_eq!(desire.node_uid, node.identity.uid);
    assert_eq!(
        (desire.epoch, desire.generation),
        (Epoch(0), revision.into())
    );
    let apps: Vec<_> = desire
        .apps
        .iter()
        .map(|app| app.app.name.as_str())
        .collect();
    assert_eq!(apps, ["app-edge-1"]);
    stream.ack(&desire).await;
    eventually!(cloud.report(&node).await.summary.acknowledged == Some(desire.header()));
}

#[tokio::test]
async fn a_change_is_pushed_to_the_nodes_it_touches_and_to_no_other() {
    let cloud = cloud().await;
    let (touched, other) = (cloud.node("edge-1").await, cloud.node("edge-2").await);
    let (mut a, mut b) = (
        cloud.connect(&touched, None).await,
        cloud.connect(&other, None).await,
    );
    let (_, first) = (
        cloud.read(&a.desire().await).await,
        cloud.read(&b.desire().await).await,
    );
    b.ack(&first).await;
    cloud.app_for("edge-1", "{}").await;
    assert_eq!(cloud.read(&a.desire().await).await.apps.len(), 1);
    // The next thing the other node hears of is its own change.
    let revision = cloud.app_for("edge-2", "{}").await;
    let desire = cloud.read(&b.desire().await).await;
    assert_eq!(desire.generation, revision.into());
    assert_eq!(desire.apps[0].app.name, "app-edge-2");
    a.is_quiet().await;
}

#[tokio::test]
async fn a_delivery_is_a_hop_that_can_be_followed_in_the_log() {
    let capture = Capture::start();
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let revision = cloud.app_for("edge-1", "{}").await;
    let mut stream = cloud.connect(&node, None).await;
    stream.desire().await;
    let events = capture.named("desire.delivered");
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].field("node"), events[0].field("generation")),
        ("edge-1", revision.to_string().as_str())
    );
}

#[tokio::test]
async fn reconnecting_with_nothing_changed_sends_nothing() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    cloud.app_for("edge-1", "{}").await;
    let mut stream = cloud.connect(&node, None).await;
    let desire = cloud.read(&stream.desire().await).await;
    stream.ack(&desire).await;
    drop(stream);
    cloud.app_for("edge-2", "{}").await;
    let mut again = cloud.connect(&node, Some(desire.header())).await;
    again.is_quiet().await;
}

#[tokio::test]
async fn a_version_that_is_wished_of_the_core_is_sent_at_once() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    cloud.fixture.set_mode("edge-1", "kube").await;
    let mut stream = cloud.connect(&node, None).await;
    assert_eq!(cloud.read(&stream.desire().await).await.core, None);
    let fixture = &cloud.fixture;
    let mut row = fixture.node("edge-1").await;
    row.spec.core_version = "0.2.0".to_owned();
    let by = by(&fixture.clock);
    let mut tx = fixture.store.begin(&fixture.namespace, by).await.unwrap();
    tx.put_node(&mut row, crate::store::Verb::Update)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let core = cloud.read(&stream.desire().await).await.core;
    assert_eq!(core.unwrap().version, "0.2.0");
}

#[tokio::test]
async fn labels_and_desired_properties_of_the_node_change_its_desire() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    cloud.put_app("app-site", "site=north", "{}", &[]).await;
    let mut stream = cloud.connect(&node, None).await;
    assert!(cloud.read(&stream.desire().await).await.apps.is_empty());
    let store = &cloud.fixture.store;
    let mut row = store
        .node(&cloud.fixture.namespace, "edge-1")
        .await
        .unwrap()
        .unwrap();
    row.labels.insert("site".to_owned(), "north".to_owned());
    let wish = crate::store::DesiredProperty {
        value: "on".to_owned(),
        time: row.create_time,
    };
    row.properties.insert("lamp".to_owned(), wish);
    let mut tx = store
        .begin(&cloud.fixture.namespace, by(&cloud.fixture.clock))
        .await
        .unwrap();
    tx.put_node(&mut row, crate::store::Verb::Update)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let desire = cloud.read(&stream.desire().await).await;
    assert_eq!(
        (desire.apps.len(), desire.node_properties["lamp"].as_str()),
        (1, "on")
    );
}

#[tokio::test]
async fn a_newer_stream_of_a_node_ends_the_older_one() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let mut older = cloud.connect(&node, None).await;
    let mut newer = cloud.connect(&node, None).await;
    let status = older.end().await;
    assert_eq!(status.code(), Code::Aborted, "{status}");
    newer.desire().await;
    newer.is_quiet().await;
    assert_eq!(cloud.deps.links.len(), 1);
    drop(newer);
    eventually!(cloud.deps.links.is_empty());
}

#[tokio::test]
async fn a_database_put_back_to_an_older_copy_raises_the_epoch_and_the_node_follows_again() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    cloud.app_for("edge-1", "1").await;
    cloud.connect(&node, None).await.desire().await;
    let older = copy_of(&cloud).await;
    cloud.app_for("edge-1", "2").await;
    let revision = cloud.app_for("edge-1", "3").await;
    let mut stream = cloud.connect(&node, None).await;
    // The first desire of a stream may be of the revision before.
    let (signed, held) = loop {
        let signed = stream.desire().await;
        let held = cloud.read(&signed).await;
        if held.generation.get() >= revision.get() {
            break (signed, held);
        }
        stream.ack(&held).await;
    };
    // The cloud comes back with the older database.
    let cloud = cloud_with(older, ReportConfig::default()).await;
    let mut stream = cloud.connect(&node, Some(held.header())).await;
    assert!(matches!(stream.next().await, Down::PresentDesire(_)));
    stream.send(Up::Presented(signed)).await;
    let desire = cloud.read(&stream.desire().await).await;
    assert_eq!(desire.epoch, held.epoch.next());
    assert_eq!(
        baetyl_model::accept_desire(None, Some(&held.header()), &desire.header()),
        baetyl_model::Accept::New
    );
    stream.ack(&desire).await;
    stream.is_quiet().await;
    assert_eq!(cloud.reasons(&node).await, ["CloudStateWentBack"]);
    // No version that was given out before is given out again for something else.
    assert!(cloud.app_for("edge-1", "4").await > revision);
    // And the raised epoch is durable.
    let mut again = cloud.connect(&node, Some(desire.header())).await;
    assert_eq!(cloud.read(&again.desire().await).await.epoch, desire.epoch);
}

#[tokio::test]
async fn an_unproved_claim_of_something_newer_changes_nothing_at_the_cloud() {
    let (cloud, foreign) = (cloud().await, cloud().await);
    let (node, _) = (cloud.node("edge-1").await, foreign.node("edge-1").await);
    cloud.app_for("edge-1", "1").await;
    let mut genuine = cloud.connect(&node, None).await;
    let genuine = genuine.desire().await;
    let desire = cloud.read(&genuine).await;
    let claim = Header {
        epoch: Epoch(7),
        generation: Generation(1000),
        ..desire.header()
    };
    let lie = Desire {
        epoch: Epoch(7),
        generation: Generation(1000),
        ..desire.clone()
    };
    let foreign_key = foreign
        .fixture
        .pki
        .desire_key(&foreign.fixture.namespace)
        .await
        .unwrap();
    let forged = sign::sign_desire(foreign_key.pair(), lie.clone());
    let altered = SignedDesire {
        payload: forged.payload.clone(),
        signatures: genuine.signatures.clone(),
    };
    let unsigned = SignedDesire {
        payload: forged.payload.clone(),
        signatures: Vec::new(),
    };
    for presented in [forged, altered, unsigned] {
        let mut stream = cloud.connect(&node, Some(claim.clone())).await;
        assert!(matches!(stream.next().await, Down::PresentDesire(_)));
        stream.send(Up::Presented(presented)).await;
        let sent = cloud.read(&stream.desire().await).await;
        assert_eq!(sent.epoch, Epoch(0));
        stream.refuse(&sent, "stale").await;
        stream.is_quiet().await;
    }
    let each = ["DesireNotProved", "DesireRefused"];
    assert_eq!(cloud.reasons(&node).await, [each, each, each].concat());
}

#[tokio::test]
async fn a_desire_of_another_node_proves_nothing() {
    let cloud = cloud().await;
    let (node, other) = (cloud.node("edge-1").await, cloud.node("edge-2").await);
    let theirs = cloud.connect(&other, None).await.desire().await;
    let desire = cloud.read(&theirs).await;
    let claim = Header {
        node_uid: node.identity.uid.clone(),
        epoch: Epoch(3),
        ..desire.header()
    };
    let mut stream = cloud.connect(&node, Some(claim)).await;
    assert!(matches!(stream.next().await, Down::PresentDesire(_)));
    stream.send(Up::Presented(theirs)).await;
    assert_eq!(cloud.read(&stream.desire().await).await.epoch, Epoch(0));
    assert_eq!(cloud.reasons(&node).await, ["DesireNotProved"]);
}

#[tokio::test]
async fn a_refused_desire_is_kept_with_its_reason_and_is_not_sent_again() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let mut stream = cloud.connect(&node, None).await;
    let desire = cloud.read(&stream.desire().await).await;
    stream.refuse(&desire, "signature").await;
    stream.is_quiet().await;
    assert_eq!(cloud.report(&node).await.summary.refused, "signature");
    assert_eq!(cloud.reasons(&node).await, ["DesireRefused"]);
    cloud.app_for("edge-1", "{}").await;
    stream.desire().await;
}

#[tokio::test]
async fn a_node_in_local_mode_is_sent_no_desire() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let store = &cloud.fixture.store;
    let mut row = store
        .node(&cloud.fixture.namespace, "edge-1")
        .await
        .unwrap()
        .unwrap();
    row.spec.sync_mode = "local".to_owned();
    let mut tx = store
        .begin(&cloud.fixture.namespace, by(&cloud.fixture.clock))
        .await
        .unwrap();
    tx.put_node(&mut row, crate::store::Verb::Update)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    cloud.app_for("edge-1", "{}").await;
    cloud.connect(&node, None).await.is_quiet().await;
}

#[tokio::test]
async fn a_deleted_node_is_told_so_at_once_and_whenever_it_comes_again() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let mut stream = cloud.connect(&node, None).await;
    stream.desire().await;
    cloud.fixture.delete_node("edge-1").await;
    assert!(matches!(stream.next().await, Down::Removed(_)));
    assert_eq!(stream.end().await.code(), Code::Ok);
    let mut again = cloud.open(&node, hello(None)).await.unwrap();
    assert!(matches!(again.next().await, Down::Removed(_)));
    assert_eq!(again.end().await.code(), Code::Ok);
}

#[tokio::test]
async fn streams_end_when_the_cloud_stops() {
    let cloud = cloud().await;
    let node = cloud.node("edge-1").await;
    let mut stream = cloud.connect(&node, None).await;
    stream.desire().await;
    let (stopped, status) = tokio::join!(cloud.kit.stop(PATIENCE), stream.end());
    stopped.unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}
