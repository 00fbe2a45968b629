//! Applications on the node: made through the cloud, looked at from the cloud and from the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::rest::Rest;
use baetyl_tests::wait::{until_paced, until_within};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Node, SELECTOR, USERS};

/// How long anything may take on a busy machine with two cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks with kubectl, a large program.
pub(crate) const PAUSE: Duration = Duration::from_millis(300);

/// Label that says how long a version may take to become ready.
const DEADLINE: &str = "baetyl-progress-deadline";

/// Pods of an application: uid and how often containers were started, by name. Equal: nobody was touched.
pub(crate) type Lives = BTreeMap<String, (String, u64)>;

/// Does nothing until it is told to end: a shell that is the first process would not hear it otherwise.
pub(crate) const IDLE: &str = "trap 'exit 0' TERM; while :; do busybox sleep 1 & wait; done";

/// An application of one container that runs a script. A version that is not ready within a quarter of a minute has
/// failed.
pub(crate) fn busybox(node: &Node, name: &str, script: &str) -> Value {
    json!({
        "name": name, "type": "container", "mode": "kube", "selector": SELECTOR,
        "labels": {DEADLINE: "15s"},
        "services": [{
            "name": name,
            "image": node.cluster.busybox(),
            "command": ["/bin/sh", "-c"],
            "args": [script],
        }],
        "volumes": [],
    })
}

