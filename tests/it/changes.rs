//! What an operator changes, and what a node makes of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::apps;
use baetyl_tests::edge::Edge;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World};
use bytes::Bytes;
use serde_json::json;

const SLEEPER: &str = "exec sleep 100000";

both_shapes!(
    labels_decide_where_an_application_runs,
    two_nodes_get_only_what_is_theirs,
    what_changed_while_the_link_was_down_is_applied_when_it_is_back,
    a_rotated_secret_restarts_its_application_once,
    an_uploaded_package_runs,
    replicas_have_ports_of_their_own_and_come_and_go,
    a_job_that_ended_well_is_not_run_again,
);

async fn until_gone(edge: &Edge, app: &str) -> Result<()> {
    until(&format!("{app} is gone"), || async {
        let apps = edge.apps().await?;
        ensure!(
            !apps.iter().any(|status| status.name == app),
            "{app} is there"
        );
        Ok(())
    })
    .await?;
    Ok(())
}

async fn labels_decide_where_an_application_runs(shape: Shape) -> Result<()> {
    let world = World::start(shape).await?;
    let app = apps::shell_app("lamp", "site in (north, east), !broken", SLEEPER);
    world.run_app(&app).await?;
    let label = |labels: serde_json::Value| {
        let node = json!({"name": "north-1", "nodeMode": "native", "labels": labels});
        let rest = world.rest.clone();
        async move { rest.put("/v1/nodes/north-1", &node).await }
    };
    label(json!({"site": "north", "broken": ""})).await?;
    until_gone(&world.edge, "lamp").await?;
    label(json!({"site": "east"})).await?;
    world.edge.until_running("lamp", None).await?;
    label(json!({"site": "west"})).await?;
    until_gone(&world.edge, "lamp").await
}

async fn two_nodes_get_only_what_is_theirs(shape: Shape) -> Result<()> {
    let world = World::start(shape).await?;
    let node = json!({"name": "south-1", "nodeMode": "native", "labels": {"site": "south"}});
    world.rest.post("/v1/nodes", &node).await?;
    let mut south = Edge::new("south-1", &world.dir.path().join("south"), shape)?;
    south.start().await?;
    south.activate(&world.rest).await?;
    for (app, selector) in [
        ("cold", "site=north"),
        ("warm", "site=south"),
        ("both", "site"),
    ] {
        let app = apps::shell_app(app, selector, SLEEPER);
        world.rest.post("/v1/apps", &app).await?;
    }
    for (edge, wanted) in [(&world.edge, ["both", "cold"]), (&south, ["both", "warm"])] {
        for app in wanted {
            edge.until_running(app, None).await?;
        }
        let there = edge.apps().await?;
        let there: BTreeSet<&str> = there.iter().map(|app| app.name.as_str()).collect();
        ensure!(there == BTreeSet::from(wanted), "{}: {there:?}", edge.node);
    }
    Ok(())
}

async fn what_changed_while_the_link_was_down_is_applied_when_it_is_back(
    shape: Shape,
) -> Result<()> {
    let mut world = World::start(shape).await?;
    let mut kept = apps::shell_app("kept", "site=north", SLEEPER);
    world.run_app(&kept).await?;
    world
        .run_app(&apps::shell_app("steady", "site=north", SLEEPER))
        .await?;
    world
        .run_app(&apps::shell_app("dropped", "site=north", SLEEPER))
        .await?;
    let steady = world.edge.instance("steady").await?.pid;
    world.edge.kill_service("sync")?;
    apps::set_env(&mut kept, "RELEASE", "two");
    let changed = world.rest.put("/v1/apps/kept", &kept).await?;
    world.rest.delete("/v1/apps/dropped").await?;
    let added = apps::shell_app("added", "site=north", SLEEPER);
    world.rest.post("/v1/apps", &added).await?;
    world.edge.start_service("sync")?;
    world
        .edge
        .until_running("kept", changed["version"].as_str())
        .await?;
    world.edge.until_running("added", None).await?;
    until_gone(&world.edge, "dropped").await?;
    let after = world.edge.until_running("steady", None).await?;
    ensure!(
        after
            .instances
            .iter()
            .all(|instance| instance.pid == steady),
        "what did not change was restarted"
    );
    Ok(())
}

/// Where the only instance of an application has its files.
async fn instance_dir(edge: &Edge, app: &str) -> Result<String> {
    let instance = edge.instance(app).await?;
    let environ = fs::read(format!("/proc/{}/environ", instance.pid))?;
    String::from_utf8_lossy(&environ)
        .split('\0')
        .find_map(|entry| entry.strip_prefix("BAETYL_INSTANCE_DIR="))
        .map(ToOwned::to_owned)
        .with_context(|| format!("{app} has no directory"))
}

