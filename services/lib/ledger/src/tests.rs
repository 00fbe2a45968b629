use std::io::{Seek as _, SeekFrom, Write as _};

use redb::{ReadableTable as _, TableDefinition, TableError};

use super::medium::FillingDisk;
use super::*;

const T: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("t");
const BYTES: TableDefinition<'_, u8, u8> = TableDefinition::new("bytes");

const RULES: Rules = Rules {
    cache: 128 * 1024,
    known: 3,
    prepare: |_| Ok(1),
    validate: |_| Ok(()),
};

fn open(path: &Path) -> Opened {
    LedgerFile::open(path, RULES).unwrap()
}

fn try_put(file: &LedgerFile, key: &str, value: &[u8]) -> Result<(), LedgerError> {
    file.write(|transaction| {
        transaction.open_table(T)?.insert(key, value)?;
        Ok(())
    })
}

fn put(file: &LedgerFile, key: &str, value: &[u8]) {
    try_put(file, key, value).unwrap();
}

fn get(file: &LedgerFile, key: &str) -> Option<Vec<u8>> {
    file.read(|transaction| match transaction.open_table(T) {
        Ok(table) => Ok(table.get(key)?.map(|value| value.value().to_vec())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    })
    .unwrap()
}

#[test]
fn what_was_written_is_there_after_reopening_and_nobody_else_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    let opened = open(&path);
    assert!(opened.put_aside.is_none());
    put(&opened.file, "a", b"1");
    drop(opened);
    let opened = open(&path);
    assert!(opened.put_aside.is_none());
    assert_eq!(get(&opened.file, "a").as_deref(), Some(b"1".as_slice()));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_failed_transaction_leaves_nothing_behind_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir.path().join("a.redb")).file;
    let failed: Result<(), _> = file.write(|transaction| {
        transaction.open_table(T)?.insert("a", b"1".as_slice())?;
        Err(redb::Error::Corrupted("made up".to_owned()))
    });
    assert!(matches!(failed, Err(LedgerError::Transaction { .. })));
    assert_eq!(get(&file, "a"), None);
    put(&file, "b", b"2");
    assert!(get(&file, "b").is_some());
}

#[test]
fn a_transaction_that_gives_nothing_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir.path().join("a.redb")).file;
    put(&file, "a", b"1");
    let nothing: Option<()> = file
        .write_if(|transaction| {
            transaction.open_table(T)?.insert("a", b"2".as_slice())?;
            Ok(None)
        })
        .unwrap();
    assert_eq!(nothing, None);
    assert_eq!(get(&file, "a").as_deref(), Some(b"1".as_slice()));
}

#[test]
fn on_a_full_disk_writing_fails_reading_goes_on_and_with_room_the_next_write_works() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FillingDisk::default();
    let path = dir.path().join("a.redb");
    let file = LedgerFile::open_on(Arc::new(disk.clone()), &path, RULES)
        .unwrap()
        .file;
    put(&file, "a", b"old");
    disk.set_full(true);
    for _ in 0..2 {
        let error = try_put(&file, "a", &vec![7; 1_000_000]).unwrap_err();
        assert!(error.is_full(), "{error:?}");
        assert_eq!(get(&file, "a").as_deref(), Some(b"old".as_slice()));
    }
    disk.set_full(false);
    put(&file, "a", &vec![8; 1_000_000]);
    assert_eq!(get(&file, "a"), Some(vec![8; 1_000_000]));
}

#[test]
fn a_sound_file_is_opened_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FillingDisk::default();
    let path = dir.path().join("a.redb");
    let open = || LedgerFile::open_on(Arc::new(disk.clone()), &path, RULES).unwrap();
    let file = open().file;
    put(&file, "a", &vec![7; 1_000_000]);
    disk.set_full(true);
    drop(file);
    let opened = open();
    assert!(opened.put_aside.is_none());
    assert_eq!(get(&opened.file, "a"), Some(vec![7; 1_000_000]));
}

