//! What cannot be: each ends as the failure of its own application, in Kubernetes' words, or is refused at the border.

use anyhow::{Result, ensure};
use baetyl_tests::wait::until;
use http::Method;
use serde_json::{Value, json};

use crate::node::{IDLE, Node, busybox, web};

/// What the cloud refuses says which field and why, and changes nothing.
#[tokio::test]
async fn what_no_node_could_run_is_refused_at_the_border() -> Result<()> {
    let node = Node::shared().await?;
    let spoil = |change: fn(&mut Value)| {
        let mut app = web(&node, "refused", "refused");
        change(&mut app);
        app
    };
    for (app, words) in [
        (
            spoil(|app| app["workload"] = json!("replicaset")),
            "workload",
        ),
        (
            spoil(|app| {
                let volume = json!({"name": "twice", "emptyDir": {}});
                app["volumes"] = json!([volume, volume]);
            }),
            "volumes[1]",
        ),
        (
            spoil(|app| {
                app["services"][0]["ports"][0]["hostPort"] = json!(18_090);
                app["replica"] = json!(2);
            }),
            "hostPort",
        ),
        (
            spoil(|app| app["labels"]["baetyl-progress-deadline"] = json!("soon")),
            "baetyl-progress-deadline",
        ),
    ] {
        let answer = node.rest.json(Method::POST, "/v1/apps", &app).await?;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        ensure!(
            answer.status == 400 && text.contains(words),
            "{} {text}",
            answer.status
        );
    }
    let none = node
        .rest
        .send(Method::GET, "/v1/apps/refused", &[], bytes::Bytes::new());
    ensure!(none.await?.status == 404);
    Ok(())
}

/// An application that fails with these words while another goes on.
async fn fails(node: &Node, app: &Value, words: &str) -> Result<()> {
    let app = node.create(app).await?;
    node.until_failed(&app, words).await?;
    node.rest
        .delete(&format!(
            "/v1/apps/{}",
            app["name"].as_str().unwrap_or_default()
        ))
        .await?;
    Ok(())
}

#[tokio::test]
async fn what_the_cluster_refuses_is_told_in_its_words_and_stops_nobody() -> Result<()> {
    let node = Node::shared().await?;
    let other = node.run(&web(&node, "bystander", "bystander")).await?;
    let before = node.lives("bystander").await?;

    // A policy of the cluster.
    node.cluster.objects().apply(POLICY).await?;
    let image = node.cluster.busybox();
    let probe = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: unwanted, labels: {{baetyl-app-name: unwanted}}}}, spec: {{containers: [{{name: a, image: '{image}'}}]}}}}"
    );
    until("the policy is in force", || async {
        let args = [
            "-n",
            crate::node::USERS,
            "create",
            "--dry-run=server",
            "-f",
            "-",
        ];
        let taken = node.cluster.kubectl().fed(&args, &probe).await;
        ensure!(taken.is_err(), "Pods are taken");
        Ok(())
    })
    .await?;
    let mut app = busybox(&node, "unwanted", IDLE);
    app["labels"]["baetyl-progress-deadline"] = json!("30s");
    fails(&node, &app, "no Pods of this one").await?;
    for kind in [
        "validatingadmissionpolicybinding",
        "validatingadmissionpolicy",
    ] {
        node.cluster.objects().delete(kind, "e2e-unwanted").await?;
    }

    // A claim that is not there.
    let mut app = busybox(&node, "claimless", IDLE);
    app["services"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    app["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "nobodys"}}]);
    fails(&node, &app, "\"nobodys\" not found").await?;

    // A program that is not in the image.
    let mut app = busybox(&node, "programless", "unused");
    app["services"][0]["command"] = json!(["/bin/nothing"]);
    fails(&node, &app, "no such file or directory").await?;

    node.until_running(&other).await?;
    ensure!(node.lives("bystander").await? == before);
    node.delete("bystander").await
}

const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: e2e-unwanted}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  validations:
  - expression: "!has(object.metadata.labels) || !('baetyl-app-name' in object.metadata.labels) || object.metadata.labels['baetyl-app-name'] != 'unwanted'"
    message: no Pods of this one
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: e2e-unwanted}
spec: {policyName: e2e-unwanted, validationActions: [Deny]}
"#;

#[tokio::test]
async fn a_quota_that_is_full_is_told_and_the_application_runs_when_there_is_room() -> Result<()> {
    // A quota is one of the whole namespace.
    let node = Node::alone().await?;
    let quota = "{apiVersion: v1, kind: ResourceQuota, metadata: {name: e2e-quota}, spec: {hard: {pods: '0'}}}";
    node.users().apply(quota).await?;
    let mut app = web(&node, "crowded", "crowded");
    app["labels"]["baetyl-progress-deadline"] = json!("90s");
    let app = node.create(&app).await?;
    let told = |told: &Value| {
        let cause = told["cause"].as_str();
        cause.is_some_and(|cause| cause.contains("exceeded quota"))
    };
    let seen = node
        .until_app("crowded", "is told of the quota", told)
        .await;
    node.users().delete("resourcequota", "e2e-quota").await?;
    seen?;
    // Failed by now or not: what is wished again is tried again.
    let mut again = app;
    crate::node::set_env(&mut again, "AGAIN", "1");
    let again = node.change(&again).await?;
    node.until_running(&again).await?;
    node.delete("crowded").await
}
