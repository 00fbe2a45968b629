//! Rotation and reading, with files only.

use std::io::Write;
use std::time::Duration;

use futures_util::StreamExt;

use super::*;

const SMALL: LogLimits = LogLimits {
    max_bytes: 100,
    keep: 2,
    check_every: Duration::from_millis(5),
};

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn the_tail_begins_at_a_line() {
    let mut file = tempfile::tempfile().unwrap();
    assert_eq!(tail_start(&mut file, 3).unwrap(), 0);
    file.write_all(b"one\ntwo\nthree\n").unwrap();
    for (lines, start) in [(0, 14), (1, 8), (2, 4), (3, 0), (9, 0)] {
        assert_eq!(
            tail_start(&mut file, lines).unwrap(),
            start,
            "{lines} lines"
        );
    }
    file.write_all(b"unfinished").unwrap();
    assert_eq!(tail_start(&mut file, 1).unwrap(), 14);
}

#[test]
fn the_tail_of_a_long_line_is_the_line() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![b'x'; 300_000]).unwrap();
    file.write_all(b"\nlast\n").unwrap();
    assert_eq!(tail_start(&mut file, 1).unwrap(), 300_001);
    assert_eq!(tail_start(&mut file, 2).unwrap(), 0);
}

#[test]
fn rotation_keeps_the_newest_and_the_writer_goes_on_in_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("x.log");
    let mut writer = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .unwrap();
    for part in ["a", "b", "c"] {
        writeln!(writer, "{part}").unwrap();
        rotate(&log, SMALL).unwrap();
    }
    writeln!(writer, "d").unwrap();
    assert_eq!(
        (
            text(&log),
            text(&numbered(&log, 1)),
            text(&numbered(&log, 2))
        ),
        ("d\n".into(), "c\n".into(), "b\n".into())
    );
    assert!(!numbered(&log, 3).exists());
}

#[test]
fn keeping_none_empties_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("x.log");
    fs::write(&log, "text").unwrap();
    rotate(&log, LogLimits { keep: 0, ..SMALL }).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(text(&log), "");
}

#[test]
fn a_log_far_over_its_cap_leaves_its_newest_part() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("x.log");
    fs::write(&log, format!("{}END", "x".repeat(1000))).unwrap();
    rotate(&log, SMALL).unwrap();
    let kept = text(&numbered(&log, 1));
    assert_eq!(kept.len(), 200);
    assert!(kept.ends_with("xEND"));
}

async fn read(book: &LogBook, log: &Path, tail: usize) -> String {
    let (stream, reading) = stream(book, log, LogStart::Tail(tail), false);
    let (pieces, ()) = tokio::join!(
        stream.map(|piece| piece.unwrap()).collect::<Vec<_>>(),
        reading
    );
    String::from_utf8(pieces.concat()).unwrap()
}

#[tokio::test]
async fn the_tail_is_read_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("x.log");
    let book = LogBook::default();
    book.add(&log).unwrap();
    fs::write(&log, "one\ntwo\nthree\n").unwrap();
    assert_eq!(read(&book, &log, 2).await, "two\nthree\n");
    assert_eq!(read(&book, &log, 0).await, "");
    assert_eq!(read(&book, &log, 100).await, "one\ntwo\nthree\n");
}

