//! From the start of a program to its readiness.
//!
//! The services of the edge are those of an activated node and are started again after a `kill -9`, so that their
//! readiness means what it means after a reboot. The cloud is started on an empty directory and again on the same one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use baetyl_tests::edge::Edge;
use baetyl_tests::rest::Rest;
use baetyl_tests::wait::until_every;
use baetyl_tests::world::{Cloud, Process, Shape, World};
use serde_json::json;

use crate::{Effort, Figure, figure, median};

const POLL: Duration = Duration::from_millis(1);
const AIM: &str = "<= 300";

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for shape in [Shape::Five, Shape::One] {
        let mut world = World::start(shape).await?;
        world.until_online().await?;
        for service in shape.services() {
            let mut times = Vec::new();
            for _ in 0..effort.starts {
                times.push(restart(&mut world.edge, service).await?);
            }
            figures.push(figure(
                format!("start of baetyl-{service} on an activated node until it is ready"),
                median(&mut times),
                "ms",
                AIM,
            ));
        }
    }
    let (mut first, mut again, mut init) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.starts {
        let dir = tempfile::Builder::new().prefix("bb-").tempdir()?;
        first.push(cloud(dir.path()).await?);
        again.push(cloud(dir.path()).await?);
        init.push(activation().await?);
    }
    figures.push(figure(
        "first start of baetyl-cloud until it is ready",
        median(&mut first),
        "ms",
        "",
    ));
    figures.push(figure(
        "start of baetyl-cloud until it is ready",
        median(&mut again),
        "ms",
        AIM,
    ));
    figures.push(figure(
        "baetyl-init run: activation until all services are ready",
        median(&mut init),
        "ms",
        "",
    ));
    Ok(figures)
}

/// Kills one service, starts it and waits until it is ready; answers milliseconds.
async fn restart(edge: &mut Edge, service: &'static str) -> Result<f64> {
    edge.kill_service(service)?;
    let address = edge.dir.join(format!("run/{service}-admin.addr"));
    // The port of the one that was killed may be somebody else's by now.
    std::fs::remove_file(&address)?;
    let start = Instant::now();
    edge.start_service(service)?;
    let sockets: &[&str] = match service {
        "edge" => Shape::Five.services(),
        ref one => std::slice::from_ref(one),
    };
    until_every(POLL, service, || async {
        // The admin port is there first, and says "ready" until the service has said what it waits for.
        for socket in sockets {
            edge.channel(socket).await?;
        }
        answers(&address, "/readyz", 200).await
    })
    .await?;
    Ok(milliseconds(start))
}

/// Succeeds when the server whose address is in the file answers with this status.
async fn answers(address: &Path, path: &str, status: u16) -> Result<()> {
    let address = std::fs::read_to_string(address)?;
    let rest = Rest::new(&format!("http://{}", address.trim()), None);
    let answer = rest
        .send(http::Method::GET, path, &[], bytes::Bytes::new())
        .await?;
    ensure!(answer.status == status, "{}", answer.status);
    Ok(())
}

/// One start of a cloud on a directory, and its clean end; answers milliseconds.
async fn cloud(dir: &Path) -> Result<f64> {
    let listen = |name: &str| {
        (
            format!("BAETYL_CLOUD__{name}__LISTEN"),
            "127.0.0.1:0".to_owned(),
        )
    };
    let env = ["ADMIN", "LINK", "ACTIVATION"].map(listen);
    let text = dir.display().to_string();
    let (rest, admin) = (dir.join("run/admin.addr"), dir.join("run/cloud-admin.addr"));
    for address in [&rest, &admin] {
        let _ = std::fs::remove_file(address);
    }
    let start = Instant::now();
    let mut process = Process::start(
        "baetyl-cloud",
        &["serve", "--data-dir", &text],
        &env,
        &dir.join("cloud.log"),
    )?;
    until_every(POLL, "the cloud is ready", || async {
        answers(&rest, "/v1/nodes", 401).await?;
        answers(&admin, "/readyz", 200).await
    })
    .await?;
    let time = milliseconds(start);
    process.stop().await?;
    Ok(time)
}

/// Runs the install command on a node whose services wait for an identity; answers milliseconds.
async fn activation() -> Result<f64> {
    let dir = tempfile::Builder::new().prefix("bb-").tempdir()?;
    let cloud = Cloud::start(&dir.path().join("cloud")).await?;
    let rest = cloud.rest()?;
    rest.post(
        "/v1/nodes",
        &json!({"name": "north-1", "nodeMode": "native"}),
    )
    .await?;
    let mut edge = Edge::new("north-1", &dir.path().join("edge"), Shape::Five)?;
    edge.start().await?;
    for service in edge.services() {
        until_every(POLL, service, || async {
            ensure!(edge.channel(service).await.is_ok(), "does not listen");
            Ok(())
        })
        .await?;
    }
    let start = Instant::now();
    edge.activate(&rest).await?;
    Ok(milliseconds(start))
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
