//! Who may do what: every operation of the table, for every kind of caller.

use super::*;
use crate::rest::{Operation, operations};

/// A body every operation of the path takes apart without being refused for its form.
fn request(operation: &Operation, name: &str) -> (String, Value) {
    let path = operation.path.replace("{name}", name);
    (
        path,
        json!({"names": [name], "mode": "cloud", "password": "p", "data": {}, "state": {}}),
    )
}

#[tokio::test]
async fn without_a_valid_token_everything_but_the_open_pages_is_401() {
    let c = cloud().await;
    for operation in operations() {
        let (path, body) = request(&operation, "x1");
        let bare = Request::builder()
            .method(operation.method.clone())
            .uri(&path);
        let bare = c
            .send(bare.body(Body::from(body.to_string())).unwrap())
            .await;
        let wrong = c
            .call_as("bct_wrong", operation.method.clone(), &path, &body)
            .await;
        for answer in [bare, wrong] {
            if operation.role.is_none() {
                assert_eq!(answer.status, StatusCode::OK, "{path}");
                continue;
            }
            assert_eq!(
                (answer.status.as_u16(), answer.code()),
                (401, "ErrRequestAccessDenied"),
                "{path}"
            );
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    assert_eq!(c.revision().await, 0);
}

#[tokio::test]
async fn only_the_pages_about_the_cloud_itself_are_open() {
    let open: Vec<_> = operations()
        .into_iter()
        .filter(|operation| operation.role.is_none())
        .collect();
    let paths: Vec<_> = open.iter().map(|operation| operation.path).collect();
    assert_eq!(paths, ["/health", "/openapi.json", "/docs"]);
}

#[tokio::test]
async fn every_operation_wants_its_role() {
    let c = cloud().await;
    let tokens = [
        (Role::Viewer, c.token_of("default", Role::Viewer).await),
        (Role::Operator, c.token_of("default", Role::Operator).await),
        (Role::Admin, c.token_of("default", Role::Admin).await),
    ];
    for operation in operations() {
        let Some(needed) = operation.role else {
            continue;
        };
        for (role, token) in &tokens {
            let (path, body) = request(&operation, "x1");
            let answer = c
                .call_as(token, operation.method.clone(), &path, &body)
                .await;
            let is_refused = answer.code() == "ErrResourceAccessForbidden";
            assert_eq!(
                is_refused,
                *role < needed,
                "{} {path} as {role}: {}",
                operation.method,
                answer.text
            );
            assert_eq!(
                is_refused,
                answer.status == StatusCode::FORBIDDEN,
                "{}",
                answer.text
            );
        }
    }
}

#[tokio::test]
async fn writing_takes_an_operator_and_reading_a_viewer() {
    for operation in operations()
        .iter()
        .filter(|operation| operation.role.is_some())
    {
        let reads = operation.method == Method::GET
            || (operation.method == Method::PUT && operation.path == "/v1/nodes");
        // The install command and what a bundle is made of are a GET that gives access to a node.
        let hands_out = operation.path.contains("/init");
        let role = operation.role.unwrap();
        assert_eq!(
            role == Role::Viewer,
            reads && !hands_out,
            "{} {}",
            operation.method,
            operation.path
        );
    }
}

#[tokio::test]
async fn a_viewer_sees_that_there_are_secrets_but_not_what_they_say() {
    let c = cloud().await;
    c.created(
        "/v1/secrets",
        json!({"name": "s1", "data": {"k": "hidden"}}),
    )
    .await;
    let viewer = c.token_of("default", Role::Viewer).await;
    let seen = c
        .call_as(&viewer, Method::GET, "/v1/secrets/s1", &json!({}))
        .await;
    assert_eq!(seen.status, StatusCode::OK);
    assert!(!seen.text.contains("hidden"), "{}", seen.text);
    let operator = c.token_of("default", Role::Operator).await;
    let seen = c
        .call_as(&operator, Method::GET, "/v1/secrets/s1", &json!({}))
        .await;
    assert_eq!(seen.body["data"]["k"], "hidden");
}

/// Something of each kind in the namespace of the caller.
async fn furnish(c: &TestCloud) {
    let here = json!({"name": "mine", "labels": {"env": "test"}});
    c.created("/v1/nodes", here).await;
    c.created("/v1/configs", config("mine", "secret-text"))
        .await;
    c.created("/v1/apps", app("mine")).await;
    c.created(
        "/v1/secrets",
        json!({"name": "mine-s", "data": {"k": "secret-text"}}),
    )
    .await;
    c.created(
        "/v1/registries",
        json!({"name": "mine-r", "address": "a", "username": "secret-text", "password": "p"}),
    )
    .await;
    secrets::create_certificate(c, "mine-t").await;
    c.call_with(Method::PUT, "/v1/objects/mine", &[], "secret-text")
        .await;
}

#[tokio::test]
async fn no_operation_shows_or_changes_anything_of_another_namespace() {
    let c = cloud().await;
    furnish(&c).await;
    let before = c.revision().await;
    let foreign = c.token_of("other", Role::Admin).await;
    for operation in operations()
        .iter()
        .filter(|operation| operation.role.is_some())
    {
        for name in ["mine", "mine-s", "mine-r", "mine-t"] {
            let (path, body) = request(operation, name);
            if operation.method == Method::PUT && operation.path == "/v1/objects/{name}" {
                continue; // Makes one of its own.
            }
            let answer = c
                .call_as(&foreign, operation.method.clone(), &path, &body)
                .await;
            let what = format!(
                "{} {path}: {} {}",
                operation.method, answer.status, answer.text
            );
            assert!(!answer.text.contains("secret-text"), "{what}");
            // The path names something: it is not there. Deleting what is not there does nothing.
            if operation.path.contains("{name}") && operation.method == Method::GET {
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{what}");
            }
            if answer.body["items"].is_array() {
                assert_eq!(answer.body["total"], 0, "{what}");
            }
        }
    }
    assert_eq!(c.revision().await, before, "nothing here was changed");
    assert_eq!(c.read("/v1/nodes").await["total"], 1);
}

#[tokio::test]
async fn nothing_of_another_namespace_can_be_referenced_or_replaced() {
    let c = cloud().await;
    furnish(&c).await;
    let before = c.revision().await;
    let foreign = c.token_of("other", Role::Admin).await;
    let mut borrowed = app("thief");
    borrowed["volumes"] = json!([{"name": "s-vol", "secret": {"name": "mine-s"}}, {"name": "c-vol", "config": {"name": "mine"}}]);
    let answer = c
        .call_as(&foreign, Method::POST, "/v1/apps", &borrowed)
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text);
    let object = json!({"name": "c9", "data": [{"key": "f", "value": {"type": "object", "source": "baetyl", "object": "mine"}}]});
    let answer = c
        .call_as(&foreign, Method::POST, "/v1/configs", &object)
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text);
    c.call_as(&foreign, Method::PUT, "/v1/objects/mine", &json!("theirs"))
        .await;

    assert_eq!(c.revision().await, before, "nothing here was changed");
    assert_eq!(
        c.read("/v1/objects/mine").await["size"],
        "secret-text".len()
    );
    assert_eq!(
        c.read("/v1/secrets/mine-s").await["data"]["k"],
        "secret-text"
    );
}

#[tokio::test]
async fn one_name_in_two_namespaces_is_two_things() {
    let c = cloud().await;
    let foreign = c.token_of("other", Role::Operator).await;
    c.created("/v1/nodes", json!({"name": "n1", "description": "here"}))
        .await;
    let there = c
        .call_as(
            &foreign,
            Method::POST,
            "/v1/nodes",
            &json!({"name": "n1", "description": "there"}),
        )
        .await;
    assert_eq!(there.status, StatusCode::OK, "{}", there.text);
    assert_eq!(there.body["namespace"], "other");
    assert_eq!(c.read("/v1/nodes/n1").await["description"], "here");
    c.call_as(&foreign, Method::DELETE, "/v1/nodes/n1", &json!({}))
        .await;
    assert_eq!(c.read("/v1/nodes/n1").await["description"], "here");
}
