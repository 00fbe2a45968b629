use std::os::unix::fs::PermissionsExt as _;

use super::*;
use baetyl_model::Revision;

#[tokio::test]
async fn a_write_takes_the_next_revision_and_leaves_its_changes_behind() {
    let f = fixture().await;
    let mut watch = f.store.watch(&f.namespace);
    let mut tx = f.begin().await;
    tx.put_resource(resource(Kind::Configuration, "c1", "{}"))
        .await
        .unwrap();
    tx.put_resource(resource(Kind::Configuration, "c2", "{}"))
        .await
        .unwrap();
    assert_eq!(tx.commit().await.unwrap(), Some(Revision(1)));

    assert_eq!(f.store.revision(&f.namespace).await.unwrap(), Revision(1));
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), Revision(1));
    let changes = f
        .store
        .changes_after(&f.namespace, Revision(0), 10)
        .await
        .unwrap();
    let seen: Vec<_> = changes
        .iter()
        .map(|c| (c.revision, c.seq, c.change.verb, c.change.name.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (Revision(1), 1, Verb::Create, "c1"),
            (Revision(1), 2, Verb::Create, "c2")
        ]
    );
    assert_eq!(
        (changes[0].actor.as_str(), changes[0].request_id.as_str()),
        ("test", "r1")
    );
}

