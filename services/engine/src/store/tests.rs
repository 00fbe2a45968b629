#![allow(clippy::unwrap_used, clippy::expect_used)]

use baetyl_ledger::medium::FillingDisk;
use baetyl_model::desire::Unpack;
use baetyl_model::name::Generation;
use baetyl_model::update::{Event, Limits};
use serde_json::json;
use std::time::Duration;

use super::*;
use crate::testing::{Release as Fixture, digest, release};

fn record(fixture: &Fixture) -> AppRecord {
    let update = Update::new(fixture.desired.app.name.clone(), Limits::default());
    let want = Event::Want {
        release: fixture.desired.release(),
        generation: Generation(7),
    };
    let mut record = AppRecord::new(update.next(want, Duration::ZERO).0);
    record.releases.push(StoredRelease {
        desired: fixture.desired.clone(),
        node: NodeIdentity::default(),
        taken_at: Timestamp::UNIX_EPOCH,
        initialised: false,
    });
    record
}

fn shop() -> Fixture {
    release("shop", "7", json!({"services": []}))
        .configuration("conf", json!({"a": "1"}))
        .secret("cred", json!({"password": "aHVudGVyMg=="}))
        .object("conf", "model.bin", b"model", Unpack::None)
        .build()
}

fn bodies(fixture: &Fixture) -> Vec<Body> {
    let body = |reference: baetyl_model::ResourceRef| Body {
        kind: reference.kind,
        digest: reference.digest,
        bytes: fixture.bytes[&reference.digest].clone(),
    };
    fixture.desired.references().into_iter().map(body).collect()
}

fn needed(fixture: &Fixture) -> BTreeSet<Digest> {
    fixture
        .desired
        .references()
        .into_iter()
        .map(|reference| reference.digest)
        .collect()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop();
    let mut record = record(&shop);
    record.ports.insert("i".to_owned(), vec![50200]);
    let store = Store::open(dir.path()).unwrap();
    store
        .persist_staged(&record, bodies(&shop), &needed(&shop))
        .await
        .unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.apps().unwrap(), [record]);
    for (digest, bytes) in &shop.bytes {
        let expected = needed(&shop).contains(digest).then_some(bytes);
        assert_eq!(store.body(digest).unwrap().as_ref(), expected);
    }
    assert_eq!(store.quarantined(), None);
}

#[tokio::test]
async fn secret_bodies_are_sealed_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop();
    let store = Store::open(dir.path()).unwrap();
    store
        .persist_staged(&record(&shop), bodies(&shop), &needed(&shop))
        .await
        .unwrap();
    drop(store);
    let file = std::fs::read(dir.path().join("engine.redb")).unwrap();
    let holds = |needle: &[u8]| file.windows(needle.len()).any(|window| window == needle);
    assert!(!holds(b"aHVudGVyMg==") && holds(br#""a":"1""#));
}

#[tokio::test]
async fn without_its_key_file_a_secret_body_is_as_good_as_absent() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop();
    let store = Store::open(dir.path()).unwrap();
    store
        .persist_staged(&record(&shop), bodies(&shop), &needed(&shop))
        .await
        .unwrap();
    drop(store);
    std::fs::write(dir.path().join("seal.key"), "rubbish").unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.apps().unwrap().len(), 1);
    let secret = &shop.desired.resources[1];
    assert_eq!(
        (secret.kind, store.body(&secret.digest).unwrap()),
        (Kind::Secret, None)
    );
}

#[tokio::test]
async fn a_record_is_not_written_while_a_body_it_needs_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop();
    let store = Store::open(dir.path()).unwrap();
    let error = store
        .persist_staged(&record(&shop), Vec::new(), &needed(&shop))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::BodiesGone { app } if app == "shop"));
    assert_eq!(store.apps().unwrap(), []);
}

#[tokio::test]
async fn bodies_nobody_names_are_removed_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop();
    let store = Store::open(dir.path()).unwrap();
    store
        .persist_staged(&record(&shop), bodies(&shop), &needed(&shop))
        .await
        .unwrap();
    let kept = shop.desired.app.digest;
    let registry = Registry::default();
    let needs = crate::registry::Needs {
        digests: [kept].into(),
        ..Default::default()
    };
    registry.set(&shop.desired.app.name, needs);
    store.retain_bodies(&registry).await.unwrap();
    let left: Vec<_> = needed(&shop)
        .into_iter()
        .filter(|digest| store.body(digest).unwrap().is_some())
        .collect();
    assert_eq!(left, [kept]);
}

