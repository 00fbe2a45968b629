//! What callers over gRPC see, those of Baetyl v2 among them.

use baetyl_proto::faas::Message;
use baetyl_proto::function::failure::Kind;
use baetyl_proto::function::{InvokeRequest, InvokeStreamRequest, ListFunctionsRequest};
use tonic::Code;

use super::*;

fn invoke(service: &str, function: &str, payload: impl Into<Bytes>) -> InvokeRequest {
    InvokeRequest {
        service: service.to_owned(),
        function: function.to_owned(),
        payload: payload.into(),
        metadata: BTreeMap::new(),
    }
}

fn faas(service: &str, function: &str) -> Message {
    let metadata = pairs(&[
        ("serviceName", service),
        ("functionName", function),
        ("invokeId", "mine"),
        ("own", "kept"),
    ]);
    Message {
        id: 7,
        metadata,
        payload: Bytes::from_static(b"in"),
    }
}

#[tokio::test]
async fn a_call_takes_metadata_both_ways() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let (mut client, _) = world.grpc(None);
    let request = InvokeRequest {
        metadata: pairs(&[("topic", "a/b")]),
        ..invoke("greet", "", &b"\xff"[..])
    };
    let serving = async {
        let invocation = runtime.invocation().await;
        runtime
            .answer_with(invocation.invocation, "out", &[("x", "y")])
            .await;
        invocation
    };
    let (answer, seen) = tokio::join!(client.invoke(request), serving);
    let answer = answer.unwrap().into_inner();
    assert_eq!(
        (&answer.payload[..], answer.metadata),
        (&b"out"[..], pairs(&[("x", "y")]))
    );
    assert_eq!(answer.invoke_id, seen.metadata["invokeId"]);
    assert_eq!(
        (seen.metadata["topic"].as_str(), &seen.payload[..]),
        ("a/b", &b"\xff"[..])
    );
    assert!(seen.metadata["traceparent"].starts_with("00-"));
}

#[tokio::test]
async fn each_failure_has_its_status() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let (mut client, _) = world.grpc(None);
    let mut code = async |request| client.invoke(request).await.unwrap_err().code();
    assert_eq!(code(invoke("nobody", "", "")).await, Code::NotFound);
    assert_eq!(code(invoke("greet", "nothing", "")).await, Code::NotFound);
    let long = InvokeRequest {
        metadata: pairs(&[("k", &"x".repeat(200_000))]),
        ..invoke("greet", "", "")
    };
    assert_eq!(code(long).await, Code::InvalidArgument);
    assert_eq!(
        code(invoke("greet", "", vec![0; crate::reply::MAX_PAYLOAD + 1])).await,
        Code::InvalidArgument
    );
    let serving = async {
        let invocation = runtime.invocation().await;
        runtime
            .fail(invocation.invocation, Kind::Function, "KeyError: 'x'")
            .await;
    };
    let (answer, ()) = tokio::join!(client.invoke(invoke("greet", "f", "")), serving);
    let status = answer.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::Unknown,
            "function f of service greet failed: KeyError: 'x'"
        )
    );
}

#[tokio::test]
async fn a_stream_gives_the_chunks_and_then_the_metadata() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let (mut client, _) = world.grpc(None);
    let request = InvokeStreamRequest {
        request: Some(invoke("greet", "f", "")),
    };
    let mut pieces = client.invoke_stream(request).await.unwrap().into_inner();
    let id = runtime.invocation().await.invocation;
    // More than any buffer on the way takes.
    for number in 0..100_u8 {
        runtime.chunk(id, vec![number; 1000]).await;
        let piece = pieces.message().await.unwrap().unwrap();
        assert_eq!(
            (&piece.chunk[..], piece.metadata.len()),
            (&[number; 1000][..], 0)
        );
    }
    runtime
        .answer_with(id, "rest", &[("http.status", "200")])
        .await;
    assert_eq!(&pieces.message().await.unwrap().unwrap().chunk[..], b"rest");
    let last = pieces.message().await.unwrap().unwrap();
    assert_eq!(
        (last.chunk.len(), last.metadata),
        (0, pairs(&[("http.status", "200")]))
    );
    assert!(pieces.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_function_that_streams_answers_a_plain_call_with_everything_at_once() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let serving = async {
        let id = runtime.invocation().await.invocation;
        runtime.chunk(id, "one ").await;
        runtime.chunk(id, "two ").await;
        runtime.answer(id, "three").await;
    };
    let (answer, ()) = tokio::join!(world.post("/greet", ""), serving);
    assert_eq!(answer.body(), b"one two three");
}

