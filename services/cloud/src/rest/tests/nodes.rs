//! Nodes: identity, labels, properties, history, install command.

use baetyl_proto::shadow;
use prost::Message as _;

use super::*;

pub(super) async fn put_status(c: &TestCloud, node: &Value, status: &shadow::NodeStatus) {
    sqlx::query("INSERT INTO node_reports (namespace, uid, status) VALUES (?, ?, ?)")
        .bind(c.namespace.as_str())
        .bind(node["uid"].as_str().unwrap())
        .bind(status.encode_to_vec())
        .execute(c.store.writer())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_node_created_again_is_another_node() {
    let c = cloud().await;
    let first = c.created("/v1/nodes", json!({"name": "n1"})).await;
    c.delete("/v1/nodes/n1").await;
    let uid = baetyl_model::NodeUid::new(first["uid"].as_str().unwrap()).unwrap();
    assert!(
        c.store
            .deleted_node(&c.namespace, &uid)
            .await
            .unwrap()
            .is_some()
    );
    let second = c.created("/v1/nodes", json!({"name": "n1"})).await;
    assert_ne!(first["uid"], second["uid"]);
    assert_eq!(
        c.read("/v1/nodes/n1/deploys").await["total"],
        1,
        "its history is its own"
    );
}

#[tokio::test]
async fn labels_of_the_system_are_set_hidden_and_selectable() {
    let c = cloud().await;
    let body = json!({"name": "n1", "nodeMode": "native", "labels": {"env": "test", "baetyl-node-mode": "forged", "baetyl-node-name": "forged"}});
    let shown = c.created("/v1/nodes", body).await;
    assert_eq!(
        shown["labels"],
        json!({"env": "test", "baetyl-node-name": "n1"})
    );
    assert_eq!(
        c.read("/v1/nodes?selector=baetyl-node-mode%3Dnative").await["total"],
        1
    );
    c.ok(
        Method::PUT,
        "/v1/nodes/n1",
        &json!({"labels": {}, "cluster": true}),
    )
    .await;
    assert_eq!(
        c.read("/v1/nodes?selector=baetyl-cluster%3Dtrue").await["total"],
        0,
        "the label says what is stored"
    );
}

#[tokio::test]
async fn a_put_replaces_what_is_the_operators_and_keeps_what_is_not() {
    let c = cloud().await;
    let body = json!({"name": "n1", "nodeMode": "native", "description": "d", "labels": {"a": "1"}, "annotations": {"x": "y"}, "attr": {"k": "v"}});
    let created = c.created("/v1/nodes", body).await;
    let put = c
        .ok(
            Method::PUT,
            "/v1/nodes/n1",
            &json!({"name": "other", "nodeMode": "kube", "labels": {"b": "2"}}),
        )
        .await;
    assert_eq!(
        (&put["name"], &put["nodeMode"], &put["uid"]),
        (&json!("n1"), &json!("native"), &created["uid"])
    );
    assert_eq!(
        (
            &put["createTime"],
            put.get("annotations"),
            put.get("description")
        ),
        (&created["createTime"], None, None)
    );
    let same = c
        .ok(Method::PUT, "/v1/nodes/n1", &json!({"labels": {"b": "2"}}))
        .await;
    assert_eq!(same["version"], put["version"]);
    let row = c.store.node(&c.namespace, "n1").await.unwrap().unwrap();
    assert_eq!(row.spec.attributes["k"], "v");
    assert_eq!(
        c.put("/v1/nodes/nosuch", &json!({})).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn desired_properties_are_replaced_and_keep_the_time_of_what_did_not_change() {
    let c = cloud().await;
    c.created("/v1/nodes", json!({"name": "n1"})).await;
    let path = "/v1/nodes/n1/properties";
    let first = c
        .ok(
            Method::PUT,
            path,
            &json!({"state": {"desire": {"a": "1", "b": "2"}}}),
        )
        .await;
    let second = c
        .ok(
            Method::PUT,
            path,
            &json!({"state": {"desire": {"a": "1", "c": "3"}}}),
        )
        .await;
    assert_eq!(second["state"]["desire"], json!({"a": "1", "c": "3"}));
    assert_eq!(
        second["metadata"]["desire"]["a"],
        first["metadata"]["desire"]["a"]
    );
    let revision = c.revision().await;
    assert_eq!(c.ok(Method::PUT, path, &second).await, second);
    assert_eq!(c.revision().await, revision);
    assert_eq!(
        c.read("/v1/nodes/n1").await["desire"]["nodeprops"],
        json!({"a": "1", "c": "3"})
    );
    let wrong = c
        .put(path, &json!({"state": {"desire": {"a": 1, "b": null}}}))
        .await;
    assert_eq!(
        wrong.fields(),
        ["state.desire.a", "state.desire.b"],
        "{}",
        wrong.text
    );
}

#[tokio::test]
async fn the_history_tells_who_changed_what_a_node_runs() {
    let c = cloud().await;
    c.created(
        "/v1/nodes",
        json!({"name": "n1", "labels": {"env": "test"}}),
    )
    .await;
    c.created("/v1/configs", config("c1", "one")).await;
    let mut body = app("a1");
    body["volumes"] = json!([{"name": "c-vol", "config": {"name": "c1"}}]);
    c.created("/v1/apps", body).await;
    let changed = c
        .ok(Method::PUT, "/v1/configs/c1", &config("c1", "two"))
        .await;
    let deploys = c.read("/v1/nodes/n1/deploys").await;
    let seen: Vec<_> = deploys["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                item["verb"].as_str().unwrap(),
                item["kind"].as_str().unwrap(),
                item["name"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("update", "application", "a1"),
            ("create", "application", "a1"),
            ("create", "node", "n1")
        ]
    );
    assert_eq!(deploys["items"][0]["version"], changed["version"]);
    assert_eq!(
        c.read("/v1/nodes/n1/deploys?pageSize=1").await["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn the_mode_is_cloud_or_local_and_part_of_the_node() {
    let c = cloud().await;
    c.created("/v1/nodes", json!({"name": "n1"})).await;
    c.ok(Method::PUT, "/v1/nodes/n1/mode", &json!({"mode": "local"}))
        .await;
    assert_eq!(c.read("/v1/nodes/n1").await["mode"], "local");
    assert_eq!(
        c.put("/v1/nodes/n1/mode", &json!({"mode": "bogus"}))
            .await
            .fields(),
        ["mode"]
    );
}

#[tokio::test]
async fn several_nodes_are_read_in_the_order_of_the_request() {
    let c = cloud().await;
    for name in ["n1", "n2", "n3"] {
        c.created("/v1/nodes", json!({"name": name})).await;
    }
    let answer = c
        .ok(
            Method::PUT,
            "/v1/nodes?batch",
            &json!({"names": ["n3", "nosuch", "n1"]}),
        )
        .await;
    let names: Vec<_> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["n3", "n1"]);
    assert_eq!(
        c.put("/v1/nodes", &json!({"names": ["n1"]})).await.fields(),
        ["batch"]
    );
}

#[tokio::test]
async fn a_node_that_never_spoke_has_an_empty_report_and_no_events() {
    let c = cloud().await;
    c.created("/v1/nodes", json!({"name": "n1", "nodeMode": "native"}))
        .await;
    let node = c.read("/v1/nodes/n1").await;
    assert_eq!(
        (&node["ready"], &node["report"], &node["appMode"]),
        (&json!(0), &json!({}), &json!("native"))
    );
    assert_eq!(
        c.read("/v1/nodes/n1/events").await,
        json!({"total": 0, "items": []})
    );
    assert_eq!(c.read("/v1/nodes?ready=uninstall").await["total"], 1);
    assert_eq!(c.read("/v1/nodes?ready=online").await["total"], 0);
}

#[tokio::test]
async fn a_list_shows_each_node_its_own_report_and_only_the_hosts_that_are_asked_for() {
    let c = cloud().await;
    for name in ["n1", "n2", "n3"] {
        let node = c.created("/v1/nodes", json!({"name": name})).await;
        let host = |hostname: String, zone: &str| shadow::NodeInfo {
            hostname,
            labels: [("zone".to_owned(), zone.to_owned())].into(),
            ..Default::default()
        };
        let status = shadow::NodeStatus {
            nodes: vec![
                host(format!("{name}-a"), "a"),
                host(format!("{name}-b"), "b"),
            ],
            run_mode: "kube".to_owned(),
            ..Default::default()
        };
        if name != "n3" {
            put_status(&c, &node, &status).await;
        }
    }
    let list = c
        .read("/v1/nodes?createSort=asc&nodeSelector=zone%3Da")
        .await;
    let hosts: Vec<Vec<&String>> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let hosts = item["report"]["node"].as_object();
            hosts
                .map(|hosts| hosts.keys().collect())
                .unwrap_or_default()
        })
        .collect();
    assert_eq!(hosts, [vec!["n1-a"], vec!["n2-a"], vec![]]);
    let wrong = c.get("/v1/nodes?nodeSelector=a%3D%3D%3Db").await;
    assert_eq!(wrong.fields(), ["nodeSelector"]);
}

#[tokio::test]
async fn the_total_of_events_is_what_is_kept_and_not_the_page() {
    let c = cloud().await;
    let node = c.created("/v1/nodes", json!({"name": "n1"})).await;
    let uid = node["uid"].as_str().unwrap().parse().unwrap();
    let mut connection = c.store.writer().acquire().await.unwrap();
    for text in ["one", "two", "three"] {
        let event = crate::events::NewEvent::of_cloud(
            crate::events::EventType::Normal,
            "Test",
            text.to_owned(),
            by().time,
        );
        crate::events::insert(&mut connection, &c.namespace, &uid, &event, 100)
            .await
            .unwrap();
    }
    drop(connection);
    let page = c.read("/v1/nodes/n1/events?limit=1").await;
    assert_eq!(
        (&page["total"], page["items"].as_array().unwrap().len()),
        (&json!(3), 1)
    );
}

#[tokio::test]
async fn a_deleted_node_is_forgotten_also_when_it_is_offline() {
    let c = cloud().await;
    let node = c.created("/v1/nodes", json!({"name": "n1"})).await;
    let uid = node["uid"].as_str().unwrap().parse().unwrap();
    c.reports.seen(&c.namespace, &uid).await;
    c.delete("/v1/nodes/n1").await;
    let ready = c
        .reports
        .report(&c.namespace, &uid)
        .await
        .unwrap()
        .summary
        .ready;
    assert_eq!(ready, crate::report::Ready::Uninstalled);
}

#[tokio::test]
async fn desired_properties_have_usable_keys_and_fit_into_a_desire() {
    let c = cloud().await;
    c.created("/v1/nodes", json!({"name": "n1"})).await;
    let path = "/v1/nodes/n1/properties";
    let long = "k".repeat(254);
    let wrong = c
        .put(
            path,
            &json!({"state": {"desire": {"": "1", "a b": "1", long.clone(): "1", "good/key.1": "1"}}}),
        )
        .await;
    assert_eq!(
        wrong.fields(),
        [
            "state.desire.",
            "state.desire.a b",
            format!("state.desire.{long}").as_str()
        ]
    );
    let half = "x".repeat(33_000);
    let large = c
        .put(path, &json!({"state": {"desire": {"a": half, "b": half}}}))
        .await;
    assert_eq!(
        (large.code(), large.fields()),
        ("ErrDataTooLarge", vec!["state.desire"])
    );
    c.ok(
        Method::PUT,
        path,
        &json!({"state": {"desire": {"a": half}}}),
    )
    .await;
}
