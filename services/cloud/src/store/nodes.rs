//! Nodes and the uids of those that were deleted.

use std::collections::BTreeMap;

use baetyl_model::{Namespace, NodeName, NodeUid, Revision};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;

use super::error::Doing as _;
use super::row::{Labels, json, parsed, revision, signed, stamp, to_json};
use super::{Change, Store, StoreError, Subject, Tx, Verb};

/// A node as an operator described it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRow {
    /// Tenant.
    pub namespace: Namespace,
    /// Name.
    pub name: NodeName,
    /// Never changes; another one when a node is created again under the same name.
    pub uid: NodeUid,
    /// The revision that wrote it.
    pub version: Revision,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was written last.
    pub update_time: Timestamp,
    /// With the system's own labels.
    pub labels: Labels,
    /// Properties the operator wishes.
    pub properties: BTreeMap<String, DesiredProperty>,
    /// Everything else.
    pub spec: NodeSpec,
}

/// One desired property and when it got its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredProperty {
    /// The value.
    pub value: String,
    /// When it was set to this value.
    pub time: Timestamp,
}

/// What an operator writes about a node beside its labels and properties.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// Free text.
    pub description: String,
    /// Free text by key.
    pub annotations: Labels,
    /// e.g. "nvidia".
    pub accelerator: String,
    /// One logical node that is a whole Kubernetes cluster.
    pub cluster: bool,
    /// "kube", "native" or "android"; never changes.
    pub node_mode: String,
    /// "cloud" or "local"; local: the cloud sends no desire.
    pub sync_mode: String,
    /// Optional system applications.
    pub sys_apps: Vec<String>,
    /// Words of Baetyl v2 that are kept as they are given.
    pub link: String,
    /// See `link`.
    pub core_id: String,
    /// See `link`.
    pub attributes: serde_json::Map<String, serde_json::Value>,
    /// Settings of its core.
    pub core: CoreSettings,
    /// The version its core shall have, for a node in mode kube; empty: nobody said, it stays as it was installed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub core_version: String,
    /// The version before that one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub previous_core_version: String,
}

/// Baetyl v2's settings of a node's core, kept and shown; the defaults are v2's. Class and registry are ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CoreSettings {
    /// Seconds between two reports.
    pub frequency: u32,
    /// Port of the core's own interface.
    #[serde(rename = "apiport")]
    pub api_port: u16,
    /// Port of the agent.
    #[serde(rename = "agentport")]
    pub agent_port: u16,
    /// debug, info, warn or error.
    pub log_level: String,
    /// Unit of `speed_limit`.
    pub byte_unit: String,
    /// Of downloads; 0 = none.
    #[serde(skip_serializing_if = "is_zero")]
    pub speed_limit: u32,
    /// Node class of a node in mode kube, whose manifests it gets; empty: as installed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// Registry, with path, of the images of a node in mode kube; empty: as installed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registry: String,
}

impl Default for CoreSettings {
    fn default() -> Self {
        Self {
            frequency: 20,
            api_port: 30050,
            agent_port: 30080,
            log_level: "debug".to_owned(),
            byte_unit: "KB".to_owned(),
            speed_limit: 0,
            class: String::new(),
            registry: String::new(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A node that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Its uid.
    pub uid: NodeUid,
    /// Its name then.
    pub name: NodeName,
    /// The revision that deleted it.
    pub revision: Revision,
    /// When.
    pub time: Timestamp,
}

impl Store {
    /// A node by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn node(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<NodeRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM nodes WHERE namespace = ? AND name = ?")
            .bind(namespace.as_str())
            .bind(name)
            .fetch_optional(self.reader())
            .await
            .doing("read the node")?;
        row.as_ref().map(node_row).transpose()
    }

    /// A node by uid.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn node_by_uid(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
    ) -> Result<Option<NodeRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM nodes WHERE namespace = ? AND uid = ?")
            .bind(namespace.as_str())
            .bind(uid.as_str())
            .fetch_optional(self.reader())
            .await
            .doing("read the node")?;
        row.as_ref().map(node_row).transpose()
    }