#[test]
fn damage_that_only_shows_when_records_are_read_is_found_when_opening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    let file = open(&path).file;
    put(&file, "a", b"no number");
    drop(file);
    let panics = Rules {
        validate: |database| {
            for row in database.begin_read()?.open_table(T)?.iter()? {
                assert_eq!(row?.1.value(), b"1");
            }
            Ok(())
        },
        prepare: |database| {
            let transaction = database.begin_write()?;
            transaction.open_table(T)?;
            transaction.commit()?;
            Ok(1)
        },
        ..RULES
    };
    let opened = LedgerFile::open(&path, panics).unwrap();
    assert!(opened.put_aside.is_some());
    assert_eq!(get(&opened.file, "a"), None);
    drop(opened);
    let other_types = Rules {
        validate: |database| {
            database
                .begin_read()?
                .open_table(TableDefinition::<u8, u8>::new("t"))?;
            Ok(())
        },
        prepare: |database| {
            let transaction = database.begin_write()?;
            transaction.open_table(BYTES)?;
            transaction.commit()?;
            Ok(1)
        },
        ..RULES
    };
    let error = LedgerFile::open(&path, other_types).unwrap_err();
    assert!(matches!(error, LedgerError::Open { .. }), "{error}");
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        3,
        "what was there is kept, and one fresh file that does not do either"
    );
}

#[test]
fn a_panic_while_reading_is_an_error_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir.path().join("a.redb")).file;
    put(&file, "a", b"1");
    let read: Result<(), _> = file.read(|_| panic!("as redb does on damaged pages"));
    assert!(matches!(read, Err(LedgerError::Transaction { .. })));
    assert_eq!(get(&file, "a").as_deref(), Some(b"1".as_slice()));
}

#[test]
fn garbage_is_put_aside_and_a_fresh_file_begun() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    fs::write(&path, vec![0x5a; 10_000]).unwrap();
    let opened = open(&path);
    let kept = opened.put_aside.unwrap();
    assert_eq!(fs::read(kept).unwrap(), vec![0x5a; 10_000]);
    put(&opened.file, "a", b"1");
}

#[test]
fn a_file_cut_short_at_any_length_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    let file = open(&path).file;
    put(&file, "a", &vec![7; 9000]);
    drop(file);
    let whole = fs::read(&path).unwrap();
    let mut lengths: Vec<usize> = (0..whole.len()).step_by(whole.len() / 24).collect();
    lengths.extend([1, 64, 512, 4095, 4097, whole.len() - 1]);
    for length in lengths {
        let case = dir.path().join(format!("cut-{length}.redb"));
        fs::write(&case, &whole[..length]).unwrap();
        let opened = open(&case);
        assert!(opened.put_aside.is_some(), "{length} of {}", whole.len());
        assert_eq!(get(&opened.file, "a"), None);
    }
}

#[test]
fn a_damaged_page_is_found_when_opening_and_the_file_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    let file = open(&path).file;
    put(&file, "a", &vec![7; 9000]);
    drop(file);
    let whole = fs::read(&path).unwrap();
    let at = whole
        .windows(64)
        .position(|window| window == [7; 64])
        .unwrap();
    let mut raw = fs::OpenOptions::new().write(true).open(&path).unwrap();
    raw.seek(SeekFrom::Start(at as u64 + 32)).unwrap();
    raw.write_all(&[8; 16]).unwrap();
    drop(raw);
    let opened = open(&path);
    assert!(opened.put_aside.is_some());
    assert_eq!(get(&opened.file, "a"), None);
}

#[test]
fn a_file_of_a_newer_release_is_refused_left_alone_and_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    drop(open(&path));
    let newer = Rules {
        prepare: |_| Ok(4),
        validate: |_| Err(redb::Error::Corrupted("not for us".to_owned())),
        ..RULES
    };
    let error = LedgerFile::open(&path, newer).unwrap_err();
    assert!(
        matches!(
            error,
            LedgerError::TooNew {
                wanted: 4,
                known: 3,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_second_opener_is_told_and_nothing_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    let _first = open(&path);
    let error = LedgerFile::open(&path, RULES).unwrap_err();
    assert!(error.is_in_use(), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
