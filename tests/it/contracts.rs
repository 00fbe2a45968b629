//! Every server of a running node, as grpcurl sees it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::apps;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World};
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;

both_shapes!(
    grpcurl_lists_and_calls_what_each_core_socket_serves,
    grpcurl_sees_what_applications_see_with_their_token,
    grpcurl_activates_a_node_and_sees_the_link_with_its_certificate,
    health_is_served_in_plaintext_on_the_admin_port_of_each_program,
);

const HEALTH: &str = "grpc.health.v1.Health";

/// The program, found once.
struct Grpcurl(PathBuf);

impl Grpcurl {
    /// None, said aloud, when it is not on this machine.
    fn find() -> Option<Self> {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/grpcurl");
        if built.exists() {
            return Some(Self(built));
        }
        if Command::new("grpcurl").arg("--version").output().is_ok() {
            return Some(Self("grpcurl".into()));
        }
        baetyl_testkit::skipped(
            "grpcurl (go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3)",
        );
        None
    }

    /// A server, with the flags that every call to it needs.
    fn at(&self, flags: &[&str], address: &str) -> Listener<'_> {
        Listener {
            program: &self.0,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            address: address.to_owned(),
        }
    }
}

struct Listener<'a> {
    program: &'a Path,
    flags: Vec<String>,
    address: String,
}

impl Listener<'_> {
    fn run(&self, data: Option<&str>, words: &[&str]) -> Result<String> {
        let mut command = Command::new(self.program);
        command.args(&self.flags);
        if let Some(data) = data {
            command.args(["-d", data]);
        }
        let output = command.arg(&self.address).args(words).output()?;
        ensure!(
            output.status.success(),
            "{} {words:?}: {}",
            self.address,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The list is exactly these and health; each can be described; health answers.
    fn serves(&self, names: &[&str]) -> Result<()> {
        let list = self.run(None, &["list"])?;
        let mut listed: Vec<&str> = list.lines().collect();
        // Reflection names itself in one release of its library and not in another.
        listed.retain(|name| !name.starts_with("grpc.reflection."));
        let mut wanted = [names, &[HEALTH]].concat();
        listed.sort_unstable();
        wanted.sort_unstable();
        ensure!(listed == wanted, "{}: {listed:?}", self.address);
        for name in names {
            self.run(None, &["describe", name])?;
        }
        let health = self.run(None, &["grpc.health.v1.Health/Check"])?;
        ensure!(health.contains("SERVING"), "{}: {health}", self.address);
        Ok(())
    }

    fn call(&self, method: &str, request: &Value) -> Result<Value> {
        let answer = self.run(Some(&request.to_string()), &[method])?;
        serde_json::from_str(&answer).with_context(|| format!("{method}: {answer:?}"))
    }
}

/// What the older reflection lists. grpcurl asks it only where the newer one is missing.
async fn listed_by_v1alpha(channel: Channel, token: Option<&str>) -> Result<Vec<String>> {
    let mut request = tonic::Request::new(tokio_stream::once(ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    }));
    if let Some(token) = token {
        let value = MetadataValue::try_from(format!("Bearer {token}"))?;
        request.metadata_mut().insert("authorization", value);
    }
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(request)
        .await?
        .into_inner();
    let answer = answers.message().await?.context("no answer")?;
    match answer.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            Ok(list.service.into_iter().map(|one| one.name).collect())
        }
        other => anyhow::bail!("not a list: {other:?}"),
    }
}

async fn grpcurl_lists_and_calls_what_each_core_socket_serves(shape: Shape) -> Result<()> {
    let Some(grpcurl) = Grpcurl::find() else {
        return Ok(());
    };
    let world = World::start(shape).await?;
    let node = "baetyl.node.v1.NodeService";
    let functions = "baetyl.function.v1.FunctionService";
    let expected = [
        (
            "node",
            &[node, "baetyl.node.v1.LocalService"][..],
            &["NodeService/GetShadow", "LocalService/GetNodeInfo"][..],
        ),
        (
            "sync",
            &["baetyl.sync.v1.SyncService"],
            &["SyncService/GetLinkState"],
        ),
        (
            "engine",
            &["baetyl.engine.v1.EngineService"],
            &["EngineService/ListApps"],
        ),
        (
            "function-proxy",
            &[functions, "faas.Function"],
            &["FunctionService/ListFunctions"],
        ),
    ];
    for (service, names, calls) in expected {
        let (channel, _) = until(&format!("{service} answers"), || {
            world.edge.channel(service)
        })
        .await?;
        let listener = grpcurl.at(&["-plaintext"], &socket(&world, "core", service));
        listener.serves(names)?;
        let package = names[0].rsplit_once('.').context("no package")?.0;
        for call in calls {
            listener.call(&format!("{package}.{call}"), &json!({}))?;
        }
        let listed = listed_by_v1alpha(channel, None).await?;
        ensure!(
            names
                .iter()
                .all(|name| listed.iter().any(|one| one == name)),
            "{service}: {listed:?}"
        );
    }
    Ok(())
}