    /// All nodes of a namespace, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn nodes(&self, namespace: &Namespace) -> Result<Vec<NodeRow>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM nodes WHERE namespace = ? ORDER BY create_time DESC, name")
                .bind(namespace.as_str())
                .fetch_all(self.reader())
                .await
                .doing("list the nodes")?;
        rows.iter().map(node_row).collect()
    }

    /// The tombstone of a deleted uid.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn deleted_node(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
    ) -> Result<Option<Tombstone>, StoreError> {
        let row = sqlx::query("SELECT * FROM deleted_nodes WHERE namespace = ? AND uid = ?")
            .bind(namespace.as_str())
            .bind(uid.as_str())
            .fetch_optional(self.reader())
            .await
            .doing("read the deleted node")?;
        row.map(|row| {
            Ok(Tombstone {
                uid: parsed(&row, "uid")?,
                name: parsed(&row, "name")?,
                revision: revision(&row, "revision")?,
                time: parsed(&row, "time")?,
            })
        })
        .transpose()
    }
}

impl Tx {
    /// A node by name, inside this write.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn node(&mut self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        let namespace = self.namespace().clone();
        let row = sqlx::query("SELECT * FROM nodes WHERE namespace = ? AND name = ?")
            .bind(namespace.as_str())
            .bind(name)
            .fetch_optional(self.connection())
            .await
            .doing("read the node")?;
        row.as_ref().map(node_row).transpose()
    }

    /// Writes a node at this write's revision, new or over the one of its name, and records the change. Version and
    /// update time of `node` are set.
    ///
    /// # Errors
    /// When the database fails, also when the uid changed.
    pub async fn put_node(&mut self, node: &mut NodeRow, verb: Verb) -> Result<(), StoreError> {
        node.version = self.revision();
        node.update_time = self.by().time;
        let labels = to_json("labels", &node.labels)?;
        let properties = to_json("properties", &node.properties)?;
        let spec = to_json("spec", &node.spec)?;
        sqlx::query(
            "INSERT INTO nodes (namespace, name, uid, version, create_time, update_time, labels, properties, spec) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, name) DO UPDATE SET version = excluded.version, \
             update_time = excluded.update_time, labels = excluded.labels, properties = excluded.properties, \
             spec = excluded.spec",
        )
        .bind(node.namespace.as_str())
        .bind(node.name.as_str())
        .bind(node.uid.as_str())
        .bind(signed(node.version.get()))
        .bind(stamp(node.create_time))
        .bind(stamp(node.update_time))
        .bind(labels)
        .bind(properties)
        .bind(spec)
        .execute(self.connection())
        .await
        .doing("write the node")?;
        self.record_node(verb, node);
        Ok(())
    }

    /// Removes a node and keeps its uid as a tombstone. The node, or none when there is none of this name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_node(&mut self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        let Some(node) = self.node(name).await? else {
            return Ok(None);
        };
        sqlx::query("DELETE FROM nodes WHERE namespace = ? AND name = ?")
            .bind(node.namespace.as_str())
            .bind(name)
            .execute(self.connection())
            .await
            .doing("delete the node")?;
        let (next, time) = (self.revision(), self.by().time);
        sqlx::query("INSERT INTO deleted_nodes (namespace, uid, name, revision, time) VALUES (?, ?, ?, ?, ?)")
            .bind(node.namespace.as_str())
            .bind(node.uid.as_str())
            .bind(node.name.as_str())
            .bind(signed(next.get()))
            .bind(stamp(time))
            .execute(self.connection())
            .await
            .doing("remember the deleted node")?;
        self.record_node(Verb::Delete, &node);
        Ok(Some(node))
    }

    fn record_node(&mut self, verb: Verb, node: &NodeRow) {
        self.record(Change {
            verb,
            subject: Subject::Node,
            name: node.name.to_string(),
            uid: Some(node.uid.clone()),
            old: None,
            new: None,
        });
    }
}

pub(super) fn node_row(row: &SqliteRow) -> Result<NodeRow, StoreError> {
    Ok(NodeRow {
        namespace: parsed(row, "namespace")?,
        name: parsed(row, "name")?,
        uid: parsed(row, "uid")?,
        version: revision(row, "version")?,
        create_time: parsed(row, "create_time")?,
        update_time: parsed(row, "update_time")?,
        labels: json(row, "labels")?,
        properties: json(row, "properties")?,
        spec: json(row, "spec")?,
    })
}
