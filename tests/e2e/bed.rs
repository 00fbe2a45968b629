//! What the other tests rely on: a cluster that runs Pods, a registry, and faults that are really there.

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::wait::until;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Objects, is_ready};

/// A Deployment `web` of one Pod that serves the words `it works`, and its Service.
fn web(image: &str) -> String {
    format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: web }}
spec:
  replicas: 1
  selector: {{ matchLabels: {{ app: web }} }}
  template:
    metadata: {{ labels: {{ app: web }} }}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: {image}
          imagePullPolicy: IfNotPresent
          command: [/bin/sh, -c, 'echo started; echo it works > /tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp']
          ports: [{{ name: http, containerPort: 8080 }}]
          readinessProbe: {{ httpGet: {{ path: /, port: http }}, periodSeconds: 1 }}
---
apiVersion: v1
kind: Service
metadata: {{ name: web }}
spec: {{ selector: {{ app: web }}, ports: [{{ port: 80, targetPort: http }}] }}
"
    )
}

/// A Pod that does nothing for as long as it is there.
fn idle_pod(name: &str, image: &str, more: &Value) -> String {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": image,
                "imagePullPolicy": "Always",
                "command": ["/bin/busybox", "tail", "-f", "/dev/null"],
            }],
        },
    });
    if let (Some(spec), Some(more)) = (pod["spec"].as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    pod.to_string()
}

/// What the Service `web` answers to a Pod of the same namespace. A Pod is Ready some 100 ms before its Service answers.
async fn answer_of_web(objects: &Objects, asked_from: &str) -> Result<String> {
    let command = ["busybox", "wget", "-q", "-O-", "http://web/"];
    let (answer, _) = until("the Service web answers", || {
        objects.exec(asked_from, &command)
    })
    .await?;
    Ok(answer)
}

fn waiting_reason(pod: &Value) -> &str {
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    waiting["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn the_node_is_ready_and_takes_250_pods() -> Result<()> {
    let cluster = Cluster::shared().await?;
    if cluster.bed().is_none() {
        return Ok(());
    }
    let node: Value = cluster.objects().get("node", "edge0").await?;
    ensure!(is_ready(&node), "{}", node["status"]["conditions"]);
    ensure!(node["status"]["capacity"]["pods"] == "250");
    Ok(())
}

#[tokio::test]
async fn a_deployment_answers_through_its_service() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let objects = cluster.fresh_namespace("web").await?;
    objects.apply(&web(cluster.busybox())).await?;
    objects.wait_for_deployment("web").await?;
    ensure!(answer_of_web(&objects, "deploy/web").await? == "it works\n");
    let pod = objects.pod_of("app=web").await?;
    ensure!(objects.logs(&pod, "web").await? == "started\n");
    Ok(())
}

#[tokio::test]
async fn the_open_registry_gives_what_was_pushed() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let Some(bed) = cluster.bed() else {
        return Ok(());
    };
    bed.push(&bed.path("images/box"), "some/folder/box:open")
        .await?;
    let objects = cluster.fresh_namespace("open").await?;
    let image = format!("{}/some/folder/box:open", cluster.registry()?);
    objects
        .apply(&idle_pod("pulled", &image, &json!({})))
        .await?;
    objects.wait_for_pod("pulled").await?;
    Ok(())
}

#[tokio::test]
async fn the_closed_registry_wants_credentials() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let Some(bed) = cluster.bed() else {
        return Ok(());
    };
    let (registry, credentials) = bed.closed_registry()?;
    bed.push(&bed.path("images/box"), "closed/box:1").await?;
    let objects = cluster.fresh_namespace("closed").await?;
    let image = format!("{registry}/closed/box:1");
    let entry = json!({ "username": credentials.user, "password": credentials.password });
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": { "name": "pull" },
        "stringData": { ".dockerconfigjson": json!({ "auths": { registry: entry } }).to_string() },
    });
    objects.apply(&secret.to_string()).await?;
    let with = json!({ "imagePullSecrets": [{ "name": "pull" }] });
    objects.apply(&idle_pod("with", &image, &with)).await?;
    objects
        .apply(&idle_pod("without", &image, &json!({})))
        .await?;
    objects.wait_for_pod("with").await?;
    let refused = |pod: &Value| waiting_reason(pod) == "ImagePullBackOff";
    objects
        .wait_until("pod", "without", "is refused its image", refused)
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_registry_that_was_gone_has_its_images_again() -> Result<()> {
    let cluster = Cluster::alone().await?;
    let Some(bed) = cluster.bed() else {
        return Ok(());
    };
    bed.push(&bed.path("images/box"), "kept/box:1").await?;
    let objects = cluster.fresh_namespace("gone").await?;
    let image = format!("{}/kept/box:1", cluster.registry()?);
    bed.kill_component("registry").await?;
    let pod = idle_pod("pulled", &image, &json!({}));
    let refused = match objects.apply(&pod).await {
        Ok(()) => {
            let refused = |pod: &Value| waiting_reason(pod) == "ImagePullBackOff";
            objects
                .wait_until("pod", "pulled", "finds no registry", refused)
                .await
        }
        Err(error) => Err(error),
    };
    bed.start_component("registry").await?;
    refused?;
    objects.wait_for_pod("pulled").await?;
    Ok(())
}

