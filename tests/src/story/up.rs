//! Steps 8 to 10: faults, the cloud's return, and the end of an application.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::json;

use super::down::app_stats;
use super::{NODE, Narrator, Story};
use crate::wait::until;

impl<N: Narrator> Story<N> {
    /// Step 8.
    pub(crate) async fn dark(&mut self) -> Result<()> {
        self.step(
            8,
            "A power cut in the dark: everything on the node is killed, the cloud is stopped",
        );
        self.cloud.stop().await?;
        self.edge.kill_everything()?;
        let start = Instant::now();
        self.edge.start().await?;
        self.edge.until_running("web", None).await?;
        let (page, _) = until("web answers again", || self.edge.call_app("web", "/")).await?;
        ensure!(
            page["greeting"] == "hello two",
            "web sees {}",
            page["greeting"]
        );
        self.function_answers().await?;
        self.say(format!(
            "offline, web and greet run and answer {:.1?} after the start",
            start.elapsed()
        ));

        let services = self.edge.services();
        for service in services {
            let before = self.edge.lives().await?;
            self.edge.kill_service(service)?;
            self.edge.start_service(service)?;
            let (after, _) = until(
                &format!("the node is whole after {service} was killed"),
                || self.edge.lives(),
            )
            .await?;
            ensure!(
                before == after,
                "kill -9 of {service} restarted an application: {before:?} -> {after:?}"
            );
            self.say(format!("kill -9 of {service}: no application restarted"));
        }
        self.function_answers().await?;
        Ok(())
    }

    /// Step 9.
    pub(crate) async fn cloud_returns(&mut self) -> Result<()> {
        self.step(9, "The cloud returns");
        let before = self.edge.lives().await?;
        let start = Instant::now();
        self.cloud.resume().await?;
        let rest = self.rest.clone();
        until("the node is online again", || async {
            let node = rest.get(&format!("/v1/nodes/{NODE}")).await?;
            ensure!(node["ready"] == 1, "ready is {}", node["ready"]);
            for app in ["web", "greet"] {
                ensure!(
                    app_stats(&node, app)?["status"] == "Running",
                    "{app} does not run"
                );
            }
            Ok(())
        })
        .await?;
        let took = start.elapsed();
        let after = self.edge.lives().await?;
        ensure!(
            before == after,
            "an application restarted: {before:?} -> {after:?}"
        );
        self.say(format!(
            "the node reported {took:.1?} after the cloud was started; same processes as before"
        ));
        Ok(())
    }

    /// Step 10.
    pub(crate) async fn properties_and_removal(&mut self) -> Result<()> {
        self.step(10, "Properties travel both ways; an application is deleted");
        self.ctl(&["node", "property", NODE, "door=open"])?;
        let properties = format!("/v1/nodes/{NODE}/properties");
        until("the node knows the wish", || async {
            let (_, wish) = self.local_properties().await?;
            ensure!(
                wish.get("door").map(String::as_str) == Some("open"),
                "wishes are {wish:?}"
            );
            Ok(())
        })
        .await?;
        self.report_property("door", "closed").await?;
        let rest = self.rest.clone();
        let (_, took) = until("the cloud sees the report", || async {
            let state = rest.get(&properties).await?;
            ensure!(state["state"]["report"]["door"] == "closed", "{state}");
            Ok(())
        })
        .await?;
        self.say(format!(
            "wished door=open, reported door=closed, seen by the cloud after {took:.1?}"
        ));

        let pid = self.edge.instance("web").await?.pid;
        self.ctl(&["delete", "app", "web"])?;
        until("web is gone from the node", || async {
            ensure!(self.edge.app("web").await.is_err(), "engine still knows it");
            ensure!(
                !std::path::Path::new(&format!("/proc/{pid}")).exists(),
                "process {pid} lives"
            );
            Ok(())
        })
        .await?;
        for place in ["engine/run/baetyl-edge/web", "log/baetyl-edge/web"] {
            ensure!(
                !self.edge.dir.join(place).exists(),
                "{place} is still there"
            );
        }
        until("web is gone from the report", || async {
            let node = rest.get(&format!("/v1/nodes/{NODE}")).await?;
            ensure!(app_stats(&node, "web").is_err(), "still reported");
            ensure!(
                app_stats(&node, "greet")?["status"] == "Running",
                "greet does not run"
            );
            Ok(())
        })
        .await?;
        self.say("web is deleted: process, files and report entry are gone; greet runs on");
        Ok(())
    }

    /// Waits until greet answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn function_answers(&self) -> Result<()> {
        until("greet answers", || async {
            let functions = self.edge.functions()?;
            let answer = functions
                .json(Method::POST, "/greet", &json!({"name": "Eve"}))
                .await?
                .ok()?;
            ensure!(answer["hello"] == "Eve", "greet answered {answer}");
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn local_properties(
        &self,
    ) -> Result<(BTreeMap<String, String>, BTreeMap<String, String>)> {
        use baetyl_proto::node::GetPropertiesRequest;
        use baetyl_proto::node::local_service_client::LocalServiceClient;
        let mut node = LocalServiceClient::new(self.edge.channel("node").await?);
        let answer = node
            .get_properties(GetPropertiesRequest {})
            .await?
            .into_inner();
        let properties = answer.properties.context("no properties")?;
        let map = |list: Vec<baetyl_proto::shadow::Property>| {
            list.into_iter().map(|p| (p.key, p.value)).collect()
        };
        Ok((map(properties.report), map(properties.desire)))
    }

    async fn report_property(&self, key: &str, value: &str) -> Result<()> {
        use baetyl_proto::node::local_service_client::LocalServiceClient;
        use baetyl_proto::node::{PropertyChange, UpdatePropertiesRequest};
        let mut node = LocalServiceClient::new(self.edge.channel("node").await?);
        let change = PropertyChange {
            key: key.to_owned(),
            value: value.to_owned(),
            delete: false,
        };
        node.update_properties(UpdatePropertiesRequest {
            changes: vec![change],
        })
        .await?;
        Ok(())
    }
}
