//! A node with engine on it: real socket, real store, real processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baetyl_engine::Config;
use baetyl_kit::grpc::{Client, Endpoint, connect_lazy};
use baetyl_kit::{Kit, crypto};
use baetyl_proto::engine::engine_service_client::EngineServiceClient;
use baetyl_proto::{resource, shadow};
use baetyl_testkit::{PATIENCE, TestDir, eventually};
use prost::Message as _;
use serde_json::{Value, json};

use crate::peers::Peers;

/// The node under test. Everything it started ends with it.
pub(crate) struct Node {
    pub(crate) dir: TestDir,
    pub(crate) peers: Arc<Peers>,
    pub(crate) config: Config,
    peers_kit: Option<Kit>,
    engine: Option<Kit>,
}

fn shim() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let profile = deps.parent().unwrap().parent().unwrap();
    let candidates = [profile.join("examples/shim"), profile.join("baetyl-shim")];
    let found = candidates.into_iter().find(|path| path.exists());
    found.expect("run `cargo test -p baetyl-engine` without a filter once: it builds the shim among the examples")
}

/// Ports no other node of these tests hands out, and the system to nobody: tests run side by side.
fn ports() -> (u16, u16) {
    use std::sync::atomic::{AtomicU16, Ordering};
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 100;
    const RANGES: u16 = 120;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(RANGES)).unwrap();
    let range = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % RANGES;
    let first = FIRST + range * COUNT;
    (first, first + COUNT - 1)
}

impl Node {
    /// Node and sync answer, engine does not run yet.
    pub(crate) async fn new() -> Self {
        let dir = TestDir::new();
        let mut config = Config::default();
        config.native.shim = Some(shim());
        (config.native.port_min, config.native.port_max) = ports();
        config.native.cgroups = false;
        config.native.secrets_in_memory = false;
        config.native.restart_backoff = Duration::from_millis(20);
        config.native.restart_backoff_max = Duration::from_millis(50);
        config.update.min_ready = Duration::from_millis(300);
        config.report.gather = Duration::from_millis(5);
        let peers = Peers::new(dir.join("sync-objects"));
        let mut node = Self {
            dir,
            peers,
            config,
            peers_kit: None,
            engine: None,
        };
        node.bring_peers().await;
        node
    }

    pub(crate) async fn started() -> Self {
        let mut node = Self::new().await;
        node.start().await;
        node
    }

    /// Node and sync answer.
    pub(crate) async fn bring_peers(&mut self) {
        let kit = Kit::for_test(self.dir.path()).child("peers");
        self.peers.serve(&kit).await;
        self.peers_kit = Some(kit);
    }

    /// Node and sync are gone.
    pub(crate) async fn lose_peers(&mut self) {
        let kit = self.peers_kit.take().unwrap();
        let _ = kit.stop(Duration::ZERO).await;
    }

    pub(crate) async fn start(&mut self) {
        let kit = Kit::for_test(self.dir.path()).child("engine");
        kit.tasks()
            .spawn("run", baetyl_engine::run(self.config.clone(), kit.clone()));
        self.engine = Some(kit);
        let api = self.api();
        eventually!(
            api.clone()
                .list_apps(baetyl_proto::engine::ListAppsRequest::default())
                .await
                .is_ok()
        );
        self.engine
            .as_ref()
            .unwrap()
            .readiness()
            .until_ready()
            .await;
    }

    /// Engine ends as it does when it is killed: nothing is told to anybody.
    pub(crate) async fn kill(&mut self) {
        let kit = self.engine.take().unwrap();
        kit.tasks().abort();
        let _ = kit.stop(Duration::from_secs(5)).await;
    }

    pub(crate) fn api(&self) -> EngineServiceClient<Client> {
        self.api_as("admin")
    }

    pub(crate) fn api_as(&self, role: &str) -> EngineServiceClient<Client> {
        let endpoint = Endpoint::unix(self.dir.join("run/core/engine.sock"));
        EngineServiceClient::new(connect_lazy(&endpoint, role).unwrap())
    }

    /// Node accepted a desire for exactly these.
    pub(crate) fn desire(&self, generation: u64, apps: &[&App]) {
        let mut bodies = self.peers.bodies.lock().unwrap();
        for app in apps {
            bodies.extend(app.bodies.clone());
            for (digest, bytes) in &app.objects {
                std::fs::write(self.peers.objects.join(&digest[7..]), bytes).unwrap();
            }
        }
        drop(bodies);
        let mut apps: Vec<_> = apps.iter().map(|app| app.wire.clone()).collect();
        apps.sort_by_key(|app| app.app.as_ref().unwrap().name.clone());
        let mut desire = shadow::Desire {
            namespace: "default".to_owned(),
            node_name: "edge-1".to_owned(),
            node_uid: "uid-1".to_owned(),
            epoch: 0,
            generation,
            digest: String::new(),
            apps,
            node_properties: Vec::new(),
            core: None,
        };
        desire.digest = baetyl_proto::digest::of_desire(&desire).to_string();
        let payload = desire.encode_to_vec().into();
        self.peers.desire.send_replace(Some(shadow::SignedDesire {
            payload,
            signatures: Vec::new(),
        }));
    }

    /// The newest status of an application.
    pub(crate) fn status(&self, app: &str) -> Option<shadow::AppStatus> {
        let statuses = self.peers.statuses.lock().unwrap();
        statuses
            .last()?
            .apps
            .iter()
            .find(|status| status.name == app)
            .cloned()
    }

