use super::*;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

async fn fetch(router: &Router, path: &str, authorization: Option<&str>) -> (u16, String) {
    let mut request = Request::get(path);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn readiness_is_told_with_its_reasons_and_does_not_touch_liveness() {
    let kit = Kit::for_test("/nonexistent");
    let router = router(kit.clone(), None);
    let latch = kit.readiness().register("identity");
    let (status, body) = fetch(&router, "/readyz", None).await;
    assert_eq!(status, 503);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["ready"], false);
    assert_eq!(
        body["latches"]["identity"]["reason"],
        "waiting for identity"
    );
    assert_eq!(fetch(&router, "/livez", None).await.0, 200);
    latch.ready();
    assert_eq!(fetch(&router, "/readyz", None).await.0, 200);
}

#[tokio::test]
async fn a_service_that_stops_is_not_ready_and_still_alive() {
    let kit = Kit::for_test("/nonexistent");
    let router = router(kit.clone(), None);
    kit.shutdown().cancel();
    assert_eq!(fetch(&router, "/readyz", None).await.0, 503);
    assert_eq!(fetch(&router, "/livez", None).await.0, 200);
}

#[tokio::test]
async fn metrics_are_open_without_a_token_and_guarded_with_one() {
    let kit = Kit::for_test("/nonexistent");
    kit.metrics().counter("hits_total", "Hits.", &[]).inc();
    let open = router(kit.clone(), None);
    let (status, body) = fetch(&open, "/metrics", None).await;
    assert_eq!(status, 200);
    assert!(body.contains("baetyl_test_hits_total 1"), "{body}");
    let guarded = router(kit, Some("s3cret".to_owned()));
    assert_eq!(fetch(&guarded, "/metrics", None).await.0, 401);
    assert_eq!(
        fetch(&guarded, "/metrics", Some("Bearer wrong")).await.0,
        401
    );
    assert_eq!(
        fetch(&guarded, "/metrics", Some("Bearer s3cret")).await.0,
        200
    );
}
