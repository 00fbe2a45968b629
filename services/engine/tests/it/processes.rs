//! Real programs from version to version.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use baetyl_testkit::eventually;
use serde_json::json;

use crate::node::{App, Node};

/// Runs until it is told to end.
const SERVE: &str = "echo started $BAETYL_APP_VERSION\nexec sleep 600";

#[tokio::test]
async fn an_application_sees_its_files_its_secrets_and_who_it_is() {
    let node = Node::started().await;
    let mounts = json!([
        {"name": "conf", "mountPath": "/etc/baetyl"},
        {"name": "cred", "mountPath": "/var/cred"},
        {"name": "tmp", "mountPath": "/scratch"}]);
    let script =
        format!("env > env.txt\ncat etc/baetyl/conf.yml var/cred/password > scratch/seen\n{SERVE}");
    let app = App::script(
        "shop",
        "1",
        &script,
        json!({"volumeMounts": mounts, "env": [{"name": "SIZE", "value": "9"}]}),
    )
    .with(|body| {
        let volumes = body["volumes"].as_array_mut().unwrap();
        volumes.push(json!({"name": "conf", "config": {"name": "shop-conf", "version": "1"}}));
        volumes.push(json!({"name": "cred", "secret": {"name": "shop-cred", "version": "1"}}));
        volumes.push(json!({"name": "tmp", "emptyDir": {}}));
    })
    .configuration("shop-conf", "1", json!({"conf.yml": "port: 1\n"}))
    .secret("shop-cred", "1", json!({"password": "aHVudGVy"}));
    node.desire(1, &[&app]);
    node.until("shop", "Healthy 1").await;
    assert_eq!(node.read("shop", "1", "scratch/seen"), "port: 1\nhunter");
    let env = node.read("shop", "1", "env.txt");
    for line in [
        "BAETYL_APP_NAME=shop",
        "BAETYL_NODE_NAME=edge-1",
        "BAETYL_RUN_MODE=native",
        "SIZE=9",
    ] {
        assert!(
            env.lines().any(|found| found == line),
            "{line} is not in\n{env}"
        );
    }
    assert!(
        !env.contains("CARGO"),
        "the environment of engine is not inherited"
    );
    let mode = |file: &str| {
        std::fs::metadata(node.instance("shop", "1").join(file))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("var/cred/password"), mode("token")), (0o600, 0o600));
    let key = node.peers.key.lock().unwrap().clone();
    let claims = baetyl_proto::token::verify(&node.read("shop", "1", "token"), &key).unwrap();
    assert_eq!(
        (claims.app.as_str(), claims.instance.as_str()),
        ("shop", "baetyl-edge.shop.1.web.1")
    );
}

#[tokio::test]
async fn an_engine_that_was_killed_finds_its_applications_again() {
    let mut node = Node::started().await;
    node.desire(1, &[&App::script("shop", "1", SERVE, json!({}))]);
    node.until("shop", "Healthy 1").await;
    let before = node.status("shop").unwrap().instances.remove(0);
    node.kill().await;
    node.peers.statuses.lock().unwrap().clear();
    node.start().await;
    node.until("shop", "Healthy 1").await;
    eventually!(node.pid("shop") != 0);
    let after = node.status("shop").unwrap().instances.remove(0);
    assert_eq!(
        (after.pid, after.start_time, after.restarts),
        (before.pid, before.start_time, 0)
    );
    assert_eq!(after.ports, before.ports);
}

#[tokio::test]
async fn after_a_power_cut_applications_start_with_nobody_there() {
    let mut node = Node::started().await;
    node.desire(1, &[&App::script("shop", "1", SERVE, json!({}))]);
    node.until("shop", "Healthy 1").await;
    let before = node.pid("shop");
    node.kill().await;
    node.kill_apps();
    node.lose_peers().await;
    node.start().await;
    let api = node.api();
    let running = async || {
        let request = baetyl_proto::engine::GetAppRequest {
            name: "shop".to_owned(),
        };
        let app = api.clone().get_app(request).await.ok()?.into_inner().app?;
        app.instances.first().map(|instance| instance.pid)
    };
    eventually!(running().await.is_some_and(|pid| pid != 0 && pid != before));
}

