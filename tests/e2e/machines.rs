//! A cluster of two machines is one edge node.

use anyhow::{Result, ensure};
use baetyl_tests::wait::until_within;
use serde_json::{Value, json};

use crate::node::{Node, PATIENCE, web};

#[tokio::test]
async fn two_machines_are_one_node() -> Result<()> {
    let node = Node::alone().await?;
    let Some(bed) = node.cluster.bed() else {
        return Ok(());
    };
    let machine = bed.join(1).await?;
    let mut everywhere = web(&node, "all-machines", "here");
    everywhere["workload"] = json!("daemonset");
    let everywhere = node.create(&everywhere).await?;
    let mut one = web(&node, "one-machine", "there");
    one["nodeSelector"] = json!(format!("kubernetes.io/hostname={}", machine.name()));
    let one = node.create(&one).await?;
    node.until_running(&everywhere).await?;
    node.until_running(&one).await?;
    let machines = |app: &Value| -> Vec<String> {
        let instances = app["instances"].as_object();
        let names = instances.into_iter().flat_map(|all| all.values());
        let mut names: Vec<String> = names.map(|one| one["nodeName"].to_string()).collect();
        names.sort();
        names
    };
    let told = node.app("all-machines").await?;
    ensure!(machines(&told) == [r#""edge0""#, r#""edge1""#], "{told}");
    let told = node.app("one-machine").await?;
    ensure!(machines(&told) == [r#""edge1""#], "{told}");
    until_within(PATIENCE, "the report has both machines", || async {
        let view = node.view().await?;
        for part in ["node", "nodestats"] {
            let machines = view["report"][part].as_object();
            ensure!(
                machines.is_some_and(|all| all.len() == 2),
                "{}",
                view["report"][part]
            );
        }
        Ok(())
    })
    .await?;
    node.delete("one-machine").await?;
    node.delete("all-machines").await
}