#[tokio::test]
async fn a_write_that_changes_nothing_takes_no_revision_and_wakes_nobody() {
    let f = fixture().await;
    let watch = f.store.watch(&f.namespace);
    let mut tx = f.begin().await;
    tx.put_object("file", baetyl_model::Digest::from_sha256([1; 32]), "00", 3)
        .await
        .unwrap();
    assert_eq!(tx.commit().await.unwrap(), None);
    assert_eq!(f.store.revision(&f.namespace).await.unwrap(), Revision(0));
    assert!(!watch.has_changed().unwrap());
    assert_eq!(f.store.objects(&f.namespace).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_dropped_write_leaves_no_trace() {
    let f = fixture().await;
    let mut tx = f.begin().await;
    tx.put_resource(resource(Kind::Configuration, "c1", "{}"))
        .await
        .unwrap();
    drop(tx);
    assert_eq!(
        f.store
            .resource(&f.namespace, Kind::Configuration, "c1")
            .await
            .unwrap(),
        None
    );
    assert_eq!(f.store.revision(&f.namespace).await.unwrap(), Revision(0));
}

#[tokio::test]
async fn versions_are_never_reused_also_not_after_delete_and_create() {
    let f = fixture().await;
    let mut versions = Vec::new();
    for _ in 0..2 {
        let mut tx = f.begin().await;
        versions.push(
            tx.put_resource(resource(Kind::Configuration, "c1", "{}"))
                .await
                .unwrap()
                .version,
        );
        tx.commit().await.unwrap();
        let mut tx = f.begin().await;
        assert!(
            tx.delete_resource(Kind::Configuration, "c1")
                .await
                .unwrap()
                .is_some()
        );
        tx.commit().await.unwrap();
    }
    assert_eq!(versions, [Revision(1), Revision(3)]);
}

#[tokio::test]
async fn a_namespace_that_is_not_there_takes_no_write() {
    let f = fixture().await;
    let other = Namespace::new("other").unwrap();
    assert!(
        matches!(f.store.begin(&other, by()).await, Err(StoreError::NoNamespace(name)) if name == other)
    );
    assert!(
        !f.store.create_namespace(&f.namespace, &by()).await.unwrap(),
        "the second time it is there"
    );
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused_and_left_alone() {
    let f = fixture().await;
    sqlx::query("UPDATE meta SET value = '7'")
        .execute(f.store.writer())
        .await
        .unwrap();
    f.store.close().await;
    let path = f.dir.path().join("cloud.db");
    let seal = crate::seal::Seal::open_dir(f.dir.path()).unwrap();
    let error = Store::open(&path, seal.clone()).await.unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Newer {
                format: 7,
                min_reader: 7,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("newer baetyl-cloud"), "{error}");
}

#[tokio::test]
async fn a_newer_format_that_still_lets_this_program_read_is_opened() {
    let f = fixture().await;
    sqlx::query("UPDATE meta SET value = '7' WHERE key = 'format'")
        .execute(f.store.writer())
        .await
        .unwrap();
    f.store.close().await;
    let seal = crate::seal::Seal::open_dir(f.dir.path()).unwrap();
    let store = Store::open(&f.dir.path().join("cloud.db"), seal)
        .await
        .unwrap();
    assert_eq!(store.namespaces().await.unwrap(), [f.namespace]);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cloud.db");
    std::fs::write(
        &path,
        "this is text, and long enough to be looked at as a header of a database file".repeat(50),
    )
    .unwrap();
    let seal = crate::seal::Seal::open_dir(dir.path()).unwrap();
    assert!(matches!(
        Store::open(&path, seal).await,
        Err(OpenError::Database { .. })
    ));
}

#[tokio::test]
async fn the_database_file_is_private() {
    let f = fixture().await;
    let mode = std::fs::metadata(f.store.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_backup_can_be_put_back_and_a_wrong_file_cannot() {
    let f = fixture().await;
    let mut tx = f.begin().await;
    tx.put_resource(resource(Kind::Configuration, "kept", "{}"))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let backup = f.dir.path().join("backup.db");
    f.store.backup(&backup).await.unwrap();
    assert!(
        f.store.backup(&backup).await.is_err(),
        "an existing file is not overwritten"
    );
    let mut tx = f.begin().await;
    tx.put_resource(resource(Kind::Configuration, "lost", "{}"))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    f.store.close().await;

    let path = f.dir.path().join("cloud.db");
    let wrong = f.dir.path().join("seal.key");
    assert_eq!(
        std::fs::metadata(&backup).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(restore(&wrong, &path, by().time).await.is_err());
    let kept = restore(&backup, &path, by().time).await.unwrap().unwrap();
    let seal = crate::seal::Seal::open_dir(f.dir.path()).unwrap();
    let store = Store::open(&path, seal).await.unwrap();
    assert!(
        store
            .resource(&f.namespace, Kind::Configuration, "kept")
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        store
            .resource(&f.namespace, Kind::Configuration, "lost")
            .await
            .unwrap()
            .is_none()
    );
    let revision = store.revision(&f.namespace).await.unwrap();
    assert!(revision > Revision(1_000_000), "{revision} was never given");
    let seal = crate::seal::Seal::open_dir(f.dir.path()).unwrap();
    let kept = Store::open_existing(&kept, seal).await.unwrap();
    assert!(
        kept.resource(&f.namespace, Kind::Configuration, "lost")
            .await
            .unwrap()
            .is_some(),
        "the old database is whole"
    );
}

#[tokio::test]
async fn what_only_the_log_of_the_old_database_held_is_kept_with_it() {
    let f = fixture().await;
    let backup = f.dir.path().join("backup.db");
    f.store.backup(&backup).await.unwrap();
    let mut tx = f.begin().await;
    tx.put_resource(resource(Kind::Configuration, "logged", "{}"))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    // As a killed program leaves it: database and log, nobody has them open.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cloud.db");
    for suffix in ["", "-wal"] {
        let from = f.dir.path().join(format!("cloud.db{suffix}"));
        std::fs::copy(from, dir.path().join(format!("cloud.db{suffix}"))).unwrap();
    }
    assert!(
        std::fs::metadata(dir.path().join("cloud.db-wal"))
            .unwrap()
            .len()
            > 0
    );
    let kept = restore(&backup, &path, by().time).await.unwrap().unwrap();
    assert!(!dir.path().join("cloud.db-wal").exists());
    let seal = crate::seal::Seal::open_dir(f.dir.path()).unwrap();
    let kept = Store::open_existing(&kept, seal).await.unwrap();
    let row = kept
        .resource(&f.namespace, Kind::Configuration, "logged")
        .await
        .unwrap();
    assert!(row.is_some());
}

#[tokio::test]
async fn opening_what_is_there_leaves_its_schema_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cloud.db");
    let seal = crate::seal::Seal::open_dir(dir.path()).unwrap();
    assert!(
        Store::open_existing(&path, seal.clone()).await.is_err(),
        "and makes none"
    );
    std::fs::write(&path, b"").unwrap();
    let store = Store::open_existing(&path, seal).await.unwrap();
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
        .fetch_one(store.reader())
        .await
        .unwrap();
    assert_eq!(tables, 0);
}