fn socket(world: &World, kind: &str, service: &str) -> String {
    let path = world.edge.dir.join(format!("run/{kind}/{service}.sock"));
    format!("unix://{}", path.display())
}

async fn grpcurl_sees_what_applications_see_with_their_token(shape: Shape) -> Result<()> {
    let Some(grpcurl) = Grpcurl::find() else {
        return Ok(());
    };
    let world = World::start(shape).await?;
    let app = apps::shell_app("sleeper", "site=north", "exec sleep 100000");
    world.run_app(&app).await?;
    let code = "def handler(event, context):\n    return {'hello': event['name']}\n";
    apps::create_function(&world.rest, "greet", "site=north", code).await?;
    world.edge.until_running("greet", None).await?;
    let token = token_of(&world, "sleeper").await?;
    let header = format!("authorization: Bearer {token}");
    let flags = ["-plaintext", "-H", &header];

    let node = grpcurl.at(&flags, &socket(&world, "apps", "node"));
    node.serves(&["baetyl.node.v1.LocalService"])?;
    let info = node.call("baetyl.node.v1.LocalService/GetNodeInfo", &json!({}))?;
    ensure!(info["nodeName"] == "north-1", "{info}");

    let functions = ["baetyl.function.v1.FunctionService", "faas.Function"];
    let runtimes = [&functions[..], &["baetyl.function.v1.RuntimeService"]].concat();
    let tcp = world.edge.address("function-proxy-grpc")?;
    let proxies = [
        (socket(&world, "apps", "function-proxy"), runtimes),
        (tcp.clone(), functions.to_vec()),
    ];
    for (address, names) in proxies {
        let proxy = grpcurl.at(&flags, &address);
        proxy.serves(&names)?;
        calls_greet(&proxy)?;
    }
    let channels = [
        world.edge.channel_at("run/apps/node.sock").await?,
        world
            .edge
            .channel_at("run/apps/function-proxy.sock")
            .await?,
        Endpoint::from_shared(format!("http://{tcp}"))?
            .connect()
            .await?,
    ];
    for channel in channels {
        let listed = listed_by_v1alpha(channel, Some(&token)).await?;
        ensure!(listed.iter().any(|name| name == HEALTH), "{listed:?}");
    }
    Ok(())
}

/// In our own words and in Baetyl v2's.
fn calls_greet(proxy: &Listener<'_>) -> Result<()> {
    // Protobuf's JSON has bytes in base64: {"name":"you"} and {"hello":"you"}.
    let (request, wanted) = ("eyJuYW1lIjoieW91In0=", "eyJoZWxsbyI6InlvdSJ9");
    let spaced = "eyJoZWxsbyI6ICJ5b3UifQ==";
    let ours = proxy.call(
        "baetyl.function.v1.FunctionService/Invoke",
        &json!({"service": "greet", "function": "f", "payload": request}),
    )?;
    let v2 = proxy.call(
        "faas.Function/Call",
        &json!({"Metadata": {"serviceName": "greet", "functionName": "f"}, "Payload": request}),
    )?;
    for payload in [&ours["payload"], &v2["Payload"]] {
        ensure!(*payload == wanted || *payload == spaced, "{ours} and {v2}");
    }
    let list = proxy.call(
        "baetyl.function.v1.FunctionService/ListFunctions",
        &json!({}),
    )?;
    ensure!(list["functions"][0]["service"] == "greet", "{list}");
    Ok(())
}

/// The token of an application's instance, found as the application finds it.
async fn token_of(world: &World, app: &str) -> Result<String> {
    let pid = world.edge.instance(app).await?.pid;
    let environment = std::fs::read(format!("/proc/{pid}/environ"))?;
    let path = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"BAETYL_TOKEN_FILE="))
        .context("no BAETYL_TOKEN_FILE")?;
    let path = std::str::from_utf8(path)?;
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

