//! Function calls through the proxy: requests a second, latencies, and the proxy's own CPU per request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::apps;
use baetyl_tests::rest::Rest;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World, program};
use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::process::{cpu_seconds, pss_kib};
use crate::{Figure, figure, median, percentile};

const TIME: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;
/// 56 bytes, as the peer was measured with.
const BODY: &str = r#"{"name":"0123456789012345678901234567890123456789","n":1}"#;

pub(crate) async fn measure() -> Result<Vec<Figure>> {
    let mut world = World::start(Shape::Five).await?;
    // The echo runtime takes the place of a language: engine is told where it lies.
    let echo = program("baetyl-runtime-echo")?.display().to_string();
    world.edge.kill_service("engine")?;
    world.edge.set_env(
        "BAETYL_ENGINE__RUNTIMES__ECHO__COMMAND",
        &format!("[\"{echo}\",\"run\"]"),
    );
    world.edge.start_service("engine")?;
    for (app, runtime) in [("py", "python3"), ("echo", "echo")] {
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
    }
    let proxy = *world
        .edge
        .pids()
        .get("function-proxy")
        .context("the proxy does not run")?;
    let functions = world.edge.functions()?;
    let mut figures = Vec::new();
    for app in ["echo", "py"] {
        until("the function answers", || async {
            functions
                .send(
                    Method::POST,
                    &format!("/{app}"),
                    &[],
                    Bytes::from_static(BODY.as_bytes()),
                )
                .await?
                .ok()
        })
        .await?;
        for callers in [1, 16, 64] {
            figures.extend(load(&functions, app, callers, proxy).await?);
        }
    }
    figures.push(figure(
        "function proxy: memory (PSS) after the load",
        pss_kib(proxy)? / 1024.0,
        "MiB",
        "<= 8",
    ));
    Ok(figures)
}

#[expect(clippy::cast_precision_loss, reason = "numbers of requests")]
async fn load(functions: &Rest, app: &str, callers: usize, proxy: u32) -> Result<Vec<Figure>> {
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
        tokio::time::sleep(TIME).await;
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
