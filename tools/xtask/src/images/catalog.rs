//! The images: what is in each and what it says of itself. The Dockerfile has a target for each; a test compares.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::arch::Arch;

/// User and group every process runs as; a number, so that Kubernetes can see that it is not root.
pub(crate) const USER: u32 = 65532;
/// Where the code is.
pub(crate) const SOURCE: &str = env!("CARGO_PKG_REPOSITORY");
/// Under which licence.
pub(crate) const LICENSES: &str = env!("CARGO_PKG_LICENSE");
/// Where programs lie in an image; the only entry of its `PATH`.
pub(crate) const BIN: &str = "usr/bin";

/// A program, and what it is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Program {
    /// Name of the file.
    pub(crate) name: &'static str,
    /// Its source.
    pub(crate) source: Source,
}

/// What a program is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A crate of the workspace.
    Crate(&'static str),
    /// The Go modules that `tools/helm` pins.
    Helm,
}

/// What lies under the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing.
    Scratch,
    /// Python 3 with its standard library.
    Python,
}

/// Which machines an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Edge nodes: every architecture.
    Edge,
    /// Clouds and desks.
    Elsewhere,
    /// Edge nodes that want it: every architecture, but only when it is named.
    Optional,
}

/// An image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    /// Name of the repository and of the Dockerfile's target.
    pub(crate) name: &'static str,
    /// `org.opencontainers.image.title`.
    pub(crate) title: &'static str,
    /// `org.opencontainers.image.description`.
    pub(crate) description: &'static str,
    /// The first one is the entry point.
    pub(crate) programs: &'static [Program],
    /// Its arguments unless others are given.
    pub(crate) command: &'static [&'static str],
    /// What lies below.
    pub(crate) base: Base,
    /// Where it runs.
    pub(crate) place: Place,
}

const fn program(name: &'static str) -> Program {
    Program {
        name,
        source: Source::Crate(name),
    }
}

const SHIM: Program = Program {
    name: "baetyl-shim",
    source: Source::Crate("baetyl-runtime-native"),
};

const HELM: Program = Program {
    name: "helm",
    source: Source::Helm,
};

const fn service(
    name: &'static str,
    title: &'static str,
    description: &'static str,
    programs: &'static [Program],
) -> Image {
    Image {
        name,
        title,
        description,
        programs,
        command: &["run"],
        base: Base::Scratch,
        place: Place::Edge,
    }
}

/// All images.
pub(crate) const IMAGES: &[Image] = &[
    Image {
        command: &["serve"],
        place: Place::Elsewhere,
        ..service(
            "baetyl-cloud",
            "Baetyl cloud",
            "Cloud management suite: resources, nodes, activation, links",
            &[program("baetyl-cloud")],
        )
    },
    service(
        "baetyl-init",
        "Baetyl init",
        "Activates an edge node and hands its identity to sync",
        &[program("baetyl-init")],
    ),
    service(
        "baetyl-node",
        "Baetyl node",
        "Owner of the node shadow: desire ledger, properties, node information",
        &[program("baetyl-node")],
    ),
    service(
        "baetyl-sync",
        "Baetyl sync",
        "The link of an edge node to its cloud and the content store",
        &[program("baetyl-sync")],
    ),
    service(
        "baetyl-engine",
        "Baetyl engine",
        "Reconciler of an edge node: makes what is desired run, watches it, undoes what fails",
        &[program("baetyl-engine")],
    ),
    service(
        "baetyl-function-proxy",
        "Baetyl function proxy",
        "Function proxy: HTTP and gRPC in, registered runtimes out",
        &[program("baetyl-function-proxy")],
    ),
    service(
        "baetyl-edge",
        "Baetyl edge",
        "All edge roles in one process, for native mode without Kubernetes",
        &[program("baetyl-edge"), program("baetyl-init"), SHIM],
    ),
    Image {
        base: Base::Python,
        ..service(
            "baetyl-runtime-python",
            "Baetyl function runtime for Python",
            "Runs Python functions for the Baetyl function proxy",
            &[program("baetyl-runtime-python")],
        )
    },
    service(
        "baetyl-runtime-echo",
        "Baetyl echo runtime",
        "Function runtime that answers what it is sent: for measurements and as an example",
        &[program("baetyl-runtime-echo")],
    ),
    Image {
        command: &[],
        place: Place::Elsewhere,
        ..service(
            "baetylctl",
            "baetylctl",
            "Command line of the Baetyl cloud",
            &[program("baetylctl")],
        )
    },
    Image {
        command: &[],
        place: Place::Optional,
        ..service(
            "baetyl-helm",
            "Baetyl Helm",
            "Helm, for applications of type helm in kube mode",
            &[HELM],
        )
    },
];

/// What is built: the images, and for each its architectures.
///
/// Without `only`, images that are not for edge nodes are built for this machine's architecture alone: that of a cloud
/// is known where it is installed, that of a box is not. Optional ones are built when `only` names them.
///
/// # Errors
/// When a name is unknown or nothing is left.
pub(crate) fn select(
    only: &[String],
    edge: bool,
    archs: &[Arch],
) -> Result<Vec<(&'static Image, Vec<Arch>)>> {
    if let Some(name) = only
        .iter()
        .find(|name| IMAGES.iter().all(|i| i.name != **name))
    {
        let names: Vec<_> = IMAGES.iter().map(|image| image.name).collect();
        bail!("there is no image {name:?}; there are {}", names.join(", "));
    }
    let mut chosen = Vec::new();
    for image in IMAGES {
        let named = only.iter().any(|name| name == image.name);
        let wanted = match only.is_empty() {
            true => image.place == Place::Edge || image.place == Place::Elsewhere && !edge,
            false => named,
        };
        let mut archs: Vec<Arch> = archs.to_vec();
        archs.sort();
        archs.dedup();
        if image.place == Place::Elsewhere && !named {
            archs.retain(|arch| Some(*arch) == Arch::host());
        }
        if wanted && !archs.is_empty() {
            chosen.push((image, archs));
        }
    }
    if chosen.is_empty() {
        bail!(
            "no image is left to build: of --only, --edge and --arch something excludes the rest"
        );
    }
    Ok(chosen)
}

/// The image of this name.
pub(crate) fn by_name(name: &str) -> Option<&'static Image> {
    IMAGES.iter().find(|image| image.name == name)
}

/// Version and revision, as labels say them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Version of the product; also the tag of the image.
    pub(crate) version: String,
    /// The commit; `-dirty` when files differ from it.
    pub(crate) revision: String,
    /// Seconds since 1970 that all times in images are set to.
    pub(crate) epoch: u64,
}

impl Image {
    /// The labels of this image.
    pub(crate) fn labels(&self, stamp: &Stamp) -> BTreeMap<String, String> {
        [
            ("title", self.title),
            ("description", self.description),
            ("source", SOURCE),
            ("licenses", LICENSES),
            ("version", &stamp.version),
            ("revision", &stamp.revision),
        ]
        .map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.to_owned()))
        .into()
    }

    /// Path of its entry point.
    pub(crate) fn entrypoint(&self) -> Option<String> {
        let first = self.programs.first()?;
        Some(format!("/{BIN}/{}", first.name))
    }

    /// Environment of its processes.
    pub(crate) fn env(&self) -> Vec<String> {
        let mut env = vec![format!("PATH=/{BIN}")];
        if self.base == Base::Python {
            env.push(format!("SSL_CERT_FILE=/{}", super::python::AUTHORITIES));
        }
        env
    }
}
