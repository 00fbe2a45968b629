//! Parts of the node die or hang: applications notice nothing, and the report says what nobody knows.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::wait::until_within;
use serde_json::{Value, json};

use crate::node::{CORE, IDLE, NODE, Node, PATIENCE, SYSTEM, USERS, busybox, web};
use crate::volumes::{object, upload, with_volumes};

/// How long the API server hangs.
const HANGS: Duration = Duration::from_secs(60);

#[tokio::test]
async fn while_the_api_server_hangs_nothing_restarts_and_the_report_says_unknown() -> Result<()> {
    let node = Node::alone().await?;
    let Some(bed) = node.cluster.bed() else {
        return Ok(());
    };
    let app = node.run(&web(&node, "through", "through")).await?;
    node.until_page("through", "through").await?;
    let (server, before) = (
        node.server_of("through").await?,
        node.lives("through").await?,
    );
    let core = core_lives(&node).await?;
    let paused = bed.pause_api().await?;
    let unknown = |told: &Value| told["status"] == "Unknown" && told["version"] == app["version"];
    let told = until_within(PATIENCE, "the report says unknown", || async {
        let told = node.app("through").await?;
        ensure!(unknown(&told), "{told}");
        Ok(())
    });
    let (told, ()) = tokio::join!(told, tokio::time::sleep(HANGS));
    told?;
    let (still, page) = (
        node.app("through").await?,
        crate::node::page_at(&server, "/").await?,
    );
    drop(paused);
    ensure!(unknown(&still), "{still}");
    ensure!(page.trim() == "through", "{page}");
    node.until_running(&app).await?;
    ensure!(node.lives("through").await? == before);
    ensure!(
        core_lives(&node).await? == core,
        "a core service was restarted"
    );
    ensure!(node.view().await?["ready"] == 1);
    node.delete("through").await
}

/// Pods of the core services and how often they were started.
async fn core_lives(node: &Node) -> Result<Vec<(String, u64)>> {
    let mut lives = Vec::new();
    for name in CORE {
        let selector = format!("app.kubernetes.io/name={name}");
        let pods: Vec<Value> = node.system().list("pods", &selector).await?;
        for pod in pods {
            let name = pod["metadata"]["name"]
                .as_str()
                .context("a name")?
                .to_owned();
            let starts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
            lives.push((name, starts.unwrap_or(0)));
        }
    }
    Ok(lives)
}

#[tokio::test]
async fn whichever_core_service_is_killed_no_application_restarts() -> Result<()> {
    let node = Node::alone().await?;
    if node.cluster.bed().is_none() {
        return Ok(());
    }
    let mut app = node.run(&web(&node, "unmoved", "unmoved")).await?;
    let before = node.lives("unmoved").await?;
    for (round, service) in CORE.iter().enumerate() {
        node.kill_core(service).await?;
        node.until_core_is_ready().await?;
        node.until_online().await?;
        node.until_running(&app).await.context(*service)?;
        ensure!(node.lives("unmoved").await? == before, "{service}");
        // The node does what is wished as before.
        if round + 1 == CORE.len() {
            crate::node::set_env(&mut app, "AFTER", service);
            app = node.change(&app).await?;
            node.until_running(&app).await?;
        }
    }
    node.delete("unmoved").await
}

