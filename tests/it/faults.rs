//! What breaks on a node, and what must not stop because of it.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use baetyl_proto::node::GetShadowRequest;
use baetyl_proto::node::node_service_client::NodeServiceClient;
use baetyl_tests::apps;
use baetyl_tests::edge::Lives;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World};

const SLEEPER: &str = "exec sleep 100000";

/// How long is looked for something that must not happen.
const LOOK: Duration = Duration::from_secs(4);

both_shapes!(
    no_application_stops_when_data_directories_are_emptied_online,
    no_application_stops_when_data_directories_are_emptied_offline,
    a_function_proxy_with_an_emptied_directory_answers,
    a_corrupt_database_of_a_service_is_moved_aside_and_no_application_restarts,
    an_emptied_cloud_is_not_trusted_and_the_real_one_is_followed_again,
    a_cloud_database_put_back_to_an_older_copy_raises_the_epoch_and_goes_on,
    applications_do_not_wait_for_each_other,
    killed_applications_come_back_by_themselves,
);

async fn world_with_app(shape: Shape) -> Result<(World, Lives)> {
    let world = World::start(shape).await?;
    world
        .run_app(&apps::shell_app("sleeper", "site=north", SLEEPER))
        .await?;
    world.until_online().await?;
    let lives = world.edge.lives().await?;
    Ok((world, lives))
}

/// Kills the services, lets `harm` do its work on the data directory, starts them again.
fn while_down(
    world: &mut World,
    services: &[&'static str],
    harm: impl Fn(&World) -> Result<()>,
) -> Result<()> {
    for service in services {
        world.edge.kill_service(service)?;
    }
    harm(world)?;
    for service in services {
        world.edge.start_service(service)?;
    }
    Ok(())
}

/// Looks for a while whether these processes live on.
async fn must_live_on(lives: &Lives, what: &str) -> Result<()> {
    let begun = Instant::now();
    until(&format!("{what}: a while has passed"), || {
        for (name, (pid, _)) in lives {
            let alive = fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.contains(") Z "));
            assert!(alive, "{what}: {name} (process {pid}) is gone");
        }
        let enough = begun.elapsed() >= LOOK;
        async move {
            ensure!(enough, "keep looking");
            Ok(())
        }
    })
    .await?;
    Ok(())
}

/// The node shows these processes, and no others of these applications.
async fn until_lives_are(world: &World, lives: &Lives, what: &str) -> Result<()> {
    until(
        &format!("{what}: the node shows the same processes"),
        || async {
            let now = world.edge.lives().await?;
            for (name, (pid, _)) in lives {
                let (seen, _) = now
                    .get(name)
                    .with_context(|| format!("no {name} in {now:?}"))?;
                ensure!(seen == pid, "{name}: {pid} -> {seen}");
            }
            Ok(())
        },
    )
    .await?;
    Ok(())
}

/// Every combination of emptied directories. Engine's holds the working directories of applications (`engine/run`), so
/// emptying it takes their files, not their processes.
const COMBINATIONS: [&[&str]; 7] = [
    &["node"],
    &["sync"],
    &["engine"],
    &["node", "sync"],
    &["node", "engine"],
    &["sync", "engine"],
    &["node", "sync", "engine"],
];

async fn emptied(shape: Shape, online: bool) -> Result<()> {
    for combination in COMBINATIONS {
        let what = format!("emptied {combination:?}, online: {online}");
        let (mut world, lives) = world_with_app(shape).await?;
        if !online {
            world.cloud.stop().await?;
        }
        while_down(&mut world, combination, |world| {
            for service in combination {
                fs::remove_dir_all(world.edge.dir.join(service))?;
            }
            Ok(())
        })?;
        for service in ["node", "sync", "engine"] {
            until(&format!("{what}: {service} answers"), || {
                world.edge.channel(service)
            })
            .await?;
        }
        must_live_on(&lives, &what).await?;
        if !online {
            world.cloud.resume().await?;
        }
        // A node that lost its identity is installed again; the others find back alone.
        if combination.contains(&"sync") {
            world.edge.activate(&world.rest).await?;
        }
        world.until_online().await.context(what.clone())?;
        world.edge.until_running("sleeper", None).await?;
        until_lives_are(&world, &lives, &what).await?;
        world
            .run_app(&apps::shell_app("second", "site=north", SLEEPER))
            .await?;
        until_lives_are(&world, &lives, &what).await?;
    }
    Ok(())
}

async fn no_application_stops_when_data_directories_are_emptied_online(shape: Shape) -> Result<()> {
    emptied(shape, true).await
}

async fn no_application_stops_when_data_directories_are_emptied_offline(
    shape: Shape,
) -> Result<()> {
    emptied(shape, false).await
}

async fn a_function_proxy_with_an_emptied_directory_answers(shape: Shape) -> Result<()> {
    let mut world = World::start(shape).await?;
    apps::create_function(
        &world.rest,
        "echo",
        "site=north",
        "def handler(event, context):\n    return event\n",
    )
    .await?;
    world.edge.until_running("echo", None).await?;
    while_down(&mut world, &["function-proxy"], |world| {
        let dir = world.edge.dir.join("function-proxy");
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        Ok(())
    })?;
    until("the function answers", || async {
        let body = serde_json::json!({"a": 1});
        let answer = world
            .edge
            .functions()?
            .json(http::Method::POST, "/echo", &body)
            .await?
            .ok()?;
        ensure!(answer == body, "{answer}");
        Ok(())
    })
    .await?;
    Ok(())
}

