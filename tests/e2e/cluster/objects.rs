//! Objects of one namespace, or those that are in none.

use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::wait::until_paced;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Kubectl;

/// How long a Pod may take from its object to Ready on a busy machine with two cores, image pull included.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks: kubectl is a large program to start.
const PAUSE: Duration = Duration::from_millis(300);

/// Reads and writes objects.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    kubectl: Kubectl,
    namespace: Option<String>,
}

impl Objects {
    pub(super) fn new(kubectl: Kubectl, namespace: Option<String>) -> Self {
        Self { kubectl, namespace }
    }

    async fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        let mut all = Vec::new();
        if let Some(namespace) = &self.namespace {
            all.extend(["-n", namespace]);
        }
        all.extend(args);
        self.kubectl.fed(&all, input).await
    }

    /// Makes or changes what the documents say.
    pub(crate) async fn apply(&self, yaml: &str) -> Result<()> {
        self.kubectl(&["apply", "-f", "-"], yaml).await?;
        Ok(())
    }

    /// One object, as [`Value`] or as a type of the test's own.
    pub(crate) async fn get<T: DeserializeOwned>(&self, kind: &str, name: &str) -> Result<T> {
        let json = self.kubectl(&["get", kind, name, "-o", "json"], "").await?;
        serde_json::from_str(&json).with_context(|| format!("{kind} {name} is not as expected"))
    }

    /// Objects with these labels (`app=web,tier=front`); all of the kind when `selector` is empty.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        kind: &str,
        selector: &str,
    ) -> Result<Vec<T>> {
        let json = self
            .kubectl(&["get", kind, "-l", selector, "-o", "json"], "")
            .await?;
        let mut list: Value = serde_json::from_str(&json)?;
        serde_json::from_value(list["items"].take())
            .with_context(|| format!("{kind} with {selector} are not as expected"))
    }

    /// The text under a key of a Secret.
    pub(crate) async fn secret(&self, name: &str, key: &str) -> Result<String> {
        let template = format!(r#"go-template={{{{index .data "{key}" | base64decode}}}}"#);
        self.kubectl(&["get", "secret", name, "-o", &template], "")
            .await
    }

    /// Names of objects of these kinds (`deployments,services`) with these labels.
    pub(crate) async fn names(&self, kinds: &str, selector: &str) -> Result<Vec<String>> {
        let args = ["get", kinds, "-l", selector, "-o", "name"];
        let text = self.kubectl(&args, "").await?;
        Ok(text.lines().map(ToOwned::to_owned).collect())
    }

    /// Sets how many Pods there shall be.
    pub(crate) async fn scale(&self, kind: &str, name: &str, replicas: u32) -> Result<()> {
        let replicas = format!("--replicas={replicas}");
        self.kubectl(&["scale", kind, name, &replicas], "").await?;
        Ok(())
    }

    /// The name of the only Pod with these labels.
    pub(crate) async fn pod_of(&self, selector: &str) -> Result<String> {
        let pods: Vec<Value> = self.list("pods", selector).await?;
        ensure!(
            pods.len() == 1,
            "{} Pods with {selector}, not one",
            pods.len()
        );
        let name = pods[0]["metadata"]["name"].as_str();
        Ok(name.context("a Pod has no name")?.to_owned())
    }

    /// Deletes an object and does not wait until it is gone; one that is not there is no failure.
    pub(crate) async fn delete(&self, kind: &str, name: &str) -> Result<()> {
        let args = ["delete", kind, name, "--wait=false", "--ignore-not-found"];
        self.kubectl(&args, "").await?;
        Ok(())
    }

    /// What a container wrote so far.
    pub(crate) async fn logs(&self, pod: &str, container: &str) -> Result<String> {
        self.kubectl(&["logs", pod, "-c", container], "").await
    }

    /// What a command in a container prints; `target` is a Pod or, as `deploy/web`, any Pod of a workload.
    pub(crate) async fn exec(&self, target: &str, command: &[&str]) -> Result<String> {
        let args = [&["exec", target, "--"], command].concat();
        self.kubectl(&args, "").await
    }

    /// Waits until an object is there and `condition` holds for it; answers it as it was then.
    ///
    /// # Errors
    /// After a minute and a half: `what` did not come about, and what Kubernetes says about the object.
    pub(crate) async fn wait_until(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let look = || async {
            let object: Value = self.get(kind, name).await?;
            ensure!(condition(&object), "it is there, but not so");
            Ok(object)
        };
        match until_paced(PATIENCE, PAUSE, &format!("{kind} {name} {what}"), look).await {
            Ok((object, _)) => Ok(object),
            Err(error) => {
                let about = self.kubectl(&["describe", kind, name], "").await;
                let about = about.unwrap_or_else(|error| format!("{error:#}"));
                Err(error.context(format!("Kubernetes says about it:\n{about}")))
            }
        }
    }

    /// Waits until a Deployment's newest version is the only one and all its Pods are available.
    pub(crate) async fn wait_for_deployment(&self, name: &str) -> Result<Value> {
        self.wait_until("deployment", name, "is rolled out", |deployment| {
            let status = &deployment["status"];
            // A count of none is left out.
            let count = |counts: &Value, name: &str| counts[name].as_u64().unwrap_or(0);
            let wanted = count(&deployment["spec"], "replicas");
            status["observedGeneration"] == deployment["metadata"]["generation"]
                && ["replicas", "updatedReplicas", "availableReplicas"]
                    .iter()
                    .all(|name| count(status, name) == wanted)
        })
        .await
    }

    /// Waits until a Pod is Ready.
    pub(crate) async fn wait_for_pod(&self, name: &str) -> Result<Value> {
        self.wait_until("pod", name, "is Ready", is_ready).await
    }
}

/// Whether the condition Ready of a Pod or node is true.
pub(crate) fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    })
}

/// A namespace of one test; its deletion is asked for when it is forgotten, and not waited for.
pub(crate) struct FreshNamespace {
    objects: Objects,
    name: String,
}

impl FreshNamespace {
    pub(super) async fn create(kubectl: Kubectl, hint: &str) -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e-{hint}-{}-{number}", std::process::id());
        kubectl.run(&["create", "namespace", &name]).await?;
        let objects = Objects::new(kubectl, Some(name.clone()));
        let fresh = Self { objects, name };
        // Until it is there every Pod is refused.
        let there = |_: &Value| true;
        fresh
            .wait_until("serviceaccount", "default", "is there", there)
            .await?;
        Ok(fresh)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Deref for FreshNamespace {
    type Target = Objects;

    fn deref(&self) -> &Objects {
        &self.objects
    }
}

impl Drop for FreshNamespace {
    fn drop(&mut self) {
        // Pods that ignore SIGTERM would keep it for half a minute; the test is over.
        let args = ["delete", "namespace", &self.name, "--wait=false"];
        self.objects.kubectl.run_blocking(&args);
    }
}
