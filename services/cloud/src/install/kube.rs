//! Installation of nodes in mode kube: the command for a shell, the script it fetches, the manifests the script applies.
//!
//! The command carries the authority of this cloud and the token, and nothing else that matters: what it fetches is
//! checked against that authority. The script stands in `kube.sh`; it reads what it has to know about the node from the
//! first lines of the manifests, which [`KubeInstall::manifests`] writes. A bundle has the same files.

use std::fmt::Write as _;
use std::sync::Arc;

use baetyl_manifests::{Class, Fill, FillError, Mistake, REGISTRY, UnknownClass};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::pki::Pki;
use crate::store::NodeRow;

#[cfg(test)]
pub(crate) mod tests;

/// What a machine runs to become a node in mode kube.
pub const SCRIPT: &str = include_str!("kube.sh");

/// Path of the script on the activation listener.
pub const SCRIPT_PATH: &str = "/v1/init/kube/install.sh";

/// Word of a distribution that has a class of its own.
const K3S: &str = "k3s";

/// Settings of the core of nodes in mode kube.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoreConfig {
    /// Versions nodes may be set to, besides that of this cloud; their images are in the registry.
    pub versions: Vec<String>,
    /// Registry, with path, of the images of nodes that have none of their own.
    pub registry: String,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            versions: Vec::new(),
            registry: REGISTRY.to_owned(),
        }
    }
}

/// What an operator or a machine asks for; empty: what the node has, or the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KubeOptions {
    /// Node class.
    pub class: String,
    /// Registry of the images.
    pub registry: String,
    /// Secret that opens the registry.
    pub pull_secret: String,
    /// Kubernetes node the core services belong to; the script labels it.
    pub kube_node: String,
    /// "k3s", or something nobody asks about.
    pub distribution: String,
}

/// Why a node in mode kube cannot be installed like that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KubeError {
    /// No such class.
    #[error(transparent)]
    Class(#[from] UnknownClass),
    /// Something that cannot stand where it belongs.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// The node is a machine without Kubernetes.
    #[error("node {0} is described with nodeMode native; describe another node for a cluster")]
    Native(String),
}

impl KubeError {
    /// The parameter that is wrong; none when it is the configuration of this cloud.
    pub fn parameter(&self) -> Option<&'static str> {
        match self {
            Self::Class(_) => Some("class"),
            Self::Native(_) => Some("mode"),
            Self::Fill(error) => match error.mistakes.first()? {
                Mistake::Registry(_) => Some("registry"),
                Mistake::Version(_) => Some("version"),
                Mistake::PullSecret(_) => Some("pullSecret"),
                Mistake::KubernetesNode(_) => Some("kubeNode"),
                Mistake::ActivateUrl(_) | Mistake::CaPin(_) => None,
            },
        }
    }
}

/// Makes commands and manifests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KubeInstall(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pki: Pki,
    config: CoreConfig,
    activate_url: String,
}

impl KubeInstall {
    /// `activate_url`: where activation listens, as nodes reach it.
    pub fn new(pki: Pki, config: CoreConfig, activate_url: String) -> Self {
        Self(Arc::new(Inner {
            pki,
            config,
            activate_url,
        }))
    }

    /// Where activation listens, as nodes reach it.
    pub fn activate_url(&self) -> &str {
        &self.0.activate_url
    }

    /// The authority of this cloud's server certificates, in PEM.
    pub fn authority(&self) -> String {
        pem(self.0.pki.server_authority())
    }

