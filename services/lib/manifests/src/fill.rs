//! What differs from node to node, and where it goes.
//!
//! A placeholder is filled where it stands, by field: nothing is searched and replaced in a text, so that no value can be
//! taken for a placeholder nor break out of its place.

use std::fmt;

use serde_json::{Value, json};

use crate::document::Document;
use crate::{CORE_LABEL, Class};

/// What images begin with in the manifests.
const REGISTRY: &str = "REGISTRY/";
/// What images end with.
const VERSION: &str = ":VERSION";

/// The `ConfigMap` that says which cloud a node belongs to.
const CLOUD: &str = "baetyl-cloud";

/// The container that makes Pods itself.
const ENGINE: &str = "baetyl-engine";
/// Its variable for what those are pulled with when the image is ours.
const PULL_SECRETS: &str = "BAETYL_ENGINE__KUBE__PULL_SECRETS";
/// Its variable for the class of the node: an upgrade stays in it unless another is wished.
const CLASS: &str = "BAETYL_ENGINE__KUBE__CLASS";

/// Longest name of an object in Kubernetes.
const MAX_NAME: usize = 253;
/// Longest tag of an image.
const MAX_TAG: usize = 128;

/// What differs from node to node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Registry of our images, with path, without a slash at the end: `registry.example.com:5000/baetyl`.
    pub registry: String,
    /// Version of our images, their tag: `0.1.0`. Never `latest`.
    pub version: String,
    /// Where the node activates, `https://host:port`.
    pub activate_url: String,
    /// `sha256:` and 64 hex digits of the authority behind that address.
    pub ca_pin: String,
    /// Name of the Kubernetes node the core services belong to, for clusters where more than one carries the label
    /// [`CORE_LABEL`]. None: the label says it.
    pub kubernetes_node: Option<String>,
    /// Secret of the type `kubernetes.io/dockerconfigjson` that opens the registry, in both namespaces. None: it is open, or
    /// the machines know.
    pub pull_secret: Option<String>,
}

/// Values that cannot stand where they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FillError {
    /// All of them.
    pub mistakes: Vec<Mistake>,
}

/// A value that cannot stand where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// Not the beginning of an image name.
    #[error(
        "the registry {0:?} cannot begin the name of an image; write host[:port][/path] in small letters"
    )]
    Registry(String),
    /// Not a tag, or one that says nothing.
    #[error("the version {0:?} is no fixed tag of an image; name a release, such as 0.1.0")]
    Version(String),
    /// Not the address of a server.
    #[error("the activation address {0:?} is not https://host:port")]
    ActivateUrl(String),
    /// Not a fingerprint.
    #[error("the pin {0:?} of the cloud's authority is not sha256: and 64 small hex digits")]
    CaPin(String),
    /// Not a name.
    #[error("{0:?} cannot be the name of a Kubernetes node")]
    KubernetesNode(String),
    /// Not a name.
    #[error("{0:?} cannot be the name of a Secret")]
    PullSecret(String),
}

impl fmt::Display for FillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the manifests cannot be filled in")?;
        let mut between = ": ";
        for mistake in &self.mistakes {
            write!(f, "{between}{mistake}")?;
            between = "; ";
        }
        Ok(())
    }
}

impl std::error::Error for FillError {}

