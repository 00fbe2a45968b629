//! Entity tags.

use super::*;

/// One resource of each kind: its path, and a body that changes it.
async fn resources(c: &TestCloud) -> Vec<(String, Value)> {
    c.created("/v1/nodes", json!({"name": "x1"})).await;
    c.created("/v1/apps", app("x1")).await;
    c.created("/v1/configs", config("x1", "x")).await;
    c.created("/v1/secrets", json!({"name": "x1", "data": {"k": "v"}}))
        .await;
    c.created(
        "/v1/registries",
        json!({"name": "x2", "address": "a", "username": "u", "password": "p"}),
    )
    .await;
    secrets::create_certificate(c, "x3").await;
    let mut changed_app = app("x1");
    changed_app["description"] = json!("new");
    vec![
        ("/v1/nodes/x1".into(), json!({"description": "new"})),
        ("/v1/apps/x1".into(), changed_app),
        ("/v1/configs/x1".into(), config("x1", "new")),
        ("/v1/secrets/x1".into(), json!({"data": {"k": "new"}})),
        ("/v1/registries/x2".into(), json!({"description": "new"})),
        ("/v1/certificates/x3".into(), json!({"description": "new"})),
    ]
}

#[tokio::test]
async fn a_stale_etag_writes_nothing() {
    let c = cloud().await;
    for (path, change) in resources(&c).await {
        let tag = c.get(&path).await.header("etag").to_owned();
        let written = c
            .call_with(
                Method::PUT,
                &path,
                &[("if-match", &tag)],
                change.to_string(),
            )
            .await;
        assert_eq!(written.status, StatusCode::OK, "{path}: {}", written.text);
        assert_eq!(
            written.header("etag"),
            format!("\"{}\"", written.body["version"].as_str().unwrap())
        );
        assert_ne!(written.header("etag"), tag, "{path}");

        let before = c.revision().await;
        for method in [Method::PUT, Method::DELETE] {
            let stale = c
                .call_with(
                    method.clone(),
                    &path,
                    &[("if-match", &tag)],
                    change.to_string(),
                )
                .await;
            assert_eq!(
                (stale.status.as_u16(), stale.code()),
                (412, "ErrUpdateCas"),
                "{method} {path}: {}",
                stale.text
            );
        }
        assert_eq!(c.revision().await, before, "{path}");
        let newest = written.header("etag");
        let deleted = c
            .call_with(
                Method::DELETE,
                &path,
                &[("if-match", newest)],
                Body::empty(),
            )
            .await;
        assert_eq!(deleted.status, StatusCode::OK, "{path}: {}", deleted.text);
        let gone = c
            .call_with(
                Method::DELETE,
                &path,
                &[("if-match", newest)],
                Body::empty(),
            )
            .await;
        assert_eq!(gone.status, StatusCode::PRECONDITION_FAILED, "{path}");
    }
}

#[tokio::test]
async fn a_star_and_a_list_of_tags_are_understood() {
    let c = cloud().await;
    let (path, change) = resources(&c).await.remove(2);
    let version = c.read(&path).await["version"].as_str().unwrap().to_owned();
    for tag in [
        "*".to_owned(),
        format!("\"0\", \"{version}\""),
        format!("W/\"{version}\""),
    ] {
        let answer = c
            .call_with(
                Method::PUT,
                &path,
                &[("if-match", &tag)],
                config("x1", "x").to_string(),
            )
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{tag}: {}", answer.text);
    }
    let missing = c
        .call_with(
            Method::PUT,
            "/v1/configs/nosuch",
            &[("if-match", "*")],
            change.to_string(),
        )
        .await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn who_has_the_version_gets_304_without_a_body() {
    let c = cloud().await;
    for (path, change) in resources(&c).await {
        if path.starts_with("/v1/nodes") {
            continue;
        }
        let tag = c.get(&path).await.header("etag").to_owned();
        let same = c
            .call_with(
                Method::GET,
                &path,
                &[("if-none-match", &tag)],
                Body::empty(),
            )
            .await;
        assert_eq!(
            (
                same.status.as_u16(),
                same.text.as_str(),
                same.header("etag")
            ),
            (304, "", tag.as_str()),
            "{path}"
        );
        c.put(&path, &change).await;
        let newer = c
            .call_with(
                Method::GET,
                &path,
                &[("if-none-match", &tag)],
                Body::empty(),
            )
            .await;
        assert_eq!(newer.status, StatusCode::OK, "{path}");
    }
    // A node's report changes without its version.
    let tag = c.get("/v1/nodes/x1").await.header("etag").to_owned();
    let node = c
        .call_with(
            Method::GET,
            "/v1/nodes/x1",
            &[("if-none-match", &tag)],
            Body::empty(),
        )
        .await;
    assert_eq!(node.status, StatusCode::OK);
}

#[tokio::test]
async fn the_document_promises_the_tags_that_are_sent() {
    let c = cloud().await;
    for (path, _) in resources(&c).await {
        let pattern = format!("{}/{{name}}", &path[..path.rfind('/').unwrap()]);
        let operations = crate::rest::operations();
        let get = operations
            .iter()
            .find(|operation| operation.path == pattern && operation.method == Method::GET)
            .unwrap();
        let answer = c.get(&path).await;
        assert_eq!(
            get.versions.tagged,
            answer.headers.contains_key("etag"),
            "{path}"
        );
        let tag = answer.header("etag").to_owned();
        let again = c
            .call_with(
                Method::GET,
                &path,
                &[("if-none-match", &tag)],
                Body::empty(),
            )
            .await;
        let is_304 = again.status == StatusCode::NOT_MODIFIED;
        assert_eq!(get.versions.if_none_match, is_304, "{path}");
        for method in [Method::PUT, Method::DELETE] {
            let operation = operations
                .iter()
                .find(|operation| operation.path == pattern && operation.method == method)
                .unwrap();
            assert!(operation.versions.if_match, "{method} {path}");
        }
    }
}