#[tokio::test]
async fn a_core_service_that_loses_its_volume_finds_itself_again_without_activation() -> Result<()>
{
    let node = Node::alone().await?;
    let Some(bed) = node.cluster.bed() else {
        return Ok(());
    };
    let app = node.run(&web(&node, "kept", "kept")).await?;
    upload(&node, "e2e-kept", b"a large file".to_vec()).await?;
    let config =
        json!({"name": "kept-model", "data": [{"key": "file", "value": object("e2e-kept", "")}]});
    node.make("configs", &config).await?;
    let volume = json!({"name": "model", "config": {"name": "kept-model"}});
    let model = with_volumes(busybox(&node, "kept-model", IDLE), &[("/model", volume)]);
    let model = node.run(&model).await?;
    let before = node.lives("kept").await?;
    let activated = activations(&node).await?;
    // In the dark there is nobody to ask.
    node.cloud.leave().await?;
    for (service, directory) in [
        ("baetyl-sync", "sync"),
        ("baetyl-engine", "engine"),
        ("baetyl-node", "node"),
    ] {
        node.system().scale("deployment", service, 0).await?;
        until_within(PATIENCE, &format!("{service} is gone"), || async {
            let selector = format!("app.kubernetes.io/name={service}");
            let left = node.system().names("pods", &selector).await?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
        let data = bed.path(&format!("lib/core/{directory}"));
        ensure!(data.exists(), "{} is not there", data.display());
        empty(&data)?;
        node.system().scale("deployment", service, 1).await?;
        node.until_core_is_ready().await.context(service)?;
    }
    node.cloud.come_back().await?;
    node.until_online().await?;
    node.until_running(&app).await?;
    ensure!(
        node.lives("kept").await? == before,
        "an application was restarted"
    );
    ensure!(
        activations(&node).await? == activated,
        "it was activated again"
    );
    // Sync fetched its objects once more: a machine that lost its copies, too, gets them.
    empty(&bed.path("lib/objects"))?;
    node.renew(&model).await?;
    ensure!(node.sh("kept-model", "cat /model/file").await? == "a large file");
    node.delete("kept-model").await?;
    let mut next = app;
    crate::node::set_env(&mut next, "AFTER", "the loss");
    let next = node.change(&next).await?;
    node.until_running(&next).await?;
    node.delete("kept").await
}

/// Removes all that is in a directory.
fn empty(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(path)?;
        } else {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// What the certificate of the node is: it changes with an activation.
async fn activations(node: &Node) -> Result<String> {
    let identity = node
        .system()
        .secret("baetyl-core-identity", "identity.json")
        .await?;
    let identity: Value = serde_json::from_str(&identity)?;
    Ok(identity.to_string())
}

#[tokio::test]
async fn what_others_change_is_put_right_and_what_is_not_ours_is_left_alone() -> Result<()> {
    let node = Node::shared().await?;
    // Somebody made an object of that name before.
    node.users()
        .apply("{apiVersion: v1, kind: Service, metadata: {name: taken}, spec: {ports: [{port: 1}], selector: {a: b}}}")
        .await?;
    let app = node.create(&web(&node, "taken", "taken")).await?;
    node.until_failed(&app, "Service").await?;
    let service: Value = node.users().get("service", "taken").await?;
    ensure!(
        service["spec"]["selector"] == json!({"a": "b"}),
        "{service}"
    );
    node.rest.delete("/v1/apps/taken").await?;
    node.users().delete("service", "taken").await?;

    // Somebody deletes ours, one after the other.
    let config = baetyl_tests::apps::config("missed", &[("greeting", "hello")]);
    node.make("configs", &config).await?;
    let mut web = web(&node, "missed", "missed");
    web["volumes"] = json!([{"name": "conf", "config": {"name": "missed"}}]);
    web["services"][0]["volumeMounts"] = json!([{"name": "conf", "mountPath": "/conf"}]);
    let app = node.run(&web).await?;
    let content = content_of(&node, "missed-").await?;
    for (kind, name) in [
        ("deployment", "missed"),
        ("service", "missed"),
        ("configmap", content.as_str()),
        ("secret", "baetyl-id-missed"),
    ] {
        is_put_back(&node, kind, name).await?;
    }
    until_within(PATIENCE, "the Deployment is ready", || async {
        let made: Value = node.users().get("deployment", "missed").await?;
        ensure!(made["status"]["readyReplicas"] == 1);
        Ok(())
    })
    .await?;
    // Somebody takes a field away.
    let patch = r#"[{"op": "remove", "path": "/spec/selector"}]"#;
    let args = [
        "-n",
        USERS,
        "patch",
        "service",
        "missed",
        "--type=json",
        "-p",
        patch,
    ];
    node.cluster.kubectl().run(&args).await?;
    until_within(PATIENCE, "the field is applied again", || async {
        let made: Value = node.users().get("service", "missed").await?;
        ensure!(
            made["spec"]["selector"] == json!({"baetyl-app-name": "missed"}),
            "{made}"
        );
        Ok(())
    })
    .await?;
    node.until_running(&app).await?;
    node.until_page("missed", "missed").await?;
    node.delete("missed").await?;
    node.rest.delete("/v1/configs/missed").await?;

    // The same of what an author wrote.
    let map =
        "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: missed-map}, data: {a: b}}\n";
    let all = format!(
        "{}{map}",
        crate::yaml::deployment(&node, "missed-yaml", "mine")
    );
    let app = crate::yaml::apply(&node, "missed-app", &all).await?;
    node.until_running(&app).await?;
    for (kind, name) in [
        ("configmap", "missed-map"),
        ("deployment", "missed-yaml"),
        ("service", "missed-yaml"),
    ] {
        is_put_back(&node, kind, name).await?;
    }
    node.until_running(&app).await?;
    node.until_page("missed-yaml", "mine").await?;
    node.delete("missed-app").await
}

/// Name of the ConfigMap a configuration has become.
async fn content_of(node: &Node, prefix: &str) -> Result<String> {
    let all = node.users().names("configmaps", "baetyl.io/digest").await?;
    let found = all.iter().find_map(|name| {
        let name = name.rsplit('/').next()?;
        name.starts_with(prefix).then(|| name.to_owned())
    });
    found.with_context(|| format!("no ConfigMap {prefix}* among {all:?}"))
}

/// Deletes an object and waits until there is another one of its name.
async fn is_put_back(node: &Node, kind: &str, name: &str) -> Result<()> {
    let objects = node.users();
    let before: Value = objects.get(kind, name).await?;
    let began = std::time::Instant::now();
    objects.delete(kind, name).await?;
    until_within(
        PATIENCE,
        &format!("{kind} {name} is made again"),
        || async {
            let made: Value = node.users().get(kind, name).await?;
            ensure!(made["metadata"]["uid"] != before["metadata"]["uid"]);
            ensure!(made["metadata"]["deletionTimestamp"].is_null());
            Ok(())
        },
    )
    .await?;
    println!("{kind} {name} was put back in {:.1?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changes() -> Result<()> {
    let node = Node::alone().await?;
    let app = node.run(&web(&node, "quiet", "quiet")).await?;
    let versions = || async {
        let kinds = "deployments,services,configmaps,secrets";
        let selector = "baetyl-app-name=quiet";
        let all: Vec<Value> = node.users().list(kinds, selector).await?;
        let generation = |object: &Value| {
            let meta = &object["metadata"];
            (
                meta["name"].to_string(),
                meta["generation"].to_string(),
                meta["managedFields"].to_string(),
            )
        };
        anyhow::Ok(all.iter().map(generation).collect::<Vec<_>>())
    };
    let before = versions().await?;
    // Engine that is started anew looks at everything once more.
    let selector = "app.kubernetes.io/name=baetyl-engine";
    let args = ["-n", SYSTEM, "delete", "pods", "-l", selector, "--wait"];
    node.cluster.kubectl().run(&args).await?;
    node.until_core_is_ready().await?;
    node.until_running(&app).await?;
    let view = node.rest.get(&format!("/v1/nodes/{NODE}")).await?;
    ensure!(view["ready"] == 1);
    let after = versions().await?;
    ensure!(before == after, "{before:?}\n{after:?}");
    node.delete("quiet").await
}
