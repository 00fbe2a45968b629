//! What a collection removes, and what never.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use crate::store::gc::{Area, Entry, Watermark, plan_collection};

use super::*;

const NEVER: Watermark = Watermark {
    high: u64::MAX,
    low: u64::MAX,
    min_free: 0,
};

fn entry(area: Area, name: u8, size: u64) -> Entry {
    Entry {
        area,
        digest: Digest::from_sha256([name; 32]),
        path: PathBuf::from(format!("/{name}")),
        size,
        modified: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(name)),
    }
}

fn names(plan: &[&Entry]) -> Vec<u8> {
    plan.iter()
        .map(|entry| entry.digest.as_bytes()[0])
        .collect()
}

fn keep(names: &[u8]) -> HashSet<Digest> {
    names
        .iter()
        .map(|name| Digest::from_sha256([*name; 32]))
        .collect()
}

#[test]
fn below_the_watermark_only_unneeded_secrets_go() {
    let entries = [
        entry(Area::Resources, 1, 10),
        entry(Area::Sealed, 2, 10),
        entry(Area::Sealed, 3, 10),
        entry(Area::Objects, 4, 10),
    ];
    assert_eq!(
        names(&plan_collection(&entries, &keep(&[3]), NEVER, 0)),
        [2]
    );
}

#[test]
fn above_the_high_mark_the_oldest_go_until_the_low_mark() {
    let entries = [
        entry(Area::Objects, 3, 40),
        entry(Area::Objects, 1, 40),
        entry(Area::Partial, 2, 40),
        entry(Area::Resources, 4, 40),
    ];
    let watermark = Watermark {
        high: 150,
        low: 100,
        min_free: 0,
    };
    assert_eq!(
        names(&plan_collection(&entries, &keep(&[]), watermark, 0)),
        [1, 2]
    );
    let lax = Watermark {
        high: 160,
        ..watermark
    };
    assert!(plan_collection(&entries, &keep(&[]), lax, 0).is_empty());
}

#[test]
fn little_free_space_makes_room_also_below_the_high_mark() {
    let entries = [entry(Area::Objects, 1, 40), entry(Area::Objects, 2, 40)];
    let watermark = Watermark {
        min_free: 100,
        ..NEVER
    };
    assert_eq!(
        names(&plan_collection(&entries, &keep(&[]), watermark, 70)),
        [1]
    );
    assert!(plan_collection(&entries, &keep(&[]), watermark, 100).is_empty());
}

#[test]
fn what_is_needed_stays_however_full_the_disk_is() {
    let entries: Vec<Entry> = (1..=6).map(|name| entry(Area::Objects, name, 40)).collect();
    let greedy = Watermark {
        high: 0,
        low: 0,
        min_free: u64::MAX,
    };
    assert_eq!(
        names(&plan_collection(&entries, &keep(&[1, 3, 5]), greedy, 0)),
        [2, 4, 6]
    );
}

#[test]
fn a_collection_removes_files_and_leaves_what_is_kept_readable() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let (kept, gone, secret) = (digest_of(b"kept"), digest_of(b"gone"), digest_of(b"secret"));
    store.put_body(Shelf::Plain, &kept, b"kept").unwrap();
    store.put_body(Shelf::Plain, &gone, b"gone").unwrap();
    store.put_body(Shelf::Sealed, &secret, b"secret").unwrap();
    let mut partial = store.begin(&digest_of(b"part")).unwrap();
    store.append(&mut partial, b"pa").unwrap();
    let greedy = Watermark {
        high: 0,
        low: 0,
        min_free: 0,
    };
    let collected = store.collect(&HashSet::from([kept]), greedy).unwrap();
    assert_eq!(collected.files, 3);
    assert!(store.read_body(&kept).unwrap().is_some());
    assert_eq!(store.entries().unwrap().len(), 1);
}
