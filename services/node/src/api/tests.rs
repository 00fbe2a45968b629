//! The border: resume tokens of the watches, and what a refusal says to programs.

use baetyl_proto::node::local_service_server::LocalService as _;
use baetyl_proto::node::{PropertyChange, UpdatePropertiesRequest, WatchPropertiesRequest};
use baetyl_proto::shadow::{InstanceStats, NodeStats, NodeStatus, SignedDesire};
use futures_util::FutureExt as _;

use super::*;
use crate::desire::accept_desire;
use crate::desire::tests::{shadow, signed, uid};
use crate::local::Local;

fn node() -> (tempfile::TempDir, Node) {
    let (dir, shadow) = shadow();
    (dir, Node(Arc::new(shadow)))
}

/// What the stream has to say now.
fn now<T>(stream: &mut Answers<T>) -> Option<T> {
    stream.next().now_or_never().flatten().map(Result::unwrap)
}

async fn desires(node: &Node, token: &str) -> Result<Answers<WatchDesireResponse>, Status> {
    let resume_token = token.to_owned();
    let request = Request::new(WatchDesireRequest { resume_token });
    node.watch_desire(request).await.map(Response::into_inner)
}

#[tokio::test]
async fn a_desire_that_the_watcher_has_is_not_sent_again() {
    let (_dir, node) = node();
    let mut first = desires(&node, "").await.unwrap();
    let nothing = now(&mut first).unwrap();
    assert_eq!(nothing.desire, None);

    let mut again = desires(&node, &nothing.resume_token).await.unwrap();
    assert!(now(&mut again).is_none());
    accept_desire(&node.0, signed('1', 0, 1, 'a')).unwrap();
    let one = now(&mut again).unwrap();
    assert!(one.desire.is_some());

    let mut late = desires(&node, &nothing.resume_token).await.unwrap();
    assert_eq!(now(&mut late).unwrap(), one);
    let (_dir, other) = self::node();
    let refused = desires(&other, &one.resume_token).await.err().unwrap();
    assert_eq!(refused.code(), Code::OutOfRange);
}

async fn reports(node: &Node, token: &str) -> Result<Answers<WatchReportResponse>, Status> {
    let resume_token = token.to_owned();
    let request = Request::new(WatchReportRequest { resume_token });
    node.watch_report(request).await.map(Response::into_inner)
}

#[tokio::test]
async fn a_resumed_report_repeats_no_status_that_the_watcher_has() {
    let (_dir, node) = node();
    let status = NodeStatus {
        run_mode: "native".to_owned(),
        ..NodeStatus::default()
    };
    let stats = |cpu_used| NodeStats {
        instances: vec![InstanceStats {
            cpu_used,
            ..InstanceStats::default()
        }],
        ..NodeStats::default()
    };
    report::accept_report(&node.0, Some(status), Some(stats(0.1))).unwrap();
    let mut first = reports(&node, "").await.unwrap();
    let told = now(&mut first).unwrap();
    assert!(told.status.is_some());

    let mut again = reports(&node, &told.resume_token).await.unwrap();
    assert!(now(&mut again).is_none());
    report::accept_report(&node.0, None, Some(stats(0.2))).unwrap();
    let next = now(&mut again).unwrap();
    assert_eq!(
        (next.status, next.status_digest),
        (None, told.status_digest)
    );

    let mut late = reports(&node, &told.resume_token).await.unwrap();
    assert!(
        now(&mut late).unwrap().status.is_some(),
        "the state changed meanwhile"
    );
    let refused = reports(&node, "of-another-start").await.err().unwrap();
    assert_eq!(refused.code(), Code::OutOfRange);
}

#[tokio::test]
async fn properties_that_the_watcher_has_are_not_sent_again() {
    let (_dir, node) = node();
    let local = Local(node.0);
    let watch = async |token: &str| {
        let resume_token = token.to_owned();
        let request = Request::new(WatchPropertiesRequest { resume_token });
        local
            .watch_properties(request)
            .await
            .map(Response::into_inner)
    };
    let token = now(&mut watch("").await.unwrap()).unwrap().resume_token;
    let mut again = watch(&token).await.unwrap();
    assert!(now(&mut again).is_none());
    let changes = vec![PropertyChange {
        key: "k".to_owned(),
        value: "v".to_owned(),
        delete: false,
    }];
    let request = Request::new(UpdatePropertiesRequest { changes });
    local.update_properties(request).await.unwrap();
    assert_eq!(now(&mut again).unwrap().properties.unwrap().report.len(), 1);
    let refused = watch("of-another-start").await.err().unwrap();
    assert_eq!(refused.code(), Code::OutOfRange);
}

#[tokio::test]
async fn a_refused_desire_says_why_in_words_and_for_programs() {
    let (_dir, node) = node();
    let offer = async |signed| {
        let request = Request::new(AcceptDesireRequest {
            desire: Some(signed),
        });
        node.accept_desire(request).await.err()
    };
    assert!(offer(signed('1', 0, 5, 'a')).await.is_none());
    let stale = offer(signed('1', 0, 4, 'a')).await.unwrap();
    let conflict = offer(signed('1', 0, 5, 'b')).await.unwrap();
    let garbage = SignedDesire {
        payload: vec![0xff].into(),
        signatures: Vec::new(),
    };
    let malformed = offer(garbage).await.unwrap();
    let identity = Identity {
        namespace: "default".to_owned(),
        node_name: "n1".to_owned(),
        node_uid: uid('3').parse().unwrap(),
    };
    node.0.persist_identity(identity).unwrap();
    let foreign = offer(signed('1', 0, 6, 'a')).await.unwrap();
    let told = [stale, conflict, malformed, foreign]
        .map(|status| (status.code(), details::reason(&status)));
    let reason = |reason: &str| Some(reason.to_owned());
    assert_eq!(
        told,
        [
            (Code::FailedPrecondition, reason(reasons::STALE)),
            (Code::FailedPrecondition, reason(reasons::CONFLICT)),
            (Code::InvalidArgument, reason(reasons::MALFORMED)),
            (Code::PermissionDenied, reason(reasons::WRONG_NODE)),
        ]
    );
}
