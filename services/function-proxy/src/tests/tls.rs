//! TLS on the outer listeners, with certificates instead of tokens.

use std::path::PathBuf;

use baetyl_kit::tls::{Identity, client_config, client_config_with};
use baetyl_proto::function::{InvokeRequest, ListFunctionsRequest};
use baetyl_testkit::{Leaf, TestCa, TestIdentity};
use tonic::Code;

use super::*;
use crate::{Error, ListenError, TlsConfig};

/// A proxy that speaks TLS, and the authority of its certificate and of its applications.
struct Secured {
    world: World,
    ca: TestCa,
}

fn write(dir: &TestDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn files(dir: &TestDir, ca: &TestCa, server: &TestIdentity) -> TlsConfig {
    TlsConfig {
        certificate: write(dir, "proxy.pem", &server.chain_pem),
        key: write(dir, "proxy.key", &server.key_pem),
        client_ca: Some(write(dir, "ca.pem", &ca.pem())),
    }
}

impl Secured {
    async fn new(files_dir: &TestDir) -> Self {
        let ca = TestCa::new("node");
        let tls = files(files_dir, &ca, &ca.server());
        let apps = [("open", "anonymous"), ("shop", "token")];
        let world = World::new(&apps, |config| config.tls = Some(tls)).await;
        Self { world, ca }
    }

    /// The certificate of a client with this common name.
    fn client(&self, name: &str) -> Identity {
        self.ca.issue(&Leaf::new(name)).identity()
    }

    fn grpc(&self, identity: Option<Identity>) -> FunctionServiceClient<Client> {
        let port = self.world.address("grpc").port();
        let endpoint: Endpoint = format!("https://localhost:{port}").parse().unwrap();
        let tls = client_config(&self.ca.trust(), identity, None).unwrap();
        clients(Connect::new(endpoint).tls(tls).lazy().unwrap()).0
    }

    async fn status(&self, path: &str, identity: Option<Identity>, token: Option<&str>) -> u16 {
        let tls = client_config_with(&self.ca.trust(), identity, None, &[]).unwrap();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config((*tls).clone())
            .https_only()
            .enable_http1()
            .build();
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .build::<_, Full<Bytes>>(connector);
        let port = self.world.address("http").port();
        let mut request = Request::post(format!("https://localhost:{port}{path}"));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let sending = client.request(request.body(Full::default()).unwrap());
        let response = tokio::time::timeout(PATIENCE, sending).await.unwrap();
        response.unwrap().status().as_u16()
    }
}

#[tokio::test]
async fn a_certificate_of_an_application_counts_as_its_token() {
    let dir = TestDir::new();
    let secured = Secured::new(&dir).await;
    let _echoes = (
        secured.world.runtime("open", 1).await.echo(),
        secured.world.runtime("shop", 1).await.echo(),
    );
    let token = secured.world.token("any");
    let app = || Some(secured.client("line.one.reader"));
    for (path, identity, token, expected) in [
        ("/open", None, None, 200),
        ("/shop", None, None, 401),
        ("/shop", app(), None, 200),
        ("/shop", None, Some(token.as_str()), 200),
        ("/shop", app(), Some("forged"), 401),
        ("/shop", Some(secured.client("stranger")), None, 401),
    ] {
        let named = identity.is_some();
        let status = secured.status(path, identity, token).await;
        assert_eq!(status, expected, "{path} {named} {token:?}");
    }
    for (service, identity, expected) in [
        ("open", None, Code::Ok),
        ("shop", None, Code::Unauthenticated),
        ("shop", app(), Code::Ok),
        (
            "shop",
            Some(secured.client("stranger")),
            Code::Unauthenticated,
        ),
    ] {
        let request = InvokeRequest {
            service: service.to_owned(),
            ..InvokeRequest::default()
        };
        let answer = secured.grpc(identity).invoke(request).await;
        let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(code, expected, "{service}");
    }
    let listed = secured.grpc(app());
    let listed = { listed }
        .list_functions(ListFunctionsRequest::default())
        .await;
    assert_eq!(listed.unwrap().into_inner().functions.len(), 2);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_and_age_does_not_matter() {
    let dir = TestDir::new();
    let secured = Secured::new(&dir).await;
    let _echo = secured.world.runtime("shop", 1).await.echo();
    let invoke = |identity| {
        let mut client = secured.grpc(Some(identity));
        async move {
            let request = InvokeRequest {
                service: "shop".to_owned(),
                ..InvokeRequest::default()
            };
            client.invoke(request).await
        }
    };
    let stranger = TestCa::new("other").issue(&Leaf::new("shop.web"));
    assert!(invoke(stranger.identity()).await.is_err());
    let old = Leaf::new("shop.web").valid("2000-01-01T00:00:00Z", "2001-01-01T00:00:00Z");
    invoke(secured.ca.issue(&old).identity()).await.unwrap();
}

#[tokio::test]
async fn plaintext_that_other_machines_reach_is_refused_at_the_start() {
    let dir = TestDir::new();
    let kit = Kit::new(
        "function-proxy",
        dir.path(),
        baetyl_kit::clock::Clock::system(),
    );
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let mut config = Config::default();
        config.http.listen = Listen::loopback();
        config.grpc.listen = listen.parse().unwrap();
        let error = crate::run(config, kit.clone()).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Listen(ListenError::Plaintext {
                    key: "grpc.listen",
                    ..
                })
            ),
            "{listen}: {error:?}"
        );
        assert!(error.to_string().contains("section tls"), "{error}");
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_named_at_the_start() {
    let dir = TestDir::new();
    let ca = TestCa::new("node");
    let mut config = Config {
        tls: Some(TlsConfig {
            key: dir.path().join("nowhere.key"),
            ..files(&dir, &ca, &ca.server())
        }),
        ..Config::default()
    };
    config.http.listen = Listen::loopback();
    config.grpc.listen = Listen::loopback();
    let kit = Kit::new(
        "function-proxy",
        dir.path(),
        baetyl_kit::clock::Clock::system(),
    );
    let error = crate::run(config, kit).await.unwrap_err();
    let Error::Listen(error @ ListenError::Tls(_)) = error else {
        panic!("{error:?}")
    };
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("nowhere.key"), "{cause}");
}
