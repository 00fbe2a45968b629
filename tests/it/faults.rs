//! What breaks on a node, and what must not stop because of it.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::apps;
use baetyl_tests::edge::Lives;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World};

const SLEEPER: &str = "exec sleep 100000";

async fn world_with_app(shape: Shape) -> Result<(World, Lives)> {
    let world = World::start(shape).await?;
    world
        .run_app(&apps::shell_app("sleeper", "site=north", SLEEPER))
        .await?;
    world.until_online().await?;
    let lives = world.edge.lives().await?;
    Ok((world, lives))
}

/// Kills the services, lets `harm` do its work on the data directory, starts them again and sees that nobody restarted.
async fn survives(
    world: &mut World,
    lives: &Lives,
    services: &[&'static str],
    harm: impl Fn(&World),
) -> Result<()> {
    for service in services {
        world.edge.kill_service(service)?;
    }
    harm(world);
    for service in services {
        world.edge.start_service(service)?;
    }
    let (after, _) = until("the node shows the application", || world.edge.lives()).await?;
    ensure!(&after == lives, "{services:?}: {lives:?} -> {after:?}");
    Ok(())
}

fn empty(world: &World, services: &[&'static str]) {
    for service in services {
        fs::remove_dir_all(world.edge.dir.join(service)).unwrap();
    }
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

async fn emptied(online: bool) -> Result<()> {
    for combination in COMBINATIONS {
        let (mut world, lives) = world_with_app(Shape::Five).await?;
        if !online {
            world.cloud.stop().await?;
        }
        let pid = lives.values().next().context("nothing runs")?.0;
        for service in combination {
            world.edge.kill_service(service)?;
        }
        empty(&world, combination);
        for service in combination {
            world.edge.start_service(service)?;
        }
        // Every service answers again; whatever they decide on an empty directory, the process lives on.
        for service in ["node", "sync", "engine"] {
            until(&format!("{service} answers"), || {
                world.edge.channel(service)
            })
            .await?;
        }
        let mut settled = 0;
        until("ten looks in a row find the same process", || {
            settled += 1;
            let alive = fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.contains(") Z "));
            assert!(
                alive,
                "emptied {combination:?} (online: {online}): process {pid} is gone"
            );
            let enough = settled >= 10;
            async move {
                ensure!(enough, "keep looking");
                Ok(())
            }
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn no_application_stops_when_data_directories_are_emptied_online() -> Result<()> {
    emptied(true).await
}

#[tokio::test]
async fn no_application_stops_when_data_directories_are_emptied_offline() -> Result<()> {
    emptied(false).await
}

#[tokio::test]
async fn a_corrupt_database_of_a_service_is_moved_aside_and_no_application_restarts() -> Result<()>
{
    let (mut world, lives) = world_with_app(Shape::Five).await?;
    for (service, file) in [("node", "node/node.redb"), ("sync", "sync/sync.redb")] {
        survives(&mut world, &lives, &[service], |world| {
            let mut database = fs::File::options()
                .write(true)
                .open(world.edge.dir.join(file))
                .unwrap();
            database.seek(SeekFrom::Start(0)).unwrap();
            database.write_all(&[0xa5; 4096]).unwrap();
        })
        .await?;
        let dir = world.edge.dir.join(service);
        until("the damaged file is kept aside", || async {
            let aside = fs::read_dir(&dir)?
                .filter_map(Result::ok)
                .any(|entry| entry.file_name().to_string_lossy().contains("corrupt"));
            ensure!(aside, "{service} did not keep the damaged file");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_cloud_database_put_back_to_an_older_copy_raises_the_epoch_and_goes_on() -> Result<()> {
    let (mut world, _) = world_with_app(Shape::One).await?;
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
        ensure!(world.edge.app("lost").await.is_err(), "lost still runs");
        Ok(())
    })
    .await?;
    world
        .run_app(&apps::shell_app("after", "site=north", SLEEPER))
        .await?;
    Ok(())
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

#[tokio::test]
async fn applications_do_not_wait_for_each_other() -> Result<()> {
    let (world, _) = world_with_app(Shape::One).await?;
    let mut stuck = apps::shell_app("stuck", "site=north", SLEEPER);
    stuck["services"][0]["readinessProbe"] =
        serde_json::json!({"exec": {"command": ["/bin/false"]}, "periodSeconds": 1});
    world.rest.post("/v1/apps", &stuck).await?;
    world
        .run_app(&apps::shell_app("quick", "site=north", SLEEPER))
        .await?;
    Ok(())
}

#[tokio::test]
async fn killed_applications_come_back_by_themselves() -> Result<()> {
    let (world, lives) = world_with_app(Shape::One).await?;
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
