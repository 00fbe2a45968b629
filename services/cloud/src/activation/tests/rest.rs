//! Activation in Baetyl v2's words.

use super::*;

#[tokio::test]
async fn rest_activation_speaks_version_2_field_names_without_a_private_key() {
    let setup = setup().await;
    let node = setup.fixture.add_node("edge-1").await;
    let key = node_key();
    let body = json!({
        "namespace": "default", "mode": "native", "penetrateData": {"a": "b"},
        "installToken": setup.token("edge-1").await, "csr": pem(&csr_der(&key, "", &[])),
    });
    let (status, answer) = setup.post(&body.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        (answer["nodeName"].as_str(), answer["namespace"].as_str()),
        (Some("edge-1"), Some("default"))
    );
    assert_eq!(answer["nodeUid"].as_str(), Some(node.uid.as_str()));
    let certificates = |field: &str| {
        tls::parse_certificates(
            field,
            answer["certificate"][field].as_str().unwrap().as_bytes(),
        )
        .unwrap()
    };
    assert_eq!(
        certificates("ca"),
        [setup.fixture.pki.server_authority().clone()]
    );
    assert_eq!(
        PeerIdentity::from_certificate(&certificates("cert")[0], "baetyl.local")
            .unwrap()
            .uid,
        node.uid
    );
    assert!(answer["certificate"].get("key").is_none());
}

#[tokio::test]
async fn an_edge_that_wants_its_key_made_here_is_told_that_keys_are_made_on_the_node() {
    let setup = setup().await;
    setup.fixture.add_node("edge-1").await;
    let body = json!({"installToken": setup.token("edge-1").await});
    let (status, answer) = setup.post(&body.to_string()).await;
    assert_eq!(status, 400);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("made on the node"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_that_is_no_json_or_too_long_is_refused_with_a_status_that_says_so() {
    let setup = setup().await;
    assert_eq!(setup.post("{").await.0, 400);
    let long = json!({"csr": "x".repeat(70_000)}).to_string();
    assert_eq!(setup.post(&long).await.0, 413);
}

#[tokio::test]
async fn without_a_good_token_a_request_is_not_even_read() {
    let setup = setup().await;
    let status = setup
        .activate_der("rubbish", b"rubbish".to_vec())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let body = json!({"installToken": "rubbish", "csr": "rubbish"}).to_string();
    assert_eq!(setup.post(&body).await.0, 401);
    let (parts, problem) = setup
        .post_accepting(&body, "application/problem+json")
        .await;
    assert_eq!(parts.headers["content-type"], "application/problem+json");
    assert_eq!(
        (&problem["status"], &problem["code"]),
        (&json!(401), &json!("ErrRequestAccessDenied"))
    );
}
