//! Many applications at once. All 200 when `BAETYL_E2E_FULL` is set, a part of them otherwise.

use std::time::Instant;

use anyhow::{Result, ensure};
use baetyl_tests::wait::until_within;
use serde_json::{Value, json};

use crate::node::{Node, PATIENCE, SELECTOR};

#[tokio::test]
async fn many_applications_at_once_all_run_and_all_go() -> Result<()> {
    let node = Node::alone().await?;
    if node.cluster.bed().is_none() {
        return Ok(());
    }
    let count = if std::env::var_os("BAETYL_E2E_FULL").is_some() {
        200
    } else {
        40
    };
    let name = |number: usize| format!("many-{number}");
    let begin = Instant::now();
    for number in 0..count {
        let app = json!({
            "name": name(number), "type": "container", "mode": "kube", "selector": SELECTOR,
            "services": [{"name": "pause", "image": "localhost/pause:1"}], "volumes": [],
        });
        node.create(&app).await?;
    }
    let of_them = |stats: &Value| {
        let all = stats.as_array().cloned().unwrap_or_default();
        let mut own = all.into_iter();
        own.by_ref()
            .filter(|app| {
                app["name"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("many-"))
            })
            .collect::<Vec<_>>()
    };
    until_within(4 * PATIENCE, "all of them run", || async {
        let view = node.view().await?;
        let own = of_them(&view["report"]["appstats"]);
        let run = own.iter().filter(|app| app["phase"] == "Healthy").count();
        ensure!(run == count, "{run} of {count} run");
        Ok(())
    })
    .await?;
    println!("{count} applications run after {:.1?}", begin.elapsed());
    let begin = Instant::now();
    for number in 0..count {
        node.rest
            .delete(&format!("/v1/apps/{}", name(number)))
            .await?;
    }
    until_within(4 * PATIENCE, "all of them are gone", || async {
        let view = node.view().await?;
        let own = of_them(&view["report"]["appstats"]);
        ensure!(own.is_empty(), "{} are left", own.len());
        Ok(())
    })
    .await?;
    println!("and are gone after {:.1?}", begin.elapsed());
    Ok(())
}
