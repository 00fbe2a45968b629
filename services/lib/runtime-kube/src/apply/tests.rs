use baetyl_testkit::eventually;

use baetyl_model::workload::{WHOLE, WorkloadKey};
use serde_json::{Value, json};

use super::digest;
use crate::error::ErrorKind;
use crate::object::Object;
use crate::render::{Rendered, Workload};
use crate::runtime::KubeRuntime;
use crate::testing::{Asked, Fake, Reply, labels, list, status};

mod authored;
mod conflict;
mod remove;
mod taken;

fn key(app: &str, version: &str) -> WorkloadKey {
    WorkloadKey {
        namespace: "baetyl-edge".try_into().unwrap(),
        app: app.try_into().unwrap(),
        version: version.try_into().unwrap(),
        service: WHOLE.try_into().unwrap(),
    }
}

fn object(api_version: &str, kind: &str, name: &str, labels: Value, rest: Value) -> Object {
    let mut body = json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": "baetyl-edge", "labels": labels},
    });
    for (field, value) in rest.as_object().unwrap() {
        body[field] = value.clone();
    }
    Object {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: "baetyl-edge".to_owned(),
        name: name.to_owned(),
        body,
    }
}

fn content(name: &str, digits: &str) -> Object {
    let labels = json!({"app.kubernetes.io/managed-by": "baetyl", "baetyl.io/digest": digits});
    object(
        "v1",
        "ConfigMap",
        name,
        labels,
        json!({"immutable": true, "data": {"a": "b"}}),
    )
}

fn web(version: &str, image: &str) -> Rendered {
    let spec = json!({"replicas": 1, "template": {"spec": {"containers": [{"name": "web", "image": image}]}}});
    Rendered {
        key: key("web", version),
        objects: vec![
            content(
                "conf-0123456789",
                "0123456789abcdef0123456789abcdef01234567",
            ),
            object(
                "v1",
                "Service",
                "web",
                labels("web", version),
                json!({"spec": {"ports": []}}),
            ),
            object(
                "apps/v1",
                "Deployment",
                "web",
                labels("web", version),
                json!({"spec": spec}),
            ),
        ],
        wanted: Some(1),
        kind: Workload::Deployment,
        preserve: false,
        exclusive: false,
        warnings: Vec::new(),
    }
}

fn authored(version: &str, objects: Vec<Object>) -> Rendered {
    Rendered {
        key: key("shop", version),
        objects,
        wanted: None,
        kind: Workload::Objects,
        preserve: false,
        exclusive: false,
        warnings: Vec::new(),
    }
}

/// Waits until what was applied is seen by the watches.
async fn until_seen(runtime: &KubeRuntime, key: &WorkloadKey) {
    let mut observed = runtime.watch();
    let seen = observed.wait_for(|seen| seen.workloads.contains_key(key));
    seen.await.unwrap();
}

fn path(kind: &str, name: &str) -> String {
    format!("{}/{name}", list(kind))
}

const WIDGET: &str = "/apis/example.com/v1/namespaces/baetyl-edge/widgets/one";

/// An object of a kind nobody here knows.
fn widget(name: &str) -> Object {
    let labels = labels("shop", "1");
    object("example.com/v1", "Widget", name, labels, json!({}))
}

fn scaler(version: &str, rest: Value) -> Object {
    let labels = labels("web", version);
    object(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "web",
        labels,
        rest,
    )
}

/// The cluster has these kinds besides Kubernetes' own.
fn define(fake: &Fake) {
    fake.rule(usize::MAX, |asked| {
        let kinds = json!({"resources": [
            {"name": "widgets", "kind": "Widget", "namespaced": true},
            {"name": "widgets/status", "kind": "Widget", "namespaced": true},
        ]});
        (asked.path == "/apis/example.com/v1").then_some(Reply::Say(200, kinds))
    });
}