async fn a_corrupt_database_of_a_service_is_moved_aside_and_no_application_restarts(
    shape: Shape,
) -> Result<()> {
    // The first page names the others; a later one holds content.
    for page in [0, 2] {
        let (mut world, lives) = world_with_app(shape).await?;
        for (service, file) in [
            ("node", "node/node.redb"),
            ("sync", "sync/sync.redb"),
            ("engine", "engine/engine.redb"),
        ] {
            let what = format!("page {page} of {file}");
            while_down(&mut world, &[service], |world| {
                let path = world.edge.dir.join(file);
                let mut database = fs::File::options().write(true).open(path)?;
                database.seek(SeekFrom::Start(page * 4096))?;
                database.write_all(&[0xa5; 4096])?;
                Ok(())
            })?;
            until(&format!("{what}: {service} answers"), || {
                world.edge.channel(service)
            })
            .await?;
            until_lives_are(&world, &lives, &what).await?;
            world.until_online().await.context(what.clone())?;
            let aside = fs::read_dir(world.edge.dir.join(service))?
                .filter_map(Result::ok)
                .any(|entry| entry.file_name().to_string_lossy().contains("corrupt"));
            ensure!(
                aside || page != 0,
                "{what}: the damaged file is not kept aside"
            );
        }
    }
    Ok(())
}

async fn an_emptied_cloud_is_not_trusted_and_the_real_one_is_followed_again(
    shape: Shape,
) -> Result<()> {
    let (mut world, lives) = world_with_app(shape).await?;
    world.cloud.stop().await?;
    let aside = world.dir.path().join("aside");
    fs::rename(&world.cloud.dir, &aside)?;
    fs::create_dir(&world.cloud.dir)?;
    world.cloud.resume().await?;
    until("sync says why there is no link", || async {
        let state = crate::identity::link_state(&world.edge).await?;
        ensure!(state.message.contains("not trusted"), "{}", state.message);
        Ok(())
    })
    .await?;
    must_live_on(&lives, "another cloud at the same address").await?;
    world.cloud.stop().await?;
    fs::remove_dir_all(&world.cloud.dir)?;
    fs::rename(&aside, &world.cloud.dir)?;
    world.cloud.resume().await?;
    world
        .run_app(&apps::shell_app("second", "site=north", SLEEPER))
        .await?;
    until_lives_are(&world, &lives, "the real cloud again").await
}

async fn a_cloud_database_put_back_to_an_older_copy_raises_the_epoch_and_goes_on(
    shape: Shape,
) -> Result<()> {
    let (mut world, lives) = world_with_app(shape).await?;
    world.cloud.stop().await?;
    let copy = world.dir.path().join("copy");
    copy_dir(&world.cloud.dir, &copy)?;
    world.cloud.resume().await?;
    world
        .run_app(&apps::shell_app("lost", "site=north", SLEEPER))
        .await?;
    world.cloud.stop().await?;
    fs::remove_dir_all(&world.cloud.dir)?;
    copy_dir(&copy, &world.cloud.dir)?;
    world.cloud.resume().await?;
    // The older copy knows nothing of `lost`; what it says now is newer all the same.
    until("the node follows the cloud again", || async {
        let names: Vec<String> = world
            .edge
            .apps()
            .await?
            .into_iter()
            .map(|app| app.name)
            .collect();
        ensure!(names == ["sleeper"], "{names:?}");
        Ok(())
    })
    .await?;
    let mut node = NodeServiceClient::new(world.edge.channel("node").await?);
    let shadow = node.get_shadow(GetShadowRequest {}).await?.into_inner();
    let signed = shadow.desire.context("node holds no desire")?;
    let desire = baetyl_proto::sign::read_desire(&signed)?;
    ensure!(desire.epoch.get() > 0, "epoch {}", desire.epoch);
    let events = world.rest.get("/v1/nodes/north-1/events").await?;
    ensure!(
        events.to_string().contains("CloudStateWentBack"),
        "{events}"
    );
    world
        .run_app(&apps::shell_app("after", "site=north", SLEEPER))
        .await?;
    until_lives_are(&world, &lives, "after the cloud went back").await
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()?;
    ensure!(status.success(), "cp failed");
    Ok(())
}

async fn applications_do_not_wait_for_each_other(shape: Shape) -> Result<()> {
    let (world, _) = world_with_app(shape).await?;
    let mut stuck = apps::shell_app("stuck", "site=north", SLEEPER);
    stuck["services"][0]["readinessProbe"] =
        serde_json::json!({"exec": {"command": ["/bin/false"]}, "periodSeconds": 1});
    world.rest.post("/v1/apps", &stuck).await?;
    world
        .run_app(&apps::shell_app("quick", "site=north", SLEEPER))
        .await?;
    Ok(())
}

async fn killed_applications_come_back_by_themselves(shape: Shape) -> Result<()> {
    let (world, lives) = world_with_app(shape).await?;
    let pid = lives.values().next().context("nothing runs")?.0;
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("no process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    until("another process runs", || async {
        let after = world.edge.lives().await?;
        ensure!(after != lives, "the same process");
        Ok(())
    })
    .await?;
    Ok(())
}
