use std::fs;

use baetyl_testkit::{Leaf, TestCa, TestDir};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tokio_rustls::TlsAcceptor;

use super::access::{Access, Token};
use super::{Api, Call};
use crate::config::{KubeConfig, OpenError};

fn kubeconfig(user: &str, cluster: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: one\npreferences: {{}}\n\
         contexts:\n- name: one\n  context: {{cluster: c, user: u, namespace: x}}\n- name: two\n  context: {{cluster: nowhere, user: u}}\n\
         clusters:\n- name: c\n  cluster: {cluster}\n\
         users:\n- name: u\n  user: {user}\n"
    )
}

fn read(text: &str, context: Option<&str>) -> Result<Access, OpenError> {
    let dir = TestDir::new();
    let path = dir.path().join("config");
    fs::write(&path, text).unwrap();
    fs::write(dir.path().join("ca.pem"), "authority").unwrap();
    super::kubeconfig::read(&path, context)
}

#[test]
fn a_kubeconfig_names_server_authority_and_what_proves_who_we_are() {
    // "a certificate", "a key"
    let user = "{client-certificate-data: YSBjZXJ0aWZpY2F0ZQ==, client-key-data: YSBrZXk=}";
    let cluster = "{server: \"https://10.0.0.1:6443/\", certificate-authority: ca.pem, tls-server-name: kubernetes}";
    let access = read(&kubeconfig(user, cluster), None).unwrap();
    assert_eq!(access.server, "https://10.0.0.1:6443");
    assert_eq!(access.server_name.as_deref(), Some("kubernetes"));
    assert_eq!(access.authority, b"authority");
    assert_eq!(access.certificate.as_deref(), Some(&b"a certificate"[..]));
    assert_eq!(access.key.as_deref(), Some(&b"a key"[..]));
    assert!(matches!(access.token, Token::None));
    let token = read(&kubeconfig("{token: secret}", cluster), Some("one")).unwrap();
    assert!(matches!(token.token, Token::Fixed(token) if token == "secret"));
}

