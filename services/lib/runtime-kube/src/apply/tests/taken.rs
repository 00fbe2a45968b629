//! What others take away or change: it is noticed, applying puts it right, and nothing else is written.

use std::time::Duration;

use super::*;
use crate::ledger::SETTLED;

/// A version with an autoscaler and a Secret of its own.
fn whole() -> Rendered {
    let mut rendered = web("1", "a");
    let spec = json!({"spec": {"maxReplicas": 4}});
    rendered.objects.push(scaler("1", spec));
    rendered
}

async fn identity(runtime: &KubeRuntime, version: &str) {
    let data = [("token".to_owned(), b"secret".to_vec())].into();
    let labels = crate::names::labels("web", version);
    let put = runtime.put_secret("baetyl-edge", "baetyl-id-web", &data, &labels);
    put.await.unwrap();
}

async fn applied(fake: &Fake) -> KubeRuntime {
    let pod = json!({"metadata": {"name": "web-1", "namespace": "baetyl-edge", "labels": labels("web", "1")}});
    fake.set(&list("Pod"), pod);
    let runtime = fake.seeing().await;
    identity(&runtime, "1").await;
    runtime.apply(&whole()).await.unwrap();
    until_calm(&runtime, &key("web", "1")).await;
    fake.forget_asked();
    runtime
}

/// Waits until the watches had their time and nothing is missed.
async fn until_calm(runtime: &KubeRuntime, key: &WorkloadKey) {
    tokio::time::sleep(SETTLED + Duration::from_secs(1)).await;
    let mut observed = runtime.watch();
    let calm = observed.wait_for(|seen| {
        let workload = seen.workloads.get(key);
        workload.is_some_and(|workload| workload.taken.is_empty())
    });
    let calm = tokio::time::timeout(Duration::from_secs(60), calm).await;
    assert!(calm.is_ok_and(|calm| calm.is_ok()), "{observed:?}");
}

/// Waits until something of it is missed.
async fn until_missed(runtime: &KubeRuntime, key: &WorkloadKey, wait: Duration) -> String {
    let mut observed = runtime.watch();
    let taken = |seen: &std::sync::Arc<baetyl_model::workload::Observed>| {
        let workload = seen.workloads.get(key);
        workload.is_some_and(|workload| !workload.taken.is_empty())
    };
    let missed = tokio::time::timeout(wait, observed.wait_for(taken)).await;
    let missed = missed.expect("nothing is missed").unwrap();
    missed.workloads[key].taken.clone()
}

const SOON: Duration = Duration::from_secs(2);

