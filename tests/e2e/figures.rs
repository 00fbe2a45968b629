//! Figures of kube mode, for `cargo xtask bench kube`: what Pods of the core use, what engine asks of the API server when
//! nothing changes, and how long a change takes on its way. They are told, never asserted.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use baetyl_model::jiff::Timestamp;
use baetyl_tests::wait::until_within;
use serde_json::{Value, json};

use crate::node::{CORE, Node, PATIENCE, SELECTOR, SYSTEM, set_env, web};

/// How long the node is looked at while nothing changes: longer than engine watches in one request (the API server writes a
/// watch down when it ends).
const IDLE: Duration = Duration::from_secs(900);

/// Changes whose way is measured.
const CHANGES: usize = 11;

/// Applications beside which the core is measured.
const APPS: usize = 50;

const ENGINE: &str = "system:serviceaccount:baetyl-edge-system:baetyl-engine";

#[tokio::test]
#[ignore = "takes more than half an hour; cargo xtask bench kube runs it"]
async fn figures_of_kube_mode() -> Result<()> {
    let node = Node::alone().await?;
    changes(&node).await?;
    idle(&node, "no application").await?;
    for number in 0..APPS {
        let app = json!({
            "name": format!("load-{number}"), "type": "container", "mode": "kube", "selector": SELECTOR,
            "services": [{"name": "pause", "image": "localhost/pause:1"}], "volumes": [],
        });
        node.create(&app).await?;
    }
    until_within(4 * PATIENCE, "all of them run", || async {
        let view = node.view().await?;
        let all = view["report"]["appstats"].as_array().context("no report")?;
        let run = all.iter().filter(|app| app["phase"] == "Healthy").count();
        ensure!(run >= APPS, "{run} of {APPS} run");
        Ok(())
    })
    .await?;
    idle(&node, &format!("{APPS} applications")).await
}

/// Memory and CPU of the core, and requests of engine, while nothing changes.
async fn idle(node: &Node, what: &str) -> Result<()> {
    tokio::time::sleep(IDLE / 15).await;
    let (before, asked) = (usage(node).await?, requests(node)?);
    tokio::time::sleep(IDLE).await;
    let (after, asked) = (usage(node).await?, requests(node)? - asked);
    println!("\n{what}, idle for {} s", IDLE.as_secs());
    println!("pod               working set MiB  CPU millicores");
    let mut whole = 0.0;
    for (name, used) in &after {
        let cpu = before.get(name).map_or(0.0, |before| used.cpu - before.cpu);
        let mebibytes = used.memory / f64::from(1 << 20);
        whole += mebibytes;
        println!(
            "{name:<17} {mebibytes:>15.1} {:>15.2}",
            1000.0 * cpu / IDLE.as_secs_f64()
        );
    }
    println!("all               {whole:>15.1}");
    println!(
        "requests of engine to the API server, figures aside: {:.1} a minute",
        asked as f64 * 60.0 / IDLE.as_secs_f64()
    );
    Ok(())
}

struct Used {
    /// Bytes.
    memory: f64,
    /// Seconds, since the container started.
    cpu: f64,
}

/// What the core Pods use, as the kubelet says.
async fn usage(node: &Node) -> Result<BTreeMap<&'static str, Used>> {
    let path = "/api/v1/nodes/edge0/proxy/stats/summary";
    let summary = node.cluster.kubectl().run(&["get", "--raw", path]).await?;
    let summary: Value = serde_json::from_str(&summary)?;
    let pods = summary["pods"]
        .as_array()
        .context("no Pods in the summary")?;
    let mut used = BTreeMap::new();
    for pod in pods
        .iter()
        .filter(|pod| pod["podRef"]["namespace"] == SYSTEM)
    {
        let pod_name = pod["podRef"]["name"].as_str().unwrap_or_default();
        let Some(name) = CORE.into_iter().find(|name| pod_name.starts_with(name)) else {
            continue;
        };
        let container = &pod["containers"][0];
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        used.insert(
            name,
            Used {
                memory: number(&container["memory"]["workingSetBytes"]),
                cpu: number(&container["cpu"]["usageCoreNanoSeconds"]) / 1e9,
            },
        );
    }
    Ok(used)
}

