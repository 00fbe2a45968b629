//! Exceptions, deadlines, cancellation, crashes: what ends an invocation, and what it leaves behind.

use super::*;

#[tokio::test]
async fn an_exception_is_one_line_for_the_caller_and_a_traceback_in_the_log() {
    let code = "
def f(event, context):
    try:
        inner(event)
    except ZeroDivisionError as error:
        raise ValueError('first line\\nsecond line') from error
def inner(event):
    return 1 / event
";
    let world = World::new(code, &["f"]).await;
    let (kind, message) = world
        .call_with("f", "0", &[("invokeId", "id-7")])
        .await
        .failed();
    assert_eq!(
        (kind, message.as_str()),
        (Kind::Function, "ValueError: first line second line")
    );
    let log = world.log();
    for part in [
        "function f (invocation id-7) raised",
        "Traceback",
        "index.py",
        "in inner",
        "ZeroDivisionError",
    ] {
        assert!(log.contains(part), "no {part} in {log}");
    }
    assert!(
        !log.contains("baetyl worker"),
        "our own frames are of no use to anybody: {log}"
    );
}

#[tokio::test]
async fn whatever_a_handler_raises_the_worker_goes_on() {
    let code = "
import os, sys
class Odd(Exception):
    def __str__(self):
        raise RuntimeError('not printable')
def f(event, context):
    if event == 'exit': sys.exit(3)
    if event == 'stop': raise StopIteration()
    if event == 'interrupt': raise KeyboardInterrupt()
    if event == 'odd': raise Odd()
    if event == 'deep': return f(event, context)
    return os.getpid()
";
    let world = World::new(code, &["f"]).await;
    let pid = world.call("f", "").await.ok();
    let cases = [
        ("exit", "SystemExit: 3"),
        ("stop", "StopIteration"),
        ("interrupt", "KeyboardInterrupt"),
        ("odd", "Odd: (it cannot be printed)"),
        ("deep", "RecursionError"),
    ];
    for (event, expected) in cases {
        let (kind, message) = world.call("f", format!("\"{event}\"")).await.failed();
        assert_eq!(kind, Kind::Function, "{event}");
        assert!(message.starts_with(expected), "{event}: {message}");
    }
    assert_eq!(world.call("f", "").await.ok(), pid);
}

#[tokio::test]
async fn a_result_that_is_no_json_cannot_be_sent() {
    let world = World::new("def f(event, context):\n    return {'set': {1}}\n", &["f"]).await;
    let (kind, message) = world.call("f", "").await.failed();
    assert_eq!(kind, Kind::Return);
    assert!(message.contains("not JSON: TypeError"), "{message}");
}

