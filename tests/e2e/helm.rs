//! Applications of the type helm: a chart as `helm package` makes it, with a file of values, as in Baetyl v2.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::wait::until_paced;
use serde_json::{Value, json};

use crate::node::{Node, PATIENCE, PAUSE, SELECTOR, USERS, web};

/// A web server as a chart has one. How it ends, if it does, is a value.
const SERVER: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}-web}
spec:
  selector: {matchLabels: {app.kubernetes.io/instance: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app.kubernetes.io/instance: {{ .Release.Name }}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: {{ .Values.image }}
        command: [/bin/sh, -c, 'echo {{ .Values.words }} >/tmp/index.html; {{ .Values.ends }} exec busybox httpd -f -p 8080 -h /tmp']
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}-web}
spec: {selector: {app.kubernetes.io/instance: {{ .Release.Name }}}, ports: [{port: 80, targetPort: 8080}]}
";

const MAP: &str = "
{apiVersion: v1, kind: ConfigMap, metadata: {name: {{ .Release.Name }}-map}, data: {chart: {{ .Chart.Version | quote }}}}
";

/// A Helm application.
struct Chart<'a> {
    node: &'a Node,
    name: &'static str,
}

impl Chart<'_> {
    /// File name of the chart in its configuration.
    fn file(&self) -> String {
        format!("{}.tgz", self.name)
    }

    /// Uploads a version of the chart and puts it into the configuration the application has it from.
    async fn put_chart(&self, version: &str, templates: &[(&str, &str)]) -> Result<()> {
        let object = format!("e2e-{}-{version}.tgz", self.name);
        let packed = std::fs::read(self.pack(version, templates)?)?;
        let path = format!("/v1/objects/{object}");
        let kind = [("content-type", "application/gzip")];
        let sent = self
            .node
            .rest
            .send(http::Method::PUT, &path, &kind, packed.into());
        sent.await?.ok()?;
        let value = json!({"type": "object", "source": "baetyl", "object": object, "unpack": ""});
        let config = json!({
            "name": format!("{}-chart", self.name),
            "labels": {"baetyl-config-type": "baetyl-helm-tar"},
            "data": [{"key": self.file(), "value": value}],
        });
        self.node.make("configs", &config).await?;
        Ok(())
    }

    /// The chart, packed as Helm does.
    fn pack(&self, version: &str, templates: &[(&str, &str)]) -> Result<PathBuf> {
        let about = format!(
            "{{apiVersion: v2, name: {}, version: {version}}}",
            self.name
        );
        let chart = format!("{}/{version}/{}", self.name, self.name);
        self.node.file(&format!("{chart}/Chart.yaml"), &about)?;
        self.node.file(
            &format!("{chart}/values.yaml"),
            "{words: nothing, ends: ''}",
        )?;
        for (name, text) in templates {
            self.node.file(&format!("{chart}/templates/{name}"), text)?;
        }
        let packed = self
            .node
            .file(&format!("{}-{version}.tgz", self.name), "")?;
        let parent = self.node.file(&format!("{chart}/.helmignore"), "")?;
        let parent = parent.ancestors().nth(2).context("a directory")?;
        let output = std::process::Command::new("tar")
            .arg("-C")
            .arg(parent)
            .arg("-czf")
            .args([packed.as_os_str(), self.name.as_ref()])
            .output()?;
        ensure!(output.status.success(), "tar: {}", output.status);
        Ok(packed)
    }

    async fn put_values(&self, words: &str, ends: &str) -> Result<()> {
        let values = json!({"image": self.node.cluster.busybox(), "words": words, "ends": ends});
        let name = format!("{}-values", self.name);
        let mut config = baetyl_tests::apps::config(&name, &[("values.yaml", &values.to_string())]);
        config["labels"] = json!({"baetyl-config-type": "baetyl-helm-value"});
        self.node.make("configs", &config).await?;
        Ok(())
    }

    /// Makes the application of what was put; a version has failed when it is not ready within `deadline`.
    async fn create(&self, deadline: &str) -> Result<Value> {
        let app = json!({
            "name": self.name, "type": "helm", "mode": "kube", "selector": SELECTOR,
            "labels": {"baetyl-progress-deadline": deadline},
            "services": [{"name": self.name, "image": self.file(), "runtime": "values.yaml"}],
            "volumes": [
                {"name": "chart", "config": {"name": format!("{}-chart", self.name)}},
                {"name": "values", "config": {"name": format!("{}-values", self.name)}},
            ],
        });
        self.node.create(&app).await
    }

    /// The application as it is wished after something it is made of was changed.
    async fn wished(&self) -> Result<Value> {
        self.node.rest.get(&format!("/v1/apps/{}", self.name)).await
    }

    /// Takes it away, and looks whether the chart is gone, too.
    async fn delete(&self) -> Result<()> {
        self.node.delete(self.name).await?;
        let users = self.node.users();
        let mut left = users
            .names("secrets", &format!("owner=helm,name={}", self.name))
            .await?;
        let labelled = "app.kubernetes.io/managed-by=Helm";
        let chart = users.names("all,configmaps", labelled).await?;
        // Other charts may have names that begin like this one's.
        let own = ["web", "map"].map(|part| format!("/{}-{part}", self.name));
        let is_own = |name: &String| own.iter().any(|own| name.ends_with(own));
        left.extend(chart.into_iter().filter(is_own));
        ensure!(left.is_empty(), "{left:?} is left");
        Ok(())
    }
}