#[tokio::test]
async fn a_killed_container_is_started_again() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let Some(bed) = cluster.bed() else {
        return Ok(());
    };
    let objects = cluster.fresh_namespace("kill").await?;
    objects.apply(&web(cluster.busybox())).await?;
    objects.wait_for_deployment("web").await?;
    let pod = objects.pod_of("app=web").await?;
    bed.kill_container(objects.name(), &pod, "web").await?;
    let pod = objects
        .wait_until("pod", &pod, "runs for the second time", |pod| {
            pod["status"]["containerStatuses"][0]["restartCount"] == 1 && is_ready(pod)
        })
        .await?;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    ensure!(last["exitCode"] == 137, "{last}");
    Ok(())
}

#[tokio::test]
async fn a_paused_api_server_answers_nobody_and_then_goes_on() -> Result<()> {
    let cluster = Cluster::alone().await?;
    let Some(bed) = cluster.bed() else {
        return Ok(());
    };
    let asked = ["get", "--raw", "/readyz", "--request-timeout=2s"];
    let paused = bed.pause_api().await?;
    let silence = cluster.kubectl().run(&asked).await;
    drop(paused);
    let error = silence.err().context("a paused API server has answered")?;
    ensure!(
        ["Timeout", "timeout", "deadline"]
            .iter()
            .any(|word| error.to_string().contains(word)),
        "{error:#}"
    );
    let (answer, _) = until("the API server goes on", || cluster.kubectl().run(&asked)).await?;
    ensure!(answer == "ok");
    Ok(())
}

#[tokio::test]
async fn after_a_reboot_of_everything_pods_come_back() -> Result<()> {
    let cluster = Cluster::alone().await?;
    let Some(bed) = cluster.bed() else {
        return Ok(());
    };
    let objects = cluster.fresh_namespace("reboot").await?;
    objects.apply(&web(cluster.busybox())).await?;
    objects.wait_for_deployment("web").await?;
    let pod = objects.pod_of("app=web").await?;
    let node: Value = cluster.objects().get("node", "edge0").await?;
    let before = node["status"]["nodeInfo"]["bootID"].clone();

    bed.reboot().await?;

    cluster
        .objects()
        .wait_until("node", "edge0", "has started anew", |node| {
            node["status"]["nodeInfo"]["bootID"] != before && is_ready(node)
        })
        .await?;
    objects
        .wait_until("pod", &pod, "runs for the second time", |pod| {
            pod["status"]["containerStatuses"][0]["restartCount"] == 1 && is_ready(pod)
        })
        .await?;
    ensure!(answer_of_web(&objects, "deploy/web").await? == "it works\n");
    let dns = cluster.objects_in("kube-system");
    dns.wait_for_deployment("coredns").await?;
    Ok(())
}

#[tokio::test]
async fn a_second_node_joins_pulls_and_is_reached() -> Result<()> {
    let cluster = Cluster::alone().await?;
    let Some(bed) = cluster.bed() else {
        return Ok(());
    };
    let node = bed.join(1).await?;
    let objects = cluster.fresh_namespace("join").await?;
    let image = format!("{}/box:1", cluster.registry()?);
    let there = json!({ "nodeSelector": { "kubernetes.io/hostname": node.name() } });
    objects.apply(&idle_pod("client", &image, &there)).await?;
    objects.apply(&web(cluster.busybox())).await?;
    let client = objects.wait_for_pod("client").await?;
    ensure!(client["spec"]["nodeName"] == node.name());
    let here = json!({ "spec": { "template": { "spec": { "nodeName": "edge0" } } } });
    let patch = [
        "-n",
        objects.name(),
        "patch",
        "deployment",
        "web",
        "--patch",
    ];
    cluster
        .kubectl()
        .run(&[&patch[..], &[&here.to_string()]].concat())
        .await?;
    objects.wait_for_deployment("web").await?;
    ensure!(answer_of_web(&objects, "client").await? == "it works\n");
    objects.delete("pod", "client").await?;
    Ok(())
}

#[tokio::test]
async fn who_asked_for_what_is_in_the_audit_log() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let Some(bed) = cluster.bed() else {
        return Ok(());
    };
    let objects = cluster.fresh_namespace("audit").await?;
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "audited" },
        "data": { "word": "nobody logs this" },
    });
    objects.apply(&map.to_string()).await?;
    let text = std::fs::read_to_string(bed.path("audit.log"))?;
    let mut events = text.lines().map(serde_json::from_str::<Value>);
    let ours = |event: &Value| {
        event["objectRef"]["namespace"] == objects.name()
            && event["objectRef"]["name"] == "audited"
            && event["verb"] == "create"
    };
    let event = events
        .find_map(|event| event.ok().filter(ours))
        .context("the request is not in the audit log")?;
    ensure!(event["level"] == "Metadata" && event["stage"] == "ResponseComplete");
    ensure!(event["user"]["username"] == "admin", "{}", event["user"]);
    ensure!(!text.contains("nobody logs this") && !text.contains("RequestReceived"));
    Ok(())
}

#[tokio::test]
async fn the_metrics_api_knows_the_node() -> Result<()> {
    let cluster = Cluster::shared().await?;
    if cluster.bed().is_none() {
        return Ok(());
    }
    let path = ["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes/edge0"];
    let (text, _) = until("the metrics API answers", || cluster.kubectl().run(&path)).await?;
    let node: Value = serde_json::from_str(&text)?;
    ensure!(node["usage"]["memory"].is_string(), "{node}");
    Ok(())
}