    /// Waits until the report says `<phase> <version>` of an application.
    pub(crate) async fn until(&self, app: &str, phase: &str) {
        let what = format!("{app} is {phase}");
        let holds = || {
            self.status(app)
                .is_some_and(|status| format!("{} {}", status.phase, status.version) == phase)
        };
        eventually(PATIENCE, &what, async || holds()).await;
    }

    /// Pid of the first instance.
    pub(crate) fn pid(&self, app: &str) -> u64 {
        self.status(app)
            .and_then(|status| status.instances.first().map(|instance| instance.pid))
            .unwrap_or(0)
    }

    /// Directory of the first instance of service `web`.
    pub(crate) fn instance(&self, app: &str, version: &str) -> PathBuf {
        self.dir
            .join(format!("engine/run/baetyl-edge/{app}/{version}/web/1"))
    }

    /// A file in that directory; empty while it is absent.
    pub(crate) fn read(&self, app: &str, version: &str, file: &str) -> String {
        std::fs::read_to_string(self.instance(app, version).join(file)).unwrap_or_default()
    }

    /// Ends all applications, as a power cut would.
    pub(crate) fn kill_apps(&self) {
        for pid in self.pids() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Every process that was started for this data directory, shims first.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let mark = self.dir.path().display().to_string();
        let holds = |pid: &i32, file: &str| {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            bytes
                .windows(mark.len())
                .any(|window| window == mark.as_bytes())
        };
        let all = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let own = i32::try_from(std::process::id()).unwrap();
        let mut ours: Vec<i32> = all
            .filter(|pid| *pid != own && (holds(pid, "cmdline") || holds(pid, "environ")))
            .collect();
        ours.sort_by_key(|pid| !holds(pid, "cmdline"));
        ours
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(kit) = &self.engine {
            kit.tasks().abort();
        }
        // Twice: a shim that was about to start its program may do so between.
        self.kill_apps();
        self.kill_apps();
    }
}

/// One version of an application, as the cloud made it.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) wire: shadow::DesiredApp,
    bodies: BTreeMap<String, Vec<u8>>,
    objects: BTreeMap<String, Vec<u8>>,
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", crypto::sha256_hex(bytes))
}

impl App {
    /// From its body; name and version are put in.
    pub(crate) fn new(name: &str, version: &str, mut body: Value) -> Self {
        body["name"] = json!(name);
        body["version"] = json!(version);
        let mut app = Self {
            wire: shadow::DesiredApp::default(),
            bodies: BTreeMap::new(),
            objects: BTreeMap::new(),
        };
        app.wire.app =
            Some(app.reference(resource::ResourceKind::Application, name, version, &body));
        app
    }

    fn reference(
        &mut self,
        kind: resource::ResourceKind,
        name: &str,
        version: &str,
        body: &Value,
    ) -> resource::ResourceRef {
        let bytes = serde_json::to_vec(body).unwrap();
        let reference = resource::ResourceRef {
            kind: kind.into(),
            name: name.to_owned(),
            version: version.to_owned(),
            digest: digest(&bytes),
            size: bytes.len() as u64,
        };
        self.bytes(bytes);
        reference
    }

    fn bytes(&mut self, bytes: Vec<u8>) {
        self.bodies.insert(digest(&bytes), bytes);
    }

    /// A program: service `web` runs the script, with what `more` adds to the service.
    pub(crate) fn script(name: &str, version: &str, script: &str, more: Value) -> Self {
        let mut service = json!({"name": "web", "volumeMounts": [{"name": "program", "mountPath": "/var/lib/baetyl/bin"}]});
        for (key, value) in more.as_object().unwrap() {
            match (service.get_mut(key), value) {
                (Some(Value::Array(have)), Value::Array(add)) => have.extend(add.clone()),
                _ => service[key] = value.clone(),
            }
        }
        let program = format!("{name}-program");
        let body = json!({"mode": "native", "services": [service], "volumes": [{"name": "program", "config": {"name": program}}]});
        let data =
            json!({"program.yml": "entry: run.sh\n", "run.sh": format!("#!/bin/sh\n{script}\n")});
        Self::new(name, version, body).configuration(&program, version, data)
    }

    /// Adds to the application's body.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let reference = self.wire.app.take().unwrap();
        let mut body: Value = serde_json::from_slice(&self.bodies[&reference.digest]).unwrap();
        change(&mut body);
        self.wire.app = Some(self.reference(
            resource::ResourceKind::Application,
            &reference.name,
            &reference.version,
            &body,
        ));
        self
    }

    pub(crate) fn configuration(mut self, name: &str, version: &str, data: Value) -> Self {
        let body = json!({"name": name, "version": version, "data": data});
        let reference = self.reference(resource::ResourceKind::Configuration, name, version, &body);
        self.wire.resources.push(reference);
        self
    }

    pub(crate) fn secret(mut self, name: &str, version: &str, data: Value) -> Self {
        let body = json!({"name": name, "version": version, "data": data, "salt": "AAAAAAAAAAAAAAAAAAAAAA=="});
        let reference = self.reference(resource::ResourceKind::Secret, name, version, &body);
        self.wire.resources.push(reference);
        self
    }

    pub(crate) fn object(
        mut self,
        configuration: &str,
        file: &str,
        bytes: &[u8],
        unpack: &str,
    ) -> Self {
        self.wire.objects.push(resource::ObjectRef {
            digest: digest(bytes),
            size: bytes.len() as u64,
            url: String::new(),
            configuration: configuration.to_owned(),
            configuration_version: "1".to_owned(),
            file_name: file.to_owned(),
            unpack: unpack.to_owned(),
        });
        self.objects.insert(digest(bytes), bytes.to_vec());
        self
    }
}
