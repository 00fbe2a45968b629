use super::*;
use baetyl_model::{Digest, NodeName, NodeUid, Revision};

#[tokio::test]
async fn every_version_stays_and_is_found_by_number_and_by_digest() {
    let f = fixture().await;
    for body in ["one", "two"] {
        let mut tx = f.begin().await;
        tx.put_resource(resource(Kind::Configuration, "c1", body))
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
    let old = f
        .store
        .version(&f.namespace, Kind::Configuration, "c1", Revision(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(old.body, b"one");
    assert_eq!(
        old.row.digest,
        Digest::from_sha256(baetyl_kit::crypto::sha256(b"one"))
    );
    assert_eq!(old.row.size, 3);
    let by_digest = f
        .store
        .version_by_digest(&f.namespace, &old.row.digest)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(by_digest, old);
    let current = f
        .store
        .resource(&f.namespace, Kind::Configuration, "c1")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(current.version, Revision(2));
    let other = Namespace::new("other").unwrap();
    assert_eq!(
        f.store
            .version_by_digest(&other, &old.row.digest)
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn the_body_of_a_secret_lies_encrypted_in_the_file_and_is_read_plain() {
    let f = fixture().await;
    let body = "{\"password\":\"correct horse battery staple\"}";
    let mut tx = f.begin().await;
    let row = tx
        .put_resource(resource(Kind::Secret, "s1", body))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let read = f
        .store
        .version(&f.namespace, Kind::Secret, "s1", row.version)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read.body, body.as_bytes());
    let stored: Vec<u8> = sqlx::query_scalar("SELECT body FROM resource_versions")
        .fetch_one(f.store.reader())
        .await
        .unwrap();
    assert!(!stored.windows(7).any(|part| part == b"battery"));
    // A row passed off as another one does not open.
    sqlx::query("UPDATE resource_versions SET name = 's2'")
        .execute(f.store.writer())
        .await
        .unwrap();
    let moved = f
        .store
        .version(&f.namespace, Kind::Secret, "s2", row.version)
        .await;
    assert!(matches!(moved, Err(StoreError::Seal { .. })), "{moved:?}");
}

async fn put_app(f: &Fixture, selector: &str) {
    let mut tx = f.begin().await;
    let config = tx.put_resource(NewResource {
        objects: vec![ConfigObject {
            file_name: "app.zip".into(),
            digest: Digest::from_sha256([7; 32]),
            size: 9,
            url: String::new(),
            object: "app".into(),
            unpack: "zip".into(),
        }],
        ..resource(Kind::Configuration, "c1", "{}")
    });
    let config = config.await.unwrap();
    let app = NewResource {
        selector: selector.into(),
        references: vec![Reference {
            kind: Kind::Configuration,
            name: "c1".into(),
            version: config.version,
        }],
        ..resource(Kind::Application, "a1", "{\"app\":1}")
    };
    tx.put_resource(app).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn users_of_a_configuration_are_found_and_the_database_itself_keeps_what_is_used() {
    let f = fixture().await;
    put_app(&f, "").await;
    assert_eq!(
        f.store
            .users(&f.namespace, Kind::Configuration, "c1")
            .await
            .unwrap(),
        ["a1"]
    );
    let mut tx = f.begin().await;
    assert_eq!(tx.object_users("app").await.unwrap(), ["c1"]);
    assert!(tx.delete_resource(Kind::Configuration, "c1").await.is_err());
    drop(tx);
    let mut tx = f.begin().await;
    tx.delete_resource(Kind::Application, "a1").await.unwrap();
    tx.delete_resource(Kind::Configuration, "c1").await.unwrap();
    tx.commit().await.unwrap();
    assert!(
        !f.store
            .is_digest_used(&Digest::from_sha256([7; 32]))
            .await
            .unwrap()
    );
}

fn node(f: &Fixture, name: &str, uid: &str) -> NodeRow {
    NodeRow {
        namespace: f.namespace.clone(),
        name: NodeName::new(name).unwrap(),
        uid: NodeUid::new(uid).unwrap(),
        version: Revision(0),
        create_time: by().time,
        update_time: by().time,
        labels: [("env".to_owned(), "test".to_owned())].into(),
        properties: Default::default(),
        spec: NodeSpec {
            description: "d".into(),
            ..Default::default()
        },
    }
}

#[tokio::test]
async fn a_snapshot_holds_every_row_a_desire_is_derived_from() {
    let f = fixture().await;
    put_app(&f, "env=test").await;
    let mut tx = f.begin().await;
    tx.put_node(&mut node(&f, "n1", "u1"), Verb::Create)
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let snapshot = f.store.snapshot(&f.namespace).await.unwrap();
    assert_eq!(snapshot.revision, Revision(2));
    let node = &snapshot.nodes[&NodeUid::new("u1").unwrap()];
    let app = &snapshot.apps[0];
    assert!(app.selects(node));
    assert_eq!(app.resources.len(), 1);
    assert_eq!(
        (app.resources[0].name.as_str(), app.resources[0].version),
        ("c1", Revision(1))
    );
    assert_eq!(app.objects[0].2.file_name, "app.zip");
    let again = f.store.snapshot(&f.namespace).await.unwrap();
    assert!(
        Arc::ptr_eq(&snapshot, &again),
        "nothing changed: the same rows"
    );

    put_app(&f, "").await;
    let newer = f.store.snapshot(&f.namespace).await.unwrap();
    assert_eq!(newer.revision, Revision(3));
    assert!(
        !newer.apps[0].selects(node),
        "an empty selector selects no node"
    );
}

#[tokio::test]
async fn a_deleted_node_leaves_a_tombstone_and_its_name_gets_another_uid() {
    let f = fixture().await;
    let mut tx = f.begin().await;
    tx.put_node(&mut node(&f, "n1", "u1"), Verb::Create)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = f.begin().await;
    assert!(tx.delete_node("n1").await.unwrap().is_some());
    assert!(tx.delete_node("n1").await.unwrap().is_none());
    tx.commit().await.unwrap();
    let uid = NodeUid::new("u1").unwrap();
    assert_eq!(f.store.node_by_uid(&f.namespace, &uid).await.unwrap(), None);
    let tombstone = f
        .store
        .deleted_node(&f.namespace, &uid)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (tombstone.name.as_str(), tombstone.revision),
        ("n1", Revision(2))
    );
    let history = f
        .store
        .changes_of(&f.namespace, Subject::Node, "n1", 10)
        .await
        .unwrap();
    let verbs: Vec<_> = history.iter().map(|change| change.change.verb).collect();
    assert_eq!(verbs, [Verb::Delete, Verb::Create]);
}

#[tokio::test]
async fn a_token_is_found_by_its_hash_until_it_is_revoked() {
    let f = fixture().await;
    assert!(
        f.store
            .add_token(&f.namespace, "ci", Role::Operator, "abc", &by())
            .await
            .unwrap()
    );
    assert!(
        !f.store
            .add_token(&f.namespace, "ci", Role::Admin, "def", &by())
            .await
            .unwrap(),
        "the name is taken"
    );
    let row = f.store.token_by_hash("abc").await.unwrap().unwrap();
    assert_eq!((row.name.as_str(), row.role), ("ci", Role::Operator));
    assert!(f.store.revoke_token(&f.namespace, "ci").await.unwrap());
    assert_eq!(f.store.token_by_hash("abc").await.unwrap(), None);
}
