//! What an operator writes of a node, read by the cloud and checked by everybody who writes one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Modes a node can run in. Baetyl v2's first one is the default.
pub const NODE_MODES: [&str; 2] = ["kube", "native"];

/// Optional system applications of Baetyl v2. Kept and shown; what they did is part of every edge or not built.
pub const SYS_APPS: [&str; 4] = [
    "baetyl-function",
    "baetyl-rule",
    "baetyl-ekuiper",
    "baetyl-accelerator-metrics",
];

/// A node as it is written. The fields a view has besides are read and ignored, so that a view can be written back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeInput {
    /// Name inside the namespace.
    pub name: String,
    /// Free text.
    pub description: String,
    /// What applications select nodes by.
    pub labels: BTreeMap<String, String>,
    /// Free text by key.
    pub annotations: BTreeMap<String, String>,
    /// Words of Baetyl v2 that are kept as they are given.
    pub attr: Map<String, Value>,
    /// e.g. "nvidia".
    pub accelerator: String,
    /// One logical node that is a whole Kubernetes cluster.
    pub cluster: bool,
    /// One of [`NODE_MODES`]; empty: kube.
    pub node_mode: String,
    /// Some of [`SYS_APPS`].
    pub sys_apps: Vec<String>,
    /// See `attr`.
    pub link: String,
    /// See `attr`.
    pub core_id: String,
    /// Of a view; ignored, as everything below.
    pub namespace: String,
    /// Of a view.
    pub uid: String,
    /// Of a view.
    pub version: String,
    /// Of a view.
    pub create_time: String,
    /// Of a view.
    pub mode: String,
    /// Of a view.
    pub app_mode: String,
    /// Of a view.
    pub ready: u8,
    /// Of a view.
    pub report: Option<Value>,
    /// Of a view.
    pub desire: Option<Value>,
}

impl NodeInput {
    /// The mode, with the default filled in.
    pub fn mode(&self) -> &str {
        if self.node_mode.is_empty() {
            NODE_MODES[0]
        } else {
            &self.node_mode
        }
    }
}
