//! How functions are found, and what is said when they are not.

use super::*;

fn function(
    name: &'static str,
    handler: &str,
    codedir: &'static str,
) -> (&'static str, String, &'static str) {
    (name, handler.to_owned(), codedir)
}

#[tokio::test]
async fn a_function_that_cannot_be_loaded_says_so_at_each_call_and_harms_no_other() {
    let files = [
        (
            "good.py",
            "def f(event, context):\n    return 'fine'\nnumber = 1\n",
        ),
        ("missing.py", "import no_such_module_at_all\n"),
        ("broken.py", "def f(event, context)\n"),
        ("quits.py", "import sys\nsys.exit('not today')\n"),
    ];
    let functions = [
        function("good", "good.f", ""),
        function("missing", "missing.f", ""),
        function("broken", "broken.f", ""),
        function("quits", "quits.f", ""),
        function("absent", "good.g", ""),
        function("nowhere", "nowhere.f", ""),
        function("number", "good.number", ""),
        function("bare", "good", ""),
    ];
    let world = World::with(&files, &functions, |_| ()).await;
    let cases = [
        (
            "missing",
            "cannot load handler missing.f: ModuleNotFoundError: No module named 'no_such_module_at_all'",
        ),
        ("broken", "cannot load handler broken.f: SyntaxError"),
        (
            "quits",
            "cannot load handler quits.f: SystemExit: not today",
        ),
        ("absent", "cannot load handler good.g: AttributeError"),
        (
            "nowhere",
            "cannot load handler nowhere.f: ModuleNotFoundError",
        ),
        ("number", "cannot load handler good.number: TypeError"),
        (
            "bare",
            "cannot load handler good: ValueError: a handler is written module.function",
        ),
    ];
    for _ in 0..2 {
        for (function, expected) in cases {
            let (kind, message) = world.call(function, "").await.failed();
            assert_eq!(kind, Kind::Function, "{function}");
            assert!(message.starts_with(expected), "{message}");
        }
        assert_eq!(world.call("good", "").await.ok(), "\"fine\"");
    }
    assert!(world.log().contains("Traceback") && world.log().contains("no_such_module_at_all"));
    let (kind, _) = world.call("unheard", "").await.failed();
    assert_eq!(kind, Kind::NotFound);
}

#[tokio::test]
async fn modules_are_found_in_the_codedir_of_their_function() {
    let index = |name: &str| {
        format!("import helper\ndef f(event, context):\n    return '{name} ' + helper.NAME\n")
    };
    let (a, b) = (index("a"), index("b"));
    let files = [
        ("a/index.py", a.as_str()),
        ("a/helper.py", "NAME = 'helper of a'\n"),
        ("b/index.py", b.as_str()),
        ("b/helper.py", "NAME = 'helper of b'\n"),
        ("pack/__init__.py", ""),
        (
            "pack/deep.py",
            "from . import near\ndef f(event, context):\n    return near.NAME\n",
        ),
        ("pack/near.py", "NAME = 'near'\n"),
    ];
    let functions = [
        function("a", "index.f", "a"),
        function("b", "index.f", "b"),
        function("deep", "pack.deep.f", "."),
    ];
    let world = World::with(&files, &functions, |_| ()).await;
    assert_eq!(world.call("b", "").await.ok(), "\"b helper of b\"");
    assert_eq!(world.call("a", "").await.ok(), "\"a helper of a\"");
    assert_eq!(world.call("deep", "").await.ok(), "\"near\"");
}

#[tokio::test]
async fn an_interpreter_that_does_not_exist_is_named() {
    let functions = [function("f", "index.f", "")];
    let world = World::run_by("/nowhere/python3", &[("index.py", "")], &functions, |_| ()).await;
    let (kind, message) = world.call("f", "").await.failed();
    assert_eq!(kind, Kind::Worker);
    assert!(
        message.contains("/nowhere/python3") && message.contains("install it"),
        "{message}"
    );
    assert!(
        !message.contains("import os"),
        "the loader is no business of callers: {message}"
    );
}
