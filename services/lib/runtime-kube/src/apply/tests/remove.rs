//! Taking versions away.

use std::collections::BTreeSet;

use super::*;

#[tokio::test(start_paused = true)]
async fn removing_a_version_takes_what_is_left_of_it_and_nothing_that_was_taken_over() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    runtime.apply(&web("1", "a")).await.unwrap();
    let mut second = web("2", "b");
    second.objects.remove(1);
    runtime.apply(&second).await.unwrap();
    until_seen(&runtime, &key("web", "2")).await;
    assert_eq!(
        runtime.found().await.unwrap(),
        [key("web", "1"), key("web", "2")]
    );
    fake.forget_asked();
    runtime.remove(&key("web", "1")).await.unwrap();
    assert_eq!(
        fake.writes(),
        [format!("DELETE {}", path("Service", "web"))]
    );
    assert_eq!(runtime.found().await.unwrap(), [key("web", "2")]);
    runtime.remove(&key("web", "2")).await.unwrap();
    assert_eq!(fake.paths(), [path("ConfigMap", "conf-0123456789")]);
    let mut observed = runtime.watch();
    observed
        .wait_for(|seen| seen.workloads.is_empty())
        .await
        .unwrap();
    assert!(runtime.found().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_over_while_it_is_being_removed_stays() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    runtime.apply(&web("1", "a")).await.unwrap();
    // Between the list and the deletion the second version takes the Service over.
    let stale = fake.object(&path("Service", "web")).unwrap();
    runtime.apply(&web("2", "b")).await.unwrap();
    fake.rule(1, move |asked| {
        let page = json!({"metadata": {"resourceVersion": "1"}, "items": [stale.clone()]});
        let meant = asked.path == list("Service") && asked.query.contains_key("labelSelector");
        meant.then_some(Reply::Say(200, page))
    });
    runtime.remove(&key("web", "1")).await.unwrap();
    let service = fake.object(&path("Service", "web")).unwrap();
    assert_eq!(service["metadata"]["labels"]["baetyl-app-version"], "2");
    let tried = format!("DELETE {}", path("Service", "web"));
    assert!(fake.writes().contains(&tried));
}

#[tokio::test(start_paused = true)]
async fn removing_waits_for_the_pods_and_says_which_are_left() {
    let fake = Fake::default();
    let pod = json!({"metadata": {"name": "web-1", "namespace": "baetyl-edge", "labels": labels("web", "1"),
        "ownerReferences": [{"kind": "ReplicaSet", "name": "web-abc", "controller": true}]}, "status": {"phase": "Running"}});
    fake.set(&list("Pod"), pod);
    let runtime = fake.seeing().await;
    runtime.apply(&web("1", "a")).await.unwrap();
    let error = runtime.stop(&key("web", "1")).await.unwrap_err();
    assert!(error.is_later());
    assert!(
        error.message.ends_with("its Pods are not gone yet: web-1"),
        "{error}"
    );
    assert!(fake.object(&path("Deployment", "web")).is_none());
    assert!(
        fake.object(&path("Service", "web")).is_some(),
        "stopping leaves all else"
    );
    let removing = {
        let runtime = runtime.clone();
        tokio::spawn(async move { runtime.remove(&key("web", "1")).await })
    };
    eventually!(fake.object(&path("Service", "web")).is_none());
    assert!(!removing.is_finished());
    fake.delete(&path("Pod", "web-1"));
    removing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_authors_objects_that_a_new_version_lacks_go_with_the_old_one() {
    let fake = Fake::default();
    define(&fake);
    let runtime = fake.seeing().await;
    let service =
        |version: &str| object("v1", "Service", "front", labels("shop", version), json!({}));
    runtime
        .apply(&authored("1", vec![service("1"), widget("one")]))
        .await
        .unwrap();
    runtime
        .apply(&authored("2", vec![service("2")]))
        .await
        .unwrap();
    assert!(
        fake.object(WIDGET).is_some(),
        "until the old version is removed"
    );
    until_seen(&runtime, &key("shop", "2")).await;
    assert_eq!(
        runtime.found().await.unwrap(),
        [key("shop", "1"), key("shop", "2")]
    );
    fake.forget_asked();
    runtime.remove(&key("shop", "1")).await.unwrap();
    assert!(fake.object(WIDGET).is_none());
    let inventory = path("ConfigMap", "baetyl-inventory-shop");
    let deletes: Vec<Asked> = fake
        .asked()
        .into_iter()
        .filter(|asked| asked.method == http::Method::DELETE)
        .collect();
    assert_eq!(deletes.len(), 1);
    assert_eq!(
        deletes[0].user.as_deref(),
        Some("system:serviceaccount:baetyl-edge:baetyl-apply")
    );
    runtime.remove(&key("shop", "2")).await.unwrap();
    assert!(fake.object(&inventory).is_none());
    assert!(fake.paths().is_empty(), "{:?}", fake.paths());
}

#[tokio::test(start_paused = true)]
async fn content_nobody_needs_is_swept_away() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    let digests: Vec<baetyl_model::Digest> = ["a", "b"]
        .map(|digit| format!("sha256:{}", digit.repeat(64)).parse().unwrap())
        .into();
    for (name, digest) in ["kept-aaaaaaaaaa", "old-bbbbbbbbbb"].iter().zip(&digests) {
        let rendered = Rendered {
            objects: vec![content(name, &digest.hex()[..40])],
            ..web("1", "a")
        };
        runtime.apply(&rendered).await.unwrap();
    }
    let theirs = json!({"metadata": {"name": "theirs", "namespace": "baetyl-edge", "labels": {"baetyl.io/digest": "cccc"}}});
    fake.set(&list("Secret"), theirs);
    runtime.sweep(&BTreeSet::from([digests[0]])).await.unwrap();
    assert_eq!(
        fake.paths(),
        [
            path("ConfigMap", "kept-aaaaaaaaaa"),
            path("Secret", "theirs")
        ]
    );
}
