use baetyl_model::workload::{WHOLE, WorkloadKey};
use baetyl_testkit::eventually;
use serde_json::{Value, json};

use crate::config::KubeConfig;
use crate::core::CoreObjects;
use crate::error::ErrorKind;
use crate::render::Place;
use crate::runtime::KubeRuntime;
use crate::testing::{Fake, labels, list};

fn key(version: &str) -> WorkloadKey {
    WorkloadKey {
        namespace: "baetyl-edge".try_into().unwrap(),
        app: "chart".try_into().unwrap(),
        version: version.try_into().unwrap(),
        service: WHOLE.try_into().unwrap(),
    }
}

fn place() -> Place {
    Place {
        helm_image: "baetyl-helm:1".to_owned(),
        ..Place::default()
    }
}

/// The Job that installed a version is there, and releases of these versions.
fn installed(fake: &Fake, job: Option<&str>, releases: &[&str]) {
    if let Some(version) = job {
        fake.set(
            &list("Job"),
            json!({
                "metadata": {"name": "chart", "namespace": "baetyl-edge", "labels": labels("chart", version)},
                "spec": {"template": {"spec": {"containers": [{"name": "baetyl-helm", "args": ["upgrade", "--namespace=shop"]}]}}},
                "status": {"conditions": [{"type": "Complete", "status": "True"}]},
            }),
        );
    }
    for (at, version) in releases.iter().enumerate() {
        let labels = json!({"owner": "helm", "status": "deployed", "baetyl-app-name": "chart", "baetyl-app-version": version});
        let name = format!("sh.helm.release.v1.chart.v{}", at + 1);
        fake.set(
            &list("Secret"),
            json!({"metadata": {"name": name, "namespace": "baetyl-edge", "labels": labels}}),
        );
    }
}

fn job(fake: &Fake) -> Option<Value> {
    fake.object(&format!("{}/chart", list("Job")))
}

/// The Job that takes away ended.
fn end(fake: &Fake, kind: &str) {
    let mut ended = job(fake).unwrap();
    ended["status"] =
        json!({"conditions": [{"type": kind, "status": "True", "reason": "BackoffLimitExceeded"}]});
    fake.set(&list("Job"), ended);
}

fn begin(
    runtime: &KubeRuntime,
    version: &str,
) -> tokio::task::JoinHandle<Result<(), crate::KubeError>> {
    let (runtime, key) = (runtime.clone(), key(version));
    tokio::spawn(async move { runtime.uninstall(&key, &place()).await })
}

