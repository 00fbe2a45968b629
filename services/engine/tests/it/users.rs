//! Applications under users of their own: only root can do that.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use baetyl_testkit::eventually;
use serde_json::json;

use crate::node::{App, Node};

/// Says who it is, what it can reach and what it cannot, then serves.
const LOOK: &str = r#"echo said > /dev/stdout && touch scratch/said
{ id -u; id -G; cat token > /dev/null && echo token; cat var/cred/password; echo
touch scratch/mine && echo scratch; touch host/mine && echo host; [ -w "$HOME" ] && echo home
cat "$BAETYL_HOST_PATH_LIB/engine/app.key" > /dev/null || echo no key
ls "$BAETYL_HOST_PATH_LIB/engine" || echo no list
ls "$BAETYL_HOST_PATH_LIB/run/core" || echo no core
ls "$BAETYL_HOST_PATH_LIB/run" > /dev/null && echo sockets
[ -e scratch/said ] && echo said; } > scratch/seen 2> /dev/null
exec sleep 600"#;

fn app(name: &str, version: &str, security: serde_json::Value) -> App {
    let mounts = json!([
        {"name": "cred", "mountPath": "/var/cred"}, {"name": "tmp", "mountPath": "/scratch"},
        {"name": "data", "mountPath": "/host"}]);
    let more = json!({"volumeMounts": mounts, "security": security});
    let cred = format!("{name}-cred");
    App::script(name, version, LOOK, more)
        .with(|body| {
            let volumes = body["volumes"].as_array_mut().unwrap();
            volumes.push(json!({"name": "cred", "secret": {"name": cred, "version": "1"}}));
            volumes.push(json!({"name": "tmp", "emptyDir": {}}));
            volumes.push(json!({"name": "data", "hostPath": {"path": name}}));
        })
        .secret(&cred, "1", json!({"password": "aHVudGVy"}))
}

/// A node whose data directory others can pass; None where tests do not run as root.
async fn node() -> Option<Node> {
    if !rustix::process::geteuid().is_root() {
        baetyl_testkit::skipped("root");
        return None;
    }
    Some(node_in(0o711).await)
}

/// A node whose data directory has this mode.
async fn node_in(mode: u32) -> Node {
    let mut node = Node::new().await;
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(node.dir.path(), mode).unwrap();
    node.start().await;
    node
}

fn owner(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().uid()
}

fn has_condition(node: &Node, kind: &str) -> bool {
    let statuses = node.peers.statuses.lock().unwrap();
    statuses.last().is_some_and(|status| {
        status
            .conditions
            .iter()
            .any(|condition| condition.r#type == kind)
    })
}

#[tokio::test]
async fn an_application_runs_as_its_own_user_and_reaches_what_is_its_own() {
    let Some(mut node) = node().await else { return };
    node.desire(1, &[&app("shop", "1", json!({}))]);
    node.until("shop", "Healthy 1").await;
    eventually!(node.read("shop", "1", "scratch/seen").contains("said"));
    assert_eq!(
        node.read("shop", "1", "scratch/seen"),
        "70000\n70000\ntoken\nhunter\nscratch\nhost\nhome\nno key\nno list\nno core\nsockets\nsaid\n"
    );
    let key = "var/lib/baetyl/system/certs/key.pem";
    assert_eq!(owner(&node.instance("shop", "1").join(key)), 70_000);
    assert!(!has_condition(&node, "AppsShareUser"));
    // Another one has another user, and the first keeps its own: in a new version, and after engine lost its record.
    let (next, other) = (app("shop", "2", json!({})), app("cafe", "1", json!({})));
    node.desire(2, &[&next, &other]);
    node.until("shop", "Healthy 2").await;
    node.until("cafe", "Healthy 1").await;
    let users = |node: &Node| {
        let of = |app: &str, version: &str| owner(&node.instance(app, version));
        (of("shop", "2"), of("cafe", "1"))
    };
    assert_eq!(users(&node), (70_000, 70_001));
    node.kill().await;
    std::fs::remove_file(node.dir.join("engine/engine.redb")).unwrap();
    node.start().await;
    let third = app("apple", "1", json!({}));
    node.desire(3, &[&next, &other, &third]);
    node.until("apple", "Healthy 1").await;
    assert_eq!(owner(&node.instance("apple", "1")), 70_002);
    node.until("shop", "Healthy 2").await;
    assert_eq!(users(&node), (70_000, 70_001));
}

#[tokio::test]
async fn a_privileged_service_is_root() {
    let Some(node) = node().await else { return };
    node.desire(1, &[&app("shop", "1", json!({"privileged": true}))]);
    node.until("shop", "Healthy 1").await;
    eventually!(node.read("shop", "1", "scratch/seen").starts_with("0\n"));
}

#[tokio::test]
async fn in_a_private_directory_applications_run_as_the_user_of_engine_and_that_is_told() {
    if !rustix::process::geteuid().is_root() {
        baetyl_testkit::skipped("root");
        return;
    }
    let node = node_in(0o700).await;
    node.desire(1, &[&app("shop", "1", json!({}))]);
    node.until("shop", "Healthy 1").await;
    eventually!(node.read("shop", "1", "scratch/seen").starts_with("0\n"));
    eventually!(has_condition(&node, "AppsShareUser"));
}
