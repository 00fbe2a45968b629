//! Another version of the core services, wished in the cloud: it is brought, put back when it does not work, and called off
//! when it cannot be had. The other versions are the images of this one under other tags.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::wait::{until_paced, until_within};
use serde_json::{Value, json};

use crate::cluster::Bed;
use crate::node::{CORE, CORE_IMAGES, NODE, Node, PATIENCE, PAUSE, SELECTOR, SYSTEM, VERSION, web};

/// Works as well.
const OTHER: &str = concat!(env!("CARGO_PKG_VERSION"), "-other");
/// Its engine ends at once.
const BROKEN: &str = concat!(env!("CARGO_PKG_VERSION"), "-broken");
/// In no registry.
const ABSENT: &str = concat!(env!("CARGO_PKG_VERSION"), "-absent");
/// Versions the cloud knows besides its own.
pub(crate) const OTHERS: [&str; 3] = [OTHER, BROKEN, ABSENT];

/// Image of a function's Pods, which change with the core.
const RUNTIME: &str = "baetyl-runtime-python";

/// How long engine lets an upgrade take in this test, put back included each time, and how long its Job to get to work:
/// one of ten minutes and one of five are more than a test can wait for.
const DEADLINES: [(&str, &str); 2] = [
    ("BAETYL_ENGINE__KUBE__UPGRADE_DEADLINE", "60s"),
    ("BAETYL_ENGINE__KUBE__UPGRADE_START_DEADLINE", "15s"),
];

#[tokio::test]
async fn the_core_gets_another_version_and_its_own_again_and_applications_go_on() -> Result<()> {
    let node = Node::alone().await?;
    let Some(bed) = node.cluster.bed() else {
        return Ok(());
    };
    push_versions(bed).await?;
    let outcome = upgrades(&node, bed).await;
    // Others go on with this node.
    let restored = restore(&node, outcome.is_err()).await;
    let restored = restored.context("the node as it was before");
    outcome.and(restored)
}

async fn push_versions(bed: &Bed) -> Result<()> {
    for image in CORE_IMAGES.into_iter().chain([RUNTIME]) {
        let layout = bed.layout(image);
        let name = |version: &str| format!("baetyl/{image}:{version}");
        bed.push(&layout, &name(OTHER)).await?;
        let broken = match image {
            "baetyl-engine" => bed.path("images/box"),
            _ => layout,
        };
        bed.push(&broken, &name(BROKEN)).await?;
    }
    Ok(())
}

async fn upgrades(node: &Node, bed: &Bed) -> Result<()> {
    let bystander = node.run(&web(node, "bystander", "still here")).await?;
    let function = create_function(node).await?;
    let before = node.lives("bystander").await?;
    let goes_on = async |version: &str| {
        node.until_images_are(version).await?;
        node.until_core_is_ready().await?;
        node.until_online().await?;
        node.until_running(&bystander).await?;
        ensure!(node.page("bystander", "/").await?.trim() == "still here");
        ensure!(node.lives("bystander").await? == before, "it was touched");
        node.until_running(&function).await?;
        node.until_function_has(version).await
    };

    node.wish(OTHER).await?;
    // Half-way its Job is killed, and another Pod goes on.
    node.until_phase("applying").await?;
    let pod = node.system().pod_of("job-name=baetyl-upgrade").await?;
    node.system().wait_for_pod(&pod).await?;
    bed.kill_container(SYSTEM, &pod, "baetyl-init").await?;
    node.until_condition("Upgraded", OTHER, &[]).await?;
    goes_on(OTHER).await.context(OTHER)?;
    let record = node.record().await?;
    ensure!(record["starts"] == 2, "{record}");

    set_deadlines(node).await?;
    node.wish(BROKEN).await?;
    let words = [
        "baetyl-engine is not available",
        &format!("{OTHER} was put back"),
    ];
    node.until_condition("Failed", BROKEN, &words).await?;
    goes_on(OTHER).await.context("put back")?;

    node.wish(ABSENT).await?;
    let words = ["ImagePullBackOff", "nothing was changed"];
    node.until_condition("Failed", ABSENT, &words).await?;
    goes_on(OTHER).await.context("nothing was changed")?;

    node.wish(VERSION).await?;
    node.until_condition("Upgraded", VERSION, &[]).await?;
    goes_on(VERSION).await.context(VERSION)?;
    node.delete("of-ours").await?;
    node.delete("bystander").await
}

/// An application whose Pods have an image of ours.
async fn create_function(node: &Node) -> Result<Value> {
    let code = "def handler(event, context):\n    return event\n";
    let config = baetyl_tests::apps::config("of-ours-code", &[("f.py", code)]);
    node.make("configs", &config).await?;
    let app = json!({
        "name": "of-ours", "type": "function", "mode": "kube", "selector": SELECTOR,
        "services": [{
            "name": "of-ours",
            "functionConfig": {"name": "of-ours-code", "runtime": "python3", "access": "anonymous"},
            "functions": [{"name": "f", "handler": "f.handler", "codedir": "."}],
            "volumeMounts": [{"name": "code", "mountPath": "/var/lib/baetyl/code", "readOnly": true}],
        }],
        "volumes": [{"name": "code", "config": {"name": "of-ours-code"}}],
    });
    node.run(&app).await
}

