//! Objects an author wrote.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_authors_objects_are_applied_with_the_rights_of_baetyl_apply_and_each_fault_is_told() {
    let fake = Fake::default();
    define(&fake);
    let runtime = fake.seeing().await;
    fake.rule(usize::MAX, |asked| {
        let message = "deployments.apps \"web\" is forbidden: exceeded quota: small";
        let meant = asked.is_write() && asked.path.ends_with("/deployments/web");
        meant.then_some(Reply::Refuse(403, message, None))
    });
    let mine = || labels("shop", "1");
    let objects = vec![
        object("v1", "Service", "web", mine(), json!({})),
        object("apps/v1", "Deployment", "web", mine(), json!({})),
        widget("one"),
        widget("two"),
        object("example.com/v2", "Gadget", "g", mine(), json!({})),
    ];
    fake.forget_asked();
    let error = runtime.apply(&authored("1", objects)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert_eq!(
        error.message,
        "Deployment web: deployments.apps \"web\" is forbidden: exceeded quota: small; \
         Gadget g: no matches for kind \"Gadget\" in version \"example.com/v2\"; ensure CRDs are installed first"
    );
    let inventory = path("ConfigMap", "baetyl-inventory-shop");
    for write in fake.asked().into_iter().filter(Asked::is_write) {
        let applier = "system:serviceaccount:baetyl-edge:baetyl-apply".to_owned();
        let wanted = (write.path != inventory).then_some(applier);
        assert_eq!(write.user, wanted, "{}", write.path);
    }
    let asked = fake.asked();
    let discoveries = asked
        .iter()
        .filter(|asked| asked.path == "/apis/example.com/v1");
    assert_eq!(discoveries.count(), 1, "kinds are remembered");
    assert_eq!(
        fake.object(&inventory).unwrap()["data"]["1"],
        "apps/v1 Deployment baetyl-edge\nexample.com/v1 Widget baetyl-edge\n\
         example.com/v2 Gadget baetyl-edge\nv1 Service baetyl-edge\n"
    );
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_was_just_defined_is_waited_for() {
    let fake = Fake::default();
    let runtime = fake.seeing().await;
    let mut crd = object(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "widgets",
        labels("shop", "1"),
        json!({}),
    );
    crd.namespace = String::new();
    fake.rule(usize::MAX, |asked| {
        let kinds = json!({"resources": [{"name": "customresourcedefinitions", "kind": "CustomResourceDefinition", "namespaced": false}]});
        (asked.path == "/apis/apiextensions.k8s.io/v1").then_some(Reply::Say(200, kinds))
    });
    fake.rule(3, |asked| {
        let absent = Reply::Refuse(
            404,
            "the server could not find the requested resource",
            None,
        );
        (asked.path == "/apis/example.com/v1").then_some(absent)
    });
    define(&fake);
    runtime
        .apply(&authored("1", vec![crd, widget("one")]))
        .await
        .unwrap();
    assert!(
        fake.paths().contains(
            &"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets".to_owned()
        )
    );
    assert!(fake.object(WIDGET).is_some());
}
