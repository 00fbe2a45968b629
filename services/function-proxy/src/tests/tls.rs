//! TLS on the outer listeners, with certificates instead of tokens.

use std::path::PathBuf;

use baetyl_callers::CallerId;
use baetyl_kit::tls::{Identity, client_config, client_config_with};
use baetyl_proto::callers::Role;
use baetyl_proto::function::register_request::Message as Up;
use baetyl_proto::function::{InvokeRequest, ListFunctionsRequest, Registration};
use baetyl_testkit::{Leaf, SecretMount, TestCa, TestIdentity};
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
        dir: None,
        certificate: Some(write(dir, "proxy.pem", &server.chain_pem)),
        key: Some(write(dir, "proxy.key", &server.key_pem)),
        client_ca: Some(write(dir, "ca.pem", &ca.pem())),
    }
}

impl Secured {
    async fn new(files_dir: &TestDir) -> Self {
        let ca = TestCa::new("node");
        let tls = files(files_dir, &ca, &ca.server());
        let apps = [("open", "anonymous"), ("shop", "token")];
        let world = World::new(&apps, |config| config.tls = tls).await;
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
        tls: TlsConfig {
            key: Some(dir.path().join("nowhere.key")),
            ..files(&dir, &ca, &ca.server())
        },
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

/// A proxy with a mounted identity, and the authority of its node.
async fn mounted(dir: &TestDir) -> Secured {
    let ca = TestCa::new("node");
    let mut mount = SecretMount::new(dir.join("tls"));
    let id = CallerId::Core(Role::Proxy).to_string();
    let own = Leaf::new("function-proxy").uri(&id).name("localhost");
    mount.identity(&ca.issue(&own), &[&ca]);
    let apps = [("open", "anonymous"), ("shop", "token")];
    let world = World::new(&apps, |config| {
        config.tls.dir = Some(mount.path().to_owned());
    })
    .await;
    Secured { world, ca }
}

impl Secured {
    fn with_id(&self, id: &CallerId) -> Option<Identity> {
        let leaf = Leaf::new("somebody").uri(&id.to_string());
        Some(self.ca.issue(&leaf).identity())
    }

    fn channel(&self, token: Option<&str>) -> Client {
        let port = self.world.address("grpc").port();
        let endpoint: Endpoint = format!("https://localhost:{port}").parse().unwrap();
        let tls = client_config(&self.ca.trust(), None, None).unwrap();
        let connect = Connect::new(endpoint).tls(tls);
        match token {
            Some(token) => connect.bearer(token).lazy().unwrap(),
            None => connect.lazy().unwrap(),
        }
    }
}

#[tokio::test]
async fn with_a_mounted_identity_a_certificate_is_what_its_uri_says() {
    let dir = TestDir::new();
    let secured = mounted(&dir).await;
    let _echoes = (
        secured.world.runtime("open", 1).await.echo(),
        secured.world.runtime("shop", 1).await.echo(),
    );
    let app = CallerId::App {
        namespace: "baetyl-edge".parse().unwrap(),
        app: "web".parse().unwrap(),
    };
    let core = |role| secured.with_id(&CallerId::Core(role));
    let stranger = Leaf::new("shop.web").uri("spiffe://other/app/x/shop");
    for (identity, http, grpc) in [
        (secured.with_id(&app), 200, Code::Ok),
        (Some(secured.client("till.web")), 200, Code::Ok),
        (core(Role::Sync), 200, Code::Ok),
        (core(Role::Admin), 200, Code::Ok),
        (core(Role::Engine), 401, Code::PermissionDenied),
        (None, 401, Code::Unauthenticated),
        (
            Some(secured.ca.issue(&stranger).identity()),
            401,
            Code::Unauthenticated,
        ),
    ] {
        let status = secured.status("/shop", identity.clone(), None).await;
        let request = InvokeRequest {
            service: "shop".to_owned(),
            ..InvokeRequest::default()
        };
        let answer = secured.grpc(identity).invoke(request).await;
        let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!((status, code), (http, grpc));
    }
}

#[tokio::test]
async fn runtimes_register_over_tls_with_a_token_of_their_whole_application() {
    let dir = TestDir::new();
    let secured = mounted(&dir).await;
    let of_all = token(&secured.world.key, "shop", "", "");
    let of_one = token(&secured.world.key, "shop", "shop", "shop.1");
    let register = |token: Option<&str>, change: fn(&mut Registration)| {
        let mut registration = runtime::registration("shop", "shop.7", &["f"], 1);
        change(&mut registration);
        Runtime::connect_over(secured.channel(token), Up::Registration(registration))
    };
    for (token, change, expected) in [
        (
            Some(&of_all),
            (|said| said.app = "open".to_owned()) as fn(&mut Registration),
            Code::PermissionDenied,
        ),
        (
            Some(&of_all),
            |said| said.instance.clear(),
            Code::InvalidArgument,
        ),
        (Some(&of_one), |_| (), Code::PermissionDenied),
        (None, |_| (), Code::Unauthenticated),
    ] {
        let refused = register(token.map(String::as_str), change).await.err();
        assert_eq!(refused.map(|status| status.code()), Some(expected));
    }
    // Two instances with one token are two runtimes.
    let one = register(Some(&of_all), |_| ()).await.unwrap();
    let two = register(Some(&of_all), |said| said.instance = "shop.8".to_owned());
    let _echoes = (one.echo(), two.await.unwrap().echo());
    let (mut admin, _) = secured.world.core("admin");
    let listed = admin.list_functions(ListFunctionsRequest::default()).await;
    let listed = listed.unwrap().into_inner().functions;
    let shop = listed.iter().find(|entry| entry.service == "shop");
    assert_eq!(shop.map(|entry| entry.runtimes), Some(2));
    let status = secured.status("/shop", None, Some(&of_one)).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn half_a_certificate_is_refused_at_the_start() {
    let dir = TestDir::new();
    let file = |name: &str| Some(dir.join(name));
    let halves = [
        TlsConfig {
            certificate: file("c"),
            ..TlsConfig::default()
        },
        TlsConfig {
            key: file("k"),
            ..TlsConfig::default()
        },
        TlsConfig {
            client_ca: file("ca"),
            ..TlsConfig::default()
        },
    ];
    for tls in halves {
        let mut config = Config {
            tls: tls.clone(),
            ..Config::default()
        };
        config.http.listen = Listen::loopback();
        config.grpc.listen = Listen::loopback();
        let kit = Kit::for_test(dir.path());
        let error = crate::run(config, kit).await.unwrap_err();
        assert!(
            matches!(error, Error::Listen(ListenError::Half { .. })),
            "{tls:?}: {error:?}"
        );
    }
}
