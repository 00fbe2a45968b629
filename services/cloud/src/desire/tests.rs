//! What a node shall run: pure derivation, and the feed that wakes links.

use std::collections::HashMap;

use baetyl_kit::Kit;
use baetyl_model::{Kind, Namespace};
use baetyl_proto::sign;

use super::*;
use crate::pki::testing::{Fixture, by, fixture};
use crate::store::{ConfigObject, NewResource, NodeSpec, Reference, VersionRow};

fn digest_of(content: u8) -> Digest {
    Digest::from_sha256([content; 32])
}

fn node(labels: &[(&str, &str)]) -> NodeRow {
    let time = "2026-01-02T03:04:05Z".parse().unwrap();
    NodeRow {
        namespace: "default".parse().unwrap(),
        name: "edge-1".parse().unwrap(),
        uid: "uid-1".parse().unwrap(),
        version: 1.into(),
        create_time: time,
        update_time: time,
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        properties: Default::default(),
        spec: NodeSpec::default(),
    }
}

fn app(name: &str, selector: &str, version: u64) -> AppRow {
    AppRow {
        name: name.to_owned(),
        version: version.into(),
        digest: digest_of(1),
        size: 10,
        selector: selector.parse().unwrap(),
        system: false,
        resources: Vec::new(),
        objects: Vec::new(),
    }
}

fn snapshot(apps: Vec<AppRow>) -> Snapshot {
    Snapshot {
        namespace: "default".parse().unwrap(),
        revision: 9.into(),
        nodes: HashMap::new(),
        apps: apps.into_iter().map(Arc::new).collect(),
    }
}

fn derive(node: &NodeRow, snapshot: &Snapshot) -> Desire {
    let apps = select_apps(node, snapshot).unwrap();
    derive_desire(node, &apps, Epoch(2), snapshot.revision.into()).unwrap()
}

#[test]
fn a_node_runs_what_selects_it_and_an_application_without_selector_runs_nowhere() {
    let rows = snapshot(vec![
        app("aa", "site=a", 1),
        app("bb", "site=b", 2),
        app("cc", "", 3),
        app("dd", "!gpu", 4),
    ]);
    let names = |node: &NodeRow| -> Vec<String> {
        derive(node, &rows)
            .apps
            .iter()
            .map(|app| app.app.name.to_string())
            .collect()
    };
    assert_eq!(names(&node(&[("site", "a")])), ["aa", "dd"]);
    assert_eq!(names(&node(&[("site", "b"), ("gpu", "yes")])), ["bb"]);
    assert!(names(&node(&[("gpu", "yes")])).is_empty());
}

#[test]
fn the_digest_tells_the_content_and_not_when_or_in_which_epoch_it_was_derived() {
    let (node, rows) = (
        node(&[("site", "a")]),
        snapshot(vec![app("aa", "site=a", 1)]),
    );
    let apps = select_apps(&node, &rows).unwrap();
    let at = |epoch, generation| {
        derive_desire(&node, &apps, Epoch(epoch), Generation(generation)).unwrap()
    };
    assert_eq!(at(0, 1).digest, at(3, 7).digest);
    assert_eq!(
        (at(3, 7).epoch, at(3, 7).generation),
        (Epoch(3), Generation(7))
    );
    let other = derive(&node, &snapshot(vec![app("aa", "site=a", 2)]));
    assert_ne!(other.digest, at(0, 1).digest);
}

#[test]
fn a_desire_names_everything_its_applications_reference_in_a_fixed_order() {
    let mut row = app("aa", "site=a", 5);
    let version = |kind, name: &str, content| VersionRow {
        kind,
        name: name.to_owned(),
        version: 3.into(),
        digest: digest_of(content),
        size: 7,
    };
    row.resources = vec![
        version(Kind::Secret, "keys", 4),
        version(Kind::Configuration, "conf", 5),
    ];
    let object = |file_name: &str, url: &str| ConfigObject {
        file_name: file_name.to_owned(),
        digest: digest_of(6),
        size: 100,
        url: url.to_owned(),
        object: String::new(),
        unpack: "zip".to_owned(),
    };
    row.objects = vec![
        ("conf".to_owned(), 3.into(), object("z.zip", "")),
        (
            "conf".to_owned(),
            3.into(),
            object("a.zip", "https://files.example/a.zip"),
        ),
    ];
    let desire = derive(&node(&[("site", "a")]), &snapshot(vec![row]));
    let app = &desire.apps[0];
    let names: Vec<_> = app
        .resources
        .iter()
        .map(|reference| reference.name.as_str())
        .collect();
    assert_eq!(names, ["conf", "keys"]);
    let objects: Vec<_> = app
        .objects
        .iter()
        .map(|object| (object.file_name.as_str(), object.url.as_deref()))
        .collect();
    assert_eq!(
        objects,
        [
            ("a.zip", Some("https://files.example/a.zip")),
            ("z.zip", None)
        ]
    );
    assert_eq!(app.objects[0].configuration_version.as_str(), "3");
}

