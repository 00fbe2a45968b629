//! The five programs over TCP with mutual TLS, as they talk in a cluster, here on one machine with the native runtime: no
//! Unix socket is left, and certificates come late and are replaced while everything runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use baetyl_callers::CallerId;
use baetyl_kit::grpc::{Client, Connect};
use baetyl_kit::tls;
use baetyl_proto::callers::Role;
use baetyl_proto::engine::GetAppRequest;
use baetyl_proto::engine::engine_service_client::EngineServiceClient;
use baetyl_proto::node::GetNodeInfoRequest;
use baetyl_proto::node::local_service_client::LocalServiceClient;
use baetyl_proto::shadow::{AppStatus, RunStatus};
use baetyl_testkit::{Leaf, SecretMount, TestCa};
use baetyl_tests::apps;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World, free_port};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

const SERVICES: [(&str, Role); 5] = [
    ("init", Role::Init),
    ("node", Role::Node),
    ("sync", Role::Sync),
    ("engine", Role::Engine),
    ("function-proxy", Role::Proxy),
];

/// Where everybody listens, and with what certificates.
struct Net {
    dir: tempfile::TempDir,
    ports: BTreeMap<&'static str, u16>,
    mounts: BTreeMap<&'static str, SecretMount>,
}

impl Net {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("bt-tls-").tempdir()?;
        let listeners = [
            "node",
            "node-apps",
            "node-admin",
            "sync",
            "sync-apps",
            "engine",
            "http",
            "grpc",
        ];
        let ports = listeners.map(|name| Ok((name, free_port()?)));
        let mount = |(service, _)| (service, SecretMount::new(dir.path().join(service)));
        Ok(Self {
            ports: ports.into_iter().collect::<Result<_>>()?,
            mounts: SERVICES.map(mount).into(),
            dir,
        })
    }

    fn port(&self, listener: &str) -> u16 {
        self.ports[listener]
    }

    fn url(&self, listener: &str) -> String {
        format!("https://127.0.0.1:{}", self.port(listener))
    }

    /// What the programs are told.
    fn env(&self) -> Vec<(&'static str, String)> {
        let at = |listener| format!("127.0.0.1:{}", self.port(listener));
        let tls = |service| self.dir.path().join(service).display().to_string();
        vec![
            ("BAETYL_NODE__TLS__DIR", tls("node")),
            ("BAETYL_NODE__API__LISTEN", at("node")),
            ("BAETYL_NODE__APPS__LISTEN", at("node-apps")),
            ("BAETYL_NODE__ADMIN__LISTEN", at("node-admin")),
            ("BAETYL_SYNC__TLS__DIR", tls("sync")),
            ("BAETYL_SYNC__API__LISTEN", at("sync")),
            ("BAETYL_SYNC__APPS__LISTEN", at("sync-apps")),
            ("BAETYL_SYNC__PEERS__NODE", self.url("node")),
            ("BAETYL_SYNC__PEERS__ENGINE", self.url("engine")),
            ("BAETYL_SYNC__PEERS__FUNCTION_PROXY", self.url("grpc")),
            ("BAETYL_ENGINE__TLS__DIR", tls("engine")),
            ("BAETYL_ENGINE__API__LISTEN", at("engine")),
            ("BAETYL_ENGINE__PEERS__NODE", self.url("node")),
            ("BAETYL_ENGINE__PEERS__SYNC", self.url("sync")),
            ("BAETYL_FUNCTION_PROXY__TLS__DIR", tls("function-proxy")),
            ("BAETYL_FUNCTION_PROXY__HTTP__LISTEN", at("http")),
            ("BAETYL_FUNCTION_PROXY__GRPC__LISTEN", at("grpc")),
            (
                "BAETYL_FUNCTION_PROXY__ENGINE__ENDPOINT",
                self.url("engine"),
            ),
            ("BAETYL_INIT__TLS__DIR", tls("init")),
            ("BAETYL_INIT__PEERS__NODE", self.url("node")),
            ("BAETYL_INIT__PEERS__SYNC", self.url("sync")),
            ("BAETYL_INIT__PEERS__ENGINE", self.url("engine")),
            ("BAETYL_INIT__PEERS__FUNCTION_PROXY", self.url("grpc")),
        ]
    }

    /// Gives every service a certificate of `issuer`; they trust `authorities`.
    fn certify(&mut self, issuer: &TestCa, authorities: &[&TestCa]) {
        for (service, role) in SERVICES {
            let id = CallerId::Core(role).to_string();
            let leaf = Leaf::new(service).uri(&id).name("127.0.0.1");
            if let Some(mount) = self.mounts.get_mut(service) {
                mount.identity(&issuer.issue(&leaf), authorities);
            }
        }
    }

    /// A client with the certificate of `id`, or none.
    fn client(&self, ca: &TestCa, listener: &str, id: Option<CallerId>) -> Result<Connect> {
        let own = id.map(|id| ca.issue(&Leaf::new("test").uri(&id.to_string())).identity());
        let config = tls::client_config(&ca.trust(), own, None)?;
        Ok(Connect::new(self.url(listener).parse()?).tls(config))
    }

    /// Engine, as the administrator.
    fn engine(&self, ca: &TestCa) -> Result<EngineServiceClient<Client>> {
        let admin = self.client(ca, "engine", Some(CallerId::Core(Role::Admin)))?;
        Ok(EngineServiceClient::new(admin.lazy()?))
    }

    async fn until_running(&self, ca: &TestCa, app: &Value) -> Result<AppStatus> {
        let name = app["name"].as_str().context("an application has a name")?;
        let version = app["version"].as_str().context("and a version")?;
        let engine = self.engine(ca)?;
        let (status, _) = until(&format!("{name} {version} runs"), || async {
            let name = name.to_owned();
            let answer = engine.clone().get_app(GetAppRequest { name }).await?;
            let status = answer.into_inner().app.context("no application")?;
            ensure!(
                status.version == version
                    && status.status() == RunStatus::Running
                    && status.phase == "Healthy"
                    && status.instances.iter().all(|instance| instance.ready),
                "{status:?}"
            );
            Ok(status)
        })
        .await?;
        Ok(status)
    }

    /// Calls a function over HTTPS.
    async fn invoke(
        &self,
        ca: &TestCa,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> Result<(StatusCode, Bytes)> {
        let config = tls::client_config_with(&ca.trust(), None, None, &[])?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config((*config).clone())
            .https_only()
            .enable_http1()
            .build();
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .build::<_, Full<Bytes>>(connector);
        let mut request = Request::post(format!("{}{path}", self.url("http")));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        let answer = client.request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    async fn until_greeted(&self, ca: &TestCa, token: &str) -> Result<()> {
        until("the function answers over TLS", || async {
            let (status, body) = self.invoke(ca, "/hail", Some(token), r#""Ada""#).await?;
            ensure!(status.is_success(), "{status} {body:?}");
            ensure!(body.as_ref() == br#"{"hello": "Ada"}"#, "{body:?}");
            Ok(())
        })
        .await?;
        Ok(())
    }
}

/// Starts the node while nobody has a certificate; they come when node has said what it waits for.
async fn start(net: &mut Net, ca: &TestCa) -> Result<World> {
    let env = net.env();
    let starting = World::start_in(Shape::Five, &env);
    let admin = format!("http://127.0.0.1:{}", net.port("node-admin"));
    let certifying = async {
        let admin = baetyl_tests::rest::Rest::new(&admin, None);
        until("node waits for its certificate", || async {
            let answer = admin.send(http::Method::GET, "/readyz", &[], Bytes::new());
            let answer = answer.await?;
            let reason = answer.json()["latches"]["tls"]["reason"].to_string();
            ensure!(answer.status == 503, "{}", answer.status);
            ensure!(reason.contains("waiting for identity files in"), "{reason}");
            Ok(())
        })
        .await?;
        net.certify(ca, &[ca]);
        anyhow::Ok(())
    };
    let (world, certified) = tokio::join!(starting, certifying);
    certified?;
    world
}

/// A Python function whose runtime registers over TLS, for applications with a token.
async fn create_function(world: &World, net: &Net) -> Result<Value> {
    let code = "def handler(event, context):\n    return {'hello': event}\n";
    let mut app = apps::create_function(&world.rest, "hail", "site=north", code).await?;
    let ca = net.mounts["function-proxy"].path().join("ca.crt");
    apps::set_env(&mut app, "BAETYL_FUNCTION_ADDRESS", &net.url("grpc"));
    apps::set_env(&mut app, "BAETYL_CA_FILE", &ca.display().to_string());
    app["services"][0]["functionConfig"]["access"] = json!("token");
    world.rest.put("/v1/apps/hail", &app).await
}

/// The token of the only instance of an application.
fn token(world: &World, app: &str) -> Result<String> {
    let versions = world.edge.dir.join(format!("engine/run/baetyl-edge/{app}"));
    let mut version = fs::read_dir(&versions)?;
    let version = version.next().context("no version")??.path();
    let token = version.join(app).join("1/token");
    let text = fs::read_to_string(&token).with_context(|| token.display().to_string())?;
    Ok(text.trim().to_owned())
}

fn sockets(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for kind in ["core", "apps"] {
        let Ok(entries) = fs::read_dir(dir.join("run").join(kind)) else {
            continue;
        };
        for entry in entries {
            found.push(entry?.path());
        }
    }
    Ok(found)
}

/// Waits until every service said this often that it has taken its files.
async fn until_taken(world: &World, times: usize) -> Result<()> {
    for (service, _) in SERVICES.iter().filter(|(service, _)| *service != "init") {
        let log = world.edge.dir.join(format!("logs/{service}.log"));
        until(&format!("{service} uses its new files"), || async {
            let text = fs::read_to_string(&log)?;
            let taken = text
                .matches("the identity of this service is in use")
                .count();
            ensure!(taken >= times, "taken {taken} times");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn code_of(client: Client) -> tonic::Code {
    let request = GetAppRequest {
        name: "web".to_owned(),
    };
    let mut request = tonic::Request::new(request);
    request.set_timeout(Duration::from_secs(10));
    let answer = EngineServiceClient::new(client).get_app(request).await;
    match answer.map_err(|status| status.code()) {
        Ok(_) => tonic::Code::Ok,
        // In TLS 1.3 a client learns only from the first answer that it was not let in: what it sees of the connection
        // then depends on how far it has come.
        Err(tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::Cancelled) => {
            tonic::Code::Unavailable
        }
        Err(code) => code,
    }
}

#[tokio::test]
async fn a_node_whose_services_talk_over_tls_works_while_its_certificates_are_replaced()
-> Result<()> {
    let (old, new) = (TestCa::new("old"), TestCa::new("new"));
    let mut net = Net::new()?;
    let mut world = start(&mut net, &old).await?;
    // Those of the proxy are all there is, and nobody needs them.
    for socket in sockets(&world.edge.dir)? {
        ensure!(socket.ends_with("function-proxy.sock"), "{socket:?}");
        fs::remove_file(socket)?;
    }
    world.until_online().await?;

    let web = apps::shell_app("web", "site=north", "exec sleep 1000");
    let web = world.rest.post("/v1/apps", &web).await?;
    net.until_running(&old, &web).await?;
    let hail = create_function(&world, &net).await?;
    net.until_running(&old, &hail).await?;
    let token = token(&world, "web")?;
    net.until_greeted(&old, &token).await?;
    let (status, _) = net.invoke(&old, "/hail", None, r#""Ada""#).await?;
    ensure!(status == StatusCode::UNAUTHORIZED, "{status}");
    let local = net.client(&old, "node-apps", None)?.bearer(&token).lazy()?;
    let mut local = LocalServiceClient::new(local);
    local.get_node_info(GetNodeInfoRequest {}).await?;
    let app = CallerId::App {
        namespace: "baetyl-edge".parse()?,
        app: "web".parse()?,
    };
    for (who, code) in [
        (Some(CallerId::Core(Role::Sync)), tonic::Code::Ok),
        (
            Some(CallerId::Core(Role::Init)),
            tonic::Code::PermissionDenied,
        ),
        (Some(app), tonic::Code::Unauthenticated),
        (None, tonic::Code::Unavailable),
    ] {
        let shown = format!("{who:?}");
        let client = net.client(&old, "engine", who)?.lazy()?;
        let answered = code_of(client).await;
        ensure!(answered == code, "{shown}: {answered:?}, not {code:?}");
    }

    let before = net.until_running(&old, &web).await?;
    net.certify(&old, &[&old, &new]);
    until_taken(&world, 2).await?;
    net.certify(&new, &[&old, &new]);
    until_taken(&world, 3).await?;
    net.until_greeted(&new, &token).await?;
    // Every way between them is gone anew, with the new certificates.
    for service in ["sync", "node", "engine", "function-proxy"] {
        world.edge.kill_service(service)?;
        world.edge.start_service(service)?;
    }
    let after = net.until_running(&new, &web).await?;
    ensure!(
        before.instances[0].pid == after.instances[0].pid,
        "web was restarted: {before:?} {after:?}"
    );
    net.until_greeted(&new, &token).await?;
    let mut next = world.rest.get("/v1/apps/web").await?;
    apps::set_env(&mut next, "ROUND", "2");
    let next = world.rest.put("/v1/apps/web", &next).await?;
    net.until_running(&new, &next).await?;
    world.until_online().await?;
    Ok(())
}