#[tokio::test]
async fn a_new_version_takes_over_when_it_is_ready_and_the_old_one_leaves_nothing() {
    let node = Node::started().await;
    let ready = json!({"readinessProbe": {"exec": {"command": ["test", "-e", "ready"]}, "periodSeconds": 1}});
    node.desire(1, &[&App::script("shop", "1", SERVE, json!({}))]);
    node.until("shop", "Healthy 1").await;
    let old = node.pid("shop");
    node.desire(2, &[&App::script("shop", "2", SERVE, ready)]);
    node.until("shop", "Probing 2").await;
    eventually!(node.pid("shop") != 0 && node.pid("shop") != old);
    assert!(
        std::path::Path::new(&format!("/proc/{old}")).exists(),
        "the old version serves"
    );
    std::fs::write(node.instance("shop", "2").join("ready"), "").unwrap();
    node.until("shop", "Healthy 2").await;
    for left in ["engine/run/baetyl-edge/shop/1", "log/baetyl-edge/shop/1"] {
        eventually!(!node.dir.join(left).exists());
    }
    assert!(!std::path::Path::new(&format!("/proc/{old}")).exists());
}

#[tokio::test]
async fn a_release_that_crashes_is_undone_and_its_log_can_be_read() {
    let node = Node::started().await;
    node.desire(1, &[&App::script("shop", "1", SERVE, json!({}))]);
    node.until("shop", "Healthy 1").await;
    let before = node.pid("shop");
    node.desire(
        2,
        &[&App::script(
            "shop",
            "2",
            "echo out of order >&2\nexit 3",
            json!({}),
        )],
    );
    node.until("shop", "RolledBack 1").await;
    let status = node.status("shop").unwrap();
    assert_eq!(status.failed_version, "2");
    assert!(
        status.failed_reason.contains("exit code 3"),
        "{}",
        status.failed_reason
    );
    assert_eq!(node.pid("shop"), before);
    let log = std::fs::read_to_string(node.dir.join("log/baetyl-edge/shop/2/web-1.log")).unwrap();
    assert!(log.contains("out of order"));
    eventually!(
        node.peers
            .events
            .lock()
            .unwrap()
            .iter()
            .any(|event| event.reason == "AppRolledBack")
    );
}

#[tokio::test]
async fn a_release_whose_program_is_missing_is_undone_at_once() {
    let node = Node::started().await;
    node.desire(1, &[&App::script("shop", "1", SERVE, json!({}))]);
    node.until("shop", "Healthy 1").await;
    node.desire(
        2,
        &[&App::script(
            "shop",
            "2",
            "",
            json!({"command": ["/no/such/program"]}),
        )],
    );
    node.until("shop", "RolledBack 1").await;
    let reason = node.status("shop").unwrap().failed_reason;
    assert!(reason.contains("/no/such/program"), "{reason}");
}