#[tokio::test]
async fn a_log_that_is_not_there_is_an_error() {
    let (mut stream, reading) = stream(
        &LogBook::default(),
        Path::new("/no/such.log"),
        LogStart::Tail(1),
        false,
    );
    let (piece, ()) = tokio::join!(stream.next(), reading);
    assert_eq!(piece.unwrap().unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn following_misses_nothing_across_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("x.log");
    let book = LogBook::default();
    book.add(&log).unwrap();
    let (mut stream, reading) = stream(&book, &log, LogStart::Tail(10), true);
    let reading = tokio::spawn(reading);
    let mut writer = OpenOptions::new().append(true).open(&log).unwrap();
    let mut seen = String::new();
    for n in 0..60 {
        writeln!(writer, "line {n}").unwrap();
        if n % 7 == 3 {
            // As the task does; without a writer in between nothing may be lost.
            book.rotate_one(&log, SMALL);
        }
        if n % 5 == 0 {
            let wanted = format!("line {n}\n");
            while !seen.ends_with(&wanted) {
                seen.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
            }
        }
    }
    while !seen.ends_with("line 59\n") {
        seen.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
    }
    let expected: String = (0..60).map(|n| format!("line {n}\n")).collect();
    assert_eq!(seen, expected);
    drop(stream);
    reading.await.unwrap();
}

async fn read_after(
    book: &LogBook,
    log: &Path,
    start: LogStart,
) -> io::Result<(String, LogPosition)> {
    let (stream, reading) = stream(book, log, start, false);
    let (pieces, ()) = tokio::join!(stream.with_positions().collect::<Vec<_>>(), reading);
    let mut text = String::new();
    let mut end = LogPosition {
        rotations: 0,
        offset: 0,
    };
    for piece in pieces {
        let (bytes, position) = piece?;
        text.push_str(std::str::from_utf8(&bytes).unwrap());
        end = position;
    }
    Ok((text, end))
}

#[tokio::test]
async fn reading_goes_on_after_a_position_without_repeating_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("x.log");
    let book = LogBook::default();
    book.add(&log).unwrap();
    let mut writer = OpenOptions::new().append(true).open(&log).unwrap();
    writeln!(writer, "one").unwrap();
    let (text, first) = read_after(&book, &log, LogStart::Tail(10)).await.unwrap();
    assert_eq!(text, "one\n");
    writeln!(writer, "two").unwrap();
    book.rotate_one(&log, SMALL);
    writeln!(writer, "three").unwrap();
    let (text, end) = read_after(&book, &log, LogStart::After(first))
        .await
        .unwrap();
    assert_eq!(text, "two\nthree\n");
    let (text, _) = read_after(&book, &log, LogStart::After(end)).await.unwrap();
    assert_eq!(text, "");
}

#[tokio::test]
async fn a_position_that_was_rotated_away_or_is_of_an_earlier_log_is_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("x.log");
    let book = LogBook::default();
    book.add(&log).unwrap();
    fs::write(&log, "one\n").unwrap();
    let (_, first) = read_after(&book, &log, LogStart::Tail(10)).await.unwrap();
    let too_old = async |position| {
        let start = LogStart::After(position);
        let error = read_after(&book, &log, start).await.unwrap_err();
        is_too_old(&error)
    };
    let beyond = LogPosition { offset: 5, ..first };
    assert!(too_old(beyond).await);
    for _ in 0..=SMALL.keep {
        book.rotate_one(&log, SMALL);
    }
    assert!(too_old(first).await);
    let last = LogPosition {
        rotations: u64::from(SMALL.keep) + 1,
        offset: 0,
    };
    assert!(read_after(&book, &log, LogStart::After(last)).await.is_ok());
    // The instance was removed, and another one of its name came.
    book.forget(&log);
    book.add(&log).unwrap();
    assert!(too_old(last).await);
}

#[tokio::test]
async fn following_ends_when_the_log_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("x.log");
    let book = LogBook::default();
    book.add(&log).unwrap();
    fs::write(&log, "last words\n").unwrap();
    let (mut stream, reading) = stream(&book, &log, LogStart::Tail(10), true);
    let reading = tokio::spawn(reading);
    assert_eq!(stream.next().await.unwrap().unwrap(), "last words\n");
    fs::remove_file(&log).unwrap();
    assert!(stream.next().await.is_none());
    reading.await.unwrap();
}

#[tokio::test]
async fn the_task_rotates_what_is_too_large_and_ends_when_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("x.log");
    let book = LogBook::default();
    book.add(&log).unwrap();
    let mut rotations = book.subscribe(&log);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(book.clone().rotate(SMALL, cancel.clone()));
    fs::write(&log, "x".repeat(101)).unwrap();
    rotations
        .wait_for(|rotations| rotations.done == 1)
        .await
        .unwrap();
    assert_eq!((text(&log).len(), text(&numbered(&log, 1)).len()), (0, 101));
    cancel.cancel();
    task.await.unwrap();
}
