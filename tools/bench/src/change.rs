//! From an accepted change to the running application; from a cold start offline to everything running.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::apps;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World};

use crate::idle::until_all_run;
use crate::{Figure, figure, median, percentile};

const CHANGES: usize = 11;
const APPS: usize = 10;

pub(crate) async fn measure() -> Result<Vec<Figure>> {
    let mut world = World::start(Shape::Five).await?;
    let mut app = apps::shell_app("changing", "site=north", "exec sleep 100000");
    world.run_app(&app).await?;
    let mut times = Vec::new();
    for release in 0..CHANGES {
        apps::set_env(&mut app, "RELEASE", &release.to_string());
        let start = Instant::now();
        let made = world.rest.put("/v1/apps/changing", &app).await?;
        let version = made["version"].as_str().context("no version")?.to_owned();
        until("the new version runs", || async {
            let status = world.edge.app("changing").await?;
            let prefix = format!("baetyl-edge.changing.{version}.");
            let runs = status
                .instances
                .iter()
                .any(|i| i.name.starts_with(&prefix) && i.pid > 0);
            ensure!(runs, "not yet");
            Ok(())
        })
        .await?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        world.edge.until_running("changing", Some(&version)).await?;
    }
    let mut figures = vec![
        figure(
            "change accepted by REST until the new version runs, p50",
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
    for _ in 0..5 {
        world.edge.kill_everything()?;
        world.edge.start().await?;
        times.push(until_all_run(&world, &names).await?.as_secs_f64() * 1000.0);
    }
    figures.push(figure(
        format!("cold start offline until {APPS} applications run"),
        median(&mut times),
        "ms",
        "<= 2000",
    ));
    Ok(figures)
}
