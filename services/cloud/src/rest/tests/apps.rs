//! Applications: versions, propagation, references, matching.

use super::*;

/// An application with a configuration, a secret, a certificate, a registry and a probe.
async fn full_app(c: &TestCloud) -> Value {
    c.created("/v1/configs", config("c1", "one")).await;
    c.created("/v1/secrets", json!({"name": "s1", "data": {"k": "v"}}))
        .await;
    c.created(
        "/v1/registries",
        json!({"name": "r1", "address": "reg:5000", "username": "u", "password": "p"}),
    )
    .await;
    secrets::create_certificate(c, "t1").await;
    json!({
        "name": "a1", "selector": "env=test", "registries": [{"name": "r1"}],
        "services": [{
            "name": "web", "image": "nginx", "volumeMounts": [{"name": "conf", "mountPath": "/etc/web"}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 5},
        }],
        "volumes": [
            {"name": "conf", "config": {"name": "c1"}},
            {"name": "sec", "secret": {"name": "s1"}},
            {"name": "crt", "certificate": {"name": "t1"}},
        ],
    })
}

#[tokio::test]
async fn writing_what_is_there_makes_no_new_version_also_with_probes() {
    let c = cloud().await;
    let body = full_app(&c).await;
    let created = c.created("/v1/apps", body.clone()).await;
    let revision = c.revision().await;
    for again in [&body, &c.read("/v1/apps/a1").await] {
        let written = c.ok(Method::PUT, "/v1/apps/a1", again).await;
        assert_eq!(written, created);
    }
    assert_eq!(c.revision().await, revision);
}

#[tokio::test]
async fn the_view_has_certificates_and_registries_as_they_were_given() {
    let c = cloud().await;
    let body = full_app(&c).await;
    let shown = c.created("/v1/apps", body).await;
    assert_eq!(
        shown["volumes"][2],
        json!({"name": "crt", "certificate": {"name": "t1"}})
    );
    assert_eq!(
        shown["registries"],
        json!([{"name": "r1", "address": "reg:5000", "username": "u"}])
    );
    assert_eq!(shown["volumes"].as_array().unwrap().len(), 3);
    let names = |list: Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(c.read("/v1/apps/a1/configs").await), ["c1"]);
    assert_eq!(names(c.read("/v1/apps/a1/secrets").await), ["s1"]);
    assert_eq!(names(c.read("/v1/apps/a1/registries").await), ["r1"]);
    assert_eq!(names(c.read("/v1/apps/a1/certificates").await), ["t1"]);
}

#[tokio::test]
async fn a_change_of_what_is_referenced_changes_the_application_at_the_same_revision() {
    let c = cloud().await;
    let body = full_app(&c).await;
    let mut version = c.created("/v1/apps", body).await["version"].clone();
    let (certificate, key) = secrets::pair("other");
    for (path, method, body) in [
        ("/v1/configs/c1", Method::PUT, config("c1", "two")),
        ("/v1/secrets/s1", Method::PUT, json!({"data": {"k": "w"}})),
        (
            "/v1/registries/r1/refresh",
            Method::POST,
            json!({"password": "p2"}),
        ),
        (
            "/v1/certificates/t1",
            Method::PUT,
            json!({"data": {"key": key, "certificate": certificate}}),
        ),
    ] {
        let before = c.revision().await;
        let changed = c.ok(method, path, &body).await;
        assert_eq!(c.revision().await, before + 1, "{path}: one revision");
        let app = c.read("/v1/apps/a1").await;
        assert_eq!(app["version"], changed["version"], "{path}");
        assert_ne!(app["version"], version, "{path}");
        version = app["version"].clone();
    }
    let app = c.read("/v1/apps/a1").await;
    assert_eq!(
        app["volumes"][0]["config"]["version"],
        c.read("/v1/configs/c1").await["version"]
    );
    assert_eq!(
        app["volumes"][1]["secret"]["version"],
        c.read("/v1/secrets/s1").await["version"]
    );
}

#[tokio::test]
async fn a_configuration_that_says_the_same_changes_no_application() {
    let c = cloud().await;
    let body = full_app(&c).await;
    let created = c.created("/v1/apps", body).await;
    c.ok(Method::PUT, "/v1/configs/c1", &config("c1", "one"))
        .await;
    c.ok(Method::PUT, "/v1/secrets/s1", &json!({"data": {"k": "v"}}))
        .await;
    assert_eq!(c.read("/v1/apps/a1").await, created);
}

