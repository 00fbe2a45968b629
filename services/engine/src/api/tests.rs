//! What others are told of endpoints.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use baetyl_kit::resume::Revisions;
use baetyl_model::desire::Unpack;
use baetyl_proto::engine::{Endpoint, WatchEndpointsResponse};
use baetyl_testkit::eventually;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::json;
use tokio::sync::watch;

use super::{Answers, endpoints};
use crate::testing::{Behaviour, Bench, Release, release};

/// An application with one function, whose code is a large file.
fn greet(version: &str) -> Release {
    let service = json!({"name": "fn1", "functionConfig": {"name": "code", "runtime": "python3"},
        "functions": [{"name": "hello", "handler": "index.hello"}]});
    release(
        "greet",
        version,
        json!({"type": "function", "mode": "native", "services": [service]}),
    )
    .configuration("code", json!({"_object_index.py": "{}"}))
    .object("code", "index.py", b"def hello(): pass", Unpack::None)
    .build()
}

fn watch_endpoints(
    bench: &Bench,
    adopted: watch::Receiver<bool>,
) -> Answers<WatchEndpointsResponse> {
    let (_, engine) = bench.engine.as_ref().unwrap();
    let resumed = Revisions::new().resume("").unwrap();
    endpoints::watch(Arc::clone(&engine.ctx), adopted, resumed)
}

/// The table as it is now.
fn table(bench: &Bench) -> Vec<Endpoint> {
    let (_, adopted) = watch::channel(true);
    let told = watch_endpoints(bench, adopted).next().now_or_never();
    told.unwrap().unwrap().unwrap().endpoints
}

/// `<instance or nothing> <ready> <function>` of each entry.
fn lines(bench: &Bench) -> Vec<String> {
    let line = |endpoint: Endpoint| {
        let function = &endpoint.functions[0].name;
        format!("{} {} {function}", endpoint.instance, endpoint.ready)
    };
    table(bench).into_iter().map(line).collect()
}

#[tokio::test]
async fn nothing_is_told_before_what_ran_was_taken_up_again() {
    let bench = Bench::started().await;
    bench.desire(1, &[&greet("1")]);
    bench.until("greet", "Healthy 1").await;
    let (adopt, adopted) = watch::channel(false);
    let mut told = watch_endpoints(&bench, adopted);
    assert!(told.next().now_or_never().is_none());
    adopt.send_replace(true);
    let first = told.next().await.unwrap().unwrap();
    assert_eq!(first.endpoints[0].functions[0].name, "hello");
}

#[tokio::test]
async fn the_first_table_after_a_restart_has_what_ran_before() {
    let mut bench = Bench::started().await;
    bench.desire(1, &[&greet("1")]);
    bench.until("greet", "Healthy 1").await;
    bench.restart().await;
    assert_eq!(lines(&bench), ["baetyl-edge.greet.1.fn1.1 true hello"]);
}

#[tokio::test]
async fn functions_are_told_while_their_first_version_is_fetched() {
    let bench = Bench::started().await;
    let greet = greet("1");
    bench.content.hold_objects(&greet);
    bench.desire(1, &[&greet]);
    eventually!(lines(&bench) == [" false hello"]);
    bench.content.let_go();
    bench.until("greet", "Healthy 1").await;
    assert_eq!(lines(&bench), ["baetyl-edge.greet.1.fn1.1 true hello"]);
}

#[tokio::test]
async fn functions_without_an_instance_are_told_until_they_are_unwanted() {
    let bench = Bench::started().await;
    bench.runtime.behave("1", Behaviour::Refuse);
    bench.desire(1, &[&greet("1")]);
    bench.until("greet", "Failed 1").await;
    assert_eq!(lines(&bench), [" false hello"]);
    bench.desire(2, &[]);
    eventually!(table(&bench).is_empty());
}