#[tokio::test]
async fn a_result_in_chunks_is_limited_when_it_is_wanted_whole() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let serving = async {
        let id = runtime.invocation().await.invocation;
        runtime.chunk(id, vec![0; 3 << 20]).await;
        runtime.chunk(id, vec![0; 3 << 20]).await;
        assert_eq!(runtime.cancelled().await, id);
    };
    let (answer, ()) = tokio::join!(world.post("/greet", ""), serving);
    let (status, _, message) = answer.error();
    assert!(
        status == 500 && message.contains("InvokeStream"),
        "{message}"
    );
}

#[tokio::test]
async fn a_caller_that_drops_its_stream_cancels_the_call() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let (mut client, _) = world.grpc(None);
    let request = InvokeStreamRequest {
        request: Some(invoke("greet", "f", "")),
    };
    let pieces = client.invoke_stream(request).await.unwrap();
    let id = runtime.invocation().await.invocation;
    drop(pieces);
    assert_eq!(runtime.cancelled().await, id);
}

#[tokio::test]
async fn the_list_has_pages() {
    let world = World::silent(|_| ()).await;
    world.tell(vec![
        endpoint("b", &["y", "x"], ""),
        endpoint("a", &["z"], "anonymous"),
        endpoint("c", &[], ""),
    ]);
    world.kit.readiness().until_ready().await;
    let (mut client, _) = world.core("admin");
    let mut request = ListFunctionsRequest {
        page_size: 2,
        page_token: String::new(),
    };
    let mut names = Vec::new();
    loop {
        let page = client
            .list_functions(request.clone())
            .await
            .unwrap()
            .into_inner();
        names.push(
            page.functions
                .into_iter()
                .map(|entry| entry.service + "/" + &entry.function)
                .collect::<Vec<_>>(),
        );
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(names, [vec!["a/z", "b/x"], vec!["b/y"]]);
}

#[tokio::test]
async fn a_v2_caller_gets_its_own_message_back_with_the_result_in_it() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let (_, mut v2) = world.grpc(None);
    let serving = async {
        let invocation = runtime.invocation().await;
        assert_eq!(
            (&invocation.payload[..], invocation.metadata["own"].as_str()),
            (&b"in"[..], "kept")
        );
        runtime
            .answer_with(invocation.invocation, "out", &[("new", "1")])
            .await;
    };
    let (answer, ()) = tokio::join!(v2.call(faas("greet", "f")), serving);
    let mut expected = faas("greet", "f");
    expected.payload = Bytes::from_static(b"out");
    expected.metadata.insert("new".to_owned(), "1".to_owned());
    assert_eq!(answer.unwrap().into_inner(), expected);
}

#[tokio::test]
async fn a_v2_caller_reads_the_texts_it_knows() {
    let world = World::greet().await;
    let mut runtime = world.runtime("greet", 1).await;
    let (_, mut v2) = world.grpc(None);
    let status = v2.call(faas("greet", "nothing")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unknown, "the function doesn't found")
    );
    assert_eq!(
        v2.call(faas("nobody", "f")).await.unwrap_err().code(),
        Code::NotFound
    );
    for (kind, expected) in [
        (Kind::Function, "[UserCodeInvoke] "),
        (Kind::Return, "[UserCodeReturn] "),
    ] {
        let serving = async {
            let invocation = runtime.invocation().await;
            runtime
                .fail(invocation.invocation, kind, "ValueError: x")
                .await;
        };
        let (answer, ()) = tokio::join!(v2.call(faas("greet", "f")), serving);
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unknown);
        assert!(
            status.message().starts_with(expected) && status.message().contains("ValueError: x"),
            "{status}"
        );
    }
}
