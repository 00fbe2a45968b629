use std::fs;

use super::*;

#[test]
fn a_file_of_a_newer_release_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sync.redb");
    let db = open(&path).unwrap().file;
    db.write(|transaction| {
        transaction
            .open_table(META)?
            .insert("min_reader", 9u32.to_be_bytes().as_slice())?;
        Ok(())
    })
    .unwrap();
    drop(db);
    let error = open(&path).unwrap_err();
    assert!(
        matches!(error, DbError::TooNew { wanted: 9, .. }),
        "{error}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_format_is_written_as_four_bytes_each_as_it_was_from_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("sync.redb")).unwrap().file;
    let value = |key: &'static str| {
        db.read(|transaction| {
            let meta = transaction.open_table(META)?;
            Ok(meta.get(key)?.map(|value| value.value().to_vec()))
        })
    };
    assert_eq!(value("format").unwrap().unwrap(), [0, 0, 0, 1]);
    assert_eq!(value("min_reader").unwrap().unwrap(), [0, 0, 0, 1]);
}
