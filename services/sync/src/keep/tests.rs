use std::sync::Arc;

use baetyl_kit::crypto::SealKey;
use baetyl_proto::digest;
use baetyl_testkit::TestDir;

use super::*;
use crate::db;
use crate::store::Shelf;
use crate::store::disk::RealDisk;

/// Everything that may go goes.
const GREEDY: Watermark = Watermark {
    high: 0,
    low: 0,
    min_free: 0,
};

const BODIES: [&[u8]; 2] = [b"plain", b"secret"];

/// A store with a body and a secret, kept as `held` and `pinned` say; what is left of the two after a cleaning.
fn left(held: Held, pinned: Option<&[Digest]>, staged: &[Digest]) -> [bool; 2] {
    let dir = TestDir::new();
    let key = SealKey::from_bytes(&[7; 32]);
    let store = Arc::new(Store::open(dir.path(), Arc::new(RealDisk), key).unwrap());
    let digests = BODIES.map(digest::of);
    store
        .put_body(Shelf::Plain, &digests[0], BODIES[0])
        .unwrap();
    store
        .put_body(Shelf::Sealed, &digests[1], BODIES[1])
        .unwrap();
    let db = Arc::new(db::open(&dir.join("sync.redb")).unwrap().file);
    if let Some(pinned) = pinned {
        pins::set_pins(&db, "engine", pinned).unwrap();
    }
    let (_, held) = watch::channel(held);
    let keeper = Keeper::new(db, Arc::clone(&store), held, GREEDY);
    keeper.hold(staged);
    keeper.make_room(0).unwrap();
    digests.map(|digest| store.read_body(&digest).unwrap().is_some())
}

/// A desire without applications.
fn empty_desire() -> Held {
    let desire = crate::tests::harness::signed(1, "a");
    Held::Desire(Arc::new(crate::node::HeldDesire {
        header: baetyl_proto::sign::read_desire(&desire).unwrap().header(),
        signed: desire,
    }))
}

#[test]
fn no_desire_known_is_not_an_empty_desire_nothing_is_removed() {
    assert_eq!(left(Held::Unknown, Some(&[]), &[]), [true, true]);
    assert_eq!(left(Held::Nothing, Some(&[]), &[]), [true, true]);
}

#[test]
fn before_engine_has_said_what_it_needs_nothing_is_removed() {
    assert_eq!(left(empty_desire(), None, &[]), [true, true]);
}

#[test]
fn with_both_known_what_nobody_needs_goes() {
    assert_eq!(left(empty_desire(), Some(&[]), &[]), [false, false]);
}

#[test]
fn what_is_pinned_or_was_staged_a_moment_ago_stays() {
    let [plain, secret] = BODIES.map(digest::of);
    assert_eq!(left(empty_desire(), Some(&[secret]), &[]), [false, true]);
    assert_eq!(left(empty_desire(), Some(&[]), &[plain]), [true, false]);
}
