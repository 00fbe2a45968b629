//! Functions: called through the proxy's Service, scaled, mended.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use baetyl_tests::wait::until_within;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::node::{Node, PATIENCE, SELECTOR};

/// A Python function application with this code.
async fn create(node: &Node, name: &str, code: &str, access: &str) -> Result<Value> {
    let config_name = format!("{name}-code");
    let config = baetyl_tests::apps::config(&config_name, &[("f.py", code)]);
    node.make("configs", &config).await?;
    let app = json!({
        "name": name, "type": "function", "mode": "kube", "selector": SELECTOR,
        "services": [{
            "name": name,
            "functionConfig": {"name": config_name, "runtime": "python3", "access": access},
            "functions": [{"name": "f", "handler": "f.handler", "codedir": "."}],
            "volumeMounts": [{"name": "code", "mountPath": "/var/lib/baetyl/code", "readOnly": true}],
        }],
        "volumes": [{"name": "code", "config": {"name": config_name}}],
    });
    node.run(&app).await
}

const WHERE: &str =
    "import os\ndef handler(event, context):\n    return os.environ['BAETYL_INSTANCE_NAME']\n";

#[tokio::test]
async fn a_function_that_is_scaled_answers_from_all_its_instances() -> Result<()> {
    let node = Node::shared().await?;
    let mut app = create(&node, "where", WHERE, "anonymous").await?;
    app["replica"] = json!(2);
    let app = node.change(&app).await?;
    node.until_running(&app).await?;
    let answered = Mutex::new(BTreeSet::new());
    until_within(PATIENCE, "both instances answer", || async {
        let (status, body) = node.invoke("/where", "1").await?;
        ensure!(status == 200, "{status} {body}");
        let mut answered = answered.lock().await;
        answered.insert(body);
        ensure!(answered.len() == 2, "{answered:?}");
        Ok(())
    })
    .await?;
    node.delete("where").await
}

#[tokio::test]
async fn a_function_for_applications_wants_a_token() -> Result<()> {
    let node = Node::shared().await?;
    create(&node, "guarded", WHERE, "token").await?;
    let (status, body) = node.invoke("/guarded", "1").await?;
    ensure!(status == 401, "{status} {body}");
    let token = node.app_token("guarded").await?;
    let request = json!({"service": "guarded", "function": "f", "payload": "MQ=="});
    let method = "baetyl.function.v1.FunctionService/Invoke";
    let answer = node.grpcurl("baetyl-function", 50012, method, &request, Some(&token));
    ensure!(answer.await?["payload"].is_string());
    node.delete("guarded").await
}

#[tokio::test]
async fn a_function_whose_pod_is_ended_answers_again() -> Result<()> {
    let node = Node::shared().await?;
    let code = "def handler(event, context):\n    return {'hello': event}\n";
    create(&node, "again", code, "anonymous").await?;
    let hello = json!({"hello": 1});
    node.until_answered("/again", "1", &hello).await?;
    let args = [
        "-n",
        crate::node::USERS,
        "delete",
        "pods",
        "-l",
        "baetyl-app-name=again",
    ];
    node.cluster.kubectl().run(&args).await?;
    node.until_answered("/again", "1", &hello).await?;
    node.delete("again").await
}