#[test]
fn desired_properties_are_part_of_the_desire() {
    let mut row = node(&[]);
    let before = derive(&row, &snapshot(Vec::new()));
    let wish = crate::store::DesiredProperty {
        value: "on".to_owned(),
        time: row.create_time,
    };
    row.properties.insert("lamp".to_owned(), wish);
    let after = derive(&row, &snapshot(Vec::new()));
    assert_eq!(after.node_properties["lamp"], "on");
    assert_ne!(before.digest, after.digest);
}

#[test]
fn a_node_in_local_mode_is_told_nothing() {
    let mut row = node(&[("site", "a")]);
    row.spec.sync_mode = "local".to_owned();
    assert!(select_apps(&row, &snapshot(vec![app("aa", "site=a", 1)])).is_none());
}

#[test]
fn a_row_that_cannot_be_read_gives_an_error_and_never_a_desire_without_it() {
    let rows = snapshot(vec![app("Bad Name", "site=a", 1)]);
    let node = node(&[("site", "a")]);
    let apps = select_apps(&node, &rows).unwrap();
    let error = derive_desire(&node, &apps, Epoch(0), Generation(1)).unwrap_err();
    assert!(matches!(error, DeriveError::Name { app, .. } if app == "Bad Name"));
}

#[tokio::test]
async fn a_delivered_desire_is_signed_with_the_key_of_its_namespace_and_verifies() {
    let fixture = fixture().await;
    let key = fixture.pki.desire_key(&fixture.namespace).await.unwrap();
    let desire = derive(
        &node(&[("site", "a")]),
        &snapshot(vec![app("aa", "site=a", 1)]),
    );
    let signed = deliver_desire(&key, desire.clone());
    let read = sign::verify_desire(&[key.public_key()], Some(&desire.node_uid), &signed).unwrap();
    assert_eq!(read, desire);
    let other: Namespace = "other".parse().unwrap();
    fixture
        .store
        .create_namespace(&other, &by(&fixture.clock))
        .await
        .unwrap();
    let foreign = fixture.pki.desire_key(&other).await.unwrap();
    assert!(sign::verify_desire(&[foreign.public_key()], None, &signed).is_err());
}

async fn put_app(fixture: &Fixture, name: &str) {
    let mut tx = fixture
        .store
        .begin(&fixture.namespace, by(&fixture.clock))
        .await
        .unwrap();
    let new = NewResource {
        kind: Kind::Application,
        name: name.to_owned(),
        labels: Default::default(),
        system: false,
        subtype: "container".to_owned(),
        selector: "name=edge-1".to_owned(),
        body: b"{}".to_vec(),
        references: Vec::<Reference>::new(),
        objects: Vec::new(),
    };
    tx.put_resource(new).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn the_feed_gives_the_rows_of_now_and_of_every_commit_after() {
    let fixture = fixture().await;
    let kit = Kit::for_test(fixture.dir.path());
    put_app(&fixture, "first").await;
    let feed = DesireFeed::new(fixture.store.clone(), kit.tasks().clone());
    let mut rows = feed.subscribe(&fixture.namespace).await.unwrap();
    assert_eq!(rows.borrow_and_update().apps.len(), 1);
    put_app(&fixture, "second").await;
    rows.changed().await.unwrap();
    assert_eq!(rows.borrow_and_update().apps.len(), 2);
    // All links of a namespace share the rows.
    let again = feed.subscribe(&fixture.namespace).await.unwrap();
    assert!(Arc::ptr_eq(&again.borrow(), &rows.borrow()));
}

#[tokio::test]
async fn there_is_no_feed_for_a_namespace_that_does_not_exist() {
    let fixture = fixture().await;
    let kit = Kit::for_test(fixture.dir.path());
    let feed = DesireFeed::new(fixture.store.clone(), kit.tasks().clone());
    assert!(feed.subscribe(&"nowhere".parse().unwrap()).await.is_err());
}

#[test]
fn what_is_wished_of_a_core_goes_down_to_nodes_in_mode_kube_and_makes_another_desire() {
    let snapshot = snapshot(Vec::new());
    let mut node = node(&[]);
    node.spec.node_mode = "kube".to_owned();
    let nothing = derive(&node, &snapshot);
    assert_eq!(nothing.core, None);
    node.spec.core_version = "0.2.0".to_owned();
    node.spec.core.class = "k3s".to_owned();
    let wished = derive(&node, &snapshot);
    assert_eq!(
        wished.core,
        Some(DesiredCore {
            version: "0.2.0".to_owned(),
            class: "k3s".to_owned(),
            registry: String::new(),
        })
    );
    assert_ne!(wished.digest, nothing.digest);
    node.spec.node_mode = "native".to_owned();
    assert_eq!(derive(&node, &snapshot).digest, nothing.digest);
}