/// What a node has after its activation, as PEM.
struct Enrolled {
    key: String,
    certificate: String,
    authority: String,
}

async fn grpcurl_activates_a_node_and_sees_the_link_with_its_certificate(
    shape: Shape,
) -> Result<()> {
    let Some(grpcurl) = Grpcurl::find() else {
        return Ok(());
    };
    let world = World::start(shape).await?;
    let address = |name: &str| -> Result<String> {
        let file = world.cloud.dir.join(format!("run/{name}.addr"));
        Ok(std::fs::read_to_string(file)?.trim().to_owned())
    };
    let (activation, link) = (address("activation")?, address("link")?);
    let enrolled = enrol(&world, &grpcurl.at(&["-insecure"], &activation)).await?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = world.dir.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let authority = file("ca.pem", &enrolled.authority)?;
    let certificate = file("node.pem", &enrolled.certificate)?;
    let key = file("node.key", &enrolled.key)?;

    grpcurl
        .at(&["-cacert", &authority], &activation)
        .serves(&["baetyl.activation.v1.ActivationService"])?;
    let as_node = ["-cacert", &authority, "-cert", &certificate, "-key", &key];
    let linked = grpcurl.at(&as_node, &link);
    linked.serves(&["baetyl.link.v1.LinkService"])?;
    // What is refused is refused by the contract: the certificate was accepted.
    let refused = linked
        .call("baetyl.link.v1.LinkService/RenewCertificate", &json!({}))
        .unwrap_err();
    ensure!(
        format!("{refused:#}").contains("InvalidArgument"),
        "{refused:#}"
    );
    let stranger = grpcurl.at(&["-cacert", &authority], &link);
    ensure!(
        stranger.run(None, &["list"]).is_err(),
        "without a certificate"
    );

    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&enrolled.authority));
    let with_key = tls
        .clone()
        .identity(Identity::from_pem(&enrolled.certificate, &enrolled.key));
    for (address, tls) in [(activation, tls), (link, with_key)] {
        let channel = Endpoint::from_shared(format!("https://{address}"))?
            .tls_config(tls)?
            .connect()
            .await?;
        let listed = listed_by_v1alpha(channel, None).await?;
        ensure!(listed.iter().any(|name| name == HEALTH), "{listed:?}");
    }
    Ok(())
}

/// Describes a second node and activates it over `activation` with a key made here.
async fn enrol(world: &World, activation: &Listener<'_>) -> Result<Enrolled> {
    let node = json!({"name": "north-2", "nodeMode": "native"});
    world.rest.post("/v1/nodes", &node).await?;
    let answer = world.rest.get("/v1/nodes/north-2/init?mode=native").await?;
    let token = answer["cmd"]
        .as_str()
        .and_then(|command| command.split_once("BAETYL_INIT__TOKEN="))
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .context("no token in the command")?;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let mut params = rcgen::CertificateParams::default();
    // The cloud writes the names.
    params.distinguished_name = rcgen::DistinguishedName::new();
    let csr = params.serialize_request(&key)?;
    // Between the lines of a PEM file stands what protobuf's JSON wants for bytes.
    let pem = csr.pem()?;
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let answer = activation.call(
        "baetyl.activation.v1.ActivationService/Activate",
        &json!({"installToken": token, "csr": der}),
    )?;
    let certificate = |field: &str| -> Result<String> {
        let body = answer[field][0].as_str().context("no certificate")?;
        Ok(format!(
            "-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
        ))
    };
    Ok(Enrolled {
        key: key.serialize_pem(),
        certificate: certificate("certificateChain")?,
        authority: certificate("trustedAuthorities")?,
    })
}

async fn health_is_served_in_plaintext_on_the_admin_port_of_each_program(
    shape: Shape,
) -> Result<()> {
    let world = World::start(shape).await?;
    for service in world.edge.services() {
        let address = world.edge.address(&format!("{service}-admin"))?;
        let rest = baetyl_tests::rest::Rest::new(&format!("http://{address}"), None);
        for (path, word) in [("/livez", ""), ("/readyz", ""), ("/metrics", "# TYPE")] {
            let answer = rest
                .send(http::Method::GET, path, &[], bytes::Bytes::new())
                .await?;
            let text = String::from_utf8_lossy(&answer.bytes).into_owned();
            ensure!(
                answer.status == 200 && text.contains(word),
                "{service}{path}: {} {text}",
                answer.status
            );
        }
    }
    Ok(())
}
