use serde_json::json;

use super::*;
use crate::error::ErrorKind;
use crate::testing::{Fake, Reply};

const SERVICES: &str = "/api/v1/namespaces/baetyl-edge-system/services";
const JOBS: &str = "/apis/batch/v1/namespaces/baetyl-edge-system/jobs";
const PODS: &str = "/api/v1/namespaces/baetyl-edge-system/pods";

fn core(fake: &Fake) -> CoreObjects {
    let config = KubeConfig {
        field_manager: "baetyl-core".to_owned(),
        ..KubeConfig::default()
    };
    CoreObjects::over(fake.api(), config)
}

fn object(api_version: &str, kind: &str, name: &str) -> Object {
    Object::read(json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "baetyl-edge-system",
            "labels": {"app.kubernetes.io/part-of": "baetyl"},
        },
        "spec": {"a": 1},
    }))
    .unwrap()
}

#[tokio::test]
async fn an_object_is_applied_as_it_is_written_without_force_by_who_installs() {
    let fake = Fake::default();
    let service = object("v1", "Service", "baetyl-sync");
    core(&fake).apply(&service, true).await.unwrap();
    core(&fake).apply(&service, false).await.unwrap();
    let asked = fake.asked();
    for (asked, dry) in asked.iter().zip([Some("All"), None]) {
        assert_eq!(asked.path, format!("{SERVICES}/baetyl-sync"));
        assert_eq!(asked.query["fieldManager"], "baetyl-core");
        assert_eq!(asked.query["force"], "false");
        assert_eq!(asked.query.get("dryRun").map(String::as_str), dry);
        assert_eq!(asked.body, service.body);
    }
    assert_eq!(asked.len(), 2);
    let live = core(&fake).live(&service).await.unwrap().unwrap();
    assert_eq!(live["spec"]["a"], 1);
    let selector = "app.kubernetes.io/part-of=baetyl";
    let core = core(&fake);
    let all = core.all(("v1", "Service"), "baetyl-edge-system", selector);
    assert_eq!(all.await.unwrap(), [live]);
}

#[tokio::test]
async fn a_field_of_somebody_else_is_a_conflict_that_names_the_object() {
    let fake = Fake::default();
    fake.rule(1, |asked| {
        let conflict = json!({
            "code": 409, "message": "conflict with \"kubectl\": .spec.replicas",
            "details": {"causes": [{"reason": "FieldManagerConflict"}]},
        });
        asked.is_write().then_some(Reply::Say(409, conflict))
    });
    let service = object("v1", "Service", "baetyl-sync");
    let error = core(&fake).apply(&service, true).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    let words = "Service baetyl-edge-system/baetyl-sync: conflict with \"kubectl\"";
    assert!(error.message.starts_with(words), "{error}");
}

#[tokio::test]
async fn that_a_job_cannot_be_changed_is_no_error_of_a_dry_run_and_it_is_replaced() {
    let fake = Fake::default();
    let job = object("batch/v1", "Job", "baetyl-prepare");
    fake.set(JOBS, job.body.clone());
    fake.rule(2, |asked| {
        let immutable = json!({"code": 422, "message": "spec.template: field is immutable"});
        asked
            .query
            .contains_key("force")
            .then_some(Reply::Say(422, immutable))
    });
    core(&fake).apply(&job, true).await.unwrap();
    let error = core(&fake).apply(&job, false).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    fake.forget_asked();
    core(&fake).replace(&job).await.unwrap();
    let path = format!("{JOBS}/baetyl-prepare");
    assert_eq!(
        fake.writes(),
        [format!("DELETE {path}"), format!("PATCH {path}")]
    );
}

#[tokio::test]
async fn what_is_not_ours_is_not_deleted() {
    let fake = Fake::default();
    let service = object("v1", "Service", "x");
    core(&fake).delete(&service).await.unwrap();
    fake.set(SERVICES, json!({"metadata": {"name": "x"}}));
    let error = core(&fake).delete(&service).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotOurs);
    fake.set(SERVICES, service.body.clone());
    core(&fake).delete(&service).await.unwrap();
    assert_eq!(fake.paths(), [""; 0]);
}

#[tokio::test]
async fn the_trouble_of_the_newest_pod_is_told_in_kubernetes_words() {
    let fake = Fake::default();
    let core = core(&fake);
    let trouble = async || {
        let told = core.trouble("baetyl-edge-system", "job-name=j");
        told.await.unwrap()
    };
    assert_eq!(trouble().await, None);
    let pod = |name: &str, created: &str, status: Value| {
        fake.set(PODS, json!({
            "metadata": {"name": name, "creationTimestamp": created, "labels": {"job-name": "j"}},
            "status": status,
        }));
    };
    let waits = |reason: &str, message: &str| {
        json!({"containerStatuses": [
            {"name": "c", "state": {"waiting": {"reason": reason, "message": message}}}
        ]})
    };
    pod("a", "2026-01-01T00:00:01Z", waits("ContainerCreating", ""));
    assert_eq!(trouble().await, None);
    pod(
        "b",
        "2026-01-01T00:00:02Z",
        waits("ErrImagePull", "not found"),
    );
    assert_eq!(trouble().await.unwrap(), "ErrImagePull: not found");
    // A page of this API server has two.
    fake.delete(&format!("{PODS}/a"));
    let mut crashed = waits("CrashLoopBackOff", "back-off 10s");
    crashed["containerStatuses"][0]["lastState"] =
        json!({"terminated": {"reason": "Error", "exitCode": 1}});
    pod("c", "2026-01-01T00:00:03Z", crashed);
    let told = trouble().await.unwrap();
    assert_eq!(told, "CrashLoopBackOff: back-off 10s; Error, exit code 1");
    fake.delete(&format!("{PODS}/b"));
    let unscheduled = json!({"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    ]});
    pod("d", "2026-01-01T00:00:04Z", unscheduled);
    assert_eq!(trouble().await.unwrap(), "Unschedulable: 0/1 nodes");
}
