//! Function calls through the proxy: requests a second, latencies, and the proxy's own CPU per request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::apps;
use baetyl_tests::rest::Rest;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World, program};
use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::idle::sampled;
use crate::process::cpu_seconds;
use crate::{Effort, Figure, figure, median, percentile};

const ROUNDS: usize = 3;
/// 56 bytes, as the peer was measured with.
const BODY: &str = r#"{"name":"0123456789012345678901234567890123456789","n":1}"#;

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Figure>> {
    // The echo runtime takes the place of a language: the cloud is told that it exists, engine where it lies.
    let echo = program("baetyl-runtime-echo")?.display().to_string();
    let mut world = World::start_with(
        Shape::Five,
        &[(
            "BAETYL_ENGINE__RUNTIMES__ECHO__COMMAND",
            format!("[\"{echo}\",\"run\"]"),
        )],
        &[(
            "BAETYL_CLOUD__FUNCTIONS__RUNTIMES__ECHO",
            "only-in-native-mode",
        )],
    )
    .await?;
    for (app, runtime) in [("py", "python3"), ("echo", "echo")] {
        deploy(&world, app, runtime).await?;
    }
    let mut figures = Vec::new();
    for app in ["echo", "py"] {
        let (functions, proxy) = answering(&world, app).await?;
        for callers in [1, 16, 64] {
            figures.extend(load(&functions, app, callers, proxy, effort).await?);
        }
    }
    figures.push(memory(&mut world, effort).await?);
    Ok(figures)
}

async fn deploy(world: &World, app: &str, runtime: &str) -> Result<()> {
    let code = apps::config(
        &format!("{app}-code"),
        &[("f.py", "def handler(event, context):\n    return event\n")],
    );
    world.rest.post("/v1/configs", &code).await?;
    let volume = format!("baetyl-function-code-{app}");
    let function = json!({
        "name": app, "type": "function", "mode": "native", "selector": "site=north",
        "labels": {"baetyl-function-access": "anonymous"},
        "services": [{
            "name": app,
            "functionConfig": {"name": format!("{app}-code"), "runtime": runtime},
            "functions": [{"name": "f", "handler": "f.handler", "codedir": "."}],
            "volumeMounts": [{"name": volume, "mountPath": "/var/lib/baetyl/code", "readOnly": true}],
        }],
        "volumes": [{"name": volume, "config": {"name": format!("{app}-code")}}],
    });
    world.run_app(&function).await?;
    Ok(())
}

/// A client of the proxy that runs now, once the function answers there; and the proxy.
async fn answering(world: &World, app: &str) -> Result<(Rest, u32)> {
    let (functions, _) = until("the function answers", || async {
        let functions = world.edge.functions()?;
        let body = Bytes::from_static(BODY.as_bytes());
        functions
            .send(Method::POST, &format!("/{app}"), &[], body)
            .await?
            .ok()?;
        Ok(functions)
    })
    .await?;
    let pids = world.edge.pids();
    let proxy = pids
        .get("function-proxy")
        .context("the proxy does not run")?;
    Ok((functions, *proxy))
}

/// Memory of the proxy when a load is over, of several proxies.
async fn memory(world: &mut World, effort: Effort) -> Result<Figure> {
    let mut values = Vec::new();
    for _ in 0..effort.rounds {
        world.edge.kill_service("function-proxy")?;
        world.edge.start_service("function-proxy")?;
        let (functions, proxy) = answering(world, "echo").await?;
        load(&functions, "echo", 64, proxy, effort).await?;
        values.push(sampled(proxy, effort).await?);
    }
    Ok(figure(
        "function proxy: memory (PSS) after a load of 64 callers",
        median(&mut values),
        "MiB",
        "<= 8",
    ))
}

#[expect(clippy::cast_precision_loss, reason = "numbers of requests")]
async fn load(
    functions: &Rest,
    app: &str,
    callers: usize,
    proxy: u32,
    effort: Effort,
) -> Result<Vec<Figure>> {
    let (mut rates, mut medians, mut tails, mut costs) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let (cpu, start) = (cpu_seconds(proxy)?, Instant::now());
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                tokio::spawn(call(
                    functions.another(),
                    format!("/{app}"),
                    Arc::clone(&stop),
                ))
            })
            .collect();
        tokio::time::sleep(effort.load).await;
        stop.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await??);
        }
        let (cpu, elapsed) = (cpu_seconds(proxy)? - cpu, start.elapsed().as_secs_f64());
        ensure!(!times.is_empty(), "no request was answered");
        rates.push(times.len() as f64 / elapsed);
        costs.push(cpu * 1e6 / times.len() as f64);
        medians.push(percentile(&mut times, 50));
        tails.push(percentile(&mut times, 99));
    }
    let aim = match callers {
        1 => "<= 102 (peer 204)",
        16 => "<= 25 (peer 51)",
        _ => "<= 21 (peer 42)",
    };
    let title = format!("{app}, {callers} callers:");
    Ok(vec![
        figure(format!("{title} requests"), median(&mut rates), "1/s", ""),
        figure(format!("{title} p50"), median(&mut medians), "ms", ""),
        figure(format!("{title} p99"), median(&mut tails), "ms", ""),
        figure(
            format!("{title} CPU of the proxy per request"),
            median(&mut costs),
            "us",
            aim,
        ),
    ])
}

/// One caller on a connection of its own; answers milliseconds per request.
async fn call(functions: Rest, path: String, stop: Arc<AtomicBool>) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let answer = functions
            .send(
                Method::POST,
                &path,
                &[],
                Bytes::from_static(BODY.as_bytes()),
            )
            .await?;
        ensure!(answer.status == 200, "{}", answer.status);
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}
