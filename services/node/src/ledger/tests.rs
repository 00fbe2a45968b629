use baetyl_ledger::medium::FillingDisk;

use super::*;
use crate::shadow::Shadow;

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
    let mut raw = encode_slot(2, b"newer");
    *raw.last_mut().unwrap() ^= 1;
    ledger
        .file
        .write(|tx| {
            let mut table = tx.open_table(DESIRE)?;
            let index = newest(&slots(&table)?).unwrap().index;
            table.insert(index, raw.as_slice())?;
            Ok(())
        })
        .unwrap();
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
    ledger
        .file
        .write(|tx| {
            tx.open_table(META)?.insert("min_reader", FORMAT + 1)?;
            Ok(())
        })
        .unwrap();
    drop(ledger);
    let refused = Ledger::open(dir.path()).unwrap_err();
    assert!(matches!(refused, LedgerError::TooNew { wanted, .. } if wanted == FORMAT + 1));
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

#[test]
fn on_a_full_disk_what_was_written_stays_and_with_room_node_goes_on_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FillingDisk::default();
    let failed = Counter::default();
    let ledger = Ledger::open_on(Arc::new(disk.clone()), dir.path()).unwrap();
    let ledger = ledger.counting(failed.clone());
    let big = vec![7; 1_000_000];
    let properties = BTreeMap::from([("a".to_owned(), Some("x".repeat(1_000_000)))]);
    ledger.persist_desire(b"old").unwrap();
    disk.set_full(true);
    let refused = [
        ledger.persist_desire(&big),
        ledger.persist_record("status", &big),
        ledger.persist_properties(&properties),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        let status = crate::api::storage(&error);
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{error:?}");
    }
    assert_eq!(ledger.read_desire().unwrap().unwrap(), b"old");
    assert_eq!(failed.get(), 3);
    disk.set_full(false);
    ledger.persist_desire(&big).unwrap();
    ledger.persist_record("status", &big).unwrap();
    ledger.persist_properties(&properties).unwrap();
    assert_eq!(ledger.read_desire().unwrap().unwrap(), big);
}

/// Everything node keeps, as its callers see it.
#[derive(Debug, PartialEq)]
struct Kept {
    desire: Option<Vec<u8>>,
    identity: Option<Vec<u8>>,
    properties: BTreeMap<String, String>,
}

fn kept(ledger: &Ledger) -> Kept {
    Kept {
        desire: ledger.read_desire().unwrap(),
        identity: ledger.read_record("identity").unwrap(),
        properties: ledger.read_properties().unwrap(),
    }
}

#[test]
fn whichever_page_is_damaged_node_starts_and_says_what_was_written_or_that_it_lost_it() {
    let (dir, ledger) = ledger();
    ledger.persist_desire(b"older").unwrap();
    ledger.persist_desire(&vec![7; 9000]).unwrap();
    let identity = br#"{"namespace":"a","nodeName":"b","nodeUid":"c"}"#;
    ledger.persist_record("identity", identity).unwrap();
    ledger
        .persist_properties(&BTreeMap::from([("k".to_owned(), Some("v".to_owned()))]))
        .unwrap();
    let written = kept(&ledger);
    drop(ledger);
    let whole = std::fs::read(dir.path().join("node.redb")).unwrap();
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
            std::fs::write(case.path().join("node.redb"), &bytes).unwrap();
            let ledger = Ledger::open(case.path()).unwrap();
            if ledger.quarantined().is_none() {
                assert_eq!(kept(&ledger), written, "page {page}, damage {kind}");
            }
            Shadow::load(ledger, Vec::new()).unwrap();
        }
    }
}
