//! What callers over HTTP see.

use baetyl_proto::function::failure::Kind;

use super::*;

#[tokio::test]
async fn a_body_goes_to_the_function_and_its_answer_comes_back() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let calling = world.send(
        Method::POST,
        "/greet/f",
        &[("invokeid", "mine")],
        &b"\x00\xffin"[..],
    );
    let serving = async {
        let invocation = runtime.invocation().await;
        assert_eq!(
            (invocation.function.as_str(), &invocation.payload[..]),
            ("f", &b"\x00\xffin"[..])
        );
        let expected = pairs(&[
            ("serviceName", "greet"),
            ("functionName", "f"),
            ("invokeId", "mine"),
        ]);
        assert!(
            expected
                .iter()
                .all(|(key, value)| invocation.metadata.get(key) == Some(value))
        );
        assert!((1..=60_000).contains(&invocation.deadline_ms));
        runtime.answer(invocation.invocation, r#"{"out": 1}"#).await;
    };
    let (answer, ()) = tokio::join!(calling, serving);
    assert_eq!(
        (answer.status(), answer.body()),
        (200, &br#"{"out": 1}"#[..])
    );
    assert_eq!(
        (answer.header("content-type"), answer.header("invokeid")),
        ("application/json", "mine")
    );
}

#[tokio::test]
async fn without_a_function_the_first_one_is_called_and_an_id_is_made() {
    let world = World::greet().await;
    world.tell(vec![endpoint("greet", &["first", "second"], "anonymous")]);
    let mut runtime = Runtime::register(&world, "greet", "greet.1", &["second", "first"], 1)
        .await
        .unwrap();
    eventually!(
        world
            .kit
            .metrics()
            .render()
            .contains("runtimes{app=\"greet\"} 1")
    );
    let calling = world.send(Method::GET, "/greet?a=b", &[], "");
    let serving = async {
        let invocation = runtime.invocation().await;
        runtime.answer(invocation.invocation, "").await;
        invocation
    };
    let (answer, invocation) = tokio::join!(calling, serving);
    assert_eq!(invocation.function, "first");
    assert_eq!(invocation.metadata["httpQuery"], "a=b");
    assert_eq!(answer.header("invokeid"), invocation.metadata["invokeId"]);
    assert_eq!((answer.status(), answer.body()), (200, &b""[..]));
}

#[tokio::test]
async fn a_function_decides_on_status_and_headers() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let headers = [
        ("x-color", "red"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
    ];
    let calling = world.send(Method::DELETE, "/greet/f/deep/path", &headers, "");
    let serving = async {
        let invocation = runtime.invocation().await;
        let metadata = [
            ("http.status", "201"),
            ("http.header.location", "/here"),
            ("note", "not for HTTP"),
        ];
        runtime
            .answer_with(invocation.invocation, "made", &metadata)
            .await;
        invocation.metadata
    };
    let (answer, seen) = tokio::join!(calling, serving);
    let expected = pairs(&[
        ("httpMethod", "DELETE"),
        ("httpPath", "/deep/path"),
        ("header.x-color", "red"),
        headers[1],
    ]);
    assert!(
        expected
            .iter()
            .all(|(key, value)| seen.get(key) == Some(value)),
        "{seen:?}"
    );
    assert_eq!((answer.status(), answer.header("location")), (201, "/here"));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
}

#[tokio::test]
async fn what_does_not_exist_is_json_404() {
    let world = World::greet().await;
    let _echo = world.runtime("greet", 1).await.echo();
    for path in ["/", "/nobody", "/nobody/f", "/%00"] {
        let (status, code, _) = world
            .send(Method::GET, path, &[("accept", "text/html")], "")
            .await
            .error();
        assert_eq!(
            (status, code.as_str()),
            (404, "ERR_ADDRESS_RESOLVE"),
            "{path}"
        );
    }
    let (status, code, message) = world.post("/greet/nothing", "").await.error();
    assert_eq!((status, code.as_str()), (404, "ERR_FUNCTION_NOT_FOUND"));
    assert!(
        message.contains("greet") && message.contains("nothing"),
        "{message}"
    );
}

#[tokio::test]
async fn other_methods_are_told_which_are_allowed() {
    let world = World::greet().await;
    for method in [
        Method::PATCH,
        Method::OPTIONS,
        Method::from_bytes(b"BREW").unwrap(),
    ] {
        let answer = world.send(method, "/greet", &[], "").await;
        assert_eq!(
            (answer.status(), answer.header("allow")),
            (405, "GET, POST, PUT, DELETE")
        );
    }
}

#[tokio::test]
async fn an_exception_names_the_function_and_is_one_line() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let serving = async {
        for (kind, text) in [
            (
                Kind::Function,
                "ValueError: bad\nTraceback (most recent call last)",
            ),
            (Kind::Return, "not JSON"),
            (Kind::Worker, "signal 9"),
            (Kind::NotFound, ""),
        ] {
            let invocation = runtime.invocation().await;
            runtime.fail(invocation.invocation, kind, text).await;
        }
    };
    let calling = async {
        let (status, code, message) = world.post("/greet", "").await.error();
        assert_eq!((status, code.as_str()), (500, "ERR_FUNCTION_CALL"));
        assert_eq!(
            message,
            "function f of service greet failed: ValueError: bad"
        );
        let (status, _, message) = world.post("/greet", "").await.error();
        assert!(
            status == 500 && message.contains("cannot be sent: not JSON"),
            "{message}"
        );
        let (status, _, message) = world.post("/greet", "").await.error();
        assert!(status == 502 && message.contains("signal 9"), "{message}");
        assert_eq!(world.post("/greet", "").await.status(), 404);
    };
    tokio::join!(serving, calling);
    world
        .until_metric(r#"baetyl_function_proxy_calls_total{app="greet",outcome="function"} 2"#)
        .await;
    world
        .until_metric(r#"baetyl_function_proxy_calls_total{app="greet",outcome="runtime"} 1"#)
        .await;
}

#[tokio::test]
async fn four_mebibytes_pass_and_one_byte_more_does_not() {
    let world = World::greet().await;
    let _echo = world.runtime("greet", 1).await.echo();
    let most = vec![b'x'; crate::reply::MAX_PAYLOAD];
    let answer = world.post("/greet", most.clone()).await;
    assert_eq!((answer.status(), answer.body().len()), (200, most.len()));
    let (status, code, message) = world
        .post("/greet", [most, vec![b'x']].concat())
        .await
        .error();
    assert_eq!((status, code.as_str()), (413, "ERR_BODY_TOO_LONG"));
    assert!(message.contains("4194304"), "{message}");
}

#[tokio::test]
async fn a_body_of_unknown_length_is_read_up_to_the_limit() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::greet().await;
    let _echo = world.runtime("greet", 1).await.echo();
    for (chunk, expected) in [
        (5, "200 OK"),
        (crate::reply::MAX_PAYLOAD + 1, "413 Payload Too Large"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(world.address("http"))
            .await
            .unwrap();
        let head = "POST /greet HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        let request = [
            head.as_bytes(),
            format!("{chunk:x}\r\n").as_bytes(),
            &vec![b'x'; chunk],
            b"\r\n0\r\n\r\n",
        ]
        .concat();
        // The proxy may answer and hang up before it has read all.
        let _ = stream.write_all(&request).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected}")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_understood_is_a_bad_request() {
    let world = World::greet().await;
    let (status, code, message) = world
        .send(
            Method::POST,
            "/greet",
            &[("x-baetyl-timeout-ms", "soon")],
            "",
        )
        .await
        .error();
    assert_eq!((status, code.as_str()), (400, "ERR_BAD_REQUEST"));
    assert!(message.contains("x-baetyl-timeout-ms"), "{message}");
    let long = "x".repeat(crate::http::MAX_METADATA);
    let (status, code, _) = world
        .send(Method::POST, "/greet", &[("x-long", &long)], "")
        .await
        .error();
    assert_eq!((status, code.as_str()), (431, "ERR_HEADERS_TOO_LONG"));
}

#[tokio::test]
async fn the_list_is_for_those_with_a_token_who_ask_for_json() {
    let world = World::new(&[("greet", "anonymous"), ("shop", "token")], |_| ()).await;
    let _echo = world.runtime("greet", 3).await.echo();
    let bearer = format!("Bearer {}", world.token("any"));
    let json = ("accept", "text/html, application/json;q=0.9");
    let answer = world
        .send(Method::GET, "/", &[json, ("authorization", &bearer)], "")
        .await;
    let list: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    let item = |service: &str, runtime: &str, runtimes: u32, access: &str| {
        serde_json::json!({"service": service, "function": "f", "runtime": runtime, "runtimes": runtimes,
            "inFlight": 0, "queued": 0, "access": access})
    };
    let expected = [
        item("greet", "script", 1, "anonymous"),
        item("shop", "", 0, "token"),
    ];
    assert_eq!(list, serde_json::json!({ "functions": expected }));
    assert_eq!(
        world.send(Method::GET, "/", &[json], "").await.status(),
        404
    );
    assert_eq!(
        world
            .send(Method::GET, "/", &[("authorization", &bearer)], "")
            .await
            .status(),
        404
    );
    assert_eq!(
        world
            .send(
                Method::GET,
                "/",
                &[json, ("authorization", "Bearer no")],
                ""
            )
            .await
            .status(),
        401
    );
}
