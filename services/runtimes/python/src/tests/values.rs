//! What goes in and what comes out.

use super::*;

#[tokio::test]
async fn json_comes_in_as_an_object_and_goes_out_as_json() {
    let code = "def f(event, context):\n    return {'hello': event['name'], 'list': [1, None, True, 'ä']}\n";
    let world = World::new(code, &["f"]).await;
    let payload = world.call("f", r#"{"name": "Ada"}"#).await.ok();
    assert_eq!(
        payload,
        r#"{"hello": "Ada", "list": [1, null, true, "\u00e4"]}"#
    );
}

#[tokio::test]
async fn what_is_no_json_comes_in_as_bytes() {
    let code = "def f(event, context):\n    return type(event).__name__ + ' ' + repr(event)\n";
    let world = World::new(code, &["f"]).await;
    let cases: [(&[u8], &str); 7] = [
        (b"", r#""bytes b''""#),
        (b"plain", r#""bytes b'plain'""#),
        (b"\xff\x00", r#""bytes b'\\xff\\x00'""#),
        (b"{\"cut\":", r#""bytes b'{\"cut\":'""#),
        (b"12", r#""int 12""#),
        (b"\"text\"", r#""str 'text'""#),
        (b"null", r#""NoneType None""#),
    ];
    for (payload, expected) in cases {
        assert_eq!(world.call("f", payload).await.ok(), expected);
    }
    let deep = "[".repeat(200_000);
    assert!(world.call("f", deep).await.ok().starts_with(b"\"bytes"));
}

#[tokio::test]
async fn bytes_go_out_as_they_are_and_nothing_is_nothing() {
    let code = "
def f(event, context):
    return {'bytes': b'\\xff\\x00', 'array': bytearray(b'ab'), 'view': memoryview(b'cd'), 'none': None,
            'text': '', 'empty': b'', 'word': 'word', 'zero': 0, 'list': []}[event]
";
    let world = World::new(code, &["f"]).await;
    let cases: [(&str, &[u8]); 9] = [
        ("bytes", b"\xff\x00"),
        ("array", b"ab"),
        ("view", b"cd"),
        ("none", b""),
        ("text", b""),
        ("empty", b""),
        ("word", b"\"word\""),
        ("zero", b"0"),
        ("list", b"[]"),
    ];
    for (event, expected) in cases {
        assert_eq!(
            world.call("f", format!("\"{event}\"")).await.ok(),
            expected,
            "{event}"
        );
    }
}

#[tokio::test]
async fn the_context_is_a_dict_and_what_changes_in_it_goes_back() {
    let code = "
def f(event, context):
    context['http.status'] = 201
    context['invokeId'] = context['invokeId']
    context['given'] += '!'
    return {'keys': sorted(context), 'name': context['functionName']}
";
    let world = World::new(code, &["f"]).await;
    let metadata = [
        ("functionName", "f"),
        ("given", "a"),
        ("invokeId", "i"),
        ("serviceName", "s"),
    ];
    let outcome = world.call_with("f", "", &metadata).await;
    assert_eq!(
        outcome.metadata,
        pairs(&[("given", "a!"), ("http.status", "201")])
    );
    let expected = r#"{"keys": ["functionName", "given", "http.status", "invokeId", "serviceName"], "name": "f"}"#;
    assert_eq!(outcome.ok(), expected);
}

#[tokio::test]
async fn four_mebibytes_pass_both_ways_and_one_byte_more_is_refused() {
    let code =
        "def f(event, context):\n    return event if isinstance(event, bytes) else b'x' * event\n";
    let world = World::new(code, &["f"]).await;
    let most = vec![b'x'; MAX_PAYLOAD];
    assert_eq!(world.call("f", most.clone()).await.ok(), most);
    let (kind, message) = world
        .call("f", (MAX_PAYLOAD + 1).to_string())
        .await
        .failed();
    assert_eq!(kind, Kind::Return);
    assert!(
        message.contains("4194305 bytes, at most 4194304"),
        "{message}"
    );
    assert_eq!(world.call("f", "3").await.ok(), "xxx");
}

#[tokio::test]
async fn an_async_handler_is_awaited() {
    let code = "
import asyncio
async def f(event, context):
    await asyncio.sleep(0)
    return await asyncio.gather(one(), one())
async def one():
    return 1
";
    let world = World::new(code, &["f"]).await;
    for _ in 0..2 {
        assert_eq!(world.call("f", "").await.ok(), "[1, 1]");
    }
}

#[tokio::test]
async fn a_handler_that_yields_streams() {
    let code = "
def f(event, context):
    for number in range(3):
        yield {'number': number}
    context['done'] = 'yes'
";
    let world = World::new(code, &["f"]).await;
    let outcome = world.call("f", "").await;
    assert_eq!(
        outcome.chunks,
        ["{\"number\": 0}", "{\"number\": 1}", "{\"number\": 2}"]
    );
    assert_eq!(
        (outcome.payload, outcome.metadata),
        (Bytes::new(), pairs(&[("done", "yes")]))
    );
}

#[tokio::test]
async fn what_functions_print_is_in_the_log_and_nowhere_else() {
    let code = "
import os, subprocess, sys
def f(event, context):
    print('to stdout')
    print('to stderr', file=sys.stderr)
    os.write(1, b'to fd 1\\n')
    subprocess.run(['echo', 'from a child'])
    return {'stdin': sys.stdin.read()}
";
    let world = World::new(code, &["f"]).await;
    assert_eq!(world.call("f", "").await.ok(), r#"{"stdin": ""}"#);
    for line in ["to stdout\n", "to stderr\n", "to fd 1\n", "from a child\n"] {
        assert!(world.log().contains(line), "{}", world.log());
    }
}

#[tokio::test]
async fn what_a_worker_has_loaded_stays_loaded() {
    let code = "
count = 0
def f(event, context):
    global count
    count += 1
    return count
";
    let world = World::new(code, &["f"]).await;
    for expected in ["1", "2", "3"] {
        assert_eq!(world.call("f", "").await.ok(), expected);
    }
}

/// `python3.7`, `python3.8` … as far as they are on the path, and those that BAETYL_TEST_PYTHONS names.
fn pythons() -> Vec<String> {
    let named = std::env::var("BAETYL_TEST_PYTHONS").unwrap_or_default();
    let mut pythons: Vec<String> = (7..20).map(|minor| format!("python3.{minor}")).collect();
    pythons.extend(
        named
            .split(':')
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
    );
    let runs = |python: &String| {
        let output = std::process::Command::new(python).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    pythons.retain(runs);
    pythons.push("python3".to_owned());
    pythons
}

#[tokio::test]
async fn all_versions_of_the_interpreter_behave_the_same() {
    let code = "
import asyncio, time
async def f(event, context):
    return [event, context['a']]
def g(event, context):
    raise KeyError('x')
def h(event, context):
    yield 1
async def wait(event, context):
    print('begun')
    await asyncio.sleep(600)
def block(event, context):
    print('begun')
    time.sleep(600)
";
    let functions: Vec<_> = ["f", "g", "h", "wait", "block"]
        .map(|name| (name, format!("index.{name}"), ""))
        .into();
    for python in pythons() {
        let new = async || World::run_by(&python, &[("index.py", code)], &functions, |_| ()).await;
        let world = new().await;
        assert_eq!(
            world.call_with("f", "[1]", &[("a", "b")]).await.ok(),
            r#"[[1], "b"]"#,
            "{python}"
        );
        assert_eq!(
            world.call("g", "").await.failed(),
            (Kind::Function, "KeyError: 'x'".to_owned()),
            "{python}"
        );
        assert_eq!(world.call("h", "").await.chunks, ["1"], "{python}");
        assert_eq!(
            world.cancelled("wait").await.failed().0,
            Kind::Cancelled,
            "{python}"
        );
        assert_eq!(
            new().await.cancelled("block").await.failed().0,
            Kind::Cancelled,
            "{python}"
        );
    }
}
