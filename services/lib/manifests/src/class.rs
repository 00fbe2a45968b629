//! The node classes.

use std::fmt;
use std::str::FromStr;

/// A kind of node the manifests are made for: an overlay in `manifests/overlays`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A machine with 1 GB, without the function proxy.
    Node1Gb,
    /// A machine with 2 GB, any Kubernetes.
    NodeStandard,
    /// A machine with GPUs.
    NodeGpu,
    /// Several machines that are one edge node.
    Cluster,
    /// K3s as it is installed, with its own volumes.
    K3s,
}

/// A word that names no class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a node class; use {names}", names = names())]
pub struct UnknownClass(pub String);

fn names() -> String {
    Class::ALL.map(Class::as_str).join(", ")
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Node1Gb,
        Self::NodeStandard,
        Self::NodeGpu,
        Self::Cluster,
        Self::K3s,
    ];

    /// Its name: that of the overlay.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node1Gb => "node-1gb",
            Self::NodeStandard => "node-standard",
            Self::NodeGpu => "node-gpu",
            Self::Cluster => "cluster",
            Self::K3s => "k3s",
        }
    }

    /// What it is for, in one line.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Node1Gb => "a machine with 1 GB: no functions, small limits",
            Self::NodeStandard => "a machine with 2 GB and any Kubernetes",
            Self::NodeGpu => "a machine with GPUs and their device plugin",
            Self::Cluster => "several machines that are one edge node",
            Self::K3s => "K3s as it is installed, with its local-path volumes",
        }
    }

    /// Memory the machine of the core services must have, in MiB as the kernel counts it (`MemTotal`: a machine sold with
    /// 1 GB shows about 920). Kubernetes itself takes most of it.
    #[must_use]
    pub const fn minimum_memory_mib(self) -> u64 {
        match self {
            Self::Node1Gb => 880,
            Self::NodeStandard | Self::Cluster | Self::K3s => 1800,
            Self::NodeGpu => 3600,
        }
    }

    /// Whether the function proxy is among its services.
    #[must_use]
    pub const fn has_function_proxy(self) -> bool {
        !matches!(self, Self::Node1Gb)
    }

    /// The rendered overlay, with placeholders.
    pub(crate) const fn manifests(self) -> &'static str {
        match self {
            Self::Node1Gb => include_str!("../../../../manifests/rendered/node-1gb.yaml"),
            Self::NodeStandard => include_str!("../../../../manifests/rendered/node-standard.yaml"),
            Self::NodeGpu => include_str!("../../../../manifests/rendered/node-gpu.yaml"),
            Self::Cluster => include_str!("../../../../manifests/rendered/cluster.yaml"),
            Self::K3s => include_str!("../../../../manifests/rendered/k3s.yaml"),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Class {
    type Err = UnknownClass;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == word)
            .ok_or_else(|| UnknownClass(word.to_owned()))
    }
}