#[test]
fn what_a_kubeconfig_lacks_or_wants_too_much_is_said() {
    let cluster = "{server: \"https://x\", certificate-authority: ca.pem}";
    let token = "{token: t}";
    for (text, context, words) in [
        (
            kubeconfig(token, cluster),
            Some("three"),
            "no context \"three\"; there are: one, two",
        ),
        (
            kubeconfig(token, cluster),
            Some("two"),
            "no cluster \"nowhere\"",
        ),
        (
            kubeconfig("{exec: {command: aws}}", cluster),
            None,
            "neither a client certificate nor a token",
        ),
        (
            kubeconfig("{username: a, password: b}", cluster),
            None,
            "neither a client certificate nor a token",
        ),
        (
            kubeconfig(
                token,
                "{server: \"https://x\", insecure-skip-tls-verify: true}",
            ),
            None,
            "insecure-skip-tls-verify",
        ),
        (
            kubeconfig(
                token,
                "{server: \"https://x\", certificate-authority: ca.pem, proxy-url: \"http://p\"}",
            ),
            None,
            "proxy-url",
        ),
        (
            kubeconfig(
                token,
                "{server: \"http://x\", certificate-authority: ca.pem}",
            ),
            None,
            "no https URL",
        ),
        (
            kubeconfig(token, "{server: \"https://x\"}"),
            None,
            "names no authority",
        ),
        (
            kubeconfig(
                token,
                "{server: \"https://x\", certificate-authority-data: \"%%\"}",
            ),
            None,
            "certificate-authority-data",
        ),
        ("contexts: []".to_owned(), None, "no current-context"),
    ] {
        let error = read(&text, context).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(matches!(read("a: [", None), Err(OpenError::Syntax { .. })));
    let beside = kubeconfig(
        token,
        "{server: \"https://x\", certificate-authority: nothing.pem}",
    );
    assert!(matches!(read(&beside, None), Err(OpenError::Read { .. })));
}

#[test]
fn a_pod_without_a_service_account_is_told_what_it_lacks() {
    let dir = TestDir::new();
    let variable = |name: &str| {
        Some(
            if name.ends_with("HOST") {
                "fd00::1"
            } else {
                "443"
            }
            .to_owned(),
        )
    };
    let no_variable = Access::of_pod(dir.path(), |_| None).err().unwrap();
    assert!(
        no_variable.to_string().contains("KUBERNETES_SERVICE_HOST"),
        "{no_variable}"
    );
    assert!(matches!(
        Access::of_pod(dir.path(), variable),
        Err(OpenError::Read { .. })
    ));
    fs::write(dir.path().join("ca.crt"), "authority").unwrap();
    let no_token = Access::of_pod(dir.path(), variable).err().unwrap();
    assert!(
        no_token.to_string().contains("no token is mounted"),
        "{no_token}"
    );
    fs::write(dir.path().join("token"), "secret\n").unwrap();
    let access = Access::of_pod(dir.path(), variable).unwrap();
    assert_eq!(access.server, "https://[fd00::1]:443");
}

/// Serves HTTP/2 over TLS; answers with the path, the token and the user.
async fn serve(authority: &TestCa) -> std::net::SocketAddr {
    let identity = authority.issue(&Leaf::new("kubernetes").name("kubernetes"));
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(
        rustls::crypto::ring::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![identity.certificate.clone()], key)
    .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            tokio::spawn(async move {
                let service = hyper::service::service_fn(
                    |request: Request<hyper::body::Incoming>| async move {
                        let header = |name: &str| {
                            let value = request.headers().get(name);
                            value.map(|value| value.to_str().unwrap().to_owned())
                        };
                        let said = serde_json::json!({
                            "path": request.uri().path(),
                            "token": header("authorization"),
                            "user": header("impersonate-user"),
                            "version": format!("{:?}", request.version()),
                        });
                        let body = Full::new(Bytes::from(said.to_string()));
                        Ok::<_, std::convert::Infallible>(Response::new(body))
                    },
                );
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

fn config(authority: &TestCa, address: std::net::SocketAddr, dir: &TestDir) -> KubeConfig {
    let path = dir.path().join("config");
    fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    fs::write(dir.path().join("token"), "first\n").unwrap();
    let cluster = format!(
        "{{server: \"https://{address}\", certificate-authority: ca.pem, tls-server-name: kubernetes}}"
    );
    fs::write(&path, kubeconfig("{tokenFile: token}", &cluster)).unwrap();
    KubeConfig {
        kubeconfig: Some(path),
        ..KubeConfig::default()
    }
}

#[tokio::test]
async fn requests_go_over_http2_with_the_token_of_the_file() {
    let authority = TestCa::new("authority");
    let dir = TestDir::new();
    let config = config(&authority, serve(&authority).await, &dir);
    let api = Api::open(&config).await.unwrap();
    let said: Value = api
        .call(Call::get("/version").user(Some("somebody")))
        .await
        .unwrap();
    assert_eq!(said["path"], "/version");
    assert_eq!(said["token"], "Bearer first");
    assert_eq!(said["user"], "somebody");
    assert_eq!(said["version"], "HTTP/2.0");
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_spoken_to() {
    let dir = TestDir::new();
    let address = serve(&TestCa::new("other")).await;
    let api = Api::open(&config(&TestCa::new("authority"), address, &dir))
        .await
        .unwrap();
    let error = api.call::<Value>(Call::get("/version")).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(error.code(), 0);
}

#[tokio::test]
async fn an_answer_that_is_not_kubernetes_is_told_of_as_it_is() {
    let fake = crate::testing::Fake::default();
    fake.rule(1, |_| {
        let text = vec!["<html>login</html>".to_owned()];
        Some(crate::testing::Reply::Pieces(text, true))
    });
    let error = fake
        .api()
        .call::<Value>(Call::get("/version"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}
