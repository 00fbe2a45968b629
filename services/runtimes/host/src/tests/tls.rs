//! The way to the proxy over TLS: its files are read again for every connection.

use std::path::Path;
use std::sync::Arc;

use baetyl_kit::Kit;
use baetyl_kit::grpc::{CallerInfo, Server};
use baetyl_kit::listen::Listener;
use baetyl_kit::tls::{ClientAuth, fingerprint, server_config};
use baetyl_proto::function::runtime_service_server::RuntimeServiceServer;
use baetyl_proto::token::{Claims, issue};
use baetyl_testkit::{Leaf, TestCa, free_port};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::link::{Connection, Echo, FakeProxy, profile};
use super::*;
use crate::runtime::DoorArgs;
use crate::serve;

fn arguments(dir: &TestDir, port: u16) -> DoorArgs {
    DoorArgs {
        // There as well; the address counts more.
        socket: Some(dir.join("nowhere.sock")),
        address: Some(format!("https://localhost:{port}").parse().unwrap()),
        ca_file: Some(dir.join("ca.pem")),
        cert_file: None,
        key_file: None,
        token_file: dir.join("token"),
        service: Some("web".to_owned()),
        instance: Some("web-7f".to_owned()),
        functions_file: dir.join("unused"),
        drain_seconds: 10,
        log: String::new(),
    }
}

/// The token of all instances of an application.
fn write_token(dir: &Path) {
    let claims = Claims {
        app: "shop".to_owned(),
        service: String::new(),
        instance: String::new(),
        iat: 0,
    };
    std::fs::write(dir.join("token"), issue(&claims, |_| [7; 64])).unwrap();
}

/// A proxy at this port whose certificate is good for the name.
async fn proxy(
    dir: &TestDir,
    listener: TcpListener,
    ca: &TestCa,
    name: &str,
    connections: &mpsc::Sender<Connection>,
) -> Kit {
    let kit = Kit::for_test(dir.path());
    let fake = FakeProxy {
        connections: connections.clone(),
        heartbeat_ms: 60_000,
    };
    let own = ca.issue(&Leaf::new("proxy").name(name)).identity();
    let config = server_config(own, &ClientAuth::Optional(ca.roots()), None).unwrap();
    Server::new(&kit, "proxy")
        .add_service(RuntimeServiceServer::new(fake))
        .authorize(Arc::new(|_, _, _| Ok(CallerInfo::new("app"))))
        .tls(config)
        .serve_on(Listener::from_tcp(listener))
        .unwrap();
    kit
}

/// A port that is still free when the proxy is started again.
async fn listener() -> (TcpListener, u16) {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    (listener.unwrap(), port)
}

fn start(arguments: &DoorArgs) -> AbortOnDropHandle<()> {
    let door = arguments.door().unwrap();
    AbortOnDropHandle::new(tokio::spawn(async move {
        serve(
            &door,
            &profile(),
            &Echo::default(),
            &CancellationToken::new(),
        )
        .await;
    }))
}

async fn next(connections: &mut mpsc::Receiver<Connection>) -> Connection {
    let next = tokio::time::timeout(PATIENCE, connections.recv()).await;
    next.expect("nobody connected").unwrap()
}

#[tokio::test]
async fn a_runtime_registers_over_tls_as_what_it_is_told_where_its_token_says_nothing() {
    let (dir, ca) = (TestDir::new(), TestCa::new("ca"));
    let (sender, mut connections) = mpsc::channel(4);
    let (listener, port) = listener().await;
    dir.write("ca.pem", ca.pem());
    write_token(dir.path());
    let own = ca.issue(&Leaf::new("shop.web"));
    let mut arguments = arguments(&dir, port);
    arguments.cert_file = Some(dir.write("crt.pem", &own.chain_pem));
    arguments.key_file = Some(dir.write("key.pem", &own.key_pem));
    let _proxy = proxy(&dir, listener, &ca, "localhost", &sender).await;
    let _running = start(&arguments);
    let connection = next(&mut connections).await;
    let said = &connection.registration;
    assert_eq!(
        (
            said.app.as_str(),
            said.service.as_str(),
            said.instance.as_str()
        ),
        ("shop", "web", "web-7f")
    );
    assert!(connection.authorization.starts_with("Bearer v1."));
    let shown = connection.peer.certificate().map(fingerprint);
    assert_eq!(shown, Some(fingerprint(&own.certificate)));
}

#[tokio::test]
async fn when_proxy_and_authority_are_replaced_the_runtime_comes_back() {
    let (dir, old, new) = (TestDir::new(), TestCa::new("old"), TestCa::new("new"));
    let (sender, mut connections) = mpsc::channel(4);
    let (listening, port) = listener().await;
    dir.write("ca.pem", old.pem());
    write_token(dir.path());
    let first = proxy(&dir, listening, &old, "localhost", &sender).await;
    let _running = start(&arguments(&dir, port));
    drop(next(&mut connections).await);
    first.stop(PATIENCE).await.unwrap();

    dir.write("ca.pem", new.pem());
    let again = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let _second = proxy(&dir, again, &new, "localhost", &sender).await;
    assert!(next(&mut connections).await.peer.certificate().is_none());
}

#[tokio::test]
async fn a_proxy_of_another_name_or_authority_is_told_nothing() {
    let (dir, ca, other) = (TestDir::new(), TestCa::new("ca"), TestCa::new("other"));
    dir.write("ca.pem", ca.pem());
    write_token(dir.path());
    for (authority, name) in [(&ca, "elsewhere"), (&other, "localhost")] {
        let logs = baetyl_testkit::Capture::start();
        let (sender, mut connections) = mpsc::channel(4);
        let (listener, port) = listener().await;
        let _proxy = proxy(&dir, listener, authority, name, &sender).await;
        let _running = start(&arguments(&dir, port));
        let told = || {
            let events = logs.events();
            let mut errors = events.iter().map(|event| event.field("error").to_owned());
            errors.any(|error| error.contains("invalid peer certificate"))
        };
        eventually!(told());
        assert!(connections.try_recv().is_err());
    }
}

#[test]
fn a_way_that_nobody_can_take_is_told_at_the_start() {
    let dir = TestDir::new();
    let missing = |change: fn(&mut DoorArgs)| {
        let mut arguments = arguments(&dir, 1);
        change(&mut arguments);
        arguments.door().unwrap_err().to_string()
    };
    for (change, word) in [
        (
            (|given| given.ca_file = None) as fn(&mut DoorArgs),
            "BAETYL_CA_FILE",
        ),
        (
            |given| given.address = Some("http://localhost:1".parse().unwrap()),
            "https://",
        ),
        (
            |given| (given.address, given.socket) = (None, None),
            "BAETYL_FUNCTION_SOCKET",
        ),
    ] {
        let error = missing(change);
        assert!(error.contains(word), "{word} in {error}");
    }
}
