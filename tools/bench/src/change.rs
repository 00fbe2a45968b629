//! From an accepted change to the running application; from a cold start offline to everything running.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::apps;
use baetyl_tests::edge::{AppStatus, RunStatus};
use baetyl_tests::wait::until_every;
use baetyl_tests::world::{Shape, World};

use crate::{Effort, Figure, figure, median, percentile};

const APPS: usize = 10;
/// Fine enough for figures of some hundred milliseconds, and seldom enough not to slow down what is measured.
const POLL: Duration = Duration::from_millis(5);

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Figure>> {
    let mut world = World::start(Shape::Five).await?;
    let mut times = changes(&world, effort.changes).await?;
    let mut figures = vec![
        figure(
            "change accepted by REST until Running with the new version, p50",
            median(&mut times),
            "ms",
            "<= 1000",
        ),
        figure("the same, p90", percentile(&mut times, 90), "ms", ""),
    ];
    let mut names = vec!["changing".to_owned()];
    for i in 1..APPS {
        let name = format!("app{i}");
        world
            .run_app(&apps::shell_app(&name, "site=north", "exec sleep 100000"))
            .await?;
        names.push(name);
    }
    world.cloud.stop().await?;
    let mut times = Vec::new();
    for _ in 0..effort.starts {
        world.edge.kill_everything()?;
        let start = Instant::now();
        world.edge.start().await?;
        until_all_run(&world, &names).await?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    figures.push(figure(
        format!("cold start offline until {APPS} applications run"),
        median(&mut times),
        "ms",
        "<= 2000",
    ));
    Ok(figures)
}

/// Milliseconds from the answer to each change until the node runs it.
async fn changes(world: &World, count: usize) -> Result<Vec<f64>> {
    let mut app = apps::shell_app("changing", "site=north", "exec sleep 100000");
    world.run_app(&app).await?;
    let mut times = Vec::new();
    for release in 0..count {
        apps::set_env(&mut app, "RELEASE", &release.to_string());
        let start = Instant::now();
        let made = world.rest.put("/v1/apps/changing", &app).await?;
        let version = made["version"].as_str().context("no version")?.to_owned();
        world
            .edge
            .poll_app("changing", POLL, |status| runs(status, &version))
            .await?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        world.edge.until_running("changing", Some(&version)).await?;
    }
    Ok(times)
}

/// Running, and what runs is this version.
fn runs(status: &AppStatus, version: &str) -> bool {
    status.status() == RunStatus::Running
        && status.version == version
        && status
            .instances
            .iter()
            .any(|instance| instance.ready && instance.name.contains(&format!(".{version}.")))
}

/// Waits until every application of the list runs.
async fn until_all_run(world: &World, names: &[String]) -> Result<()> {
    until_every(POLL, "all applications run", || async {
        let apps = world.edge.apps().await?;
        for name in names {
            let app = apps
                .iter()
                .find(|app| &app.name == name)
                .with_context(|| format!("no {name}"))?;
            // A process of before the cold start is not one that runs.
            let runs = app.instances.iter().any(|instance| {
                instance.ready
                    && instance.pid > 0
                    && Path::new(&format!("/proc/{}", instance.pid)).exists()
            });
            ensure!(runs, "{name} is not ready");
        }
        Ok(())
    })
    .await?;
    Ok(())
}