    /// Versions a node may be set to: that of this cloud and those of its configuration.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        let others = self.0.config.versions.iter().map(String::as_str);
        std::iter::once(baetyl_kit::VERSION).chain(others)
    }

    /// A command for a POSIX shell on a machine with `kubectl` or `k3s kubectl`. What is appended to it are options of the
    /// script.
    ///
    /// # Errors
    /// For options that are none, and for a node that is native.
    pub fn command(
        &self,
        node: &NodeRow,
        token: &str,
        options: &KubeOptions,
    ) -> Result<String, KubeError> {
        self.resolve(node, options)?;
        let mut command = format!(
            "BAETYL_INIT__TOKEN={token} sh -c '{}' baetyl-install",
            fetching(&self.authority(), self.activate_url())
        );
        for (option, value) in [
            ("--class", &options.class),
            ("--registry", &options.registry),
            ("--pull-secret", &options.pull_secret),
            ("--kube-node", &options.kube_node),
        ] {
            if !value.is_empty() {
                // Writing to a String never fails. The values mean nothing in a shell: they were checked.
                let _ = write!(command, " {option} {value}");
            }
        }
        Ok(command)
    }

    /// The manifests that make a cluster this node, with what the script has to know about them in their first lines.
    ///
    /// # Errors
    /// For options that are none, and for a node that is native.
    pub fn manifests(&self, node: &NodeRow, options: &KubeOptions) -> Result<String, KubeError> {
        let (class, fill) = self.resolve(node, options)?;
        let documents = baetyl_manifests::render(class, &fill)?;
        let facts = [
            ("node", format!("{}/{}", node.namespace, node.name)),
            ("node-uid", node.uid.to_string()),
            ("class", class.to_string()),
            ("version", fill.version),
            ("registry", fill.registry),
            ("cloud", fill.activate_url),
            ("min-memory-mib", class.minimum_memory_mib().to_string()),
        ];
        let mut text = String::from(
            "# What a cluster becomes; for one node. To be applied with install.sh, which reads these lines.\n",
        );
        let secret = fill.pull_secret.map(|secret| ("pull-secret", secret));
        for (name, fact) in facts.into_iter().chain(secret) {
            let _ = writeln!(text, "# baetyl.io/{name}: {fact}");
        }
        text.push_str(&baetyl_manifests::text(&documents));
        Ok(text)
    }

    /// Whether a node could be described like that.
    ///
    /// # Errors
    /// When it could not.
    pub fn check(&self, node: &NodeRow) -> Result<(), KubeError> {
        self.resolve(node, &KubeOptions::default()).map(drop)
    }

    /// The class and what is filled in: what is asked for, what the node has, the default, in this order.
    fn resolve(&self, node: &NodeRow, options: &KubeOptions) -> Result<(Class, Fill), KubeError> {
        if node.spec.node_mode == "native" {
            return Err(KubeError::Native(node.name.to_string()));
        }
        let wanted = &node.spec.core;
        let default = if options.distribution == K3S {
            Class::K3s
        } else {
            Class::NodeStandard
        };
        let class: Class = first_of([&options.class, &wanted.class, default.as_str()]).parse()?;
        let own = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let fill = Fill {
            registry: first_of([&options.registry, &wanted.registry, &self.0.config.registry])
                .to_owned(),
            version: first_of([&node.spec.core_version, baetyl_kit::VERSION, ""]).to_owned(),
            activate_url: self.0.activate_url.clone(),
            ca_pin: self.0.pki.server_authority_pin(),
            kubernetes_node: own(&options.kube_node),
            pull_secret: own(&options.pull_secret),
        };
        // All that is wrong is told by those who fill it in.
        baetyl_manifests::render(class, &fill)?;
        // The script labels one machine, and that is enough to find it.
        let fill = Fill {
            kubernetes_node: None,
            ..fill
        };
        Ok((class, fill))
    }
}

/// What fetches the script and runs it. For single quotes: it has none itself.
///
/// The authority stands in it, so that nothing is trusted that was not copied by hand. The directory of authorities is an
/// empty one, because the clients would trust those of the system besides the given one otherwise. The token goes to them
/// by a pipe or a file of a private directory, not by their arguments.
fn fetching(authority: &str, url: &str) -> String {
    let lines: String = authority
        .lines()
        .map(|line| format!(" \"{line}\""))
        .collect();
    [
        "set -e; umask 077; d=$(mktemp -d); trap \"rm -rf $d\" EXIT; mkdir $d/none;",
        &format!("printf \"%s\\n\"{lines} >$d/ca.pem; u={url}{SCRIPT_PATH};"),
        "if command -v curl >/dev/null; then",
        "printf \"header = \\\"authorization: Bearer %s\\\"\\n\" $BAETYL_INIT__TOKEN |",
        "curl -fsS --proto =https --retry 4 --retry-connrefused --cacert $d/ca.pem --capath $d/none -K - -o $d/install.sh \"$u\";",
        "elif wget --help 2>&1 | grep -q -e --ca-directory; then",
        "printf \"header = Authorization: Bearer %s\\n\" $BAETYL_INIT__TOKEN >$d/rc;",
        "WGETRC=$d/rc wget -nv --no-hsts --tries=5 --retry-connrefused --ca-certificate=$d/ca.pem --ca-directory=$d/none -O $d/install.sh \"$u\";",
        "else echo \"curl, or a wget that checks certificates, is needed\" >&2; exit 1; fi;",
        &format!("sh $d/install.sh --cloud {url} --ca $d/ca.pem \"$@\""),
    ]
    .join(" ")
}

fn first_of(texts: [&str; 3]) -> &str {
    texts
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

/// PEM of a certificate.
pub(crate) fn pem(der: &CertificateDer<'_>) -> String {
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let text = STANDARD.encode(der);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}
