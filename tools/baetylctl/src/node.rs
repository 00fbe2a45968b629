//! What is done about one node: install command, core, bundle, properties, uninstallation.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::bundle::{self, BundleArgs};
use crate::client::{Client, encode};
use crate::resources::Kind;
use crate::uninstall::UninstallArgs;

#[derive(Subcommand)]
pub(crate) enum NodeVerb {
    /// Prints the command that turns a machine, or a cluster, into this node.
    InstallCommand {
        name: String,
        /// How the node runs, to be sure: kube or native. It is what the node was described with.
        #[arg(long)]
        mode: Option<String>,
        #[command(flatten)]
        kube: KubeArgs,
        /// Kubernetes node the core services will belong to.
        #[arg(long)]
        kube_node: Option<String>,
        /// How long the token in the command lives, e.g. 12h or 7d; 30d at most.
        #[arg(long, value_parser = life)]
        token_life: Option<Duration>,
    },
    /// Shows what the core of a node is, or sets the version, class and registry of a node in mode kube.
    Core {
        name: String,
        /// Version its core services shall have.
        #[arg(long)]
        version: Option<String>,
        #[command(flatten)]
        kube: KubeArgs,
    },
    /// Writes everything a cluster without a network needs to become this node into one file.
    Bundle(BundleArgs),
    /// Removes a node from the cluster it runs on, with kubectl.
    Uninstall(UninstallArgs),
    /// Wishes a property (`key=value`), or takes the wish back (`key-`).
    Property { name: String, change: String },
}

/// What makes the difference between two clusters.
#[derive(Args, Default)]
pub(crate) struct KubeArgs {
    /// Node class: node-1gb, node-standard, node-gpu, cluster, k3s. Kept in the cloud for upgrades.
    #[arg(long)]
    pub(crate) class: Option<String>,
    /// Registry, with path, of the images. Kept in the cloud for upgrades.
    #[arg(long)]
    pub(crate) registry: Option<String>,
    /// Secret, in the namespaces of Baetyl, that opens the registry.
    #[arg(long)]
    pub(crate) pull_secret: Option<String>,
}

/// A time as people write it: `90s`, `30m`, `12h`, `7d`.
pub(crate) fn life(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write for example 30m, 12h or 7d");
    let (last, _) = text.char_indices().last().ok_or_else(wrong)?;
    let (number, unit) = text.split_at(last);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(seconds).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

/// `?a=b&c=d` of what is given.
pub(crate) fn query(parameters: &[(&str, Option<String>)]) -> String {
    let mut query = String::new();
    for (key, value) in parameters {
        if let Some(value) = value {
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(&format!("{key}={}", encode(value)));
        }
    }
    query
}

/// Runs a verb that talks to the cloud.
///
/// # Errors
/// Whatever went wrong, in words for the user.
pub(crate) async fn run(client: &Client, verb: NodeVerb) -> Result<()> {
    match verb {
        NodeVerb::InstallCommand {
            name,
            mode,
            kube,
            kube_node,
            token_life,
        } => {
            keep(client, &name, None, &kube).await?;
            let query = query(&[
                ("mode", mode),
                ("class", kube.class),
                ("registry", kube.registry),
                ("pullSecret", kube.pull_secret),
                ("kubeNode", kube_node),
                ("tokenSeconds", seconds(token_life)),
            ]);
            let path = format!("{}/init{query}", Kind::Node.path(&name));
            let answer = client.get(&path).await?;
            let command = answer["cmd"]
                .as_str()
                .context("the cloud answered without a command")?;
            say!("{command}");
            Ok(())
        }
        NodeVerb::Core {
            name,
            version,
            kube,
        } => {
            keep(client, &name, version, &kube).await?;
            show_core(client, &name).await
        }
        NodeVerb::Bundle(args) => {
            keep(client, &args.name, None, &args.kube).await?;
            bundle::write(client, &args).await
        }
        NodeVerb::Uninstall(args) => args.run(Some(client)).await,
        NodeVerb::Property { name, change } => set_property(client, &name, &change).await,
    }
}

/// As a parameter.
pub(crate) fn seconds(life: Option<Duration>) -> Option<String> {
    life.map(|life| life.as_secs().to_string())
}

/// Writes what is given of version, class and registry into the node. Whoever changes the settings meanwhile is not
/// overwritten.
async fn keep(client: &Client, name: &str, version: Option<String>, kube: &KubeArgs) -> Result<()> {
    let wishes = [
        ("version", version),
        ("class", kube.class.clone()),
        ("registry", kube.registry.clone()),
    ];
    if wishes.iter().all(|(_, wish)| wish.is_none()) {
        return Ok(());
    }
    let path = format!("{}/core/configs", Kind::Node.path(name));
    let found = client.find(&path).await?;
    let (before, tag) = found.with_context(|| format!("there is no node {name}"))?;
    let mut after = before.clone();
    for (field, wish) in wishes {
        if let Some(wish) = wish {
            after[field] = json!(wish);
        }
    }
    if after != before {
        client.put(&path, &after, tag.as_deref()).await?;
    }
    Ok(())
}

async fn show_core(client: &Client, name: &str) -> Result<()> {
    let path = Kind::Node.path(name);
    let configs = client.get(&format!("{path}/core/configs")).await?;
    let node = client.get(&path).await?;
    let versions = client.get(&format!("{path}/core/versions")).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let versions: Vec<_> = versions["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    for (title, value) in [
        ("wanted", text(&configs["version"])),
        ("reported", text(&node["report"]["core"]["binVersion"])),
        ("class", text(&configs["class"])),
        ("registry", text(&configs["registry"])),
        ("possible", versions.join(", ")),
    ] {
        say!("{title:<9} {}", if value.is_empty() { "-" } else { &value });
    }
    Ok(())
}

async fn set_property(client: &Client, name: &str, change: &str) -> Result<()> {
    let path = format!("{}/properties", Kind::Node.path(name));
    let mut wishes = client.get(&path).await?["state"]["desire"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    match (change.split_once('='), change.strip_suffix('-')) {
        (Some((key, value)), _) => drop(wishes.insert(key.to_owned(), Value::from(value))),
        (None, Some(key)) => drop(wishes.remove(key)),
        (None, None) => bail!("{change:?} is neither key=value nor key-"),
    }
    let body = json!({ "state": { "desire": wishes } });
    client.put(&path, &body, None).await?;
    say!("node/{name} property set");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(life("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(life("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in [
            "",
            "7",
            "d",
            "-1h",
            "1.5h",
            "7w",
            "1ä",
            "99999999999999999999d",
        ] {
            assert!(life(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn only_what_is_given_is_asked_for() {
        assert_eq!(query(&[("a", None)]), "");
        let two = [
            ("a", Some("x/y:1".to_owned())),
            ("b", None),
            ("c", Some("d".to_owned())),
        ];
        assert_eq!(query(&two), "?a=x%2Fy%3A1&c=d");
    }
}
