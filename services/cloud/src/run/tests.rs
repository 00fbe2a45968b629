use std::time::Duration;

use baetyl_kit::listen::Listen;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;
use crate::config::ListenerConfig;

/// Every listener on any free port.
fn config() -> Config {
    let any = || ListenerConfig {
        listen: Listen::loopback(),
    };
    Config {
        admin: any(),
        link: any(),
        activation: any(),
        ..Config::default()
    }
}

struct Running {
    kit: Kit,
    dir: PathBuf,
    done: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Starts, and waits until it is ready.
    async fn start(dir: &Path, config: Config) -> Self {
        // What an earlier run left says nothing about this one.
        let _ = std::fs::remove_file(dir.join("run/admin.addr"));
        let kit = Kit::for_test(dir);
        let mut changes = kit.readiness().changes();
        let done = tokio::spawn(run(config, kit.clone()));
        let ready = async {
            while !(kit.readiness().is_ready() && dir.join("run/admin.addr").exists()) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ready)
            .await
            .unwrap();
        Self {
            kit,
            dir: dir.to_owned(),
            done,
        }
    }

    async fn stop(self) {
        self.kit.stop(Duration::from_secs(10)).await.unwrap();
        self.done.await.unwrap().unwrap();
    }

    async fn get(&self, path: &str, token: Option<&str>) -> (StatusCode, serde_json::Value) {
        let address = std::fs::read_to_string(self.dir.join("run/admin.addr")).unwrap();
        let mut request = Request::get(format!("http://{}{path}", address.trim()));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let answer = client
            .request(request.body(Full::default()).unwrap())
            .await
            .unwrap();
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }
}

/// One connection; requests follow each other on it.
async fn connect(cloud: &Running) -> hyper::client::conn::http1::SendRequest<axum::body::Body> {
    let address = std::fs::read_to_string(cloud.dir.join("run/admin.addr")).unwrap();
    let stream = tokio::net::TcpStream::connect(address.trim())
        .await
        .unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn send(
    sender: &mut hyper::client::conn::http1::SendRequest<axum::body::Body>,
    request: http::request::Builder,
    body: axum::body::Body,
) -> (StatusCode, serde_json::Value) {
    sender.ready().await.unwrap();
    let request = request.header("host", "cloud").body(body).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn a_body_of_five_mebibytes_is_answered_and_so_is_the_next_request() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = Running::start(dir.path(), config()).await;
    let token = std::fs::read_to_string(dir.path().join("admin.token")).unwrap();
    let piece = Bytes::from(vec![b' '; 64 * 1024]);
    let pieces = vec![piece.clone(); 80];
    let with_length = axum::body::Body::from(pieces.concat());
    let chunked = axum::body::Body::from_stream(futures_util::stream::iter(
        pieces.into_iter().map(Ok::<_, std::convert::Infallible>),
    ));
    for body in [with_length, chunked] {
        let mut sender = connect(&cloud).await;
        let post = Request::post("/v1/configs")
            .header("authorization", format!("Bearer {}", token.trim()));
        let (status, answer) = send(&mut sender, post, body).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::PAYLOAD_TOO_LARGE, &"ErrDataTooLarge".into()),
            "{answer}"
        );
        let next = Request::get("/health");
        let (status, _) = send(&mut sender, next, axum::body::Body::empty()).await;
        assert_eq!(status, StatusCode::OK);
    }
    cloud.stop().await;
}

#[tokio::test]
async fn the_first_start_makes_everything_and_the_second_finds_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let cloud = Running::start(&data, config()).await;
    for name in ["admin", "link", "activation"] {
        let text = std::fs::read_to_string(data.join(format!("run/{name}.addr"))).unwrap();
        assert!(
            matches!(text.trim().parse(), Ok(Listen::Tcp(address)) if address.port() != 0),
            "{name}: {text}"
        );
    }
    assert_eq!(
        std::fs::metadata(&data).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let token = std::fs::read_to_string(data.join("admin.token")).unwrap();
    let (status, body) = cloud.get("/v1/nodes", None).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::UNAUTHORIZED, &"ErrRequestAccessDenied".into())
    );
    let (status, body) = cloud.get("/v1/nodes", Some(token.trim())).await;
    assert_eq!((status, &body["total"]), (StatusCode::OK, &0.into()));
    cloud.stop().await;

    let cloud = Running::start(&data, config()).await;
    assert_eq!(
        std::fs::read_to_string(data.join("admin.token")).unwrap(),
        token
    );
    assert_eq!(
        cloud.get("/v1/namespace", Some(token.trim())).await.1["name"],
        "default"
    );
    cloud.stop().await;
}

#[tokio::test]
async fn a_listener_that_is_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = Listen::Tcp(taken.local_addr().unwrap());
    let config = Config {
        admin: ListenerConfig { listen },
        ..config()
    };
    let kit = Kit::for_test(dir.path());
    let error = run(config, kit.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Rest(_)), "{error}");
    assert!(error.to_string().contains("admin.listen"), "{error}");
    kit.stop(Duration::from_secs(10)).await.unwrap();
}