#[test]
fn the_order_of_fields_does_not_matter_to_a_digest_and_everything_else_does() {
    let one: Value = serde_json::from_str(r#"{"a": 1, "b": [1, {"c": "x"}]}"#).unwrap();
    let same: Value = serde_json::from_str(r#"{"b": [1, {"c": "x"}], "a": 1}"#).unwrap();
    assert_eq!(digest(&one), digest(&same));
    assert!(digest(&one).starts_with("sha256:"));
    for other in [
        r#"{"a": 1, "b": [1, {"c": "y"}]}"#,
        r#"{"a": 1, "b": [{"c": "x"}, 1]}"#,
        r#"{"a": "1", "b": [1, {"c": "x"}]}"#,
        r#"{"a": 1}"#,
    ] {
        let other: Value = serde_json::from_str(other).unwrap();
        assert_ne!(digest(&one), digest(&other), "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_is_applied_once_and_never_by_force() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    runtime.apply(&web("1", "a")).await.unwrap();
    assert_eq!(fake.writes().len(), 3);
    let writes = fake.asked().into_iter().filter(Asked::is_write);
    for write in writes {
        assert_eq!(write.query["fieldManager"], "baetyl-engine");
        assert_eq!(write.query["force"], "false");
        assert_eq!(write.user, None);
    }
    let live = fake.object(&path("Deployment", "web")).unwrap();
    let body = &web("1", "a").objects[2].body;
    assert_eq!(
        live["metadata"]["annotations"]["baetyl.io/applied"],
        digest(body)
    );
    fake.forget_asked();
    runtime.apply(&web("1", "a")).await.unwrap();
    // Another life of the program knows nothing but what is there.
    fake.seeing().await.apply(&web("1", "a")).await.unwrap();
    assert!(fake.writes().is_empty(), "{:?}", fake.writes());
    runtime.apply(&web("2", "b")).await.unwrap();
    let written = [path("Service", "web"), path("Deployment", "web")];
    assert_eq!(fake.writes(), written.map(|path| format!("PATCH {path}")));
}

#[tokio::test(start_paused = true)]
async fn a_field_of_somebody_else_is_told_of_in_kubernetes_words() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    runtime.apply(&web("1", "a")).await.unwrap();
    let message = "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using apps/v1: .spec.replicas";
    let mut conflict = status(409, "Conflict", message);
    conflict["details"] = json!({"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-edit\" using apps/v1", "field": ".spec.replicas"}]});
    fake.rule(1, move |asked| {
        let meant = asked.is_write() && asked.path.ends_with("/deployments/web");
        meant.then(|| Reply::Say(409, conflict.clone()))
    });
    let error = runtime.apply(&web("2", "b")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert_eq!(
        error.message,
        format!("Deployment baetyl-edge/web: {message}")
    );
    assert!(!error.is_later());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ours_is_left_alone() {
    for (live, words) in [
        (json!({}), "has no label app.kubernetes.io/managed-by"),
        (
            json!({"app.kubernetes.io/managed-by": "Helm"}),
            "is labelled app.kubernetes.io/managed-by=Helm",
        ),
        (labels("other", "1"), "belongs to application \"other\""),
    ] {
        let fake = Fake::default();
        let labels = live.clone();
        fake.set(
            &list("Service"),
            json!({"metadata": {"name": "web", "namespace": "baetyl-edge", "labels": labels}}),
        );
        let runtime = fake.seeing().await;
        let error = runtime.apply(&web("1", "a")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotOurs);
        assert!(
            error
                .message
                .starts_with("Service baetyl-edge/web: it is there and"),
            "{error}"
        );
        assert!(error.message.contains(words), "{error}");
        assert_eq!(
            fake.writes(),
            [format!("PATCH {}", path("ConfigMap", "conf-0123456789"))]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn content_of_another_name_giver_is_not_taken_for_ours() {
    let fake = Fake::default();
    let labels =
        json!({"app.kubernetes.io/managed-by": "baetyl", "baetyl.io/digest": "0123456789ffff"});
    fake.set(
        &list("ConfigMap"),
        json!({"metadata": {"name": "conf-0123456789", "namespace": "baetyl-edge", "labels": labels}}),
    );
    let error = fake.seeing().await.apply(&web("1", "a")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotOurs);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_another_is_made_anew() {
    let job = |version: &str, image: &str| {
        let spec = json!({"template": {"spec": {"containers": [{"image": image}]}}});
        Rendered {
            objects: vec![object(
                "batch/v1",
                "Job",
                "web",
                labels("web", version),
                json!({"spec": spec}),
            )],
            kind: Workload::Job,
            ..web(version, image)
        }
    };
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    runtime.apply(&job("1", "a")).await.unwrap();
    runtime.apply(&job("1", "a")).await.unwrap();
    let first = fake.object(&path("Job", "web")).unwrap()["metadata"]["uid"].clone();
    runtime.apply(&job("2", "b")).await.unwrap();
    let second = fake.object(&path("Job", "web")).unwrap()["metadata"]["uid"].clone();
    assert_ne!(first, second);
    let path = path("Job", "web");
    let expected = [
        format!("PATCH {path}"),
        format!("DELETE {path}"),
        format!("PATCH {path}"),
    ];
    assert_eq!(fake.writes(), expected);
    let delete = fake
        .asked()
        .into_iter()
        .find(|asked| asked.method == http::Method::DELETE)
        .unwrap();
    assert_eq!(delete.body["propagationPolicy"], "Foreground");
    assert_eq!(delete.body["preconditions"]["uid"], first);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_changed_is_replaced_unless_it_holds_data() {
    for (kind, api_version, replaced) in [("StatefulSet", "apps/v1", true), ("Secret", "v1", false)]
    {
        let of = |version: &str| Rendered {
            objects: vec![object(
                api_version,
                kind,
                "web",
                labels("web", version),
                json!({"spec": {"v": version}}),
            )],
            ..web(version, "a")
        };
        let fake = Fake::default();
        let runtime = fake.seeing().await;
        runtime.apply(&of("1")).await.unwrap();
        fake.rule(1, |asked| {
            let message = "is invalid: spec: Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden; field is immutable";
            asked.is_write().then_some(Reply::Refuse(422, message, None))
        });
        fake.forget_asked();
        let result = runtime.apply(&of("2")).await;
        assert_eq!(result.is_ok(), replaced, "{result:?}");
        let deleted = fake
            .writes()
            .iter()
            .any(|write| write.starts_with("DELETE"));
        assert_eq!(deleted, replaced);
        if let Err(error) = result {
            assert_eq!(error.kind, ErrorKind::Refused);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_application_that_becomes_another_kind_of_workload_leaves_nothing_in_its_own_way() {
    let stateful = |exclusive: bool| {
        let mut rendered = web("2", "b");
        let headless = object(
            "v1",
            "Service",
            "web",
            labels("web", "2"),
            json!({"spec": {"clusterIP": "None"}}),
        );
        let spec = rendered.objects[2].body["spec"].clone();
        rendered.objects[1] = headless;
        rendered.objects[2] = object(
            "apps/v1",
            "StatefulSet",
            "web",
            labels("web", "2"),
            json!({"spec": spec}),
        );
        Rendered {
            kind: Workload::StatefulSet,
            exclusive,
            ..rendered
        }
    };
    for exclusive in [false, true] {
        let fake = Fake::default();
        let runtime = fake.seeing().await;
        runtime.apply(&web("1", "a")).await.unwrap();
        until_seen(&runtime, &key("web", "1")).await;
        fake.rule(1, |asked| {
            let message = "Service \"web\" is invalid: spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set";
            let meant = asked.is_write() && asked.path == path("Service", "web");
            meant.then_some(Reply::Refuse(422, message, None))
        });
        fake.forget_asked();
        runtime.apply(&stateful(exclusive)).await.unwrap();
        let (service, deployment) = (path("Service", "web"), path("Deployment", "web"));
        let mut expected = vec![
            format!("PATCH {service}"),
            format!("DELETE {service}"),
            format!("PATCH {service}"),
        ];
        if exclusive {
            // Its Pods have the port the new ones need.
            expected.insert(0, format!("DELETE {deployment}"));
        }
        expected.push(format!("PATCH {}", path("StatefulSet", "web")));
        assert_eq!(fake.writes(), expected);
        assert_eq!(fake.object(&deployment).is_some(), !exclusive);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_being_deleted_is_waited_for() {
    let fake = Fake::default();
    let mut old = json!({"metadata": {"name": "web", "namespace": "baetyl-edge", "labels": labels("web", "1")}});
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    fake.set(&list("Deployment"), old);
    let runtime = fake.seeing().await;
    let applying = {
        let runtime = runtime.clone();
        tokio::spawn(async move { runtime.apply(&web("2", "b")).await })
    };
    // It looks again and again whether it is gone.
    let before = fake.asked().len();
    eventually!(fake.asked().len() >= before + 3);
    let deployment = format!("PATCH {}", path("Deployment", "web"));
    assert!(!fake.writes().contains(&deployment));
    fake.delete(&path("Deployment", "web"));
    applying.await.unwrap().unwrap();
    assert!(fake.writes().contains(&deployment));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_to_come_again_is_asked_again_and_one_that_is_silent_is_told_of() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    fake.rule(2, |asked| {
        asked
            .is_write()
            .then_some(Reply::Refuse(429, "slow down", Some(3)))
    });
    runtime.apply(&web("1", "a")).await.unwrap();
    fake.rule(usize::MAX, |asked| asked.is_write().then_some(Reply::Hang));
    let error = runtime.apply(&web("2", "b")).await.unwrap_err();
    assert!(error.is_later(), "{error}");
    assert_eq!(
        error.message,
        "Service baetyl-edge/web: the API server at https://fake did not answer within 15 s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_changes_the_template_under_another_name_and_applying_is_not_done_again() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    let error = runtime.restart(&key("web", "1")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    runtime.apply(&web("1", "a")).await.unwrap();
    until_seen(&runtime, &key("web", "1")).await;
    fake.forget_asked();
    runtime.restart(&key("web", "1")).await.unwrap();
    let write = fake.asked().into_iter().find(Asked::is_write).unwrap();
    assert_eq!(write.query["fieldManager"], "baetyl-restart");
    assert_eq!(write.path, path("Deployment", "web"));
    let live = fake.object(&path("Deployment", "web")).unwrap();
    let annotations = &live["spec"]["template"]["metadata"]["annotations"];
    assert!(annotations["kubectl.kubernetes.io/restartedAt"].is_string());
    fake.forget_asked();
    runtime.apply(&web("1", "a")).await.unwrap();
    assert!(fake.writes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn secrets_are_written_when_they_change_and_only_when_they_are_ours() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    let put = |value: &'static [u8]| {
        let runtime = runtime.clone();
        async move {
            let data = [("tls.key".to_owned(), value.to_vec())].into();
            let labels = [("app.kubernetes.io/part-of".to_owned(), "baetyl".to_owned())].into();
            runtime
                .put_secret("baetyl-edge", "baetyl-tls-node", &data, &labels)
                .await
        }
    };
    assert_eq!(
        runtime
            .secret("baetyl-edge", "baetyl-tls-node")
            .await
            .unwrap(),
        None
    );
    put(b"one").await.unwrap();
    put(b"one").await.unwrap();
    assert_eq!(fake.writes().len(), 1);
    put(b"two").await.unwrap();
    assert_eq!(fake.writes().len(), 2);
    let read = runtime
        .secret("baetyl-edge", "baetyl-tls-node")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read["tls.key"], b"two");
    fake.set(
        &list("Secret"),
        json!({"metadata": {"name": "baetyl-tls-node", "namespace": "baetyl-edge"}}),
    );
    for result in [
        put(b"three").await,
        runtime
            .delete_secret("baetyl-edge", "baetyl-tls-node")
            .await,
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotOurs);
        assert!(!error.message.contains("three"));
    }
    fake.delete(&path("Secret", "baetyl-tls-node"));
    put(b"four").await.unwrap();
    runtime
        .delete_secret("baetyl-edge", "baetyl-tls-node")
        .await
        .unwrap();
    runtime
        .delete_secret("baetyl-edge", "baetyl-tls-node")
        .await
        .unwrap();
    assert!(fake.paths().is_empty());
}
