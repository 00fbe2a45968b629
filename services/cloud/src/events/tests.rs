use super::*;
use crate::pki::testing::{Fixture, fixture};

fn event(reason: &str, now: Timestamp) -> NewEvent {
    NewEvent::of_cloud(
        EventType::Normal,
        reason,
        "something happened".to_owned(),
        now,
    )
}

async fn put(fixture: &Fixture, uid: &str, event: &NewEvent, keep: u32) {
    let mut connection = fixture.store.writer().acquire().await.unwrap();
    insert(
        &mut connection,
        &fixture.namespace,
        &uid.parse().unwrap(),
        event,
        keep,
    )
    .await
    .unwrap();
}

async fn reasons(fixture: &Fixture, uid: &str, before: Option<u64>) -> Vec<(u64, String)> {
    let events = list(
        &fixture.store,
        &fixture.namespace,
        &uid.parse().unwrap(),
        before,
        2,
    )
    .await
    .unwrap();
    events
        .into_iter()
        .map(|event| (event.id, event.reason))
        .collect()
}

#[tokio::test]
async fn events_are_listed_newest_first_page_by_page_and_per_node() {
    let fixture = fixture().await;
    fixture.add_node("edge-1").await;
    fixture.add_node("edge-2").await;
    for reason in ["A", "B", "C"] {
        put(
            &fixture,
            "uid-edge-1",
            &event(reason, fixture.clock.clock().now()),
            100,
        )
        .await;
    }
    put(
        &fixture,
        "uid-edge-2",
        &event("X", fixture.clock.clock().now()),
        100,
    )
    .await;
    assert_eq!(
        reasons(&fixture, "uid-edge-1", None).await,
        [(3, "C".into()), (2, "B".into())]
    );
    assert_eq!(
        reasons(&fixture, "uid-edge-1", Some(2)).await,
        [(1, "A".into())]
    );
    assert_eq!(
        reasons(&fixture, "uid-edge-2", None).await,
        [(1, "X".into())]
    );
}

#[tokio::test]
async fn the_oldest_events_go_when_there_are_too_many() {
    let fixture = fixture().await;
    fixture.add_node("edge-1").await;
    for reason in ["A", "B", "C", "D"] {
        put(
            &fixture,
            "uid-edge-1",
            &event(reason, fixture.clock.clock().now()),
            2,
        )
        .await;
    }
    assert_eq!(
        reasons(&fixture, "uid-edge-1", None).await,
        [(4, "D".into()), (3, "C".into())]
    );
    assert!(reasons(&fixture, "uid-edge-1", Some(3)).await.is_empty());
}

#[tokio::test]
async fn events_of_a_deleted_node_are_gone_and_new_ones_are_not_written() {
    let fixture = fixture().await;
    fixture.add_node("edge-1").await;
    let now = fixture.clock.clock().now();
    put(&fixture, "uid-edge-1", &event("A", now), 10).await;
    fixture.delete_node("edge-1").await;
    put(&fixture, "uid-edge-1", &event("B", now), 10).await;
    assert!(reasons(&fixture, "uid-edge-1", None).await.is_empty());
}

#[tokio::test]
async fn long_texts_are_cut_and_an_unknown_type_is_a_warning() {
    let fixture = fixture().await;
    fixture.add_node("edge-1").await;
    let wire = shadow::Event {
        sequence: 7,
        reason: "é".repeat(1000),
        message: "m".repeat(10_000),
        r#type: "Odd".to_owned(),
        ..Default::default()
    };
    put(
        &fixture,
        "uid-edge-1",
        &NewEvent::from_node(wire, fixture.clock.clock().now()),
        10,
    )
    .await;
    let uid = "uid-edge-1".parse().unwrap();
    let stored = list(&fixture.store, &fixture.namespace, &uid, None, 10)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(stored.reason.chars().count(), MAX_REASON);
    assert_eq!(stored.message.len(), MAX_MESSAGE);
    assert_eq!(
        (stored.sequence, stored.kind),
        (Some(7), EventType::Warning)
    );
}
