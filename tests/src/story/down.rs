//! Steps 2 to 7: desires go down.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::{NODE, Narrator, OTHER, Story};
use crate::apps;
use crate::wait::until;

impl<N: Narrator> Story<N> {
    /// Step 2.
    pub(crate) async fn install(&mut self) -> Result<()> {
        self.step(
            2,
            "Two nodes are described; one is installed with its command",
        );
        for (name, site) in [(NODE, "north"), (OTHER, "south")] {
            let node = json!({"name": name, "nodeMode": "native", "labels": {"site": site}});
            self.rest.post("/v1/nodes", &node).await?;
        }
        let start = Instant::now();
        self.edge.start().await?;
        let command = self.edge.activate(&self.rest).await?;
        let shown: String = command.chars().take(100).collect();
        self.say(format!("{shown}…"));
        self.say(format!(
            "baetyl-init made the key on the node, activated and exited 0 after {:.1?}",
            start.elapsed()
        ));
        Ok(())
    }

    /// Step 3.
    pub(crate) async fn node_is_online(&mut self) -> Result<()> {
        self.step(
            3,
            "The node is online and shows its machine; the other is uninstalled",
        );
        let rest = self.rest.clone();
        let (node, took) = until("the node is online with info and stats", || async {
            let node = rest.get(&format!("/v1/nodes/{NODE}")).await?;
            ensure!(node["ready"] == 1, "ready is {}", node["ready"]);
            first(&node["report"]["node"])?;
            let stats = first(&node["report"]["nodestats"])?;
            ensure!(
                stats["capacity"]["memory"].is_string(),
                "no memory in {stats}"
            );
            Ok(node)
        })
        .await?;
        let other = rest.get(&format!("/v1/nodes/{OTHER}")).await?;
        ensure!(other["ready"] == 0, "the other node is {}", other["ready"]);
        let listed = self.ctl(&["get", "nodes"])?;
        for line in listed.lines() {
            self.say(line);
        }
        ensure!(
            listed
                .lines()
                .any(|line| line.starts_with(OTHER) && line.contains("uninstalled")),
            "{OTHER} is not listed as uninstalled"
        );
        let info = first(&node["report"]["node"])?;
        self.say(format!(
            "online {took:.1?} after activation: {} {} {}",
            info["hostname"], info["arch"], info["kernelVer"]
        ));
        Ok(())
    }

    /// Step 4.
    pub(crate) async fn apply(&mut self) -> Result<()> {
        self.step(
            4,
            "A configuration, a secret, a program and a Python function are applied",
        );
        let file = self.dir.join("demo.yaml");
        std::fs::write(&file, apps::demo_yaml())?;
        let start = Instant::now();
        let printed = self.ctl(&["apply", "-f", &file.display().to_string()])?;
        for line in printed.lines() {
            self.say(line);
        }
        self.edge.until_running("web", None).await?;
        self.edge.until_running("greet", None).await?;
        self.say(format!(
            "both run {:.1?} after the command began",
            start.elapsed()
        ));
        self.web_sees_its_world().await?;
        let rest = self.rest.clone();
        until("the cloud's report says Running with instances", || async {
            let node = rest.get(&format!("/v1/nodes/{NODE}")).await?;
            for app in ["web", "greet"] {
                let stats = app_stats(&node, app)?;
                ensure!(stats["status"] == "Running", "{app} is {}", stats["status"]);
                first(&stats["instances"])?;
            }
            Ok(())
        })
        .await?;
        let other = rest.get(&format!("/v1/nodes/{OTHER}/apps")).await?;
        ensure!(other["total"] == 0, "the other node got {other}");
        self.say("the report says Running; the node without the label got nothing");
        Ok(())
    }

    async fn web_sees_its_world(&mut self) -> Result<()> {
        let (page, _) = until("web answers", || self.edge.call_app("web", "/")).await?;
        let expected: BTreeMap<&str, Value> = BTreeMap::from([
            ("greeting", json!("hello one")),
            ("app", json!("web")),
            ("node", json!(NODE)),
            ("mode", json!("native")),
            (
                "secretSha256",
                json!("4e738ca5563c06cfd0018299933d58db1dd8bf97f6973dc99bf6cdc64b5550bd"),
            ),
        ]);
        for (key, value) in expected {
            ensure!(
                page[key] == value,
                "web sees {key} = {} instead of {value}",
                page[key]
            );
        }
        self.say(format!(
            "web sees its configuration, its secret and its environment: {page}"
        ));
        Ok(())
    }

    /// Step 5.
    pub(crate) async fn functions_answer(&mut self) -> Result<()> {
        self.step(5, "The function answers over HTTP and gRPC");
        let functions = self.edge.functions()?;
        let (answer, _) = until("greet answers over HTTP", || async {
            functions
                .json(Method::POST, "/greet", &json!({"name": "Ada"}))
                .await?
                .ok()
        })
        .await?;
        ensure!(
            answer == json!({"hello": "Ada", "function": "hello"}),
            "greet answered {answer}"
        );
        self.say(format!("JSON in, JSON out: {answer}"));
        let binary = functions
            .send(
                Method::POST,
                "/greet/reverse",
                &[],
                Bytes::from_static(&[1, 2, 0xff]),
            )
            .await?;
        ensure!(
            binary.status == 200 && binary.bytes.as_ref() == [0xff, 2, 1],
            "{} {:?}",
            binary.status,
            binary.bytes
        );
        self.say("binary in, binary out");
        let failed = functions
            .json(Method::POST, "/greet/fail", &json!({"t": 1}))
            .await?;
        let text = String::from_utf8_lossy(&failed.bytes).into_owned();
        ensure!(
            failed.status.is_server_error(),
            "an exception gives {}",
            failed.status
        );
        ensure!(
            text.contains("fail") && text.contains("ValueError") && !text.contains("Traceback"),
            "{text}"
        );
        self.say(format!("an exception: {} {text}", failed.status));
        let address = format!("grpc://{}", self.edge.address("function-proxy-grpc")?);
        let over_grpc = self.ctl(&[
            "invoke",
            "greet/hello",
            "-d",
            r#"{"name":"Bob"}"#,
            "--address",
            &address,
        ])?;
        ensure!(over_grpc.contains("Bob"), "over gRPC: {over_grpc}");
        self.say(format!("over gRPC: {}", over_grpc.trim()));
        Ok(())
    }