#[tokio::test]
async fn past_its_deadline_a_worker_is_killed_and_replaced() {
    let code = "
import os, time
def f(event, context):
    if event == 'sleep':
        while True:
            try:
                time.sleep(600)
            except KeyboardInterrupt:
                pass
    return os.getpid()
";
    let world = World::new(code, &["f"]).await;
    let before = world.call("f", "").await.ok();
    let (call, answers) = Call::for_test(
        "f",
        "\"sleep\"",
        BTreeMap::new(),
        Duration::from_millis(100),
    );
    world.pool.start(call).await;
    let (kind, _) = outcome(answers).await.failed();
    assert_eq!(kind, Kind::Deadline);
    let after = world.call("f", "").await.ok();
    assert_ne!(before, after);
    let pid = String::from_utf8(before.to_vec()).unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_cancelled_handler_may_tidy_up_and_its_worker_stays() {
    let code = "
import asyncio, os, time
def pid(event, context):
    return os.getpid()
def busy(event, context):
    try:
        print('begun')
        while True: pass
    finally:
        print('tidied up')
def blocked(event, context):
    try:
        print('begun')
        time.sleep(600)
    finally:
        print('tidied up')
async def awaiting(event, context):
    try:
        print('begun')
        await asyncio.sleep(600)
    finally:
        print('tidied up')
def streaming(event, context):
    try:
        print('begun')
        while True:
            time.sleep(0.001)
            yield 'x'
    finally:
        print('tidied up')
";
    for function in ["busy", "blocked", "awaiting", "streaming"] {
        let world = World::new(code, &["pid", function]).await;
        let before = world.call("pid", "").await.ok();
        let (kind, _) = world.cancelled(function).await.failed();
        assert_eq!(kind, Kind::Cancelled, "{function}");
        assert!(
            world.log().contains("tidied up"),
            "{function}: {}",
            world.log()
        );
        assert!(
            !world.log().contains("Traceback"),
            "{function}: {}",
            world.log()
        );
        assert_eq!(world.call("pid", "").await.ok(), before, "{function}");
    }
}

#[tokio::test]
async fn a_handler_that_does_not_listen_is_killed() {
    let code = "
import os, time
def pid(event, context):
    return os.getpid()
def deaf(event, context):
    print('begun')
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass
";
    let functions = [
        ("pid", "index.pid".to_owned(), ""),
        ("deaf", "index.deaf".to_owned(), ""),
    ];
    let short = |settings: &mut PoolSettings| settings.cancel_grace = Duration::from_millis(50);
    let world = World::with(&[("index.py", code)], &functions, short).await;
    let before = world.call("pid", "").await.ok();
    assert_eq!(world.cancelled("deaf").await.failed().0, Kind::Cancelled);
    assert_ne!(world.call("pid", "").await.ok(), before);
}

#[tokio::test]
async fn a_worker_that_crashes_fails_its_invocation_and_is_replaced() {
    let code = "
import os, signal
def f(event, context):
    if event == 'exit': os._exit(9)
    if event == 'kill': os.kill(os.getpid(), signal.SIGKILL)
    return 'alive'
";
    let world = World::new(code, &["f"]).await;
    for (event, expected) in [("exit", "exit status 9"), ("kill", "signal 9")] {
        let (kind, message) = world.call("f", format!("\"{event}\"")).await.failed();
        assert_eq!(kind, Kind::Worker, "{event}");
        assert!(message.contains(expected), "{message}");
        assert_eq!(world.call("f", "").await.ok(), "\"alive\"");
    }
}

#[tokio::test]
async fn a_function_that_writes_into_our_socket_costs_its_worker_and_nothing_else() {
    let code = "
import os
def f(event, context):
    if event == 'garbage':
        for fd in range(3, 50):
            try:
                os.write(fd, b'garbage, garbage')
            except OSError:
                pass
    return 'alive'
";
    let world = World::new(code, &["f"]).await;
    let (kind, message) = world.call("f", "\"garbage\"").await.failed();
    assert_eq!(kind, Kind::Worker);
    assert!(message.contains("announced a frame"), "{message}");
    assert_eq!(world.call("f", "").await.ok(), "\"alive\"");
}

#[tokio::test]
async fn workers_run_at_the_same_time() {
    let code = "
import os, time
def f(event, context):
    open(os.path.join(event, str(os.getpid())), 'w').close()
    while len(os.listdir(event)) < 3:
        time.sleep(0.001)
    return 'met'
";
    let functions = [("f", "index.f".to_owned(), "")];
    let world = World::with(&[("index.py", code)], &functions, |settings| {
        settings.workers = 3
    })
    .await;
    let meeting = world.dir.join("meeting");
    std::fs::create_dir(&meeting).unwrap();
    let place = format!("\"{}\"", meeting.display());
    let (a, b, c) = tokio::join!(
        world.call("f", place.clone()),
        world.call("f", place.clone()),
        world.call("f", place.clone())
    );
    for outcome in [a, b, c] {
        assert_eq!(outcome.ok(), "\"met\"");
    }
}

#[tokio::test]
async fn workers_end_with_their_host_also_in_the_middle_of_a_call() {
    let code = "
import os, time
def f(event, context):
    print('pid', os.getpid())
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass
";
    let world = World::new(code, &["f"]).await;
    let (call, _answers) = Call::for_test("f", "", BTreeMap::new(), PATIENCE);
    world.pool.start(call).await;
    let pid: u32 = until(PATIENCE, "the function runs", async || {
        let log = world.log();
        log.trim()
            .strip_prefix("pid ")
            .unwrap_or_default()
            .parse::<u32>()
    })
    .await;
    let World {
        pool, dir: _dir, ..
    } = world;
    drop(pool);
    let stat = format!("/proc/{pid}/stat");
    eventually!(
        !std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")),
        "the worker is gone"
    );
}