impl Fill {
    /// # Errors
    /// All values that cannot stand where they belong.
    pub(crate) fn check(&self) -> Result<(), FillError> {
        let mut mistakes = Vec::new();
        let mut wants = |fine: bool, mistake: fn(String) -> Mistake, value: &str| {
            if !fine {
                mistakes.push(mistake(value.to_owned()));
            }
        };
        wants(
            is_registry(&self.registry),
            Mistake::Registry,
            &self.registry,
        );
        wants(is_release(&self.version), Mistake::Version, &self.version);
        wants(
            is_server(&self.activate_url),
            Mistake::ActivateUrl,
            &self.activate_url,
        );
        wants(is_pin(&self.ca_pin), Mistake::CaPin, &self.ca_pin);
        if let Some(node) = &self.kubernetes_node {
            wants(is_name(node), Mistake::KubernetesNode, node);
        }
        if let Some(secret) = &self.pull_secret {
            wants(is_name(secret), Mistake::PullSecret, secret);
        }
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(FillError { mistakes })
        }
    }

    /// Puts everything in its place in one object.
    pub(crate) fn into(&self, class: Class, document: &mut Document) {
        if document.kind() == "ConfigMap" && document.name() == CLOUD {
            document.value_mut()["data"] =
                json!({"activate-url": self.activate_url, "ca-pin": self.ca_pin});
        }
        let Some(pod) = document.pod_spec() else {
            return;
        };
        for list in ["containers", "initContainers"] {
            let containers = pod.get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                self.image(container);
            }
        }
        if let Some(engine) = container_of(pod, ENGINE)
            && let Some(env) = engine.get_mut("env").and_then(Value::as_array_mut)
        {
            env.push(json!({"name": CLASS, "value": class.as_str()}));
            if let Some(secret) = &self.pull_secret {
                let secrets = json!([secret]).to_string();
                env.push(json!({"name": PULL_SECRETS, "value": secrets}));
            }
        }
        if let Some(secret) = &self.pull_secret {
            pod["imagePullSecrets"] = json!([{"name": secret}]);
        }
        let belongs = pod
            .pointer("/nodeSelector")
            .is_some_and(|on| on.get(CORE_LABEL).is_some());
        if let Some(node) = self.kubernetes_node.as_ref().filter(|_| belongs) {
            // By name, not by the label kubernetes.io/hostname, which may differ from it.
            let named = json!({"key": "metadata.name", "operator": "In", "values": [node]});
            pod["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": [named]}]}}});
        }
    }

    /// The image a container is made from, and those it is told of in its environment.
    fn image(&self, container: &mut Value) {
        let env = container.get_mut("env").and_then(Value::as_array_mut);
        for variable in env.into_iter().flatten() {
            self.name(variable.get_mut("value"));
        }
        self.name(container.get_mut("image"));
    }

    fn name(&self, image: Option<&mut Value>) {
        let Some(image) = image else { return };
        let ours = image
            .as_str()
            .and_then(|image| image.strip_prefix(REGISTRY)?.strip_suffix(VERSION));
        if let Some(ours) = ours {
            *image = format!("{}/{ours}:{}", self.registry, self.version).into();
        }
    }
}

fn container_of<'a>(pod: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let containers = pod.get_mut("containers").and_then(Value::as_array_mut)?;
    containers
        .iter_mut()
        .find(|container| container["name"] == name)
}

/// `host[:port][/path]`.
fn is_registry(text: &str) -> bool {
    let mut parts = text.split('/');
    let server = parts.next().unwrap_or_default();
    let (host, port) = server.split_once(':').unwrap_or((server, "5000"));
    is_name(host)
        && is_port(port)
        && parts.all(|part| {
            part.chars()
                .all(|c| is_small(c) || matches!(c, '.' | '_' | '-'))
                && part.starts_with(is_small)
                && part.ends_with(is_small)
        })
}

fn is_port(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A tag that stays what it is.
fn is_release(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_lowercase())
        && text.len() <= MAX_TAG
        && text.chars().all(inner)
        && text != "latest"
}

fn is_server(text: &str) -> bool {
    let Some(server) = text.strip_prefix("https://") else {
        return false;
    };
    let (host, port) = match server.rsplit_once(':') {
        // The last colon of an IPv6 address without a port is inside the brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (server, "443"),
    };
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_host = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_name(&host.to_ascii_lowercase()),
    };
    is_host && is_port(port)
}

fn is_pin(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64
            && digits
                .chars()
                .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    })
}

/// A name as Kubernetes has them, and DNS: words of small letters, digits and `-` with dots between.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.split('.').all(|word| {
            word.starts_with(is_small)
                && word.ends_with(is_small)
                && word.chars().all(|c| is_small(c) || c == '-')
        })
}

fn is_small(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}
