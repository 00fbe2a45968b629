//! Applications of the type yaml: any objects of the ordinary kinds, applied in the name of `baetyl-apply`.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::node::{Node, SELECTOR, USERS};

/// A YAML application with these documents.
pub(crate) async fn apply(node: &Node, name: &str, documents: &str) -> Result<Value> {
    let config = format!("{name}-yaml");
    let body = baetyl_tests::apps::config(&config, &[("all.yaml", documents)]);
    node.make("configs", &body).await?;
    let app = json!({
        "name": name, "type": "yaml", "mode": "kube", "selector": SELECTOR,
        "labels": {"baetyl-progress-deadline": "15s"},
        "volumes": [{"name": "yaml", "config": {"name": config}}],
    });
    let answer = node.rest.json(http::Method::POST, "/v1/apps", &app).await?;
    if answer.status.is_success() {
        return answer.ok();
    }
    node.rest.get(&format!("/v1/apps/{name}")).await
}

pub(crate) fn deployment(node: &Node, name: &str, words: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: {}
        command: [/bin/sh, -c, 'echo {words} >/tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp']
        ports: [{{containerPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
",
        node.cluster.busybox()
    )
}

#[tokio::test]
async fn objects_are_applied_changed_pruned_and_taken_away() -> Result<()> {
    let node = Node::shared().await?;
    let map = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: yaml-map}, data: {a: b}}\n";
    let both = format!("{}{map}", deployment(&node, "yaml-web", "one"));
    let app = apply(&node, "yaml", &both).await?;
    node.until_running(&app).await?;
    node.until_page("yaml-web", "one").await?;
    ensure!(node.users().get::<Value>("configmap", "yaml-map").await?["data"]["a"] == "b");
    let app = apply(&node, "yaml", &deployment(&node, "yaml-web", "two")).await?;
    node.until_running(&app).await?;
    node.until_page("yaml-web", "two").await?;
    ensure!(
        node.users()
            .get::<Value>("configmap", "yaml-map")
            .await
            .is_err(),
        "not pruned"
    );
    node.delete("yaml").await?;
    ensure!(
        node.users()
            .get::<Value>("deployment", "yaml-web")
            .await
            .is_err()
    );
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_one_is_its_failure_in_kubernetes_words() -> Result<()> {
    let node = Node::shared().await?;
    for (name, documents, words) in [
        (
            "yaml-tabs",
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: x\n",
            "tab",
        ),
        (
            "yaml-crd",
            "{apiVersion: shop.example/v1, kind: Robot, metadata: {name: robo}}",
            "no matches for kind \"Robot\"",
        ),
        (
            "yaml-abroad",
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: kube-system}}",
            "kube-system",
        ),
        (
            "yaml-role",
            "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: mighty}, rules: []}",
            "forbidden",
        ),
        (
            "yaml-field",
            "{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}, spec: {replicas: many}}",
            "replicas",
        ),
    ] {
        let app = apply(&node, name, documents).await?;
        node.until_failed(&app, words).await?;
        node.rest.delete(&format!("/v1/apps/{name}")).await?;
    }
    ensure!(
        node.cluster
            .objects_in(USERS)
            .get::<Value>("role", "mighty")
            .await
            .is_err()
    );
    Ok(())
}

#[tokio::test]
async fn a_deployment_in_it_that_is_never_ready_is_put_back() -> Result<()> {
    let node = Node::shared().await?;
    let good = apply(&node, "yaml-back", &deployment(&node, "yaml-back", "good")).await?;
    node.until_running(&good).await?;
    let broken = deployment(&node, "yaml-back", "bad")
        .replace("exec busybox httpd", "exit 9; exec busybox httpd");
    let bad = apply(&node, "yaml-back", &broken).await?;
    node.until_failed(&bad, "exit code 9").await?;
    node.until_page("yaml-back", "good").await?;
    node.delete("yaml-back").await
}