#[tokio::test]
async fn a_probe_that_never_passes_is_undone_at_the_deadline() {
    let mut node = Node::new().await;
    node.config.update.progress_deadline = Duration::from_millis(500);
    node.start().await;
    node.desire(1, &[&App::script("shop", "1", SERVE, json!({}))]);
    node.until("shop", "Healthy 1").await;
    let never = json!({"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}});
    node.desire(2, &[&App::script("shop", "2", SERVE, never)]);
    node.until("shop", "RolledBack 1").await;
    assert!(
        node.status("shop")
            .unwrap()
            .failed_reason
            .contains("not ready within")
    );
}

#[tokio::test]
async fn a_removed_application_leaves_no_process_and_no_file() {
    let node = Node::started().await;
    node.desire(1, &[&App::script("shop", "1", SERVE, json!({}))]);
    node.until("shop", "Healthy 1").await;
    node.desire(2, &[]);
    eventually!(node.status("shop").is_none() && node.pids().is_empty());
    for left in [
        "engine/run/baetyl-edge/shop",
        "engine/state/baetyl-edge/shop",
        "log/baetyl-edge/shop",
    ] {
        assert!(!node.dir.join(left).exists(), "{left}");
    }
    eventually!(node.peers.pins.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_package_and_its_objects_are_unpacked_and_started() {
    let node = Node::started().await;
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content, mode) in [
        ("program.yml", "entry: bin/serve\n", 0o644),
        (
            "bin/serve",
            "#!/bin/sh\necho from the package > where\nexec sleep 600\n",
            0o755,
        ),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        tar.append_data(&mut header, name, content.as_bytes())
            .unwrap();
    }
    let package = tar.into_inner().unwrap();
    let body = json!({"services": [{"name": "web", "volumeMounts": [{"name": "program", "mountPath": "/var/lib/baetyl/bin"}]}],
        "volumes": [{"name": "program", "config": {"name": "pack"}}]});
    let app = App::new("shop", "1", body)
        .configuration("pack", "1", json!({"_object_app.tar": "{}"}))
        .object("pack", "app.tar", &package, "tar");
    node.desire(1, &[&app]);
    node.until("shop", "Healthy 1").await;
    assert_eq!(node.read("shop", "1", "where"), "from the package\n");
}

#[tokio::test]
async fn a_function_application_starts_its_runtime_with_functions_and_code() {
    let mut node = Node::new().await;
    let runtime = node.dir.write(
        "runtime.sh",
        "#!/bin/sh\ncat $BAETYL_FUNCTIONS_FILE $BAETYL_CODE_PATH/index.py > seen\nexec sleep 600\n",
    );
    std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o755)).unwrap();
    let command = vec![runtime.display().to_string()];
    node.config.runtimes.insert(
        "python3".to_owned(),
        baetyl_engine::FunctionRuntime {
            command,
            image: None,
        },
    );
    node.start().await;
    let service = json!({"name": "web", "functionConfig": {"name": "code", "runtime": "python3"},
        "functions": [{"name": "hello", "handler": "index.handler"}]});
    let app = App::new(
        "greet",
        "1",
        json!({"type": "function", "services": [service]}),
    )
    .configuration(
        "code",
        "1",
        json!({"index.py": "def handler(event, context): pass\n"}),
    );
    node.desire(1, &[&app]);
    node.until("greet", "Healthy 1").await;
    let seen = node.read("greet", "1", "seen");
    assert!(
        seen.contains(r#""handler":"index.handler""#) && seen.contains("def handler"),
        "{seen}"
    );
}

/// The same process, listening where it listened, with a token that is valid now.
async fn lives_on(lose: impl FnOnce(&Node)) {
    let mut node = Node::started().await;
    let web = json!({"ports": [{"containerPort": 80}, {"containerPort": 81}]});
    node.desire(1, &[&App::script("shop", "1", SERVE, web)]);
    node.until("shop", "Healthy 1").await;
    let before = node.status("shop").unwrap().instances.remove(0);
    node.kill().await;
    lose(&node);
    // Whatever is handed out anew would be another port.
    node.config.native.port_min += 50;
    node.peers.statuses.lock().unwrap().clear();
    node.start().await;
    node.until("shop", "Healthy 1").await;
    let after = node.status("shop").unwrap().instances.remove(0);
    assert_eq!((after.pid, after.ports), (before.pid, before.ports));
    let key = node.peers.key.lock().unwrap().clone();
    baetyl_proto::token::verify(&node.read("shop", "1", "token"), &key).unwrap();
}

#[tokio::test]
async fn a_lost_directory_of_engine_stops_no_application() {
    lives_on(|node| std::fs::remove_dir_all(node.dir.join("engine")).unwrap()).await;
}

#[tokio::test]
async fn a_damaged_store_stops_no_application() {
    lives_on(|node| std::fs::write(node.dir.join("engine/engine.redb"), [7; 9000]).unwrap()).await;
}

#[tokio::test]
async fn without_a_desire_what_runs_without_records_is_reported_and_left_alone() {
    let mut node = Node::started().await;
    node.desire(1, &[&App::script("shop", "1", SERVE, json!({}))]);
    node.until("shop", "Healthy 1").await;
    let before = node.pids();
    node.kill().await;
    std::fs::remove_dir_all(node.dir.join("engine")).unwrap();
    node.peers.statuses.lock().unwrap().clear();
    node.peers.desire.send_replace(None);
    node.start().await;
    eventually!(
        node.status("shop")
            .is_some_and(|shop| shop.cause.contains("without a record"))
    );
    assert_eq!(node.pids(), before);
    node.desire(2, &[]);
    eventually!(node.pids().is_empty() && node.status("shop").is_none());
}

#[tokio::test]
async fn an_application_has_certificates_of_the_node_that_no_restart_of_engine_takes_away() {
    let mut node = Node::started().await;
    node.desire(1, &[&App::script("shop", "1", SERVE, json!({}))]);
    node.until("shop", "Healthy 1").await;
    let certificates = node
        .instance("shop", "1")
        .join("var/lib/baetyl/system/certs");
    let read = |file: &str| std::fs::read_to_string(certificates.join(file)).unwrap();
    let metadata = std::fs::metadata(certificates.join("key.pem")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let (ca, certificate, pid) = (read("ca.pem"), read("crt.pem"), node.pid("shop"));
    assert!(read("key.pem").starts_with("-----BEGIN PRIVATE KEY-----"));
    node.kill().await;
    node.start().await;
    node.until("shop", "Healthy 1").await;
    assert_eq!((node.pid("shop"), read("crt.pem")), (pid, certificate));
    node.kill_apps();
    eventually!(node.pid("shop") != pid && node.pid("shop") != 0);
    assert_eq!(read("ca.pem"), ca, "the authority is the same");
}
