use super::*;

fn ledger() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    (dir, ledger)
}

#[test]
fn a_desire_survives_reopening_byte_for_byte() {
    let (dir, ledger) = ledger();
    assert_eq!(ledger.read_desire().unwrap(), None);
    ledger.persist_desire(b"one").unwrap();
    ledger.persist_desire(b"two").unwrap();
    drop(ledger);
    assert_eq!(
        Ledger::open(dir.path())
            .unwrap()
            .read_desire()
            .unwrap()
            .unwrap(),
        b"two"
    );
}

#[test]
fn a_damaged_copy_of_the_desire_falls_back_to_the_other() {
    let (_dir, ledger) = ledger();
    ledger.persist_desire(b"older").unwrap();
    ledger.persist_desire(b"newer").unwrap();
    let index = newest(&ledger.slots().unwrap()).unwrap().index;
    let tx = ledger.db.begin_write().unwrap();
    let mut raw = encode_slot(2, b"newer");
    *raw.last_mut().unwrap() ^= 1;
    tx.open_table(DESIRE)
        .unwrap()
        .insert(index, raw.as_slice())
        .unwrap();
    tx.commit().unwrap();
    assert_eq!(ledger.read_desire().unwrap().unwrap(), b"older");
}

#[test]
fn a_file_of_garbage_is_moved_aside_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.redb");
    std::fs::write(&path, vec![0x5a; 8192]).unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(ledger.read_desire().unwrap(), None);
    let aside = ledger.quarantined().unwrap();
    assert_eq!(std::fs::read(aside).unwrap(), vec![0x5a; 8192]);
}

#[test]
fn a_truncated_file_is_moved_aside_and_kept() {
    let (dir, ledger) = ledger();
    ledger.persist_desire(&vec![7; 100_000]).unwrap();
    drop(ledger);
    let path = dir.path().join("node.redb");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 3]).unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    assert!(ledger.quarantined().is_some());
    ledger.persist_desire(b"again").unwrap();
}

#[test]
fn a_ledger_of_a_newer_program_is_refused_and_left_alone() {
    let (dir, ledger) = ledger();
    let tx = ledger.db.begin_write().unwrap();
    tx.open_table(META)
        .unwrap()
        .insert("min_reader", FORMAT + 1)
        .unwrap();
    tx.commit().unwrap();
    drop(ledger);
    let refused = Ledger::open(dir.path()).unwrap_err();
    assert!(matches!(refused, LedgerError::TooNew { found, .. } if found == FORMAT + 1));
    assert!(dir.path().join("node.redb").exists());
}

#[test]
fn property_changes_set_and_delete_in_one_go() {
    let (_dir, ledger) = ledger();
    let set = |k: &str, v: Option<&str>| (k.to_owned(), v.map(ToOwned::to_owned));
    ledger
        .persist_properties(&BTreeMap::from([set("a", Some("1")), set("b", Some("2"))]))
        .unwrap();
    ledger
        .persist_properties(&BTreeMap::from([set("a", None), set("b", Some("3"))]))
        .unwrap();
    assert_eq!(
        ledger.read_properties().unwrap(),
        BTreeMap::from([("b".to_owned(), "3".to_owned())])
    );
}
