//! Identities of the core services: new ones are taken up without a restart.

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::wait::{until_paced, until_within};
use serde_json::Value;

use crate::node::{CORE, Node, PATIENCE, SYSTEM, set_env, web};

/// Core services, and the port on which each shows its certificate.
const SERVED: [(&str, &str, u16); 3] = [
    ("node", "baetyl-node", 50020),
    ("sync", "baetyl-sync", 50030),
    ("function-proxy", "baetyl-function", 50011),
];

impl Node {
    /// The certificate a core service shows.
    async fn certificate_of(&self, service: &str, port: u16) -> Result<String> {
        let found: Value = self.system().get("service", service).await?;
        let address = found["spec"]["clusterIP"].as_str().context("no address")?;
        let shown = self
            .shell(&format!(
                "openssl s_client -connect {address}:{port} </dev/null 2>/dev/null | openssl x509"
            ))
            .await?;
        Ok(shown.trim().to_owned())
    }

    /// Core Pods but engine's, and how often they were started.
    async fn lives_beside_engine(&self) -> Result<Vec<(String, u64)>> {
        let mut lives = Vec::new();
        for name in CORE.into_iter().filter(|name| *name != "baetyl-engine") {
            let selector = format!("app.kubernetes.io/name={name}");
            let pod: Value = self
                .system()
                .get("pod", &self.system().pod_of(&selector).await?)
                .await?;
            let starts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
            lives.push((pod["metadata"]["uid"].to_string(), starts.unwrap_or(0)));
        }
        Ok(lives)
    }
}

#[tokio::test]
async fn certificates_of_the_core_are_renewed_without_a_restart() -> Result<()> {
    let node = Node::alone().await?;
    let mut app = node.run(&web(&node, "trusting", "trusting")).await?;
    let lives = node.lives_beside_engine().await?;
    let mut before = Vec::new();
    for (secret, service, port) in SERVED {
        before.push(node.certificate_of(service, port).await?);
        // As if engine had found it to be old.
        let secret = format!("baetyl-tls-{secret}");
        node.system().delete("secret", &secret).await?;
    }
    let engine = "app.kubernetes.io/name=baetyl-engine";
    let args = ["-n", SYSTEM, "delete", "pods", "-l", engine, "--wait"];
    node.cluster.kubectl().run(&args).await?;
    // The kubelet brings a new Secret into a Pod within two minutes.
    let patience = 2 * PATIENCE;
    for ((_, service, port), before) in SERVED.into_iter().zip(before) {
        let what = format!("{service} shows another certificate");
        let other = || async {
            let now = node.certificate_of(service, port).await?;
            ensure!(now != before && now.contains("BEGIN CERTIFICATE"));
            Ok(())
        };
        until_paced(patience, std::time::Duration::from_secs(1), &what, other).await?;
    }
    set_env(&mut app, "AFTER", "the renewal");
    let app = node.change(&app).await?;
    node.until_running(&app).await?;
    until_within(PATIENCE, "the node is online", || async {
        ensure!(node.view().await?["ready"] == 1);
        Ok(())
    })
    .await?;
    ensure!(
        node.lives_beside_engine().await? == lives,
        "one was restarted"
    );
    node.delete("trusting").await
}