async fn set_env_of_engine(node: &Node, settings: &[String]) -> Result<()> {
    let args = ["-n", SYSTEM, "set", "env", "deployment/baetyl-engine"];
    let settings = settings.iter().map(String::as_str);
    let args: Vec<&str> = args.into_iter().chain(settings).collect();
    node.cluster.kubectl().run(&args).await?;
    node.system().wait_for_deployment("baetyl-engine").await?;
    Ok(())
}

/// As an administrator may, who is another field manager: an upgrade leaves them.
async fn set_deadlines(node: &Node) -> Result<()> {
    let settings = DEADLINES.map(|(name, value)| format!("{name}={value}"));
    set_env_of_engine(node, &settings).await
}

/// The node as it was, whatever became of the test: installing ends an upgrade that is under way.
async fn restore(node: &Node, by_force: bool) -> Result<()> {
    node.wish(VERSION).await?;
    if by_force {
        node.install(&[]).await?;
    }
    set_env_of_engine(node, &DEADLINES.map(|(name, _)| format!("{name}-"))).await?;
    node.until_core_is_ready().await?;
    node.until_online().await
}

impl Node {
    async fn wish(&self, version: &str) -> Result<()> {
        self.ctl(&["node", "core", NODE, "--version", version])
            .await?;
        Ok(())
    }

    /// The record of the upgrade, as the Job and engine keep it.
    async fn record(&self) -> Result<Value> {
        let record = self
            .system()
            .secret("baetyl-core-manifests", "upgrade")
            .await?;
        Ok(serde_json::from_str(&record)?)
    }

    async fn until_phase(&self, phase: &str) -> Result<()> {
        until_paced(
            PATIENCE,
            PAUSE,
            &format!("an upgrade is {phase}"),
            || async {
                let record = self.record().await?;
                ensure!(record["phase"] == phase, "{record}");
                Ok(())
            },
        )
        .await?;
        Ok(())
    }

    /// Waits until the cloud knows that the upgrade to a version ended like that, in these words.
    async fn until_condition(&self, reason: &str, to: &str, words: &[&str]) -> Result<()> {
        let told = until_within(2 * PATIENCE, &format!("{reason}: {to}"), || async {
            let view = self.view().await?;
            let conditions = view["report"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            let condition = conditions.find(|one| one["type"] == "CoreUpgrade");
            let condition = condition.context("the report has no condition CoreUpgrade")?;
            ensure!(condition["reason"] == reason, "{condition}");
            let message = condition["message"].as_str().unwrap_or_default();
            let wanted = words.iter().chain([&to]);
            for words in wanted {
                ensure!(message.contains(words), "not \"{words}\": {condition}");
            }
            Ok(())
        })
        .await;
        match told {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(self.explain_upgrade().await)),
        }
    }

    /// Images of the core services, in their order.
    async fn images(&self) -> Result<Vec<Value>> {
        let mut images = Vec::new();
        for name in CORE {
            let deployment: Value = self.system().get("deployment", name).await?;
            let pod = &deployment["spec"]["template"]["spec"];
            images.push(pod["containers"][0]["image"].clone());
        }
        Ok(images)
    }

    fn images_of(&self, version: &str) -> Result<Vec<Value>> {
        let registry = self.cluster.registry()?;
        let image = |name: &str| {
            let name = match name {
                "baetyl-function" => "baetyl-function-proxy",
                name => name,
            };
            json!(format!("{registry}/baetyl/{name}:{version}"))
        };
        Ok(CORE.map(image).to_vec())
    }

    async fn until_images_are(&self, version: &str) -> Result<()> {
        let (images, wanted) = (self.images().await?, self.images_of(version)?);
        ensure!(images == wanted, "{images:?} and not {version}");
        Ok(())
    }

    /// Waits until the only Pod of the function has the runtime of a version.
    async fn until_function_has(&self, version: &str) -> Result<()> {
        let wanted = format!(
            "{}/baetyl/baetyl-runtime-python:{version}",
            self.cluster.registry()?
        );
        until_paced(
            PATIENCE,
            PAUSE,
            &format!("the runtime is {version}"),
            || async {
                let pods = self.pods("of-ours").await?;
                ensure!(pods.len() == 1, "{} Pods", pods.len());
                let image = &pods[0]["spec"]["containers"][0]["image"];
                ensure!(*image == wanted, "{image}");
                Ok(())
            },
        )
        .await?;
        Ok(())
    }

    /// What the cluster says about an upgrade, for a failing test.
    async fn explain_upgrade(&self) -> String {
        let mut told = String::new();
        for args in [
            &["get", "pods", "-o", "wide"][..],
            &["get", "jobs"],
            &["logs", "job/baetyl-upgrade", "--tail=40"],
            &["logs", "deploy/baetyl-engine", "--tail=30"],
        ] {
            let said = self
                .cluster
                .kubectl()
                .run(&[&["-n", SYSTEM], args].concat())
                .await;
            let said = said.unwrap_or_else(|error| format!("{error:#}"));
            let _ = writeln!(told, "{}:\n{said}", args.join(" "));
        }
        told
    }
}
