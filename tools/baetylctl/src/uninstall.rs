//! Removes a node from the cluster it runs on.
//!
//! The order matters: the core services go first, so that engine does not make anew what is deleted after it. What is ours is
//! found by namespace and by label, never by a list of names; what is not removed is said.

use std::io::{BufRead as _, Write as _};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use crate::client::Client;
use crate::kubectl::Kubectl;
use crate::resources::Kind;

#[cfg(test)]
mod tests;

const SYSTEM: &str = "baetyl-edge-system";
const USERS: &str = "baetyl-edge";

/// On everything that is installed.
const PART: &str = "app.kubernetes.io/part-of=baetyl";
/// On everything engine makes for an application.
const MANAGED: &str = "app.kubernetes.io/managed-by=baetyl";

/// Kinds of ours that belong to the whole cluster. A RuntimeClass is not among them: it has the name others expect, too.
const CLUSTER_KINDS: &str =
    "clusterrolebindings,clusterroles,priorityclasses,persistentvolumes,storageclasses";

/// Directory of ours on machines.
const DATA: &str = "/var/lib/baetyl";

#[derive(Args)]
pub(crate) struct UninstallArgs {
    pub(crate) name: String,
    /// Context of kubectl.
    #[arg(long)]
    kube_context: Option<String>,
    /// Does not ask.
    #[arg(short, long)]
    yes: bool,
    /// Leaves /var/lib/baetyl on the machines.
    #[arg(long)]
    keep_data: bool,
    /// Goes on when the cluster does not say that it is this node.
    #[arg(long)]
    force: bool,
    /// Deletes the node in the cloud afterwards.
    #[arg(long)]
    pub(crate) delete_node: bool,
    /// How long each step may take, as kubectl takes it.
    #[arg(long, default_value = "300s")]
    timeout: String,
}

impl UninstallArgs {
    /// Does it. `client`: when the node is to be deleted in the cloud, too.
    ///
    /// # Errors
    /// When a step fails; running it again goes on.
    pub(crate) async fn run(&self, client: Option<&Client>) -> Result<()> {
        let cluster = Kubectl::find(self.kube_context.as_deref())?;
        self.check_owner(&cluster)?;
        let machines = machines(&cluster)?;
        if !self.yes && !self.confirm(&cluster, &machines)? {
            bail!("nothing was changed");
        }
        let left = self.remove(&cluster, &machines)?;
        for what in &left {
            say!("stays: {what}");
        }
        say!("node {} is removed from the cluster", self.name);
        if let (Some(client), true) = (client, self.delete_node) {
            client.delete(&Kind::Node.path(&self.name)).await?;
            say!("node/{} deleted", self.name);
        }
        Ok(())
    }

    /// The namespace says which node it is.
    fn check_owner(&self, cluster: &Kubectl) -> Result<()> {
        let path = r"jsonpath={.metadata.name} {.metadata.annotations.baetyl\.io/node}";
        let found = cluster.get(&["get", "namespace", SYSTEM, "--ignore-not-found", "-o", path])?;
        let mut words = found.split_whitespace();
        // Nothing there, or an uninstallation that did not come to its end.
        if words.next().is_none() || self.force {
            return Ok(());
        }
        match words.next() {
            Some(owner) if owner.rsplit('/').next() == Some(self.name.as_str()) => Ok(()),
            Some(owner) => bail!(
                "this cluster is the node {owner}, not {}; --force removes it all the same",
                self.name
            ),
            None => bail!(
                "this cluster does not say which node it is; --force removes what is there all the same"
            ),
        }
    }

    fn confirm(&self, cluster: &Kubectl, machines: &[String]) -> Result<bool> {
        say!("This removes from the cluster:");
        say!("  the namespaces {SYSTEM} and {USERS} with all applications in them");
        let names = "jsonpath={range .items[*]}{.metadata.labels.baetyl-app-name}{\"\\n\"}{end}";
        let workloads = "deployments,statefulsets,daemonsets,jobs,cronjobs";
        let mut apps = cluster.lines(&["get", workloads, "-A", "-l", MANAGED, "-o", names])?;
        apps.sort();
        apps.dedup();
        say!("  the applications {}", listed(&apps));
        say!("  cluster roles, volumes and classes labelled {PART}");
        if !self.keep_data {
            say!(
                "  {DATA}, with the data of applications, on {}",
                listed(machines)
            );
        }
        write_out!("Write the name of the node to go on: ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(answer.trim() == self.name)
    }

    /// Everything in its order. What is left, in sentences.
    fn remove(&self, cluster: &Kubectl, machines: &[String]) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let purge = Purge::of(cluster)?;
        if let Some(purge) = &purge {
            purge.remember(cluster);
        }
        self.delete(cluster, &["namespace", SYSTEM])?;
        say!("core services removed");
        let kinds = cluster.lines(&[
            "api-resources",
            "--namespaced=true",
            "--verbs=list,delete",
            "-o",
            "name",
        ])?;
        self.delete(cluster, &[&kinds.join(","), "-A", "-l", MANAGED])?;
        say!("applications removed");
        match (purge, self.keep_data) {
            (_, true) => left.push(format!("{DATA} on {}, as you wished", listed(machines))),
            (None, false) => left.push(format!(
                "{DATA} on {}, if it is there: no image to remove it with is known; remove it by hand",
                listed(machines)
            )),
            (Some(purge), false) => {
                for machine in machines {
                    if let Err(error) = purge.run(cluster, machine, &self.timeout) {
                        left.push(format!("{DATA} on {machine}; remove it by hand ({error:#})"));
                    }
                }
            }
        }
        self.delete(cluster, &["namespace", USERS])?;
        self.delete(cluster, &[CLUSTER_KINDS, "-l", PART])?;
        cluster.get(&["label", "nodes", "--all", "baetyl.io/core-"])?;
        left.extend(leftovers(cluster)?);
        Ok(left)
    }

