use baetyl_model::workload::{InstanceId, WHOLE, WorkloadKey};
use baetyl_testkit::eventually;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::{LogPosition, LogStart};
use crate::runtime::KubeRuntime;
use crate::testing::{Fake, Reply, labels, list};

fn instance() -> InstanceId {
    InstanceId {
        workload: WorkloadKey {
            namespace: "baetyl-edge".try_into().unwrap(),
            app: "web".try_into().unwrap(),
            version: "1".try_into().unwrap(),
            service: WHOLE.try_into().unwrap(),
        },
        name: "web-1".to_owned(),
    }
}

fn pod(containers: &[&str], restarts: u32) -> Value {
    let spec: Vec<_> = containers
        .iter()
        .map(|name| json!({"name": name}))
        .collect();
    let seen: Vec<_> = containers
        .iter()
        .map(|name| json!({"name": name, "restartCount": restarts, "state": {"running": {}}}))
        .collect();
    json!({
        "metadata": {"name": "web-1", "namespace": "baetyl-edge", "labels": labels("web", "1")},
        "spec": {"containers": spec},
        "status": {"phase": "Running", "containerStatuses": seen},
    })
}

/// Answers one request for a container's log.
fn says(fake: &Fake, container: &'static str, lines: &'static [&'static str], ends: bool) {
    fake.rule(1, move |asked| {
        let meant =
            asked.path.ends_with("/pods/web-1/log") && asked.query["container"] == container;
        let pieces = lines.iter().map(|line| format!("{line}\n")).collect();
        meant.then_some(Reply::Pieces(pieces, ends))
    });
}

async fn text(
    runtime: &KubeRuntime,
    start: LogStart,
    follow: bool,
    bytes: usize,
) -> (String, LogPosition) {
    let mut stream = runtime.logs(&instance(), None, start, follow);
    let mut text = Vec::new();
    let mut position = LogPosition::default();
    while text.len() < bytes {
        let Some(piece) = stream.next().await else {
            break;
        };
        let (bytes, after) = piece.unwrap();
        text.extend_from_slice(&bytes);
        position = after;
    }
    (String::from_utf8(text).unwrap(), position)
}

#[test]
fn a_position_is_read_as_it_was_written() {
    let text = "side=2026-01-01T00:00:00.5Z+1,web=2026-01-01T00:00:00.123456789Z+3";
    let position: LogPosition = text.parse().unwrap();
    assert_eq!(position.to_string(), text);
    assert_eq!("".parse::<LogPosition>().unwrap(), LogPosition::default());
    for text in [
        "web",
        "web=1+1",
        "web=2026-01-01T00:00:00Z",
        "web=2026-01-01T00:00:00Z+x",
    ] {
        assert!(text.parse::<LogPosition>().is_err(), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_lines_are_read_and_then_what_is_new() {
    let fake = Fake::default();
    fake.set(&list("Pod"), pod(&["web"], 0));
    let runtime = fake.seeing().await;
    says(
        &fake,
        "web",
        &[
            "2026-01-01T00:00:01.5Z one",
            "2026-01-01T00:00:01.5Z two",
            "2026-01-01T00:00:02Z ",
        ],
        true,
    );
    let (read, position) = text(&runtime, LogStart::Tail(3), false, usize::MAX).await;
    assert_eq!(read, "one\ntwo\n\n");
    assert_eq!(position.to_string(), "web=2026-01-01T00:00:02Z+1");
    let asked = fake
        .asked()
        .into_iter()
        .find(|asked| asked.path.ends_with("/log"))
        .unwrap();
    assert_eq!(asked.query["tailLines"], "3");
    assert_eq!(asked.query["timestamps"], "true");
    fake.forget_asked();
    // Kubernetes reads on from the second: what was read is left out, also of two lines of one time.
    says(
        &fake,
        "web",
        &[
            "2026-01-01T00:00:01.5Z one",
            "2026-01-01T00:00:01.5Z two",
            "2026-01-01T00:00:01.5Z three",
        ],
        true,
    );
    let after = "web=2026-01-01T00:00:01.5Z+2".parse().unwrap();
    let (read, position) = text(&runtime, LogStart::After(after), false, usize::MAX).await;
    assert_eq!(read, "three\n");
    assert_eq!(position.to_string(), "web=2026-01-01T00:00:01.5Z+3");
    let asked = fake
        .asked()
        .into_iter()
        .find(|asked| asked.path.ends_with("/log"))
        .unwrap();
    assert_eq!(asked.query["sinceTime"], "2026-01-01T00:00:01Z");
}

#[tokio::test(start_paused = true)]
async fn all_containers_are_read_and_named() {
    let fake = Fake::default();
    fake.set(&list("Pod"), pod(&["web", "side"], 0));
    let runtime = fake.seeing().await;
    says(&fake, "web", &["2026-01-01T00:00:01Z one"], true);
    says(&fake, "side", &["2026-01-01T00:00:02Z two"], true);
    let (read, position) = text(&runtime, LogStart::Tail(10), false, usize::MAX).await;
    assert_eq!(read, "[web] one\n[side] two\n");
    assert_eq!(
        position.to_string(),
        "side=2026-01-01T00:00:02Z+1,web=2026-01-01T00:00:01Z+1"
    );
}

#[tokio::test(start_paused = true)]
async fn following_goes_on_when_the_container_is_started_again_also_with_a_clock_that_went_back() {
    let fake = Fake::default();
    fake.set(&list("Pod"), pod(&["web"], 0));
    let runtime = fake.seeing().await;
    says(&fake, "web", &["2026-01-01T00:00:01Z one"], true);
    says(&fake, "web", &["1970-01-01T00:00:01Z two"], true);
    let reading = {
        let runtime = runtime.clone();
        tokio::spawn(async move { text(&runtime, LogStart::Tail(10), true, 8).await })
    };
    eventually!(
        fake.asked()
            .iter()
            .any(|asked| asked.path.ends_with("/log"))
    );
    assert!(!reading.is_finished());
    fake.set(&list("Pod"), pod(&["web"], 1));
    let (read, position) = reading.await.unwrap();
    assert_eq!(read, "one\ntwo\n");
    assert_eq!(position.to_string(), "web=1970-01-01T00:00:01Z+1");
}

#[tokio::test(start_paused = true)]
async fn following_ends_with_the_pod() {
    let fake = Fake::default();
    fake.set(&list("Pod"), pod(&["web"], 0));
    let runtime = fake.seeing().await;
    says(&fake, "web", &["2026-01-01T00:00:01Z one"], true);
    let reading = {
        let runtime = runtime.clone();
        tokio::spawn(async move { text(&runtime, LogStart::Tail(10), true, usize::MAX).await.0 })
    };
    eventually!(
        fake.asked()
            .iter()
            .any(|asked| asked.path.ends_with("/log"))
    );
    fake.delete(&format!("{}/web-1", list("Pod")));
    assert_eq!(reading.await.unwrap(), "one\n");
    let error = runtime
        .logs(&instance(), None, LogStart::Tail(1), false)
        .next()
        .await
        .unwrap()
        .unwrap_err();
    // Until the watch has told that it is gone the API server says so.
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}