async fn a_rotated_secret_restarts_its_application_once(shape: Shape) -> Result<()> {
    let world = World::start(shape).await?;
    let secret = |value: &str| json!({"name": "key", "data": {"key": value}});
    world.rest.post("/v1/secrets", &secret("old")).await?;
    let script = "cat var/secret/key > \"$BAETYL_INSTANCE_DIR/seen\"; exec sleep 100000";
    let mut app = apps::shell_app("reader", "site=north", script);
    app["services"][0]["volumeMounts"] = json!([{"name": "key", "mountPath": "/var/secret"}]);
    app["volumes"] = json!([{"name": "key", "secret": {"name": "key"}}]);
    world.run_app(&app).await?;
    let before = world.edge.instance("reader").await?.pid;
    world.rest.put("/v1/secrets/key", &secret("new")).await?;
    until("the application sees the new secret", || async {
        let dir = instance_dir(&world.edge, "reader").await?;
        let seen = fs::read_to_string(Path::new(&dir).join("seen"))?;
        ensure!(seen == "new", "{seen}");
        Ok(())
    })
    .await?;
    let version = world.rest.get("/v1/apps/reader").await?["version"].clone();
    world.edge.until_running("reader", version.as_str()).await?;
    let after = world.edge.instance("reader").await?;
    ensure!(after.pid != before && after.restarts == 0, "{after:?}");
    Ok(())
}

async fn an_uploaded_package_runs(shape: Shape) -> Result<()> {
    let world = World::start(shape).await?;
    let pack = world.dir.path().join("pack");
    fs::create_dir_all(pack.join("bin"))?;
    fs::write(pack.join("program.yml"), "entry: bin/serve\n")?;
    let program = "#!/bin/sh\necho packed > \"$BAETYL_INSTANCE_DIR/seen\"\nexec sleep 100000\n";
    fs::write(pack.join("bin/serve"), program)?;
    fs::set_permissions(pack.join("bin/serve"), fs::Permissions::from_mode(0o755))?;
    let tar = Command::new("tar")
        .args(["-C", &pack.display().to_string(), "-cf", "-", "."])
        .output()?;
    ensure!(tar.status.success(), "tar failed");
    world
        .rest
        .send(
            http::Method::PUT,
            "/v1/objects/serve.tar",
            &[],
            Bytes::from(tar.stdout),
        )
        .await?
        .ok()?;
    let item =
        json!({"type": "object", "source": "baetyl", "object": "serve.tar", "unpack": "tar"});
    let config = json!({"name": "serve", "data": [{"key": "serve.tar", "value": item}]});
    world.rest.post("/v1/configs", &config).await?;
    let app = json!({
        "name": "packed", "type": "container", "mode": "native", "selector": "site=north",
        "services": [{"name": "packed", "volumeMounts": [{"name": "serve", "mountPath": "/var/lib/baetyl/bin"}]}],
        "volumes": [{"name": "serve", "config": {"name": "serve"}}],
    });
    world.run_app(&app).await?;
    let dir = instance_dir(&world.edge, "packed").await?;
    let seen = Path::new(&dir).join("seen");
    until("the program of the package ran", || async {
        ensure!(fs::read_to_string(&seen)? == "packed\n", "something else");
        Ok(())
    })
    .await?;
    Ok(())
}

async fn replicas_have_ports_of_their_own_and_come_and_go(shape: Shape) -> Result<()> {
    let world = World::start(shape).await?;
    let mut app = apps::shell_app("web", "site=north", SLEEPER);
    app["services"][0]["ports"] = json!([{"containerPort": 80, "protocol": "TCP"}]);
    let mut first = true;
    for replicas in [2, 3, 1] {
        app["replica"] = json!(replicas);
        let made = if first {
            world.rest.post("/v1/apps", &app).await?
        } else {
            world.rest.put("/v1/apps/web", &app).await?
        };
        first = false;
        world
            .edge
            .until_running("web", made["version"].as_str())
            .await?;
        until(&format!("{replicas} instances run"), || async {
            let status = world.edge.app("web").await?;
            let ports: BTreeSet<u32> = status
                .instances
                .iter()
                .flat_map(|instance| instance.ports.iter().map(|port| port.port))
                .collect();
            ensure!(
                status.instances.len() == replicas && ports.len() == replicas,
                "{} instances with ports {ports:?}",
                status.instances.len()
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn a_job_that_ended_well_is_not_run_again(shape: Shape) -> Result<()> {
    let mut world = World::start(shape).await?;
    let mut app = apps::shell_app("job", "site=north", "echo ran");
    app["workload"] = json!("job");
    let made = world.rest.post("/v1/apps", &app).await?;
    let version = made["version"].as_str().context("no version")?;
    let log = format!("log/baetyl-edge/job/{version}/job-1.log");
    let done = async |world: &World| {
        until("the job is done", || async {
            let status = world.edge.app("job").await?;
            ensure!(
                status.phase == "Healthy",
                "{} {}",
                status.phase,
                status.cause
            );
            Ok(())
        })
        .await
    };
    done(&world).await?;
    for service in ["engine", "node", "sync"] {
        world.edge.kill_service(service)?;
        world.edge.start_service(service)?;
    }
    world
        .run_app(&apps::shell_app("after", "site=north", SLEEPER))
        .await?;
    done(&world).await?;
    let lines = fs::read_to_string(world.edge.dir.join(log))?;
    ensure!(lines == "ran\n", "{lines:?}");
    Ok(())
}