#[tokio::test(start_paused = true)]
async fn what_somebody_deletes_is_missed_at_once_and_put_back_alone() {
    let fake = Fake::default();
    let runtime = applied(&fake).await;
    for (path, words) in [
        (path("Service", "web"), "Service web"),
        (
            path("ConfigMap", "conf-0123456789"),
            "ConfigMap conf-0123456789",
        ),
        (path("Deployment", "web"), "Deployment web"),
        (
            path("HorizontalPodAutoscaler", "web"),
            "HorizontalPodAutoscaler web",
        ),
        (path("Secret", "baetyl-id-web"), "Secret baetyl-id-web"),
    ] {
        fake.delete(&path);
        let missed = until_missed(&runtime, &key("web", "1"), SOON).await;
        assert_eq!(missed, format!("{words}: somebody took it away"));
        fake.forget_asked();
        identity(&runtime, "1").await;
        runtime.apply(&whole()).await.unwrap();
        assert_eq!(fake.writes(), [format!("PATCH {path}")]);
        until_calm(&runtime, &key("web", "1")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn fields_that_somebody_takes_are_applied_again_and_those_of_others_are_theirs() {
    let fake = Fake::default();
    let runtime = applied(&fake).await;
    let service = path("Service", "web");
    let mut live = fake.object(&service).unwrap();
    // A controller writes what is its own.
    live["status"] = json!({"loadBalancer": {}});
    let managers = live["metadata"]["managedFields"].as_array_mut().unwrap();
    managers.push(
        json!({"manager": "controller", "operation": "Update", "fieldsV1": {"f:status": {}}}),
    );
    fake.set(&list("Service"), live.clone());
    until_calm(&runtime, &key("web", "1")).await;
    // Somebody edits what is ours.
    live["spec"] = json!({});
    let own = &mut live["metadata"]["managedFields"][0]["fieldsV1"];
    own.as_object_mut().unwrap().remove("f:spec");
    fake.set(&list("Service"), live);
    let missed = until_missed(&runtime, &key("web", "1"), SOON).await;
    assert_eq!(
        missed,
        "Service web: somebody took fields of it that are the application's"
    );
    runtime.apply(&whole()).await.unwrap();
    assert_eq!(fake.writes(), [format!("PATCH {service}")]);
    let write = fake.asked().into_iter().find(Asked::is_write).unwrap();
    assert_eq!(write.query["force"], "false");
    assert_eq!(fake.object(&service).unwrap()["spec"]["ports"], json!([]));
    until_calm(&runtime, &key("web", "1")).await;
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_insists_on_is_told_and_not_asked_for_without_end() {
    let fake = Fake::default();
    let runtime = applied(&fake).await;
    let service = path("Service", "web");
    let mut live = fake.object(&service).unwrap();
    live["metadata"]["managedFields"][0]["fieldsV1"] = json!({"f:metadata": {}});
    fake.set(&list("Service"), live);
    until_missed(&runtime, &key("web", "1"), SOON).await;
    let refused = service.clone();
    fake.rule(2, move |asked| {
        let mut conflict = status(409, "Conflict", "Apply failed with 1 conflict");
        conflict["details"] =
            json!({"causes": [{"reason": "FieldManagerConflict", "field": ".spec.ports"}]});
        let meant = asked.is_write() && asked.path == refused;
        meant.then(|| Reply::Say(409, conflict.clone()))
    });
    for _ in 0..2 {
        let error = runtime.apply(&whole()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
        // The application has failed in words; it is not missed besides.
        until_calm(&runtime, &key("web", "1")).await;
    }
    // They gave in.
    runtime.apply(&whole()).await.unwrap();
    until_calm(&runtime, &key("web", "1")).await;
}

#[tokio::test(start_paused = true)]
async fn what_we_take_away_ourselves_is_not_missed() {
    let fake = Fake::default();
    let runtime = applied(&fake).await;
    let mut second = web("2", "b");
    second.objects.remove(1);
    identity(&runtime, "2").await;
    runtime.apply(&second).await.unwrap();
    fake.delete(&path("Pod", "web-1"));
    runtime.remove(&key("web", "1")).await.unwrap();
    until_calm(&runtime, &key("web", "2")).await;
    runtime.stop(&key("web", "2")).await.unwrap();
    let mut observed = runtime.watch();
    let gone = observed.wait_for(|seen| !seen.workloads.contains_key(&key("web", "2")));
    gone.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_authors_objects_come_back_whether_they_are_watched_or_asked_for_and_jobs_do_not() {
    let fake = Fake::default();
    define(&fake);
    let runtime = fake.seeing().await;
    let mine = || labels("shop", "1");
    let objects = vec![
        object("v1", "ConfigMap", "page", mine(), json!({})),
        object("batch/v1", "Job", "once", mine(), json!({})),
        widget("one"),
    ];
    let (all, key) = (authored("1", objects), key("shop", "1"));
    runtime.apply(&all).await.unwrap();
    until_calm(&runtime, &key).await;
    fake.delete(&path("Job", "once"));
    fake.delete(&path("ConfigMap", "page"));
    let missed = until_missed(&runtime, &key, SOON).await;
    assert_eq!(missed, "ConfigMap page: somebody took it away");
    fake.forget_asked();
    runtime.apply(&all).await.unwrap();
    assert_eq!(
        fake.writes(),
        [format!("PATCH {}", path("ConfigMap", "page"))]
    );
    until_calm(&runtime, &key).await;
    // Nothing tells of a Widget.
    fake.forget_asked();
    fake.delete(WIDGET);
    let missed = until_missed(&runtime, &key, Duration::from_secs(1260)).await;
    assert_eq!(missed, "Widget one: somebody took it away");
    let asked = fake.asked();
    let mut asked = asked.iter().filter(|asked| asked.path == WIDGET);
    let last = asked.next_back().unwrap();
    let applier = "system:serviceaccount:baetyl-edge:baetyl-apply";
    assert_eq!(last.user.as_deref(), Some(applier));
    runtime.apply(&all).await.unwrap();
    assert!(fake.object(WIDGET).is_some());
    until_calm(&runtime, &key).await;
}

#[tokio::test(start_paused = true)]
async fn however_many_objects_nothing_watches_they_cost_two_requests_a_minute() {
    let fake = Fake::default();
    define(&fake);
    let runtime = fake.seeing().await;
    let widgets = (0..100).map(|index| widget(&format!("w{index}")));
    let all = authored("1", widgets.collect());
    runtime.apply(&all).await.unwrap();
    until_calm(&runtime, &key("shop", "1")).await;
    fake.forget_asked();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let asked = fake.asked();
    let gets = asked
        .iter()
        .filter(|asked| asked.path.contains("/widgets/"));
    let gets = gets.count();
    assert!((110..=120).contains(&gets), "{gets} requests in an hour");
}

#[tokio::test(start_paused = true)]
async fn where_we_may_not_watch_it_is_asked_for() {
    let fake = Fake::default();
    fake.rule(usize::MAX, |asked| {
        let denied = asked.path.ends_with("/services") && asked.method == http::Method::GET;
        denied.then_some(Reply::Refuse(403, "services is forbidden", None))
    });
    let runtime = applied(&fake).await;
    fake.delete(&path("Service", "web"));
    let missed = until_missed(&runtime, &key("web", "1"), Duration::from_secs(1260)).await;
    assert_eq!(missed, "Service web: somebody took it away");
    let asked = fake.asked();
    let mut asked = asked
        .iter()
        .filter(|asked| asked.path == path("Service", "web"));
    assert_eq!(asked.next_back().unwrap().user, None);
}
