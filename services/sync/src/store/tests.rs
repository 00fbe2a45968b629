use std::os::unix::fs::PermissionsExt as _;

use super::disk::RealDisk;
use super::disk::fake::FakeDisk;
use super::partial::Origin;
use super::*;

mod collecting;
mod power;

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(crypto::sha256(bytes))
}

fn key() -> SealKey {
    SealKey::from_bytes(&[7; 32])
}

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path(), Arc::new(RealDisk), key()).unwrap()
}

/// Every byte of every file below `dir`.
fn all_bytes(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes.extend(all_bytes(&path));
        } else {
            bytes.extend(fs::read(&path).unwrap());
        }
    }
    bytes
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[test]
fn a_body_is_read_as_it_was_stored_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let digest = digest_of(b"{}");
    open(&dir).put_body(Shelf::Plain, &digest, b"{}").unwrap();
    assert_eq!(
        open(&dir).read_body(&digest).unwrap().as_deref(),
        Some(b"{}".as_slice())
    );
    assert_eq!(open(&dir).read_body(&digest_of(b"other")).unwrap(), None);
}

#[test]
fn a_body_with_another_digest_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let error = store
        .put_body(Shelf::Plain, &digest_of(b"a"), b"b")
        .unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { .. }));
    assert_eq!(store.entries().unwrap(), []);
}

#[test]
fn a_secret_is_never_on_the_disk_in_plaintext() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let body = b"{\"password\":\"correct horse battery staple\"}";
    let digest = digest_of(body);
    store.put_body(Shelf::Sealed, &digest, body).unwrap();
    assert_eq!(
        store.read_body(&digest).unwrap().as_deref(),
        Some(body.as_slice())
    );
    assert!(!contains(&all_bytes(dir.path()), b"battery"));
}

#[test]
fn a_sealed_body_under_another_digest_or_key_counts_as_not_here() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let (a, b) = (digest_of(b"a"), digest_of(b"b"));
    store.put_body(Shelf::Sealed, &a, b"a").unwrap();
    store.put_body(Shelf::Sealed, &b, b"b").unwrap();
    let sealed = fs::read(store.body_path(Shelf::Sealed, &a)).unwrap();
    fs::write(store.body_path(Shelf::Sealed, &b), sealed).unwrap();
    assert_eq!(store.read_body(&b).unwrap(), None);
    let stranger = Store::open(
        dir.path(),
        Arc::new(RealDisk),
        SealKey::from_bytes(&[8; 32]),
    )
    .unwrap();
    assert_eq!(stranger.read_body(&a).unwrap(), None);
}

#[test]
fn a_body_that_rotted_on_the_disk_is_thrown_away_and_can_be_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let digest = digest_of(b"body");
    store.put_body(Shelf::Plain, &digest, b"body").unwrap();
    fs::write(store.body_path(Shelf::Plain, &digest), b"bodz").unwrap();
    assert_eq!(store.read_body(&digest).unwrap(), None);
    assert_eq!(store.entries().unwrap(), []);
    store.put_body(Shelf::Plain, &digest, b"body").unwrap();
    assert!(store.read_body(&digest).unwrap().is_some());
}

#[test]
fn an_object_grows_over_a_restart_and_is_checked_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let digest = digest_of(b"hello world");
    let store = open(&dir);
    let mut partial = store.begin(&digest).unwrap();
    assert!(!partial.is_resumed());
    store.append(&mut partial, b"hello ").unwrap();
    drop((partial, store));

    let store = open(&dir);
    let mut partial = store.begin(&digest).unwrap();
    assert_eq!((partial.length(), partial.is_resumed()), (6, true));
    assert_eq!(store.object(&digest).unwrap(), None);
    store.append(&mut partial, b"world").unwrap();
    let path = store.finish(partial).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello world");
    assert_eq!(store.object(&digest).unwrap(), Some(path.clone()));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(
        mode & 0o777,
        0o444,
        "an application that gets a link must not write to the store"
    );
}

#[test]
fn an_object_that_does_not_match_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let digest = digest_of(b"hello");
    let mut partial = store.begin(&digest).unwrap();
    store.append(&mut partial, b"hullo").unwrap();
    let error = store.finish(partial).unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { .. }), "{error}");
    assert_eq!(store.entries().unwrap(), []);
    assert_eq!(store.begin(&digest).unwrap().length(), 0);
}

#[test]
fn a_restarted_part_begins_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let digest = digest_of(b"hello");
    let mut partial = store.begin(&digest).unwrap();
    store.append(&mut partial, b"garbage").unwrap();
    store.restart(&mut partial).unwrap();
    store.append(&mut partial, b"hello").unwrap();
    store.finish(partial).unwrap();
}

#[test]
fn an_object_that_was_changed_after_it_was_verified_is_not_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let digest = digest_of(b"hello");
    let mut partial = store.begin(&digest).unwrap();
    store.append(&mut partial, b"hello").unwrap();
    let path = store.finish(partial).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, b"hellO").unwrap();
    assert_eq!(store.object(&digest).unwrap(), None);
    assert!(!path.exists());
}

#[test]
fn where_a_part_comes_from_is_remembered_until_it_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let digest = digest_of(b"hello");
    let origin = Origin {
        url: "https://files.example/p.tgz".to_owned(),
        etag: "\"v1\"".to_owned(),
    };
    assert_eq!(store.origin(&digest), None);
    store.set_origin(&digest, &origin).unwrap();
    assert_eq!(store.origin(&digest), Some(origin));
    let mut partial = store.begin(&digest).unwrap();
    store.append(&mut partial, b"hello").unwrap();
    store.finish(partial).unwrap();
    assert_eq!(store.origin(&digest), None);
}

#[test]
fn a_full_disk_is_told_as_such_and_leaves_no_half_body() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FakeDisk::with_room(10));
    let store = Store::open(dir.path(), disk.clone(), key()).unwrap();
    let body = [1; 100];
    let digest = digest_of(&body);
    let error = store.put_body(Shelf::Plain, &digest, &body).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(store.read_body(&digest).unwrap(), None);
    assert_eq!(all_bytes(dir.path()), b"");
    assert!(matches!(
        store.check_room(5, 6),
        Err(StoreError::Full { .. })
    ));
    store.check_room(5, 5).unwrap();
}