#[tokio::test]
async fn a_chart_is_installed_changed_put_back_and_taken_away() -> Result<()> {
    let node = Node::shared().await?;
    let chart = Chart {
        node: &node,
        name: "chart",
    };
    chart
        .put_chart("1.0.0", &[("web.yaml", SERVER), ("map.yaml", MAP)])
        .await?;
    chart.put_values("one", "").await?;
    let app = chart.create("20s").await?;
    let told = node.until_running(&app).await?;
    ensure!(
        told["instances"]
            .as_object()
            .is_some_and(|all| all.len() == 1),
        "{told}"
    );
    node.until_page("chart-web", "one").await?;
    let map: Value = node.users().get("configmap", "chart-map").await?;
    ensure!(map["data"]["chart"] == "1.0.0", "{map}");

    // A change of the values, and of the chart, are versions of the application.
    chart.put_values("two", "").await?;
    node.until_running(&chart.wished().await?).await?;
    node.until_page("chart-web", "two").await?;
    chart.put_chart("2.0.0", &[("web.yaml", SERVER)]).await?;
    let good = chart.wished().await?;
    node.until_running(&good).await?;
    let map = node.users().get::<Value>("configmap", "chart-map").await;
    ensure!(
        map.is_err(),
        "what the chart does not have any more is there"
    );

    // What is never ready is put back.
    chart.put_values("three", "exit 9;").await?;
    let told = node
        .until_failed(&chart.wished().await?, "exit code 9")
        .await?;
    ensure!(told["version"] == good["version"], "{told}");
    node.until_page("chart-web", "two").await?;
    until_paced(PATIENCE, PAUSE, "the values are those before", || async {
        let server: Value = node.users().get("deployment", "chart-web").await?;
        let pod = &server["spec"]["template"]["spec"];
        ensure!(
            pod["containers"][0]["command"]
                .to_string()
                .contains("echo two"),
            "{pod}"
        );
        Ok(())
    })
    .await?;
    chart.put_values("four", "").await?;
    node.until_running(&chart.wished().await?).await?;
    node.until_page("chart-web", "four").await?;
    chart.delete().await
}

#[tokio::test]
async fn what_is_wrong_with_a_chart_is_its_failure_in_helms_words_and_stops_nobody() -> Result<()> {
    let node = Node::shared().await?;
    let role = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: mighty-chart}
rules: []
";
    for (name, template, words) in [
        (
            "chart-blind",
            "{{ .Values.a.b.c }}",
            "nil pointer evaluating",
        ),
        (
            "chart-kind",
            "{apiVersion: shop.example/v1, kind: Robot, metadata: {name: robo}}",
            "no matches for kind \"Robot\"",
        ),
        ("chart-role", role, "forbidden"),
    ] {
        let chart = Chart { node: &node, name };
        chart.put_chart("1.0.0", &[("all.yaml", template)]).await?;
        chart.put_values("", "").await?;
        let app = chart.create("20s").await?;
        node.until_failed(&app, words).await?;
    }
    node.run(&web(&node, "beside-charts", "here")).await?;
    for name in ["chart-blind", "chart-kind", "chart-role"] {
        Chart { node: &node, name }.delete().await?;
    }
    node.delete("beside-charts").await
}

#[tokio::test]
async fn helm_that_is_killed_in_the_middle_is_begun_again() -> Result<()> {
    let node = Node::shared().await?;
    let Some(bed) = node.cluster.bed() else {
        return Ok(());
    };
    let chart = Chart {
        node: &node,
        name: "chart-cut",
    };
    chart.put_chart("1.0.0", &[("web.yaml", SERVER)]).await?;
    // It takes a while, in which Helm waits.
    chart.put_values("late", "busybox sleep 5;").await?;
    let app = chart.create("90s").await?;
    for words in ["late", "later"] {
        node.users()
            .wait_until("deployment", "chart-cut-web", "is being made", |server| {
                let pod = &server["spec"]["template"]["spec"];
                pod["containers"][0]["command"]
                    .to_string()
                    .contains(&format!("echo {words} "))
            })
            .await?;
        let helm = node.users().pod_of("job-name=chart-cut").await?;
        node.users().wait_for_pod(&helm).await?;
        bed.kill_container(USERS, &helm, "baetyl-helm").await?;
        node.until_running(&chart.wished().await?).await?;
        node.until_page("chart-cut-web", words).await?;
        if words == "late" {
            chart.put_values("later", "busybox sleep 5;").await?;
        }
    }
    ensure!(app["version"] != chart.wished().await?["version"]);
    chart.delete().await
}
