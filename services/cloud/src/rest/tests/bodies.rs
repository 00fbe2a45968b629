//! Sizes, unknown fields, request ids, error forms.

use super::*;

#[tokio::test]
async fn a_body_of_five_mebibytes_gets_a_clear_413() {
    let c = cloud().await;
    let body = config("big", &"x".repeat(5 * 1024 * 1024)).to_string();
    let answer = c.call_with(Method::POST, "/v1/configs", &[], body).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (413, "ErrDataTooLarge"),
        "{}",
        answer.text
    );
    assert!(
        answer.message().contains("/v1/objects"),
        "says what to do: {}",
        answer.message()
    );
    assert_eq!(c.revision().await, 0);
}

#[tokio::test]
async fn data_just_below_the_limit_is_taken_and_a_secret_has_a_smaller_one() {
    let c = cloud().await;
    c.created(
        "/v1/configs",
        config("big", &"x".repeat(4 * 1024 * 1024 - 1000)),
    )
    .await;
    let body = json!({"name": "s1", "data": {"k": "x".repeat(70_000)}});
    let answer = c.post("/v1/secrets", &body).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (413, "ErrDataTooLarge"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn unknown_fields_are_warned_of_refused_or_ignored_as_asked() {
    let c = cloud().await;
    let mut body = app("a1");
    body["extra"] = json!(true);
    body["services"][0]["imagePullPoliy"] = json!("Always");

    let strict = c.post("/v1/apps?fieldValidation=Strict", &body).await;
    assert_eq!(strict.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        strict.fields(),
        ["extra", "services[0].imagePullPoliy"],
        "{}",
        strict.text
    );
    assert_eq!(c.revision().await, 0);

    let warned = c.post("/v1/apps", &body).await;
    assert_eq!(warned.status, StatusCode::OK, "{}", warned.text);
    let warnings: Vec<_> = warned
        .headers
        .get_all("warning")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(
        warnings,
        [
            r#"299 - "unknown field \"extra\"""#,
            r#"299 - "unknown field \"services[0].imagePullPoliy\"""#
        ]
    );

    let ignored = c.put("/v1/apps/a1?fieldValidation=Ignore", &body).await;
    assert_eq!(
        (ignored.status, ignored.headers.contains_key("warning")),
        (StatusCode::OK, false)
    );
    let bogus = c.put("/v1/apps/a1?fieldValidation=Maybe", &body).await;
    assert_eq!(bogus.fields(), ["fieldValidation"]);
}

#[tokio::test]
async fn what_is_shown_can_be_written_back_strictly() {
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
    c.created(
        "/v1/nodes",
        json!({"name": "n1", "labels": {"env": "test"}}),
    )
    .await;
    c.created("/v1/apps", app("a1")).await;
    let revision = c.revision().await;
    for path in [
        "/v1/configs/c1",
        "/v1/secrets/s1",
        "/v1/registries/r1",
        "/v1/certificates/t1",
        "/v1/nodes/n1",
        "/v1/apps/a1",
    ] {
        let shown = c.read(path).await;
        let written = c
            .ok(
                Method::PUT,
                &format!("{path}?fieldValidation=Strict"),
                &shown,
            )
            .await;
        assert_eq!(written["version"], shown["version"], "{path}");
    }
    assert_eq!(c.revision().await, revision, "nothing changed");
}

#[tokio::test]
async fn the_request_id_of_the_caller_comes_back_and_otherwise_one_is_made() {
    let c = cloud().await;
    for header in ["x-request-id", "x-bce-request-id"] {
        let answer = c
            .call_with(
                Method::GET,
                "/v1/nodes/none",
                &[(header, "abc-1")],
                Body::empty(),
            )
            .await;
        assert_eq!(answer.body["requestId"], "abc-1");
        assert_eq!(
            (
                answer.header("x-request-id"),
                answer.header("x-bce-request-id")
            ),
            ("abc-1", "abc-1")
        );
    }
    let made = c.get("/v1/nodes/none").await;
    assert!(!made.header("x-request-id").is_empty());
    assert_eq!(made.body["requestId"], made.header("x-request-id"));
    let odd = c
        .call_with(
            Method::GET,
            "/v1/nodes",
            &[("x-request-id", "a b")],
            Body::empty(),
        )
        .await;
    assert_ne!(odd.header("x-request-id"), "a b");
}

#[tokio::test]
async fn the_request_id_is_in_the_history() {
    let c = cloud().await;
    c.created("/v1/nodes", json!({"name": "n1"})).await;
    let body = json!({"description": "new"}).to_string();
    c.call_with(
        Method::PUT,
        "/v1/nodes/n1",
        &[("x-request-id", "change-7")],
        body,
    )
    .await;
    let deploys = c.read("/v1/nodes/n1/deploys").await;
    assert_eq!(deploys["items"][0]["requestId"], "change-7");
    assert_eq!(deploys["items"][0]["actor"], "token:test");
}

#[tokio::test]
async fn errors_are_problems_for_those_who_ask() {
    let c = cloud().await;
    let headers = [("accept", "application/problem+json")];
    let answer = c
        .call_with(Method::POST, "/v1/nodes", &headers, "{\"name\":\"-\"}")
        .await;
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.body["status"], 400);
    assert_eq!(answer.body["title"], "Bad Request");
    assert_eq!(answer.body["errors"][0]["field"], "name");
    assert_eq!(answer.body["code"], "ErrRequestParamInvalid");
    assert!(
        answer.body["detail"]
            .as_str()
            .unwrap()
            .contains("node name")
    );
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let c = cloud().await;
    let unknown = c.get("/v1/nosuch").await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.code()),
        (404, "ErrRequestMethodNotFound")
    );
    let method = c
        .call_with(Method::PATCH, "/v1/nodes/n1", &[], Body::empty())
        .await;
    assert_eq!(
        (method.status.as_u16(), method.code()),
        (405, "ErrRequestMethodNotFound")
    );
    let allowed = method.header("allow");
    for verb in ["GET", "PUT", "DELETE"] {
        assert!(allowed.contains(verb), "{allowed}");
    }
}

#[tokio::test]
async fn the_document_and_its_page_are_served() {
    let c = cloud().await;
    let document = c.read("/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/v1/apps/{name}"]["put"]["requestBody"].is_object());
    let page = c.get("/docs").await;
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(
        page.header("content-security-policy")
            .contains("default-src 'none'")
    );
}

#[tokio::test]
async fn many_unknown_fields_and_odd_names_make_few_and_legal_warnings() {
    let c = cloud().await;
    let mut body = config("c1", "x");
    for index in 0..1000 {
        body[format!("feld-ä\n{index}")] = json!(1);
    }
    let answer = c.post("/v1/configs", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let warnings: Vec<_> = answer.headers.get_all("warning").iter().collect();
    assert_eq!(warnings.len(), 21);
    assert!(
        warnings[0].to_str().unwrap().contains("feld-?"),
        "{warnings:?}"
    );
    assert_eq!(warnings[20], "299 - \"and more\"");
}
