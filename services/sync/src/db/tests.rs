use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};

use super::*;

const T: TableDefinition<&str, &[u8]> = TableDefinition::new("t");

fn put(db: &Db, key: &str, value: &[u8]) {
    db.write(|transaction| {
        transaction.open_table(T)?.insert(key, value)?;
        Ok(())
    })
    .unwrap();
}

fn get(db: &Db, key: &str) -> Option<Vec<u8>> {
    db.read(|transaction| match transaction.open_table(T) {
        Ok(table) => Ok(table.get(key)?.map(|value| value.value().to_vec())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    })
    .unwrap()
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sync.redb");
    let opened = Db::open(&path).unwrap();
    assert!(opened.put_aside.is_none());
    put(&opened.db, "a", b"1");
    drop(opened);
    let opened = Db::open(&path).unwrap();
    assert_eq!(get(&opened.db, "a").as_deref(), Some(b"1".as_slice()));
}

#[test]
fn a_failed_transaction_leaves_nothing_behind_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("sync.redb")).unwrap().db;
    let failed: Result<(), _> = db.write(|transaction| {
        transaction.open_table(T)?.insert("a", b"1".as_slice())?;
        Err(redb::Error::Corrupted("made up".to_owned()))
    });
    assert!(matches!(failed, Err(DbError::Transaction { .. })));
    assert_eq!(get(&db, "a"), None);
    put(&db, "b", b"2");
    assert!(get(&db, "b").is_some());
}

#[test]
fn after_an_input_output_error_the_file_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("sync.redb")).unwrap().db;
    put(&db, "a", b"1");
    let failed: Result<(), _> =
        db.write(|_| Err(redb::Error::Io(io::ErrorKind::StorageFull.into())));
    assert!(failed.is_err());
    assert_eq!(get(&db, "a").as_deref(), Some(b"1".as_slice()));
    put(&db, "b", b"2");
}

#[test]
fn garbage_is_put_aside_and_a_fresh_file_begun() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sync.redb");
    fs::write(&path, vec![0x5a; 10_000]).unwrap();
    let opened = Db::open(&path).unwrap();
    let kept = opened.put_aside.unwrap();
    assert_eq!(fs::read(kept).unwrap(), vec![0x5a; 10_000]);
    put(&opened.db, "a", b"1");
}

#[test]
fn a_file_cut_short_at_any_length_is_put_aside_or_still_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sync.redb");
    let db = Db::open(&path).unwrap().db;
    put(&db, "a", &vec![7; 9000]);
    drop(db);
    let whole = fs::read(&path).unwrap();
    let mut lengths: Vec<usize> = (0..whole.len()).step_by(whole.len() / 24).collect();
    lengths.extend([1, 64, 512, 4095, 4097, whole.len() - 1]);
    for length in lengths {
        let case = dir.path().join(format!("cut-{length}.redb"));
        fs::write(&case, &whole[..length]).unwrap();
        let opened = Db::open(&case).unwrap();
        assert!(opened.put_aside.is_some(), "{length} of {}", whole.len());
        assert_eq!(get(&opened.db, "a"), None);
    }
}

#[test]
fn a_damaged_page_is_found_when_opening_and_the_file_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sync.redb");
    let db = Db::open(&path).unwrap().db;
    put(&db, "a", &vec![7; 9000]);
    drop(db);
    let whole = fs::read(&path).unwrap();
    let at = whole
        .windows(64)
        .position(|window| window == [7; 64])
        .unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(at as u64 + 32)).unwrap();
    file.write_all(&[8; 16]).unwrap();
    drop(file);
    let opened = Db::open(&path).unwrap();
    assert!(opened.put_aside.is_some());
    assert_eq!(get(&opened.db, "a"), None);
}

#[test]
fn a_file_of_a_newer_release_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sync.redb");
    let db = Db::open(&path).unwrap().db;
    db.write(|transaction| {
        transaction
            .open_table(META)?
            .insert("min_reader", 9u32.to_be_bytes().as_slice())?;
        Ok(())
    })
    .unwrap();
    drop(db);
    let error = Db::open(&path).unwrap_err();
    assert!(
        matches!(error, DbError::TooNew { wanted: 9, .. }),
        "{error}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_second_opener_is_told_and_nothing_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sync.redb");
    let _first = Db::open(&path).unwrap();
    let error = Db::open(&path).unwrap_err();
    assert!(matches!(error, DbError::Open { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
