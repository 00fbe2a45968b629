use super::*;
use crate::store::tests::{Fixture, by, fixture};
use std::convert::Infallible;

fn chunks(parts: &[&'static str]) -> impl Stream<Item = Result<Bytes, Infallible>> + Unpin + use<> {
    let parts: Vec<_> = parts
        .iter()
        .map(|part| Ok(Bytes::from_static(part.as_bytes())))
        .collect();
    futures_util::stream::iter(parts)
}

async fn put(f: &Fixture, objects: &Objects, name: &str, text: &'static str) -> ObjectRow {
    let upload = objects.receive(chunks(&[text])).await.unwrap();
    objects
        .keep(upload, &f.store, &f.namespace, by(), name)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_file_is_kept_under_its_digest_with_both_sums() {
    let f = fixture().await;
    let objects = Objects::open(&f.dir.path().join("objects"), &ObjectsConfig::default()).unwrap();
    let upload = objects.receive(chunks(&["hel", "lo"])).await.unwrap();
    let row = objects
        .keep(upload, &f.store, &f.namespace, by(), "greeting")
        .await
        .unwrap();
    assert_eq!(
        row.digest.to_string(),
        "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    assert_eq!(
        (row.md5.as_str(), row.size),
        ("5d41402abc4b2a76b9719d911017c592", 5)
    );
    assert_eq!(std::fs::read(objects.path(&row.digest)).unwrap(), b"hello");
    assert_eq!(
        f.store
            .object(&f.namespace, "greeting")
            .await
            .unwrap()
            .unwrap(),
        row
    );
}

#[tokio::test]
async fn replaced_bytes_go_when_nobody_else_has_them() {
    let f = fixture().await;
    let objects = Objects::open(&f.dir.path().join("objects"), &ObjectsConfig::default()).unwrap();
    let first = put(&f, &objects, "a", "one").await;
    put(&f, &objects, "b", "one").await;
    put(&f, &objects, "a", "two").await;
    assert!(objects.path(&first.digest).exists(), "b still has them");
    put(&f, &objects, "b", "two").await;
    assert!(!objects.path(&first.digest).exists());
}

#[tokio::test]
async fn an_upload_that_is_too_large_or_breaks_off_leaves_nothing() {
    let f = fixture().await;
    let dir = f.dir.path().join("objects");
    let objects = Objects::open(
        &dir,
        &ObjectsConfig {
            max_size: ByteSize(4),
        },
    )
    .unwrap();
    let large = objects.receive(chunks(&["hel", "lo"])).await;
    assert!(matches!(large, Err(ObjectError::TooLarge(4))), "{large:?}");
    let broken = futures_util::stream::iter(vec![Ok(Bytes::from_static(b"he")), Err("gone")]);
    let broken = objects.receive(broken).await;
    assert!(matches!(broken, Err(ObjectError::BrokenOff)), "{broken:?}");
    assert_eq!(std::fs::read_dir(dir.join(UPLOADS)).unwrap().count(), 0);
}

#[tokio::test]
async fn a_start_removes_what_a_crash_left() {
    let f = fixture().await;
    let dir = f.dir.path().join("objects");
    let objects = Objects::open(&dir, &ObjectsConfig::default()).unwrap();
    let kept = put(&f, &objects, "a", "kept").await;
    let orphan = objects.path(&Digest::from_sha256([9; 32]));
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, "no row").unwrap();
    std::fs::write(dir.join(UPLOADS).join("half"), "half").unwrap();

    let objects = Objects::open(&dir, &ObjectsConfig::default()).unwrap();
    let now = by().time;
    Objects::keep_unknown(&dir, now).unwrap();
    objects
        .sweep(&f.store, now + SignedDuration::from_hours(6 * 24))
        .await
        .unwrap();
    assert!(
        orphan.exists(),
        "the database before may be wanted after all"
    );
    objects
        .sweep(&f.store, now + SignedDuration::from_hours(8 * 24))
        .await
        .unwrap();
    assert!(!orphan.exists());
    assert!(!dir.join(UPLOADS).join("half").exists());
    assert!(objects.path(&kept.digest).exists());
}

#[tokio::test]
async fn an_announced_digest_must_be_the_received_one() {
    let f = fixture().await;
    let objects = Objects::open(&f.dir.path().join("objects"), &ObjectsConfig::default()).unwrap();
    let upload = objects.receive(chunks(&["hello"])).await.unwrap();
    assert!(upload.expect(upload.digest).is_ok());
    assert!(matches!(
        upload.expect(Digest::from_sha256([0; 32])),
        Err(ObjectError::Digest { .. })
    ));
}
