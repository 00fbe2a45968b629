//! Everything that is refused: with the right status, in words, completely, and without a trace.

use super::*;

/// Refused with this status and code, and nothing was written.
async fn refused(
    c: &TestCloud,
    method: Method,
    path: &str,
    body: &Value,
    status: u16,
    code: &str,
) -> Answer {
    let before = c.revision().await;
    let answer = c.call_with(method, path, &[], body.to_string()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (status, code),
        "{path}: {}",
        answer.text
    );
    assert!(
        !answer.message().is_empty() && answer.body["requestId"].is_string(),
        "{}",
        answer.text
    );
    assert_eq!(c.revision().await, before, "{path}: something was written");
    answer
}

const INVALID: &str = "ErrRequestParamInvalid";

#[tokio::test]
async fn invalid_names_are_refused_for_every_kind() {
    let c = cloud().await;
    let long = "x".repeat(64);
    for name in [
        "",
        "a",
        "Upper",
        "-a",
        "a-",
        "a_b",
        "a/b",
        "ä1",
        long.as_str(),
    ] {
        let service = json!([{"name": "web", "image": "i"}]);
        for (path, body) in [
            ("/v1/nodes", json!({"name": name})),
            ("/v1/apps", json!({"name": name, "services": service})),
            ("/v1/configs", json!({"name": name})),
            ("/v1/secrets", json!({"name": name, "data": {"k": "v"}})),
            (
                "/v1/registries",
                json!({"name": name, "address": "a", "username": "u", "password": "p"}),
            ),
        ] {
            let answer = refused(&c, Method::POST, path, &body, 400, INVALID).await;
            assert_eq!(answer.fields(), ["name"], "{path} {name}: {}", answer.text);
        }
    }
    let answer = c.put("/v1/objects/Bad_Name", &json!("x")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.fields()),
        (400, vec!["name"]),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn an_application_name_leaves_room_for_suffixes() {
    let c = cloud().await;
    refused(
        &c,
        Method::POST,
        "/v1/apps",
        &app(&"x".repeat(56)),
        400,
        INVALID,
    )
    .await;
    c.created("/v1/apps", app(&"x".repeat(55))).await;
}

#[tokio::test]
async fn names_of_the_system_are_refused() {
    let c = cloud().await;
    for (path, body) in [
        ("/v1/apps", app("my-baetyl-app")),
        ("/v1/configs", config("my-baetyl-c", "x")),
        (
            "/v1/secrets",
            json!({"name": "baetyl-s", "data": {"k": "v"}}),
        ),
        (
            "/v1/registries",
            json!({"name": "baetyl-r", "address": "a", "username": "u", "password": "p"}),
        ),
    ] {
        refused(&c, Method::POST, path, &body, 400, "nonBaetyl").await;
        refused(
            &c,
            Method::DELETE,
            &format!("{path}/baetyl-x"),
            &json!({}),
            400,
            "nonBaetyl",
        )
        .await;
    }
}

#[tokio::test]
async fn invalid_selectors_are_refused_where_they_are_written_and_where_they_are_asked() {
    let c = cloud().await;
    for selector in ["a===b", "a in x", "a in (x", "=b", "a b", "bad key!"] {
        let mut body = app("a1");
        body["selector"] = json!(selector);
        let answer = refused(&c, Method::POST, "/v1/apps", &body, 400, INVALID).await;
        assert_eq!(answer.fields(), ["selector"], "{}", answer.text);
        body["selector"] = json!("");
        body["nodeSelector"] = json!(selector);
        let answer = refused(&c, Method::POST, "/v1/apps", &body, 400, INVALID).await;
        assert_eq!(answer.fields(), ["nodeSelector"], "{}", answer.text);
        let query = selector
            .replace(' ', "%20")
            .replace('=', "%3D")
            .replace('!', "%21");
        for list in ["/v1/nodes", "/v1/apps", "/v1/configs", "/v1/secrets"] {
            refused(
                &c,
                Method::GET,
                &format!("{list}?selector={query}"),
                &json!({}),
                400,
                INVALID,
            )
            .await;
        }
    }
}

#[tokio::test]
async fn a_volume_without_source_or_with_two_is_refused() {
    let c = cloud().await;
    let mut body = app("a1");
    body["volumes"] =
        json!([{"name": "none"}, {"name": "both", "emptyDir": {}, "hostPath": {"path": "/x"}}]);
    let answer = refused(&c, Method::POST, "/v1/apps", &body, 400, INVALID).await;
    assert_eq!(
        answer.fields(),
        ["volumes[0]", "volumes[1]"],
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn two_services_cannot_have_one_port_of_the_machine() {
    let c = cloud().await;
    let port = json!([{"containerPort": 80, "hostPort": 8080}]);
    let mut body = app("a1");
    body["services"] = json!([
        {"name": "web", "image": "i", "ports": port},
        {"name": "api", "image": "i", "ports": port},
    ]);
    let answer = refused(&c, Method::POST, "/v1/apps", &body, 400, INVALID).await;
    assert_eq!(
        answer.fields(),
        ["services[1].ports[0].hostPort"],
        "{}",
        answer.text
    );
    body["services"][1]["ports"][0]["protocol"] = json!("UDP");
    c.created("/v1/apps", body).await;
}

#[tokio::test]
async fn names_that_occur_twice_and_mounts_of_nothing_have_codes_of_their_own() {
    let c = cloud().await;
    let mut body = app("a1");
    body["volumes"] = json!([{"name": "vol", "emptyDir": {}}, {"name": "vol", "emptyDir": {}}]);
    refused(
        &c,
        Method::POST,
        "/v1/apps",
        &body,
        400,
        "ErrAppNameConflict",
    )
    .await;
    let mut body = app("a1");
    body["services"][0]["volumeMounts"] = json!([{"name": "nosuch", "mountPath": "/x"}]);
    refused(
        &c,
        Method::POST,
        "/v1/apps",
        &body,
        400,
        "ErrVolumeNotFoundWhenMount",
    )
    .await;
}

#[tokio::test]
async fn all_mistakes_of_a_body_are_named_at_once() {
    let c = cloud().await;
    let body = json!({
        "name": "Bad", "mode": "cloudy", "selector": "a===b", "labels": {"bad key!": "v"}, "replica": -1, "extra": 1,
        "services": [{"name": "W_b", "image": "", "ports": [{"containerPort": 0}], "imagePullPoliy": "Always"}],
        "volumes": [{"name": "v"}],
    });
    let answer = refused(
        &c,
        Method::POST,
        "/v1/apps?fieldValidation=Strict",
        &body,
        400,
        INVALID,
    )
    .await;
    for field in [
        "name",
        "mode",
        "selector",
        "labels",
        "replica",
        "services[0].name",
        "services[0].image",
        "services[0].ports[0].containerPort",
        "volumes[0]",
        "extra",
        "services[0].imagePullPoliy",
    ] {
        assert!(
            answer.fields().contains(&field),
            "{field} in {:?}",
            answer.fields()
        );
        assert!(
            answer.message().contains(field),
            "{field} in {}",
            answer.message()
        );
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_or_of_another_type_are_refused() {
    let c = cloud().await;
    for (body, field) in [
        ("", ""),
        ("  ", ""),
        ("{bad", ""),
        ("[]", ""),
        ("[\"n1\"]", ""),
        ("{\"name\":7}", "name"),
        ("{\"name\":\"n1\"} x", ""),
    ] {
        let answer = c.call_with(Method::POST, "/v1/nodes", &[], body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (400, INVALID),
            "{body}: {}",
            answer.text
        );
        assert_eq!(
            answer.body["errors"][0]["field"]
                .as_str()
                .unwrap_or_default(),
            field,
            "{body}: {}",
            answer.text
        );
    }
    assert_eq!(c.revision().await, 0);
}

#[tokio::test]
async fn what_an_application_references_must_be_there_and_be_of_its_kind() {
    let c = cloud().await;
    c.created("/v1/secrets", json!({"name": "s1", "data": {"k": "v"}}))
        .await;
    let mut body = app("a1");
    body["volumes"] = json!([
        {"name": "c-vol", "config": {"name": "no-config"}},
        {"name": "s-vol", "secret": {"name": "no-secret"}},
        {"name": "t-vol", "certificate": {"name": "s1"}},
    ]);
    body["registries"] = json!([{"name": "s1"}]);
    let answer = refused(
        &c,
        Method::POST,
        "/v1/apps",
        &body,
        404,
        "ErrResourceNotFound",
    )
    .await;
    for thing in [
        "(config) resource (no-config)",
        "(secret) resource (no-secret)",
        "(certificate) resource (s1)",
        "(registry) resource (s1)",
    ] {
        assert!(
            answer.message().contains(thing),
            "{thing} in {}",
            answer.message()
        );
    }
}

#[tokio::test]
async fn a_second_resource_of_a_name_is_a_conflict() {
    let c = cloud().await;
    let (certificate, key) = secrets::pair("x");
    for (path, body) in [
        ("/v1/nodes", json!({"name": "x1"})),
        ("/v1/apps", app("x1")),
        ("/v1/configs", config("x1", "x")),
        ("/v1/secrets", json!({"name": "x1", "data": {"k": "v"}})),
        (
            "/v1/registries",
            json!({"name": "x2", "address": "a", "username": "u", "password": "p"}),
        ),
        (
            "/v1/certificates",
            json!({"name": "x3", "data": {"key": key, "certificate": certificate}}),
        ),
    ] {
        c.created(path, body.clone()).await;
        let answer = refused(&c, Method::POST, path, &body, 409, "ErrResourceConflict").await;
        assert!(
            answer.message().contains("already in use"),
            "{}",
            answer.text
        );
    }
    // Registries and certificates are secrets: they share one space of names.
    refused(
        &c,
        Method::POST,
        "/v1/secrets",
        &json!({"name": "x2", "data": {"k": "v"}}),
        409,
        "ErrResourceConflict",
    )
    .await;
}

#[tokio::test]
async fn what_is_used_is_not_deleted() {
    let c = cloud().await;
    c.created("/v1/configs", config("c1", "x")).await;
    c.created("/v1/secrets", json!({"name": "s1", "data": {"k": "v"}}))
        .await;
    c.created(
        "/v1/registries",
        json!({"name": "r1", "address": "a", "username": "u", "password": "p"}),
    )
    .await;
    secrets::create_certificate(&c, "t1").await;
    let mut body = app("a1");
    body["volumes"] = json!([
        {"name": "c-vol", "config": {"name": "c1"}},
        {"name": "s-vol", "secret": {"name": "s1"}},
        {"name": "t-vol", "certificate": {"name": "t1"}},
    ]);
    body["registries"] = json!([{"name": "r1"}]);
    c.created("/v1/apps", body).await;
    for path in [
        "/v1/configs/c1",
        "/v1/secrets/s1",
        "/v1/registries/r1",
        "/v1/certificates/t1",
    ] {
        let answer = refused(
            &c,
            Method::DELETE,
            path,
            &json!({}),
            403,
            "ErrResourceHasBeenUsed",
        )
        .await;
        assert!(
            answer.message().contains("a1"),
            "says by whom: {}",
            answer.message()
        );
        assert_eq!(
            c.read(&format!("{path}/apps")).await["items"][0]["name"],
            "a1"
        );
    }
    c.delete("/v1/apps/a1").await;
    for path in [
        "/v1/configs/c1",
        "/v1/secrets/s1",
        "/v1/registries/r1",
        "/v1/certificates/t1",
    ] {
        assert_eq!(c.delete(path).await.status, StatusCode::OK, "{path}");
        assert_eq!(c.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(
            c.delete(path).await.status,
            StatusCode::OK,
            "a second time: {path}"
        );
    }
}

#[tokio::test]
async fn versions_are_the_clouds_a_version_in_a_body_changes_nothing() {
    let c = cloud().await;
    let mut body = config("c1", "x");
    body["version"] = json!("not a version!");
    let created = c.created("/v1/configs", body).await;
    assert_eq!(created["version"], "1");
    let mut app = app("a1");
    app["volumes"] = json!([{"name": "c-vol", "config": {"name": "c1", "version": "999"}}]);
    let created = c.created("/v1/apps", app).await;
    assert_eq!(
        created["volumes"][0]["config"]["version"], "1",
        "pinned to the newest, whatever was asked for"
    );
}

#[tokio::test]
async fn a_node_is_native_or_a_cluster_and_its_words_are_known() {
    let c = cloud().await;
    let body = json!({"name": "n1", "nodeMode": "native", "cluster": true, "sysApps": ["nosuch"], "labels": {"a": "b c"}});
    let answer = refused(&c, Method::POST, "/v1/nodes", &body, 400, INVALID).await;
    assert_eq!(
        answer.fields(),
        ["labels", "cluster", "sysApps"],
        "{}",
        answer.text
    );
    refused(
        &c,
        Method::POST,
        "/v1/nodes",
        &json!({"name": "n1", "nodeMode": "android"}),
        400,
        INVALID,
    )
    .await;
}

#[tokio::test]
async fn a_deferred_deployment_is_refused_rather_than_forgotten() {
    let c = cloud().await;
    let mut body = app("a1");
    body["cronStatus"] = json!(1);
    body["cronTime"] = json!("2099-01-01T00:00:00Z");
    let answer = refused(&c, Method::POST, "/v1/apps", &body, 400, INVALID).await;
    assert_eq!(answer.fields(), ["cronStatus"]);
}