#[tokio::test]
async fn a_damaged_file_is_put_aside_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("engine.redb");
    let shop = shop();
    let store = Store::open(dir.path()).unwrap();
    store
        .persist_staged(&record(&shop), bodies(&shop), &needed(&shop))
        .await
        .unwrap();
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 3] = [
        |bytes| bytes.iter_mut().for_each(|byte| *byte = 7),
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| {
            // Pages after the header: those the records and bodies are in.
            let at = bytes
                .windows(6)
                .position(|window| window == b"\"shop\"")
                .unwrap();
            bytes[at..at + 6].copy_from_slice(b"######");
        },
    ];
    for damage in damages {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let store = Store::open(dir.path()).unwrap();
        let aside = store.quarantined().expect("the damage is seen").to_owned();
        assert_eq!(std::fs::read(&aside).unwrap().len(), bytes.len());
        assert_eq!(store.apps().unwrap(), []);
        assert_eq!(store.accepted().unwrap(), None);
        drop(store);
    }
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("engine.redb");
    drop(Store::open(dir.path()).unwrap());
    let db = redb::Database::create(&path).unwrap();
    let tx = db.begin_write().unwrap();
    tx.open_table(META)
        .unwrap()
        .insert("format", &br#"{"format":9,"min_reader":2}"#[..])
        .unwrap();
    tx.commit().unwrap();
    drop(db);
    assert!(matches!(
        Store::open(dir.path()),
        Err(StoreError::Database(LedgerError::TooNew { wanted: 2, .. }))
    ));
    assert!(path.exists());
}

#[tokio::test]
async fn two_engines_cannot_have_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(dir.path()).unwrap();
    assert!(matches!(
        Store::open(dir.path()),
        Err(error) if error.is_in_use()
    ));
    assert_eq!(first.quarantined(), None);
}

#[test]
fn releases_nobody_names_are_pruned() {
    let (old, new) = (release("shop", "6", json!({})).build(), shop());
    let mut record = record(&new);
    record.releases.push(StoredRelease {
        desired: old.desired.clone(),
        node: NodeIdentity::default(),
        taken_at: Timestamp::UNIX_EPOCH,
        initialised: false,
    });
    assert!(record.needs().digests.contains(&old.desired.app.digest));
    record.prune();
    assert_eq!(record.releases.len(), 1);
    assert!(record.release(&new.desired.release()).is_some());
    assert!(record.needs().digests.contains(&digest(b"model")));
}

#[tokio::test]
async fn on_a_full_disk_what_was_written_stays_and_with_room_engine_goes_on_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FillingDisk::default();
    let store = Store::open_on(Arc::new(disk.clone()), dir.path()).unwrap();
    let shop = shop();
    let mut record = record(&shop);
    store.persist_app(&record).await.unwrap();
    let old = record.clone();
    record.ports.insert("i".repeat(1_000_000), vec![50200]);
    disk.set_full(true);
    let error = store.persist_app(&record).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Database(error) if error.is_full()),
        "{error:?}"
    );
    assert_eq!(store.apps().unwrap(), [old]);
    disk.set_full(false);
    store.persist_app(&record).await.unwrap();
    assert_eq!(store.apps().unwrap(), [record]);
}

#[tokio::test]
async fn whichever_page_is_damaged_engine_starts_with_what_was_written_or_says_that_it_lost_it() {
    let dir = tempfile::tempdir().unwrap();
    let shop = shop();
    let record = record(&shop);
    let store = Store::open(dir.path()).unwrap();
    store
        .persist_staged(&record, bodies(&shop), &needed(&shop))
        .await
        .unwrap();
    drop(store);
    let whole = std::fs::read(dir.path().join("engine.redb")).unwrap();
    type Damage = fn(&mut [u8]);
    let damages: [Damage; 3] = [
        |page| page.fill(0xa5),
        |page| page[0] ^= 0xff,
        |page| page[page.len() / 2] ^= 0xff,
    ];
    for page in 0..whole.len().div_ceil(4096) {
        for (kind, damage) in damages.iter().enumerate() {
            let case = tempfile::tempdir().unwrap();
            let mut bytes = whole.clone();
            let end = bytes.len().min((page + 1) * 4096);
            damage(&mut bytes[page * 4096..end]);
            std::fs::write(case.path().join("engine.redb"), &bytes).unwrap();
            let store = Store::open(case.path()).unwrap();
            let apps = store.apps().unwrap();
            if store.quarantined().is_none() {
                assert_eq!(
                    apps,
                    std::slice::from_ref(&record),
                    "page {page}, damage {kind}"
                );
            }
        }
    }
}