    /// Step 6.
    pub(crate) async fn changes(&mut self) -> Result<()> {
        self.step(6, "The configuration changes, then the application");
        let before = self.edge.call_app("web", "/").await?;
        let start = Instant::now();
        self.rest
            .put(
                "/v1/configs/greeting",
                &apps::config("greeting", &[("message.txt", "hello two")]),
            )
            .await?;
        let (after, _) = until("web has the new configuration", || async {
            let page = self.edge.call_app("web", "/").await?;
            ensure!(
                page["greeting"] == "hello two",
                "still {}",
                page["greeting"]
            );
            Ok(page)
        })
        .await?;
        let took = start.elapsed();
        ensure!(
            before["pid"] != after["pid"],
            "the application was not restarted"
        );
        let version = self.version("web").await?;
        let status = self.edge.until_running("web", Some(&version)).await?;
        ensure!(
            status.instances.iter().all(|i| i.restarts == 0),
            "it was restarted more than once"
        );
        self.say(format!(
            "web has the new configuration {took:.1?} later, restarted once"
        ));

        let mut app = self.rest.get("/v1/apps/web").await?;
        apps::set_env(&mut app, "RELEASE", "two");
        let start = Instant::now();
        self.rest.put("/v1/apps/web", &app).await?;
        let (_, took) = until("web is release two", || async {
            let page = self.edge.call_app("web", "/").await?;
            ensure!(page["release"] == "two", "still {}", page["release"]);
            Ok(())
        })
        .await?;
        let version = self.version("web").await?;
        self.edge.until_running("web", Some(&version)).await?;
        self.say(format!(
            "web is release two {took:.1?} later; healthy after {:.1?}",
            start.elapsed()
        ));
        Ok(())
    }

    /// Step 7.
    pub(crate) async fn bad_releases(&mut self) -> Result<()> {
        self.step(7, "Bad releases are rolled back");
        for (variable, value, what) in [
            ("CRASH", "true", "a release that crashes on start"),
            ("HEALTHY", "false", "a release whose probe never passes"),
        ] {
            let mut app = self.rest.get("/v1/apps/web").await?;
            let good = self.version("web").await?;
            apps::set_env(&mut app, variable, value);
            let start = Instant::now();
            let bad = self.rest.put("/v1/apps/web", &app).await?;
            let bad = bad["version"].as_str().context("no version")?.to_owned();
            self.rolled_back(&bad).await.context(what)?;
            self.say(format!(
                "{what} (version {bad}) was rolled back to {good} after {:.1?}",
                start.elapsed()
            ));
            // What the operator wishes is good again; the next bad release starts from there.
            let unset = |list: &mut Value| {
                if let Some(list) = list.as_array_mut() {
                    list.retain(|item| item["name"] != variable);
                }
            };
            unset(&mut app["services"][0]["env"]);
            self.rest.put("/v1/apps/web", &app).await?;
            let version = self.version("web").await?;
            self.edge.until_running("web", Some(&version)).await?;
            return_good(self, &version);
        }
        Ok(())
    }

    async fn rolled_back(&mut self, bad: &str) -> Result<()> {
        let rest = self.rest.clone();
        let bad = bad.to_owned();
        until("the report names the failed version", || async {
            let node = rest.get(&format!("/v1/nodes/{NODE}")).await?;
            let stats = app_stats(&node, "web")?;
            let cause = stats["cause"].as_str().unwrap_or_default();
            ensure!(
                stats["version"] != json!(bad),
                "the bad version is the running one"
            );
            ensure!(cause.contains(&bad), "cause {cause:?}");
            ensure!(stats["status"] == "Running", "status {}", stats["status"]);
            ensure!(node["ready"] == 1, "the node is not online");
            Ok(())
        })
        .await?;
        let page = self.edge.call_app("web", "/").await?;
        ensure!(
            page["release"] == "two",
            "release {} serves",
            page["release"]
        );
        Ok(())
    }

    /// The version of an application at the cloud.
    pub(crate) async fn version(&self, app: &str) -> Result<String> {
        let body = self.rest.get(&format!("/v1/apps/{app}")).await?;
        Ok(body["version"]
            .as_str()
            .context("an application without version")?
            .to_owned())
    }
}

fn return_good<N: Narrator>(story: &mut Story<N>, version: &str) {
    story.say(format!(
        "the good content again is version {version}, healthy"
    ));
}

/// The first value of an object.
fn first(object: &Value) -> Result<&Value> {
    object
        .as_object()
        .and_then(|map| map.values().next())
        .context("nothing there")
}

/// The report's entry of an application.
pub(crate) fn app_stats<'a>(node: &'a Value, app: &str) -> Result<&'a Value> {
    let stats = node["report"]["appstats"]
        .as_array()
        .context("no appstats")?;
    stats
        .iter()
        .find(|stats| stats["name"] == app)
        .with_context(|| format!("no entry of {app}"))
}
