//! Fields of others: of autoscalers, and of people.

use super::*;

fn conflict(manager: &str, field: &str) -> Value {
    let message = format!("Apply failed with 1 conflict: conflict with {manager}: {field}");
    let mut conflict = status(409, "Conflict", &message);
    conflict["details"] = json!({"causes": [
        {"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field},
    ]});
    conflict
}

const SCALED: &str = "\"kube-controller-manager\" with subresource \"scale\" using apps/v1";
const EDITED: &str = "\"kubectl-edit\" using apps/v1";

/// The next write of the Deployment meets somebody.
fn meets(fake: &Fake, manager: &str, field: &str) {
    let conflict = conflict(manager, field);
    fake.rule(1, move |asked| {
        let meant = asked.is_write() && asked.path.ends_with("/deployments/web");
        meant.then(|| Reply::Say(409, conflict.clone()))
    });
}

/// A version whose Pods an autoscaler counts.
fn scaled(version: &str, image: &str) -> Rendered {
    let mut rendered = web(version, image);
    let spec = rendered.objects[2].body["spec"].as_object_mut().unwrap();
    spec.remove("replicas");
    rendered.objects.push(counting(version));
    Rendered {
        wanted: None,
        ..rendered
    }
}

fn counting(version: &str) -> Object {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    scaler(
        version,
        json!({"spec": {"scaleTargetRef": target, "maxReplicas": 4}}),
    )
}

/// The last body the Deployment was applied with.
fn applied(fake: &Fake) -> Value {
    let asked = fake.asked().into_iter().rev();
    let mut writes = asked.filter(Asked::is_write);
    let write = writes.find(|asked| asked.path.ends_with("/deployments/web"));
    write.unwrap().body
}

#[tokio::test(start_paused = true)]
async fn an_application_that_is_scaled_from_now_on_keeps_its_pods_until_the_autoscaler_has_counted()
{
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    runtime.apply(&web("1", "a")).await.unwrap();
    let owner = |fields: Value| json!([{"manager": "baetyl-engine", "operation": "Apply", "fieldsV1": {"f:spec": fields}}]);
    let mut live = fake.object(&path("Deployment", "web")).unwrap();
    live["spec"]["replicas"] = 3.into();
    live["metadata"]["managedFields"] = owner(json!({"f:replicas": {}}));
    fake.set(&list("Deployment"), live.clone());
    runtime.apply(&scaled("2", "b")).await.unwrap();
    assert_eq!(applied(&fake)["spec"]["replicas"], 3);
    // Now the number is the autoscaler's.
    live = fake.object(&path("Deployment", "web")).unwrap();
    live["metadata"]["managedFields"] = owner(json!({"f:template": {}}));
    fake.set(&list("Deployment"), live);
    runtime.apply(&scaled("3", "c")).await.unwrap();
    assert_eq!(applied(&fake)["spec"]["replicas"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn an_application_that_is_scaled_no_more_loses_its_autoscaler_first_and_then_has_what_it_wants()
 {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    runtime.apply(&scaled("1", "a")).await.unwrap();
    fake.forget_asked();
    meets(&fake, SCALED, ".spec.replicas");
    runtime.apply(&web("2", "b")).await.unwrap();
    let writes = fake.writes();
    assert_eq!(
        writes[0],
        format!("DELETE {}", path("HorizontalPodAutoscaler", "web"))
    );
    assert_eq!(applied(&fake)["spec"]["replicas"], 1);
    let forced = fake.asked().into_iter().filter(Asked::is_write);
    let forced = forced.filter(|asked| {
        asked
            .query
            .get("force")
            .is_some_and(|force| force == "true")
    });
    assert_eq!(forced.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_somebody_else_made_is_not_fought() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    runtime.apply(&web("1", "a")).await.unwrap();
    let mut theirs = counting("1").body;
    theirs["metadata"]["name"] = "theirs".into();
    theirs["metadata"]["labels"] = json!({});
    fake.set(&list("HorizontalPodAutoscaler"), theirs);
    meets(&fake, SCALED, ".spec.replicas");
    let error = runtime.apply(&web("2", "b")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(
        fake.object(&path("HorizontalPodAutoscaler", "theirs"))
            .is_some()
    );
}

const IMAGE: &str = ".spec.template.spec.containers[name=\"web\"].image";

fn preserving(version: &str, image: &str, replicas: u32) -> Rendered {
    let mut rendered = web(version, image);
    rendered.objects[2].body["spec"]["replicas"] = replicas.into();
    Rendered {
        preserve: true,
        ..rendered
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_changed_stays_over_updates_that_change_something_else() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    runtime.apply(&preserving("1", "a", 1)).await.unwrap();
    meets(&fake, EDITED, ".spec.replicas");
    runtime.apply(&preserving("2", "b", 1)).await.unwrap();
    let body = applied(&fake);
    assert_eq!(body["spec"]["replicas"], Value::Null);
    assert_eq!(
        body["spec"]["template"]["spec"]["containers"][0]["image"],
        "b"
    );
    fake.forget_asked();
    runtime.apply(&preserving("2", "b", 1)).await.unwrap();
    assert!(fake.writes().is_empty());
    // A version that wants another number has to be decided about by somebody.
    meets(&fake, EDITED, ".spec.replicas");
    let error = runtime.apply(&preserving("3", "b", 2)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    meets(&fake, EDITED, IMAGE);
    let error = runtime.apply(&preserving("4", "c", 1)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.message.ends_with(IMAGE), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_was_changed_before_updates_were_to_be_preserved_stays() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    runtime.apply(&web("1", "a")).await.unwrap();
    meets(&fake, EDITED, ".spec.replicas");
    runtime.apply(&preserving("2", "a", 1)).await.unwrap();
    assert_eq!(applied(&fake)["spec"]["replicas"], Value::Null);
}