#[tokio::test]
async fn an_application_runs_on_the_nodes_its_selector_matches() {
    let c = cloud().await;
    c.created(
        "/v1/nodes",
        json!({"name": "n1", "labels": {"env": "test"}}),
    )
    .await;
    c.created(
        "/v1/nodes",
        json!({"name": "n2", "labels": {"env": "prod"}}),
    )
    .await;
    let version = c.created("/v1/apps", app("a1")).await["version"].clone();
    let mut parked = app("a2");
    parked["selector"] = json!("");
    c.created("/v1/apps", parked).await;
    assert_eq!(
        c.read("/v1/nodes/n1").await["desire"],
        json!({"apps": [{"name": "a1", "version": version}], "sysapps": []})
    );
    assert_eq!(c.read("/v1/nodes/n1/apps").await["items"][0]["name"], "a1");
    assert_eq!(c.read("/v1/nodes/n2/apps").await["total"], 0);
    c.ok(
        Method::PUT,
        "/v1/nodes/n2",
        &json!({"labels": {"env": "test"}}),
    )
    .await;
    assert_eq!(c.read("/v1/nodes/n2/apps").await["total"], 1);
    let mut by_name = app("a1");
    by_name["selector"] = json!("baetyl-node-name in (n1)");
    c.ok(Method::PUT, "/v1/apps/a1", &by_name).await;
    assert_eq!(c.read("/v1/nodes/n2/apps").await["total"], 0);
    assert_eq!(c.read("/v1/nodes/n1/apps").await["total"], 1);
}

#[tokio::test]
async fn a_base_gives_services_and_volumes_and_must_be_of_the_same_type() {
    let c = cloud().await;
    let base = full_app(&c).await;
    c.created("/v1/apps", base).await;
    let extra = json!({"name": "a2", "services": [{"name": "extra", "image": "i"}]});
    let made = c.created("/v1/apps?base=a1", extra.clone()).await;
    let services: Vec<_> = made["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(services, ["web", "extra"]);
    assert_eq!(made["registries"][0]["name"], "r1");
    let mut other = extra;
    other["name"] = json!("a3");
    other["type"] = json!("function");
    assert_eq!(c.post("/v1/apps?base=a1", &other).await.fields(), ["base"]);
    assert_eq!(
        c.post("/v1/apps?base=nosuch", &app("a4")).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_program_configuration_is_mounted_for_each_service_and_shown_as_given() {
    let c = cloud().await;
    c.created("/v1/configs", config("prog", "entry: x")).await;
    let body = json!({
        "name": "a1", "mode": "native",
        "services": [{"name": "one", "programConfig": "prog"}, {"name": "two", "programConfig": "prog"}],
    });
    let shown = c.created("/v1/apps", body.clone()).await;
    for index in [0, 1] {
        assert_eq!(shown["services"][index]["programConfig"], "prog", "{shown}");
    }
    let row = c
        .store
        .resource(&c.namespace, baetyl_model::Kind::Application, "a1")
        .await
        .unwrap()
        .unwrap();
    let stored = c
        .store
        .version(&c.namespace, row.kind, "a1", row.version)
        .await
        .unwrap()
        .unwrap();
    let stored: Value = serde_json::from_slice(&stored.body).unwrap();
    assert_eq!(
        stored["services"][1]["volumeMounts"][0]["mountPath"],
        "/var/lib/baetyl/bin"
    );
    assert_eq!(stored["volumes"].as_array().unwrap().len(), 2);
    assert_eq!(c.ok(Method::PUT, "/v1/apps/a1", &body).await, shown);
}

#[tokio::test]
async fn lists_have_v2s_items_filters_and_pages() {
    let c = cloud().await;
    for (name, team) in [("web-1", "x"), ("web-2", "y"), ("db-1", "x")] {
        let mut body = app(name);
        body["labels"] = json!({"team": team});
        c.created("/v1/apps", body).await;
    }
    let list = c.read("/v1/apps?selector=team%3Dx&name=web").await;
    assert_eq!(
        (&list["total"], &list["selector"], &list["name"]),
        (
            &json!(1),
            &json!("team=x,!baetyl-cloud-system"),
            &json!("web")
        )
    );
    let item = &list["items"][0];
    assert_eq!(
        (&item["name"], &item["labels"]),
        (&json!("web-1"), &json!({"team": "x"}))
    );
    assert_eq!(
        (&item["nodeSelector"], &item["type"], &item["mode"]),
        (&json!(""), &json!("container"), &json!("kube"))
    );
    assert!(item.get("services").is_none());
    let page = c.read("/v1/apps?pageNo=2&pageSize=2").await;
    assert_eq!(
        (
            page["total"].as_u64(),
            page["items"].as_array().unwrap().len()
        ),
        (Some(3), 1)
    );
}

#[tokio::test]
async fn two_writers_at_once_both_succeed_with_different_versions() {
    let c = cloud().await;
    c.created("/v1/configs", config("c1", "zero")).await;
    let (one, two) = (config("c1", "one"), config("c1", "two"));
    let (a, b) = tokio::join!(c.put("/v1/configs/c1", &one), c.put("/v1/configs/c1", &two));
    assert_eq!((a.status, b.status), (StatusCode::OK, StatusCode::OK));
    assert_ne!(a.body["version"], b.body["version"]);
}
