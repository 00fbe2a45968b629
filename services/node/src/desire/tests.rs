use baetyl_proto::shadow::Signature;
use bytes::Bytes;

use super::*;
use crate::ledger::Ledger;
use crate::shadow::Identity;

pub(crate) fn shadow() -> (tempfile::TempDir, Shadow) {
    let dir = tempfile::tempdir().unwrap();
    let shadow = Shadow::load(Ledger::open(dir.path()).unwrap(), Vec::new()).unwrap();
    (dir, shadow)
}

pub(crate) fn uid(last: char) -> String {
    format!("0190c7a0-0000-7000-8000-00000000000{last}")
}

pub(crate) fn signed(node: char, epoch: u64, generation: u64, content: char) -> SignedDesire {
    let desire = Desire {
        namespace: "default".into(),
        node_name: "n1".into(),
        node_uid: uid(node),
        epoch,
        generation,
        digest: format!("sha256:{}", content.to_string().repeat(64)),
        ..Desire::default()
    };
    let signature = Signature {
        key_id: "k".into(),
        algorithm: "ed25519".into(),
        value: Bytes::from_static(b"s"),
    };
    SignedDesire {
        payload: desire.encode_to_vec().into(),
        signatures: vec![signature],
    }
}

#[test]
fn a_newer_desire_is_persisted_with_exactly_its_bytes_and_watchers_are_told() {
    let (_dir, shadow) = shadow();
    let mut watch = shadow.desire.subscribe();
    let first = signed('1', 0, 5, 'a');
    assert!(accept_desire(&shadow, first.clone()).unwrap().0);
    assert!(watch.has_changed().unwrap());
    watch.mark_unchanged();
    assert_eq!(
        shadow.ledger.read_desire().unwrap().unwrap(),
        first.encode_to_vec()
    );
    assert!(
        accept_desire(&shadow, signed('1', 1, 1, 'b')).unwrap().0,
        "a higher epoch wins over a higher generation"
    );
}

#[test]
fn the_same_desire_again_is_accepted_and_wakes_nobody() {
    let (_dir, shadow) = shadow();
    accept_desire(&shadow, signed('1', 0, 5, 'a')).unwrap();
    let watch = shadow.desire.subscribe();
    assert!(!accept_desire(&shadow, signed('1', 0, 5, 'a')).unwrap().0);
    assert!(!watch.has_changed().unwrap());
}

#[test]
fn stale_conflicting_and_foreign_desires_are_refused_and_leave_the_ledger_untouched() {
    let (_dir, shadow) = shadow();
    accept_desire(&shadow, signed('1', 2, 5, 'a')).unwrap();
    let before = shadow.ledger.read_desire().unwrap();
    for (offer, rule) in [
        (signed('1', 2, 4, 'b'), Refusal::Stale),
        (signed('1', 1, 99, 'b'), Refusal::Stale),
        (signed('1', 2, 5, 'b'), Refusal::Conflict),
        (signed('2', 9, 9, 'b'), Refusal::WrongNode),
    ] {
        let refused = accept_desire(&shadow, offer).unwrap_err();
        assert!(
            matches!(refused, AcceptError::Refused { refusal, .. } if refusal == rule),
            "{refused}"
        );
    }
    assert_eq!(shadow.ledger.read_desire().unwrap(), before);
    assert_eq!(shadow.counts.accepted.get(), 1);
    assert_eq!(shadow.counts.refused.get(), 4);
}

#[test]
fn bytes_that_are_no_desire_are_refused() {
    let (_dir, shadow) = shadow();
    let garbage = SignedDesire {
        payload: Bytes::from_static(&[0xff; 40]),
        signatures: Vec::new(),
    };
    assert!(matches!(
        accept_desire(&shadow, garbage),
        Err(AcceptError::Malformed(_))
    ));
    assert!(shadow.desire.borrow().is_none());
}

#[test]
fn a_restart_holds_what_was_accepted_and_still_refuses_what_is_older() {
    let (dir, shadow) = shadow();
    accept_desire(&shadow, signed('1', 0, 7, 'a')).unwrap();
    drop(shadow);
    let shadow = Shadow::load(Ledger::open(dir.path()).unwrap(), Vec::new()).unwrap();
    assert_eq!(
        shadow
            .desire
            .borrow()
            .as_ref()
            .unwrap()
            .header
            .generation
            .get(),
        7
    );
    assert!(accept_desire(&shadow, signed('1', 0, 6, 'b')).is_err());
}

#[test]
fn the_identity_decides_whose_desires_count() {
    let (_dir, shadow) = shadow();
    let identity = Identity {
        namespace: "default".into(),
        node_name: "n1".into(),
        node_uid: uid('3').parse().unwrap(),
    };
    shadow.persist_identity(identity).unwrap();
    assert!(accept_desire(&shadow, signed('1', 0, 1, 'a')).is_err());
    assert!(accept_desire(&shadow, signed('3', 0, 1, 'a')).unwrap().0);
}