fn args(fake: &Fake) -> Vec<String> {
    let job = job(fake).unwrap_or_default();
    let args = &job["spec"]["template"]["spec"]["containers"][0]["args"];
    serde_json::from_value(args.clone()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_chart_is_taken_away_before_anything_else_of_its_application() {
    let fake = Fake::default();
    installed(&fake, Some("2"), &["1", "2"]);
    let runtime = fake.seeing().await;
    let taking = begin(&runtime, "2");
    eventually!(args(&fake).first().is_some_and(|arg| arg == "uninstall"));
    assert!(args(&fake).contains(&"--namespace=shop".to_owned()));
    assert!(!taking.is_finished());
    end(&fake, "Complete");
    taking.await.unwrap().unwrap();
    fake.forget_asked();
    runtime.uninstall(&key("2"), &place()).await.unwrap();
    assert!(fake.writes().is_empty(), "it is done once");
    runtime.remove(&key("2")).await.unwrap();
    assert_eq!(job(&fake), None);
}

#[tokio::test(start_paused = true)]
async fn a_chart_that_cannot_be_taken_away_is_told_of_and_tried_again() {
    let fake = Fake::default();
    installed(&fake, Some("1"), &["1"]);
    let runtime = fake.seeing().await;
    let taking = begin(&runtime, "1");
    eventually!(args(&fake).first().is_some_and(|arg| arg == "uninstall"));
    fake.set(
        &list("Pod"),
        json!({
            "metadata": {"name": "chart-x", "namespace": "baetyl-edge", "labels": labels("chart", "1"),
                "ownerReferences": [{"kind": "Job", "name": "chart", "controller": true}]},
            "status": {"phase": "Failed", "containerStatuses": [
                {"name": "baetyl-helm", "state": {"terminated": {"exitCode": 1, "message": "Error: timed out\n"}}},
            ]},
        }),
    );
    eventually!(
        runtime.watch().borrow().workloads[&key("1")]
            .instances
            .len()
            == 1
    );
    end(&fake, "Failed");
    let error = taking.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert_eq!(
        error.message,
        "the chart of chart is still there: Helm could not take it away: Error: timed out"
    );
    let failed = job(&fake).unwrap()["metadata"]["uid"].clone();
    let again = begin(&runtime, "1");
    eventually!(job(&fake).is_some_and(|job| job["metadata"]["uid"] != failed));
    end(&fake, "Complete");
    again.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_later_version_installed_stays_when_an_earlier_one_is_cleared_away() {
    let fake = Fake::default();
    installed(&fake, Some("2"), &["1", "2"]);
    let runtime = fake.seeing().await;
    runtime.uninstall(&key("1"), &place()).await.unwrap();
    assert!(fake.writes().is_empty());
    assert_eq!(args(&fake)[0], "upgrade");
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_job_is_gone_is_taken_away_from_where_it_is() {
    let fake = Fake::default();
    installed(&fake, None, &["1"]);
    let runtime = fake.seeing().await;
    let without = Place::default();
    let error = runtime.uninstall(&key("1"), &without).await.unwrap_err();
    assert!(error.message.contains("baetyl-helm"), "{error}");
    let taking = begin(&runtime, "1");
    eventually!(args(&fake).contains(&"--namespace=baetyl-edge".to_owned()));
    end(&fake, "Complete");
    taking.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_chart_in_a_namespace_of_others_is_found_by_the_secret_of_its_application() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    runtime.uninstall(&key("1"), &place()).await.unwrap();
    assert!(fake.writes().is_empty(), "nobody knows of a chart");
    let mut labels = crate::names::labels("chart", "1");
    labels.insert(crate::names::HELM_NAMESPACE.to_owned(), "shop".to_owned());
    let data = [("token".to_owned(), b"x".to_vec())].into();
    let put = runtime.put_secret("baetyl-edge", "baetyl-id-chart", &data, &labels);
    put.await.unwrap();
    fake.forget_asked();
    runtime.uninstall(&key("2"), &place()).await.unwrap();
    assert!(fake.writes().is_empty(), "another version was put there");
    let taking = begin(&runtime, "1");
    eventually!(args(&fake).contains(&"--namespace=shop".to_owned()));
    end(&fake, "Complete");
    taking.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_killed_helm_was_at_work_on_is_forgotten_and_nothing_else() {
    let fake = Fake::default();
    installed(&fake, None, &["1", "2"]);
    let release = |number: u8, name: &str, status: &str| {
        let labels = json!({"owner": "helm", "name": name, "status": status});
        let secret = format!("sh.helm.release.v1.{name}.v{number}");
        json!({"metadata": {"name": secret, "namespace": "baetyl-edge", "labels": labels}})
    };
    let secrets = list("Secret");
    for (number, name, status) in [
        (3, "chart", "deployed"),
        (4, "chart", "pending-upgrade"),
        (1, "other", "pending-install"),
    ] {
        fake.set(&secrets, release(number, name, status));
    }
    let objects = CoreObjects::over(fake.api(), KubeConfig::default());
    let forgotten = objects.forget_pending_release("baetyl-edge", "chart").await;
    assert_eq!(forgotten.unwrap(), ["sh.helm.release.v1.chart.v4"]);
    let writes = format!("DELETE {secrets}/sh.helm.release.v1.chart.v4");
    assert_eq!(fake.writes(), [writes]);
    let again = objects.forget_pending_release("baetyl-edge", "chart").await;
    assert!(again.unwrap().is_empty());
}
