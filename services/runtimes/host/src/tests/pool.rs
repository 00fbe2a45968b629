use super::*;
use crate::link::Executor as _;
use crate::pool::{Pool, PoolSettings};
use crate::worker::Program;
use baetyl_kit::backoff::Backoff;

/// Says that it is ready, with no functions.
const READY: &str = r#"printf '\000\000\000\041R{"version":"1.2","functions":[]}' >&0"#;
/// Takes the setup frame (its length is the same in all tests here) and nothing more.
const SETUP: &str = "head -c $SETUP_BYTES <&0 >/dev/null";

fn shell(script: &str) -> Program {
    let script = script.replace("$SETUP_BYTES", &setup_bytes().to_string());
    Program {
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
        preamble: Bytes::new(),
        log: None,
    }
}

fn setup_bytes() -> usize {
    let setup = crate::frame::Setup {
        code: "code".to_owned(),
        functions: Vec::new(),
        max_payload: crate::MAX_PAYLOAD,
    };
    setup.encode().unwrap().len()
}

fn pool(script: &str, change: impl FnOnce(&mut PoolSettings)) -> Pool {
    let mut settings = PoolSettings {
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(10)),
        ..PoolSettings::default()
    };
    change(&mut settings);
    Pool::start(shell(script), "code", &[], settings).unwrap()
}

#[tokio::test]
async fn a_worker_that_ends_while_loading_fails_its_calls_with_its_exit_status() {
    let pool = pool("exit 3", |_| ());
    let loaded = tokio::time::timeout(PATIENCE, pool.loaded()).await;
    assert_eq!(loaded.unwrap(), "");
    let mut caller = Caller::new();
    pool.start(caller.call("f", b"", PATIENCE)).await;
    let (kind, message) = caller.failure().await;
    assert_eq!(kind, Kind::Worker);
    assert!(message.contains("exit status 3"), "{message}");
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_named() {
    let program = Program {
        command: vec!["/nowhere/python9".to_owned()],
        preamble: Bytes::new(),
        log: None,
    };
    let pool = Pool::start(program, "code", &[], PoolSettings::default()).unwrap();
    pool.loaded().await;
    let mut caller = Caller::new();
    pool.start(caller.call("f", b"", PATIENCE)).await;
    let (_, message) = caller.failure().await;
    assert!(message.contains("/nowhere/python9"), "{message}");
}

#[tokio::test]
async fn loading_has_an_end() {
    let pool = pool("cat >/dev/null", |settings| {
        settings.load_timeout = Duration::from_millis(50);
    });
    pool.loaded().await;
    let mut caller = Caller::new();
    pool.start(caller.call("f", b"", PATIENCE)).await;
    let (_, message) = caller.failure().await;
    assert!(message.contains("did not finish loading"), "{message}");
}

#[tokio::test]
async fn a_worker_that_talks_nonsense_fails_its_invocation_and_is_replaced() {
    let script =
        format!("{SETUP}; {READY}; head -c 9 <&0 >/dev/null; echo garbage >&0; exec sleep 600");
    let pool = pool(&script, |_| ());
    assert_eq!(pool.loaded().await, "1.2");
    let mut caller = Caller::new();
    for _ in 0..3 {
        pool.start(caller.call("f", b"", PATIENCE)).await;
        let (kind, message) = caller.failure().await;
        assert_eq!(kind, Kind::Worker);
        assert!(message.contains("announced a frame"), "{message}");
    }
}

#[tokio::test]
async fn a_worker_killed_while_it_runs_something_fails_that_and_is_replaced() {
    let script = format!("{SETUP}; {READY}; head -c 9 <&0 >/dev/null; kill -9 $$");
    let pool = pool(&script, |_| ());
    let mut caller = Caller::new();
    for _ in 0..2 {
        pool.start(caller.call("f", b"", PATIENCE)).await;
        let (kind, message) = caller.failure().await;
        assert_eq!(kind, Kind::Worker);
        assert!(message.contains("signal 9"), "{message}");
    }
}

#[tokio::test]
async fn a_call_that_cannot_be_stopped_gently_is_stopped_by_killing_all_it_started() {
    let dir = TestDir::new();
    let pids = dir.path().join("pids");
    let script = format!(
        "{SETUP}; {READY}; trap '' INT; head -c 9 <&0 >/dev/null; sleep 600 & echo $! >{}; wait",
        pids.display()
    );
    let pool = pool(&script, |settings| {
        settings.cancel_grace = Duration::from_millis(20);
    });
    let mut caller = Caller::new();
    pool.start(caller.call("f", b"", PATIENCE)).await;
    let child = until(PATIENCE, "the function starts a process", async || {
        let text = std::fs::read_to_string(&pids).unwrap_or_default();
        text.trim().parse::<i32>()
    })
    .await;
    caller.open.cancel(1);
    assert_eq!(
        caller.failure().await,
        (Kind::Cancelled, "it did not stop when cancelled".to_owned())
    );
    eventually!(!alive(child), "what the function started is gone");
}

#[tokio::test]
async fn what_waits_past_its_deadline_is_not_run() {
    let script = format!("{SETUP}; {READY}; exec cat >/dev/null");
    let pool = pool(&script, |settings| {
        settings.cancel_grace = Duration::from_millis(20);
    });
    let mut caller = Caller::new();
    pool.start(caller.call("first", b"", PATIENCE)).await;
    pool.start(caller.call("second", b"", Duration::ZERO)).await;
    caller.open.cancel(1);
    caller.failure().await;
    let (kind, message) = caller.failure().await;
    assert_eq!(kind, Kind::Deadline);
    assert!(message.contains("waited for a worker"), "{message}");
}

#[tokio::test]
async fn more_invocations_than_were_offered_are_refused() {
    let script = format!("{SETUP}; {READY}; exec cat >/dev/null");
    let pool = pool(&script, |_| ());
    pool.loaded().await;
    let mut caller = Caller::new();
    for _ in 0..6 {
        pool.start(caller.call("f", b"", PATIENCE)).await;
    }
    let (kind, message) = caller.failure().await;
    assert_eq!(kind, Kind::Worker);
    assert!(
        message.contains("more invocations than it takes"),
        "{message}"
    );
}

/// A zombie nobody has waited for yet counts as gone.
fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or("").starts_with('Z'))
}