    /// Waits until it is gone.
    fn delete(&self, cluster: &Kubectl, what: &[&str]) -> Result<()> {
        let timeout = format!("--timeout={}", self.timeout);
        let mut args = vec!["delete"];
        args.extend(what);
        args.extend(["--ignore-not-found", "--wait=true", &timeout]);
        cluster.get(&args).map(drop)
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "(none)".to_owned()
    } else {
        names.join(", ")
    }
}

fn machines(cluster: &Kubectl) -> Result<Vec<String>> {
    let names = "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}";
    cluster.lines(&["get", "nodes", "-o", names])
}

/// What nobody can know to be ours alone.
fn leftovers(cluster: &Kubectl) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for class in cluster.lines(&["get", "runtimeclasses", "-l", PART, "-o", "name"])? {
        left.push(format!("{class}: others may use it"));
    }
    let releases = cluster.lines(&[
        "get",
        "secrets",
        "-A",
        "-l",
        "owner=helm",
        "-o",
        "jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.labels.name}{\"\\n\"}{end}",
    ])?;
    let releases: std::collections::BTreeSet<_> = releases.into_iter().collect();
    for release in releases {
        left.push(format!(
            "the Helm release {release}, if it was one of this node"
        ));
    }
    Ok(left)
}

/// A Job for each machine that removes our directory there.
struct Purge {
    image: String,
    pull_secrets: serde_json::Value,
}

impl Purge {
    /// With the image of init that fits what is installed, or that an uninstallation wrote down which did not come to its
    /// end; none when nothing is installed.
    fn of(cluster: &Kubectl) -> Result<Option<Self>> {
        let found = cluster.get(&[
            "-n",
            SYSTEM,
            "get",
            "deployment",
            "baetyl-engine",
            "--ignore-not-found",
            "-o",
            "jsonpath={.spec.template.spec.containers[0].image} {.spec.template.spec.imagePullSecrets}",
        ])?;
        let (engine, secrets) = found.split_once(' ').unwrap_or((&found, ""));
        let image = engine.replacen("/baetyl-engine:", "/baetyl-init:", 1);
        if image == engine {
            let path = r"jsonpath={.metadata.annotations.baetyl\.io/init-image}";
            let noted = ["get", "namespace", USERS, "--ignore-not-found", "-o", path];
            let image = cluster.get(&noted)?.trim().to_owned();
            let pull_secrets = json!([]);
            return Ok((!image.is_empty()).then_some(Self {
                image,
                pull_secrets,
            }));
        }
        Ok(Some(Self {
            image,
            pull_secrets: serde_json::from_str(secrets).unwrap_or_else(|_| json!([])),
        }))
    }

    /// Only for an uninstallation that does not come to its end: this one goes on without.
    fn remember(&self, cluster: &Kubectl) {
        let note = format!("baetyl.io/init-image={}", self.image);
        let _ = cluster.get(&["annotate", "namespace", USERS, "--overwrite", &note]);
    }

    fn job(&self, machine: &str) -> serde_json::Value {
        let container = json!({
            "name": "baetyl-purge",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["purge", "/host/baetyl"],
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE", "FOWNER"]},
            },
            "volumeMounts": [{"name": "host", "mountPath": "/host"}],
        });
        // On the machine whatever its taints say: the data is there.
        let pod = json!({
            "nodeName": machine,
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "securityContext": {"runAsUser": 0, "runAsGroup": 0},
            "imagePullSecrets": self.pull_secrets,
            "containers": [container],
            "volumes": [{"name": "host", "hostPath": {"path": "/var/lib", "type": "Directory"}}],
        });
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"generateName": "baetyl-purge-", "namespace": USERS},
            "spec": {"backoffLimit": 2, "template": {"spec": pod}},
        })
    }

    fn run(&self, cluster: &Kubectl, machine: &str, timeout: &str) -> Result<()> {
        let job = self.job(machine).to_string();
        let made = cluster.checked(&["create", "-f", "-", "-o", "name"], Some(&job))?;
        let timeout = format!("--timeout={timeout}");
        let wait = ["-n", USERS, "wait", "--for=condition=complete", &timeout];
        let mut args = wait.to_vec();
        args.push(made.trim());
        cluster.get(&args)?;
        say!("{DATA} removed on {machine}");
        Ok(())
    }
}