/// Requests engine has made, those for figures aside.
fn requests(node: &Node) -> Result<usize> {
    let bed = node.cluster.bed().context("only in the test bed")?;
    let log = std::fs::read_to_string(bed.path("audit.log"))?;
    let events = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_engine = events.filter(|event| {
        // A watch is written down when it begins, too.
        event["stage"] == "ResponseComplete"
            && event["user"]["username"] == ENGINE
            && !event["requestURI"]
                .as_str()
                .is_some_and(|uri| uri.contains("metrics.k8s.io"))
    });
    Ok(of_engine.count())
}

/// Where a change is on its way, in order: event, and which service tells it.
const HOPS: [(&str, &str, &str); 6] = [
    ("desire.accepted", "baetyl-cloud", "revision"),
    ("desire.delivered", "baetyl-cloud", "generation"),
    (
        "desire.received",
        "baetyl-edge-system/baetyl-sync",
        "generation",
    ),
    (
        "desire.staged",
        "baetyl-edge-system/baetyl-engine",
        "version",
    ),
    (
        "desire.applied",
        "baetyl-edge-system/baetyl-engine",
        "version",
    ),
    ("AppHealthy", "baetyl-edge-system/baetyl-engine", "version"),
];

/// Times of an application's changes, hop by hop.
async fn changes(node: &Node) -> Result<()> {
    let mut app = node.run(&web(node, "measured", "measured")).await?;
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for round in 0..CHANGES {
        set_env(&mut app, "ROUND", &round.to_string());
        let began = Timestamp::now();
        app = node.change(&app).await?;
        node.until_running(&app).await?;
        let version = app["version"].as_str().context("a version")?;
        let mut row = vec![began];
        for (event, service, key) in HOPS {
            row.push(time_of(node, event, service, key, version).await?);
        }
        row.push(stored_after(node, row[row.len() - 1]).await?);
        row.push(ready_at(node).await?);
        let since = |time: &Timestamp| time.duration_since(began).as_secs_f64();
        rows.push(row.iter().map(since).collect());
    }
    println!(
        "\na change of an application whose image is there, {CHANGES} times: seconds since the request, median (most)"
    );
    let names = HOPS.map(|(event, ..)| event);
    let names = names.into_iter().chain(["report.stored", "Pod is Ready"]);
    for (column, name) in names.enumerate() {
        let mut times: Vec<f64> = rows.iter().map(|row| row[column + 1]).collect();
        times.sort_by(f64::total_cmp);
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{name:<17} {median:>6.3} ({most:.3})");
    }
    node.delete("measured").await
}

/// When a service told of an event of this version.
async fn time_of(
    node: &Node,
    event: &str,
    service: &str,
    key: &str,
    version: &str,
) -> Result<Timestamp> {
    let is_it = |line: &str| match event {
        "AppHealthy" => line.contains(&format!("version {version} runs well")),
        _ => line.contains(event) && line.contains(&format!("{key}={version}")),
    };
    let mut times = times_in_log(node, service, is_it).await?.into_iter();
    let first = times.next();
    first.with_context(|| format!("{service} tells no {event} of {version}"))
}

/// When the cloud stored the first report that was made after `healthy`.
async fn stored_after(node: &Node, healthy: Timestamp) -> Result<Timestamp> {
    let (stored, _) = until_within(PATIENCE, "the cloud stores a report", || async {
        let is_it = |line: &str| line.contains("event=\"report.stored\"");
        let times = times_in_log(node, "baetyl-cloud", is_it).await?;
        let stored = times.into_iter().find(|time| *time >= healthy);
        stored.context("none yet")
    })
    .await?;
    Ok(stored)
}

/// Times of lines in the newest part of a service's log.
async fn times_in_log(
    node: &Node,
    service: &str,
    is_it: impl Fn(&str) -> bool,
) -> Result<Vec<Timestamp>> {
    let (namespace, name) = service.split_once('/').unwrap_or((service, service));
    let target = format!("deploy/{name}");
    let args = ["-n", namespace, "logs", &target, "--since=60s"];
    let log = node.cluster.kubectl().run(&args).await?;
    let lines = log.lines().filter(|line| is_it(line));
    let times = lines.filter_map(|line| line.split_whitespace().next()?.parse().ok());
    Ok(times.collect())
}

/// When the only Pod became Ready, to the second.
async fn ready_at(node: &Node) -> Result<Timestamp> {
    let pods = node.pods("measured").await?;
    let conditions = pods
        .iter()
        .filter_map(|pod| pod["status"]["conditions"].as_array());
    let ready = conditions.flatten().filter(|one| one["type"] == "Ready");
    let times = ready.filter_map(|one| one["lastTransitionTime"].as_str()?.parse().ok());
    times.max().context("no Pod is Ready")
}
