use super::*;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
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

#[tokio::test]
async fn health_is_told_to_grpc_at_the_same_port_as_to_http() {
    let dir = tempfile::tempdir().unwrap();
    let kit = Kit::for_test(dir.path());
    let latch = kit.readiness().register("identity");
    let Listen::Tcp(addr) = serve(&kit, &AdminConfig::default()).await.unwrap() else {
        panic!("a loopback address");
    };
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{addr}")).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let check = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = client.check(check("")).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
    let refused = client.check(check("none")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    let mut told = client.watch(check("")).await.unwrap().into_inner();
    let first = told.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::NotServing);
    latch.ready();
    let then = told.message().await.unwrap().unwrap();
    assert_eq!(then.status(), ServingStatus::Serving);
    // The pages are there for HTTP/1.
    let plain = tokio::net::TcpStream::connect(addr).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(plain);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/readyz").header("host", "x");
    let request = request.body(Body::empty()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    // A process that stops says so, and does not wait for those who watch.
    kit.shutdown().cancel();
    let last = told.message().await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    assert!(told.message().await.unwrap().is_none());
}
