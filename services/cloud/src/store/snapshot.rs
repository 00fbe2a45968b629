//! Everything desires of a namespace are derived from, as of one revision.

use std::collections::HashMap;
use std::sync::Arc;

use baetyl_model::labels::Selector;
use baetyl_model::{Digest, Kind, Namespace, NodeUid, Revision};
use sqlx::SqliteConnection;

use super::error::Doing as _;
use super::nodes::node_row;
use super::objects::config_object;
use super::resources::version_row;
use super::row::{flag, number, parsed, revision, text};
use super::{ConfigObject, NodeRow, Store, StoreError, VersionRow};

/// All rows that desires of one namespace depend on, at one revision.
#[derive(Debug)]
pub struct Snapshot {
    /// The tenant.
    pub namespace: Namespace,
    /// The revision these rows are of.
    pub revision: Revision,
    /// Every node, by uid.
    pub nodes: HashMap<NodeUid, Arc<NodeRow>>,
    /// The current version of every application, by name.
    pub apps: Vec<Arc<AppRow>>,
}

/// The current version of an application with all it references.
#[derive(Debug, Clone)]
pub struct AppRow {
    /// Name.
    pub name: String,
    /// The revision that wrote it.
    pub version: Revision,
    /// Of its body.
    pub digest: Digest,
    /// Bytes of its body.
    pub size: u64,
    /// Which nodes run it; an empty one selects none.
    pub selector: Selector,
    /// An application of the system.
    pub system: bool,
    /// Configurations and secrets at the versions it runs with, by (kind, name).
    pub resources: Vec<VersionRow>,
    /// Large files of its configurations: (configuration, its version, file), in this order.
    pub objects: Vec<(String, Revision, ConfigObject)>,
}

impl AppRow {
    /// True when a node with these labels runs it.
    pub fn selects(&self, node: &NodeRow) -> bool {
        self.selector.matches_app_node(&node.labels)
    }
}

impl Store {
    /// The rows of a namespace at its newest revision. Shared between callers until the next change.
    ///
    /// # Errors
    /// When the namespace does not exist or the database fails.
    pub async fn snapshot(&self, namespace: &Namespace) -> Result<Arc<Snapshot>, StoreError> {
        // One load at a time: after a change every link asks at once, and all want the same rows.
        let mut cache = self.0.snapshots.lock().await;
        let newest = self.revision(namespace).await?;
        if let Some(snapshot) = cache.get(namespace)
            && snapshot.revision == newest
        {
            return Ok(snapshot.clone());
        }
        let snapshot = Arc::new(self.load_snapshot(namespace).await?);
        cache.insert(namespace.clone(), snapshot.clone());
        Ok(snapshot)
    }

    async fn load_snapshot(&self, namespace: &Namespace) -> Result<Snapshot, StoreError> {
        // One read transaction: all rows are of the revision read first.
        let mut tx = self.reader().begin().await.doing("open a snapshot")?;
        let revision: Option<i64> =
            sqlx::query_scalar("SELECT revision FROM namespaces WHERE name = ?")
                .bind(namespace.as_str())
                .fetch_optional(&mut *tx)
                .await
                .doing("read the revision")?;
        let revision = revision.ok_or_else(|| StoreError::NoNamespace(namespace.clone()))?;
        let nodes = load_nodes(&mut tx, namespace).await?;
        let mut resources = load_references(&mut tx, namespace).await?;
        let objects = load_objects(&mut tx, namespace).await?;
        let apps = load_apps(&mut tx, namespace, &mut resources, &objects).await?;
        Ok(Snapshot {
            namespace: namespace.clone(),
            revision: Revision(u64::try_from(revision).unwrap_or(0)),
            nodes,
            apps,
        })
    }
}

async fn load_nodes(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
) -> Result<HashMap<NodeUid, Arc<NodeRow>>, StoreError> {
    let rows = sqlx::query("SELECT * FROM nodes WHERE namespace = ?")
        .bind(namespace.as_str())
        .fetch_all(connection)
        .await
        .doing("read the nodes")?;
    rows.iter()
        .map(|row| node_row(row).map(|node| (node.uid.clone(), Arc::new(node))))
        .collect()
}

/// Digest and size of every referenced version, by application.
async fn load_references(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
) -> Result<HashMap<String, Vec<VersionRow>>, StoreError> {
    let rows = sqlx::query(
        "SELECT r.app, v.kind, v.name, v.version, v.digest, v.size FROM resource_refs r JOIN resource_versions v \
         ON v.namespace = r.namespace AND v.kind = r.kind AND v.name = r.name AND v.version = r.version \
         WHERE r.namespace = ? ORDER BY r.app, v.kind, v.name",
    )
    .bind(namespace.as_str())
    .fetch_all(connection)
    .await
    .doing("read the references")?;
    let mut by_app: HashMap<String, Vec<VersionRow>> = HashMap::new();
    for row in &rows {
        by_app
            .entry(text(row, "app")?.to_owned())
            .or_default()
            .push(version_row(row)?);
    }
    Ok(by_app)
}

/// Large files by configuration, in the order of their file names.
async fn load_objects(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
) -> Result<HashMap<String, Vec<ConfigObject>>, StoreError> {
    let rows =
        sqlx::query("SELECT * FROM config_objects WHERE namespace = ? ORDER BY config, file_name")
            .bind(namespace.as_str())
            .fetch_all(connection)
            .await
            .doing("read the objects")?;
    let mut by_config: HashMap<String, Vec<ConfigObject>> = HashMap::new();
    for row in &rows {
        by_config
            .entry(text(row, "config")?.to_owned())
            .or_default()
            .push(config_object(row)?);
    }
    Ok(by_config)
}

async fn load_apps(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
    resources: &mut HashMap<String, Vec<VersionRow>>,
    objects: &HashMap<String, Vec<ConfigObject>>,
) -> Result<Vec<Arc<AppRow>>, StoreError> {
    let rows = sqlx::query(
        "SELECT name, version, digest, size, selector, system FROM resources \
         WHERE namespace = ? AND kind = 'application' ORDER BY name",
    )
    .bind(namespace.as_str())
    .fetch_all(connection)
    .await
    .doing("read the applications")?;
    rows.iter()
        .map(|row| {
            let name = text(row, "name")?.to_owned();
            let resources = resources.remove(&name).unwrap_or_default();
            let objects = resources
                .iter()
                .filter(|resource| resource.kind == Kind::Configuration)
                .flat_map(|config| {
                    let files = objects
                        .get(&config.name)
                        .map(Vec::as_slice)
                        .unwrap_or_default();
                    files
                        .iter()
                        .map(|file| (config.name.clone(), config.version, file.clone()))
                })
                .collect();
            Ok(Arc::new(AppRow {
                version: revision(row, "version")?,
                digest: parsed(row, "digest")?,
                size: number(row, "size")?,
                selector: parsed(row, "selector")?,
                system: flag(row, "system")?,
                name,
                resources,
                objects,
            }))
        })
        .collect()
}
