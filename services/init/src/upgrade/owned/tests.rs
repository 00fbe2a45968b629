use super::*;

fn live() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7",
            "labels": {"ours": "1", "theirs": "2"},
            "annotations": {"deployment.kubernetes.io/revision": "3"},
            "managedFields": [
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {"f:theirs": {}}}}},
                {"manager": "baetyl-core", "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}},
                {"manager": "baetyl-core", "operation": "Apply", "subresource": "status", "fieldsV1": {"f:status": {}}},
                {"manager": "baetyl-core", "operation": "Apply", "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:ours": {}}},
                    "f:spec": {
                        "f:replicas": {},
                        "f:selector": {},
                        "f:gone": {},
                        "f:template": {"f:spec": {
                            "f:containers": {"k:{\"name\":\"c\"}": {
                                ".": {}, "f:name": {}, "f:args": {},
                                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                            }},
                            "f:volumes": {"k:{\"name\":\"v\"}": {".": {}, "f:emptyDir": {}, "f:name": {}}},
                        }},
                    },
                }},
            ],
        },
        "spec": {
            "replicas": 1, "paused": false, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {
                "dnsPolicy": "ClusterFirst",
                "containers": [
                    {"name": "c", "args": ["run", "x"], "terminationMessagePath": "/dev/log",
                     "ports": [{"containerPort": 80, "protocol": "TCP", "hostPort": 0}]},
                    {"name": "injected"},
                ],
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
            }},
        },
        "status": {"replicas": 1},
    })
}

#[test]
fn what_was_applied_is_taken_out_of_what_became_of_it() {
    let owned = owned(&live(), "baetyl-core").unwrap();
    assert_eq!(
        (owned.kind.as_str(), owned.name.as_str()),
        ("Deployment", "d")
    );
    let expected = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "labels": {"ours": "1"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {
                "containers": [{
                    "name": "c", "args": ["run", "x"],
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                }],
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
            }},
        },
    });
    assert_eq!(owned.body, expected);
}

#[test]
fn items_that_are_values_are_taken_by_value() {
    let live = json!({
        "apiVersion": "v1", "kind": "X",
        "metadata": {"name": "x", "finalizers": ["a", "b"], "managedFields": [{
            "manager": "m", "operation": "Apply",
            "fieldsV1": {"f:metadata": {"f:finalizers": {".": {}, "v:\"b\"": {}}}},
        }]},
    });
    let owned = owned(&live, "m").unwrap();
    assert_eq!(owned.body["metadata"]["finalizers"], json!(["b"]));
}

#[test]
fn an_object_of_somebody_else_is_none_of_ours() {
    assert_eq!(owned(&live(), "helm"), None);
    assert_eq!(
        owned(&json!({"metadata": {"name": "x"}}), "baetyl-core"),
        None
    );
}
