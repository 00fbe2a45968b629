//! Memory and CPU of an idle, connected node, and our own memory for each application instance.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use baetyl_tests::apps;
use baetyl_tests::world::{Shape, World};

use crate::process::{cpu_seconds, parent, pss_mib};
use crate::{Effort, Figure, figure, median};

/// Instances whose cost is looked at, in each round.
const SLEEPERS: u16 = 5;

/// What was seen of one shape, over all rounds.
#[derive(Default)]
struct Seen {
    memory: BTreeMap<&'static str, Vec<f64>>,
    together: Vec<f64>,
    cpu: Vec<f64>,
}

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let (mut shims, mut growths) = (Vec::new(), Vec::new());
    for (shape, title, aim) in [
        (Shape::Five, "services together", "<= 20"),
        (Shape::One, "baetyl-edge", "<= 12"),
    ] {
        let mut seen = Seen::default();
        for _ in 0..effort.rounds {
            let world = World::start(shape).await?;
            world.until_online().await?;
            tokio::time::sleep(effort.settle).await;
            watch(&world, effort, &mut seen).await?;
            if shape == Shape::Five {
                let (shim, growth) = instance_cost(&world, effort).await?;
                shims.extend(shim);
                growths.push(growth);
            }
        }
        if shape == Shape::Five {
            for (name, mut values) in seen.memory {
                let name = format!("idle memory (PSS) of {name}");
                figures.push(figure(name, median(&mut values), "MiB", ""));
            }
        }
        let memory = median(&mut seen.together);
        figures.push(figure(
            format!("idle memory (PSS), {title}"),
            memory,
            "MiB",
            aim,
        ));
        let cpu = median(&mut seen.cpu);
        figures.push(figure(
            format!("idle CPU, {title}"),
            cpu,
            "% core",
            "<= 0.2",
        ));
    }
    let (shim, growth) = (median(&mut shims), median(&mut growths));
    figures.push(figure(
        "application instance: memory (PSS) of its shim",
        shim,
        "MiB",
        "",
    ));
    figures.push(figure(
        "application instance: growth of engine (PSS)",
        growth,
        "MiB",
        "",
    ));
    figures.push(figure(
        "application instance: shim and growth of engine together",
        shim + growth,
        "MiB",
        "<= 0.2",
    ));
    Ok(figures)
}

/// Samples memory over the time of the watch, and takes the CPU time used in it.
async fn watch(world: &World, effort: Effort, seen: &mut Seen) -> Result<()> {
    let pids = world.edge.pids();
    let used = || {
        pids.values()
            .map(|pid| cpu_seconds(*pid))
            .sum::<Result<f64>>()
    };
    let (before, start) = (used()?, Instant::now());
    let pause = effort.watch / effort.samples;
    for _ in 0..effort.samples {
        tokio::time::sleep(pause).await;
        let mut sum = 0.0;
        for (name, pid) in &pids {
            let mib = pss_mib(*pid)?;
            sum += mib;
            seen.memory.entry(name).or_default().push(mib);
        }
        seen.together.push(sum);
    }
    let share = (used()? - before) / start.elapsed().as_secs_f64();
    seen.cpu.push(share * 100.0);
    Ok(())
}

/// Memory of the shims of applications that sleep, and by how much engine grew for each of them.
async fn instance_cost(world: &World, effort: Effort) -> Result<(Vec<f64>, f64)> {
    let engine = *world.edge.pids().get("engine").context("no engine")?;
    let before = sampled(engine, effort).await?;
    let mut shims = Vec::new();
    for i in 0..SLEEPERS {
        let name = format!("sleeper{i}");
        world
            .run_app(&apps::shell_app(&name, "site=north", "exec sleep 100000"))
            .await?;
    }
    tokio::time::sleep(effort.settle).await;
    for i in 0..SLEEPERS {
        let instance = world.edge.instance(&format!("sleeper{i}")).await?;
        shims.push(pss_mib(parent(u32::try_from(instance.pid)?)?)?);
    }
    let growth = (sampled(engine, effort).await? - before) / f64::from(SLEEPERS);
    Ok((shims, growth))
}

/// Memory of a process: the median of some samples.
pub(crate) async fn sampled(pid: u32, effort: Effort) -> Result<f64> {
    let mut values = Vec::new();
    for _ in 0..effort.samples {
        values.push(pss_mib(pid)?);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(median(&mut values))
}
