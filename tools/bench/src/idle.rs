//! Memory and CPU of an idle, connected node; start times; our own cost of an application instance.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::apps;
use baetyl_tests::rest::Rest;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Process, Shape, World};

use crate::process::{cpu_share, parent, pss_kib};
use crate::{Figure, figure, median};

/// After that a node has nothing more to do.
const SETTLE: Duration = Duration::from_secs(20);
const WATCH: Duration = Duration::from_secs(30);

pub(crate) async fn measure() -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (shape, title, aim) in [
        (Shape::Five, "services together", "<= 20"),
        (Shape::One, "baetyl-edge", "<= 12"),
    ] {
        let world = World::start(shape).await?;
        world.until_online().await?;
        tokio::time::sleep(SETTLE).await;
        let pids = world.edge.pids();
        let mut sum = 0.0;
        for (name, pid) in &pids {
            let mib = pss_kib(*pid)? / 1024.0;
            sum += mib;
            if shape == Shape::Five {
                figures.push(figure(
                    format!("idle memory (PSS) of {name}"),
                    mib,
                    "MiB",
                    "",
                ));
            }
        }
        figures.push(figure(
            format!("idle memory (PSS), {title}"),
            sum,
            "MiB",
            aim,
        ));
        let all: Vec<u32> = pids.into_values().collect();
        let share = cpu_share(&all, WATCH).await? * 100.0;
        figures.push(figure(
            format!("idle CPU, {title}"),
            share,
            "% core",
            "<= 0.2",
        ));
        if shape == Shape::Five {
            figures.push(instance_cost(&world).await?);
        }
    }
    figures.extend(start_times().await?);
    Ok(figures)
}

/// Memory of the shim of an application that sleeps.
async fn instance_cost(world: &World) -> Result<Figure> {
    let mut costs = Vec::new();
    for i in 0..5 {
        let name = format!("sleeper{i}");
        world
            .run_app(&apps::shell_app(&name, "site=north", "exec sleep 100000"))
            .await?;
        let instance = world.edge.instance(&name).await?;
        let shim = parent(u32::try_from(instance.pid)?)?;
        costs.push(pss_kib(shim)? / 1024.0);
    }
    Ok(figure(
        "own memory (PSS) of an application instance",
        median(&mut costs),
        "MiB",
        "<= 0.2",
    ))
}

/// From the start of a program to its readiness (sync: to its liveness, it has no identity).
async fn start_times() -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (service, path) in [
        ("node", "/readyz"),
        ("sync", "/livez"),
        ("engine", "/readyz"),
        ("function-proxy", "/livez"),
        ("edge", "/livez"),
    ] {
        let mut times = Vec::new();
        for _ in 0..5 {
            let dir = tempfile::Builder::new().prefix("bb-").tempdir()?;
            let text = dir.path().display().to_string();
            let env = vec![
                (
                    "BAETYL_FUNCTION_PROXY__HTTP__LISTEN".to_owned(),
                    "127.0.0.1:0".to_owned(),
                ),
                (
                    "BAETYL_FUNCTION_PROXY__GRPC__LISTEN".to_owned(),
                    "127.0.0.1:0".to_owned(),
                ),
                (
                    "BAETYL_EDGE__FUNCTION_PROXY__HTTP__LISTEN".to_owned(),
                    "127.0.0.1:0".to_owned(),
                ),
                (
                    "BAETYL_EDGE__FUNCTION_PROXY__GRPC__LISTEN".to_owned(),
                    "127.0.0.1:0".to_owned(),
                ),
            ];
            let start = Instant::now();
            let process = Process::start(
                &format!("baetyl-{service}"),
                &["run", "--data-dir", &text],
                &env,
                &dir.path().join("log"),
            )?;
            let file = dir.path().join(format!("run/{service}-admin.addr"));
            loop {
                if let Ok(address) = std::fs::read_to_string(&file) {
                    let rest = Rest::new(&format!("http://{}", address.trim()), None);
                    let answer = rest
                        .send(http::Method::GET, path, &[], bytes::Bytes::new())
                        .await;
                    if answer.is_ok_and(|answer| answer.status == 200) {
                        break;
                    }
                }
                ensure!(
                    start.elapsed() < Duration::from_secs(20),
                    "{service}: {}",
                    process.tail()
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        figures.push(figure(
            format!("start of baetyl-{service} until {path} is 200"),
            median(&mut times),
            "ms",
            "<= 300",
        ));
    }
    Ok(figures)
}

/// Used by `change` as well: waits until every application of the list runs.
pub(crate) async fn until_all_run(world: &World, names: &[String]) -> Result<Duration> {
    let start = Instant::now();
    until("all applications run", || async {
        let apps = world.edge.apps().await?;
        for name in names {
            let app = apps
                .iter()
                .find(|app| &app.name == name)
                .with_context(|| format!("no {name}"))?;
            ensure!(
                app.instances
                    .iter()
                    .any(|instance| instance.pid > 0 && instance.ready),
                "{name} is not ready"
            );
        }
        Ok(())
    })
    .await?;
    Ok(start.elapsed())
}
