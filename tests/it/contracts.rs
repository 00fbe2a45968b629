//! Every server of a running node, as grpcurl sees it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World};

fn grpcurl() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/grpcurl");
    if built.exists() {
        return Some(built);
    }
    Command::new("grpcurl")
        .arg("--version")
        .output()
        .is_ok()
        .then(|| "grpcurl".into())
}

both_shapes!(
    grpcurl_lists_and_calls_what_each_service_serves,
    health_is_served_in_plaintext_on_the_admin_port_of_each_program,
);

async fn grpcurl_lists_and_calls_what_each_service_serves(shape: Shape) -> Result<()> {
    let Some(grpcurl) = grpcurl() else {
        assert!(
            std::env::var_os("BAETYL_TEST_NO_SKIP").is_none(),
            "grpcurl is missing"
        );
        println!(
            "skipped: needs grpcurl (go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3)"
        );
        return Ok(());
    };
    let world = World::start(shape).await?;
    let run = |args: &[&str]| -> Result<String> {
        let output = Command::new(&grpcurl).args(args).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    };
    let expected = [
        (
            "node",
            &["baetyl.node.v1.NodeService", "baetyl.node.v1.LocalService"][..],
            "baetyl.node.v1.NodeService/GetShadow",
        ),
        (
            "sync",
            &["baetyl.sync.v1.SyncService"][..],
            "baetyl.sync.v1.SyncService/GetLinkState",
        ),
        (
            "engine",
            &["baetyl.engine.v1.EngineService"][..],
            "baetyl.engine.v1.EngineService/ListApps",
        ),
        (
            "function-proxy",
            &["baetyl.function.v1.FunctionService", "faas.Function"][..],
            "baetyl.function.v1.FunctionService/ListFunctions",
        ),
    ];
    for (service, names, call) in expected {
        let address = format!(
            "unix://{}",
            world
                .edge
                .dir
                .join(format!("run/core/{service}.sock"))
                .display()
        );
        until(&format!("{service} answers"), || {
            world.edge.channel(service)
        })
        .await?;
        let list = run(&["-plaintext", &address, "list"])?;
        for name in names.iter().chain(&["grpc.health.v1.Health"]) {
            ensure!(
                list.lines().any(|line| line == *name),
                "{service} does not list {name}:\n{list}"
            );
        }
        run(&[
            "-plaintext",
            &address,
            "describe",
            names.first().context("no name")?,
        ])?;
        run(&["-plaintext", &address, call]).with_context(|| format!("{service}: {call}"))?;
        let health = run(&["-plaintext", &address, "grpc.health.v1.Health/Check"])?;
        ensure!(health.contains("SERVING"), "{service}: {health}");
    }
    Ok(())
}

async fn health_is_served_in_plaintext_on_the_admin_port_of_each_program(
    shape: Shape,
) -> Result<()> {
    let world = World::start(shape).await?;
    for service in world.edge.services() {
        let address = world.edge.address(&format!("{service}-admin"))?;
        let rest = baetyl_tests::rest::Rest::new(&format!("http://{address}"), None);
        for (path, word) in [("/livez", ""), ("/readyz", ""), ("/metrics", "# TYPE")] {
            let answer = rest
                .send(http::Method::GET, path, &[], bytes::Bytes::new())
                .await?;
            let text = String::from_utf8_lossy(&answer.bytes).into_owned();
            ensure!(
                answer.status == 200 && text.contains(word),
                "{service}{path}: {} {text}",
                answer.status
            );
        }
    }
    Ok(())
}
