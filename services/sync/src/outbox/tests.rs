use baetyl_ledger::medium::FillingDisk;

use super::*;
use crate::db;

fn event(reason: &str) -> Event {
    Event {
        reason: reason.to_owned(),
        ..Event::default()
    }
}

fn open(dir: &tempfile::TempDir, limit: u64) -> Outbox {
    let db = db::open(&dir.path().join("sync.redb")).unwrap().file;
    Outbox::new(Arc::new(db), limit)
}

fn open_on(disk: &FillingDisk, dir: &tempfile::TempDir) -> Outbox {
    let path = dir.path().join("sync.redb");
    let opened = Db::open_on(Arc::new(disk.clone()), &path, db::RULES).unwrap();
    Outbox::new(Arc::new(opened.file), 10)
}

fn waiting(outbox: &Outbox) -> Vec<(u64, String, u64)> {
    let (acked, queued) = outbox.numbers().unwrap();
    (acked + 1..=queued)
        .filter_map(|sequence| outbox.event(sequence, acked).unwrap())
        .map(|event| (event.sequence, event.reason, event.dropped))
        .collect()
}

#[test]
fn events_are_numbered_and_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(&dir, 10);
    assert_eq!(outbox.put(event("A")).unwrap(), 1);
    assert_eq!(outbox.put(event("B")).unwrap(), 2);
    drop(outbox);
    let outbox = open(&dir, 10);
    assert_eq!(outbox.put(event("C")).unwrap(), 3);
    assert_eq!(
        waiting(&outbox),
        [(1, "A".into(), 0), (2, "B".into(), 0), (3, "C".into(), 0)]
    );
}

#[test]
fn a_full_box_drops_the_oldest_and_the_next_event_tells_how_many() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(&dir, 2);
    for reason in ["A", "B", "C", "D", "E"] {
        outbox.put(event(reason)).unwrap();
    }
    assert_eq!(waiting(&outbox), [(4, "D".into(), 3), (5, "E".into(), 0)]);
    outbox.acknowledge(1).unwrap();
    assert_eq!(waiting(&outbox), [(4, "D".into(), 2), (5, "E".into(), 0)]);
}

#[test]
fn what_the_cloud_stored_is_forgotten_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(&dir, 10);
    for reason in ["A", "B", "C"] {
        outbox.put(event(reason)).unwrap();
    }
    outbox.meet(0).unwrap();
    outbox.acknowledge(2).unwrap();
    outbox.acknowledge(1).unwrap();
    assert_eq!(waiting(&outbox), [(3, "C".into(), 0)]);
    outbox.acknowledge(3).unwrap();
    assert_eq!(outbox.put(event("D")).unwrap(), 4);
}

#[test]
fn a_lost_database_goes_on_after_the_numbers_of_the_cloud_and_loses_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(&dir, 10);
    outbox.put(event("A")).unwrap();
    outbox.put(event("B")).unwrap();
    outbox.meet(40).unwrap();
    assert_eq!(waiting(&outbox), [(41, "A".into(), 0), (42, "B".into(), 0)]);
    assert_eq!(outbox.put(event("C")).unwrap(), 43);
    // The same Welcome again changes nothing.
    outbox.meet(41).unwrap();
    assert_eq!(waiting(&outbox), [(42, "B".into(), 0), (43, "C".into(), 0)]);
}

#[test]
fn a_box_that_overflowed_before_the_first_contact_still_tells_the_hole() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(&dir, 1);
    for reason in ["A", "B", "C"] {
        outbox.put(event(reason)).unwrap();
    }
    outbox.meet(0).unwrap();
    assert_eq!(waiting(&outbox), [(3, "C".into(), 2)]);
    assert_eq!(outbox.put(event("D")).unwrap(), 4);
}

#[test]
fn a_database_that_was_put_back_renumbers_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(&dir, 10);
    outbox.meet(0).unwrap();
    outbox.put(event("A")).unwrap();
    outbox.meet(7).unwrap();
    assert_eq!(waiting(&outbox), [(8, "A".into(), 0)]);
}

#[test]
fn a_cloud_that_went_back_is_told_of_the_hole() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(&dir, 10);
    outbox.meet(0).unwrap();
    for reason in ["A", "B", "C"] {
        outbox.put(event(reason)).unwrap();
    }
    outbox.acknowledge(2).unwrap();
    outbox.meet(0).unwrap();
    assert_eq!(waiting(&outbox), [(3, "C".into(), 2)]);
}

#[test]
fn a_long_text_is_cut_at_a_character() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(&dir, 10);
    outbox
        .put(Event {
            message: format!("{}é", "a".repeat(MAX_TEXT - 1)),
            ..event("A")
        })
        .unwrap();
    let stored = &outbox.event(1, 0).unwrap().unwrap().message;
    assert_eq!(stored.len(), MAX_TEXT - 1);
}

#[test]
fn on_a_full_disk_what_the_cloud_stored_is_forgotten_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FillingDisk::default();
    let outbox = open_on(&disk, &dir);
    outbox.meet(0).unwrap();
    outbox.put(event("A")).unwrap();
    outbox.put(event("B")).unwrap();
    disk.refuse_next();
    outbox.acknowledge(1).unwrap();
    assert_eq!(outbox.numbers().unwrap(), (0, 2));
    // The next stream begins with what the cloud says.
    disk.refuse_next();
    assert_eq!(outbox.meet(1).unwrap(), (0, 2));
    assert_eq!(outbox.meet(1).unwrap(), (1, 2));
    assert_eq!(waiting(&outbox), [(2, "B".into(), 0)]);
}

#[test]
fn numbers_that_cannot_be_changed_for_want_of_room_are_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FillingDisk::default();
    let outbox = open_on(&disk, &dir);
    outbox.put(event("A")).unwrap();
    disk.refuse_next();
    assert!(outbox.meet(40).unwrap_err().is_full());
    assert_eq!(waiting(&outbox), [(1, "A".into(), 0)]);
    assert_eq!(outbox.meet(40).unwrap(), (40, 41));
}
