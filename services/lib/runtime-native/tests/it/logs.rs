//! Logs of real writers.

use std::fs;
use std::time::Duration;

use baetyl_runtime_native::Phase;
use baetyl_runtime_native::spec::RestartPolicy;
use futures_util::StreamExt;

use crate::node::{Node, is_alive, one, script, service, with_policy};

#[tokio::test]
async fn a_writer_goes_on_after_its_log_was_rotated() {
    let node = Node::with(|config| config.logs.max_bytes = 1000).await;
    node.runtime()
        .run(service(script(
            "i=0; while :; do i=$((i+1)); echo line $i; test $((i % 50)) = 0 && sleep 0.02; done",
        )))
        .unwrap();
    let log = node.runtime().log_file(&one());
    // Two rotations, and then more.
    let mut stream = node.runtime().logs(&one(), 0, true);
    while !log.with_extension("log.2").exists() {
        stream.next().await.unwrap().unwrap();
    }
    let mut last = 0;
    for _ in 0..10 {
        let piece = stream.next().await.unwrap().unwrap();
        let newest = numbers(&piece).max().unwrap_or(last);
        assert!(newest >= last, "{newest} after {last}");
        last = newest;
    }
    assert!(last > 100, "{last}");
    let status = node.until_phase(Phase::Running).await;
    assert_eq!(status.restarts, 0);
    assert!(!log.with_extension("log.3").exists());
}

#[tokio::test]
async fn the_log_of_an_application_that_nobody_supervises_is_rotated() {
    let mut node = Node::with(|config| config.logs.max_bytes = 1000).await;
    node.runtime()
        .run(service(script(
            "while :; do echo some words; sleep 0.001; done",
        )))
        .unwrap();
    let before = node.until_running().await;
    // As an engine that waits to be told what should run.
    node.remake().await;
    let log = node.runtime().log_file(&one());
    for rotated in ["log.1", "log.2"] {
        let _ = fs::remove_file(log.with_extension(rotated));
    }
    let mut stream = node.runtime().logs(&one(), 0, true);
    while !log.with_extension("log.2").exists() {
        stream.next().await.unwrap().unwrap();
    }
    assert!(is_alive(before.app));
}

#[tokio::test]
async fn output_without_end_stays_within_its_cap_and_ends_cleanly() {
    let cap = 1 << 20;
    let node = Node::with(|config| {
        config.logs.max_bytes = cap;
        config.logs.check_every = Duration::from_millis(1);
    })
    .await;
    // 200 MiB as fast as it goes; then, when the last rotation of that is over, a last word.
    let text = format!(
        "head -c 209715200 /dev/zero; echo; while test $(stat -c %s \"$LOG\") -gt {cap}; do sleep 0.01; done; echo THE END"
    );
    let mut spec = with_policy(RestartPolicy::Never, script(&text));
    let log = node.runtime().log_file(&one());
    spec.instances[0]
        .env
        .insert("LOG".to_owned(), log.display().to_string());
    node.runtime().run(spec).unwrap();
    let status = node.until_phase(Phase::Succeeded).await;
    assert_eq!(status.restarts, 0);
    for rotated in ["log.1", "log.2"] {
        let length = fs::metadata(log.with_extension(rotated)).map_or(0, |metadata| metadata.len());
        assert!(length <= 2 * cap, "{rotated}: {length}");
    }
    let tail = node
        .runtime()
        .logs(&one(), 1, false)
        .map(|piece| piece.unwrap())
        .collect::<Vec<_>>()
        .await
        .concat();
    assert!(tail.ends_with(b"THE END\n"));
}

#[tokio::test]
async fn both_outputs_are_in_the_log_in_order() {
    let node = Node::new().await;
    node.runtime()
        .run(with_policy(
            RestartPolicy::Never,
            script("echo one; echo two >&2; echo three"),
        ))
        .unwrap();
    node.until_phase(Phase::Succeeded).await;
    let tail = node
        .runtime()
        .logs(&one(), 2, false)
        .map(|piece| piece.unwrap())
        .collect::<Vec<_>>()
        .await
        .concat();
    assert_eq!(tail, b"two\nthree\n");
}

#[tokio::test]
async fn logs_of_several_runs_follow_each_other() {
    let node = Node::new().await;
    node.runtime().run(service(script("echo run; test -f third && exec sleep 600; test -f second && touch third; touch second; exit 1"))).unwrap();
    node.until_logged(&one(), "run\nrun\nrun\n").await;
}

#[tokio::test]
async fn following_ends_with_the_workload() {
    let node = Node::new().await;
    node.runtime()
        .run(service(script("echo up; exec sleep 600")))
        .unwrap();
    let mut stream = node.runtime().logs(&one(), 10, true);
    assert_eq!(stream.next().await.unwrap().unwrap(), "up\n");
    node.runtime().remove(&one().workload, None).await.unwrap();
    assert!(stream.next().await.is_none());
}

/// The numbers of whole lines `line <n>`.
fn numbers(piece: &[u8]) -> impl Iterator<Item = u64> {
    let text = String::from_utf8_lossy(piece).into_owned();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let lines: Vec<u64> = text[..whole]
        .lines()
        .filter_map(|line| line.strip_prefix("line ")?.parse().ok())
        .collect();
    lines.into_iter()
}
