//! The Kubernetes manifests of this version, one set for each node class, and what differs from node to node in them.
//!
//! Start at [`render`]. The texts are `manifests/rendered/<class>.yaml`, made by `cargo xtask manifests` and compiled in: the
//! cloud gives them out with its install command, `baetyl-init` applies them when it upgrades a node. This crate knows
//! nothing of Kubernetes but where images and names stand in an object, and talks to nobody.
//!
//! Who applies what it returns does so
//! - in its order, server-side, as field manager [`FIELD_MANAGER`], without forcing;
//! - after the objects for which [`Document::is_replaced`] holds were deleted where they are: they cannot be changed;
//! - after the machine got the label [`CORE_LABEL`], and beside a Secret [`TOKEN_SECRET`] with the install token under the
//!   key [`TOKEN_KEY`]: the token is no part of a manifest.
//!
//! ```
//! # use baetyl_manifests::{Class, Fill, render, text};
//! let fill = Fill {
//!     registry: "registry.example.com/baetyl".to_owned(),
//!     version: "0.1.0".to_owned(),
//!     activate_url: "https://cloud.example.com:9003".to_owned(),
//!     ca_pin: format!("sha256:{}", "0a".repeat(32)),
//!     kubernetes_node: None,
//!     pull_secret: None,
//! };
//! let documents = render(Class::K3s, &fill)?;
//! assert!(text(&documents).contains("image: registry.example.com/baetyl/baetyl-engine:0.1.0"));
//! # Ok::<(), baetyl_manifests::FillError>(())
//! ```

mod class;
mod document;
mod fill;

pub use class::{Class, UnknownClass};
pub use document::{Document, text};
pub use fill::{Fill, FillError, Mistake};

/// Registry, with path, of the published images: that of Baetyl v2.
pub const REGISTRY: &str = "docker.io/baetyltech";

/// Namespace of the core services.
pub const SYSTEM_NAMESPACE: &str = "baetyl-edge-system";

/// Field manager of installation and upgrade.
pub const FIELD_MANAGER: &str = "baetyl-core";

/// Label, with the value `true`, of the machine the core services belong to.
pub const CORE_LABEL: &str = "baetyl.io/core";

/// Secret in [`SYSTEM_NAMESPACE`] with the install token; of no use once the node is activated.
pub const TOKEN_SECRET: &str = "baetyl-init-token";

/// Key of the install token in [`TOKEN_SECRET`].
pub const TOKEN_KEY: &str = "token";

/// Label, with the value `baetyl`, of everything in the manifests.
pub const PART_OF_LABEL: &str = "app.kubernetes.io/part-of";

/// The objects of a node of this class, in the order in which they are applied.
///
/// # Errors
/// All values that cannot stand where they belong.
pub fn render(class: Class, fill: &Fill) -> Result<Vec<Document>, FillError> {
    fill.check()?;
    let mut documents = document::parse(class.manifests());
    for document in &mut documents {
        fill.into(class, document);
    }
    Ok(documents)
}

#[cfg(test)]
mod tests;