/// An application that serves `words` on port 8080.
pub(crate) fn web(node: &Node, name: &str, words: &str) -> Value {
    let script = format!("echo '{words}' >/tmp/index.html; busybox httpd -p 8080 -h /tmp; {IDLE}");
    let mut app = busybox(node, name, &script);
    let service = &mut app["services"][0];
    service["ports"] = json!([{"containerPort": 8080, "protocol": "TCP"}]);
    service["readinessProbe"] =
        json!({"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1});
    app
}

/// Sets an environment variable of the first service.
pub(crate) fn set_env(app: &mut Value, name: &str, value: &str) {
    baetyl_tests::apps::set_env(app, name, value);
}

impl Node {
    /// Makes an application; gives it with its version. One of that name that a test left behind when it failed is taken
    /// away first.
    pub(crate) async fn create(&self, app: &Value) -> Result<Value> {
        let made = self.rest.json(Method::POST, "/v1/apps", app).await?;
        if made.status == StatusCode::CONFLICT {
            self.delete(app["name"].as_str().context("a name")?).await?;
            return self.rest.post("/v1/apps", app).await;
        }
        made.ok()
    }

    /// Makes a configuration, a secret or a registry (`kind` is the word in the path), or makes one that is there this.
    pub(crate) async fn make(&self, kind: &str, body: &Value) -> Result<Value> {
        let path = format!("/v1/{kind}");
        let made = self.rest.json(Method::POST, &path, body).await?;
        if made.status == StatusCode::CONFLICT {
            let name = body["name"].as_str().context("a name")?;
            return self.rest.put(&format!("{path}/{name}"), body).await;
        }
        made.ok()
    }

    /// Changes an application; gives it with its version.
    pub(crate) async fn change(&self, app: &Value) -> Result<Value> {
        let name = app["name"].as_str().context("a name")?;
        self.rest.put(&format!("/v1/apps/{name}"), app).await
    }

    /// Makes an application and waits until it runs; gives it with its version.
    pub(crate) async fn run(&self, app: &Value) -> Result<Value> {
        let app = self.create(app).await?;
        self.until_running(&app).await?;
        Ok(app)
    }

    /// What the report says of an application.
    pub(crate) async fn app(&self, name: &str) -> Result<Value> {
        let node = self.view().await?;
        let stats = node["report"]["appstats"].as_array().context("no report")?;
        let own = stats.iter().find(|stats| stats["name"] == name);
        Ok(own.with_context(|| format!("no entry of {name}"))?.clone())
    }

    /// Waits until `condition` holds for what the report says of an application; gives that.
    pub(crate) async fn until_app(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let told = until_within(PATIENCE, &format!("{name} {what}"), || async {
            let app = self.app(name).await?;
            ensure!(condition(&app), "{app}");
            Ok(app)
        })
        .await;
        match told {
            Ok((app, _)) => Ok(app),
            Err(error) => Err(error.context(self.explain(name).await)),
        }
    }

    /// Waits until this version runs and is healthy.
    pub(crate) async fn until_running(&self, app: &Value) -> Result<Value> {
        let name = app["name"].as_str().context("a name")?;
        let version = app["version"].as_str().context("a version")?;
        self.until_app(name, &format!("{version} runs"), |stats| {
            stats["version"] == version
                && stats["phase"] == "Healthy"
                && stats["status"] == "Running"
        })
        .await
    }

    /// Waits until this version has failed and its cause says this; the node goes on.
    pub(crate) async fn until_failed(&self, app: &Value, words: &str) -> Result<Value> {
        let name = app["name"].as_str().context("a name")?;
        let version = app["version"].as_str().context("a version")?;
        let failed = format!("version {version} failed");
        self.until_app(name, &format!("{version} failed: {words}"), |stats| {
            let cause = stats["cause"].as_str().unwrap_or_default();
            cause.contains(&failed) && cause.contains(words)
        })
        .await
    }

    /// Takes an application away and waits until nothing of it is in the cluster.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.rest.delete(&format!("/v1/apps/{name}")).await?;
        let selector = format!("baetyl-app-name={name}");
        let gone = || async {
            let kinds = "all,configmaps,secrets";
            let left = self.users().names(kinds, &selector).await?;
            ensure!(left.is_empty(), "{left:?} is left");
            ensure!(self.app(name).await.is_err(), "it is still reported");
            Ok(())
        };
        until_paced(PATIENCE, PAUSE, &format!("{name} is gone"), gone).await?;
        Ok(())
    }

    /// Pods of an application that are not being ended.
    pub(crate) async fn pods(&self, app: &str) -> Result<Vec<Value>> {
        let selector = format!("baetyl-app-name={app}");
        let mut pods: Vec<Value> = self.users().list("pods", &selector).await?;
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(pods)
    }

    /// Who of an application lives.
    pub(crate) async fn lives(&self, app: &str) -> Result<Lives> {
        let pods = self.pods(app).await?;
        ensure!(!pods.is_empty(), "{app} has no Pod");
        let life = |pod: &Value| -> Result<(String, (String, u64))> {
            let text = |value: &Value| Some(value.as_str()?.to_owned());
            let name = text(&pod["metadata"]["name"]).context("a Pod has a name")?;
            let uid = text(&pod["metadata"]["uid"]).context("a Pod has a uid")?;
            let containers = pod["status"]["containerStatuses"].as_array();
            let starts = containers.into_iter().flatten();
            let starts = starts.map(|one| one["restartCount"].as_u64().unwrap_or(0));
            Ok((name, (uid, starts.sum())))
        };
        pods.iter().map(life).collect()
    }

    /// Where a Service of an application answers.
    pub(crate) async fn server_of(&self, service: &str) -> Result<String> {
        let found: Value = self.users().get("service", service).await?;
        let spec = &found["spec"];
        match spec["clusterIP"].as_str() {
            Some("None") | None => anyhow::bail!("{service} has no address"),
            Some(address) => Ok(format!("http://{address}:{}", spec["ports"][0]["port"])),
        }
    }

    /// What a Service of an application answers.
    pub(crate) async fn page(&self, service: &str, path: &str) -> Result<String> {
        page_at(&self.server_of(service).await?, path).await
    }

    /// Waits until a Service of an application answers this.
    pub(crate) async fn until_page(&self, service: &str, wanted: &str) -> Result<()> {
        let look = || async {
            let page = self.page(service, "/").await?;
            ensure!(page.trim() == wanted, "{page}");
            Ok(())
        };
        until_paced(PATIENCE, PAUSE, &format!("{service} says {wanted}"), look).await?;
        Ok(())
    }

    /// What Kubernetes says about an application, for a failing test.
    async fn explain(&self, app: &str) -> String {
        let selector = format!("baetyl-app-name={app}");
        let args = ["-n", USERS, "describe", "pods", "-l", &selector];
        let pods = self.cluster.kubectl().run(&args).await;
        let args = [
            "-n",
            super::SYSTEM,
            "logs",
            "deploy/baetyl-engine",
            "--tail=30",
        ];
        let engine = self.cluster.kubectl().run(&args).await;
        let text = |printed: Result<String>| printed.unwrap_or_else(|error| format!("{error:#}"));
        format!("Pods of {app}:\n{}\nengine:\n{}", text(pods), text(engine))
    }
}

/// What a server answers.
pub(crate) async fn page_at(server: &str, path: &str) -> Result<String> {
    let rest = Rest::new(server, None);
    let answer = rest.send(Method::GET, path, &[], bytes::Bytes::new());
    let answer = answer.await?;
    ensure!(answer.status.is_success(), "{}", answer.status);
    Ok(String::from_utf8_lossy(&answer.bytes).into_owned())
}
