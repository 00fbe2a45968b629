//! Reading rows and bodies of resources.

use baetyl_model::{Kind, Namespace, Revision};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::{ResourceRow, VERSION_COLUMNS, VersionBody, VersionRow};
use crate::seal::SealContext;
use crate::store::error::Doing as _;
use crate::store::row::{blob, flag, json, number, parsed, revision, signed, text};
use crate::store::{Inner, StoreError};

impl Inner {
    pub(super) fn version_body(
        &self,
        namespace: &Namespace,
        row: &SqliteRow,
    ) -> Result<VersionBody, StoreError> {
        let version = version_row(row)?;
        let stored = blob(row, "body")?;
        let body = if flag(row, "sealed")? {
            let number = version.version.to_string();
            let context = seal_context(namespace, version.kind, &version.name, &number);
            let opened = self.seal.open(context, stored);
            opened.map_err(|source| StoreError::Seal {
                verb: "opened",
                source,
            })?
        } else {
            stored.to_vec()
        };
        Ok(VersionBody { row: version, body })
    }
}

/// Bound to a sealed body, so that a row cannot be passed off as another one.
pub(super) fn seal_context<'a>(
    namespace: &'a Namespace,
    kind: Kind,
    name: &'a str,
    version: &'a str,
) -> SealContext<'a> {
    SealContext {
        namespace: namespace.as_str(),
        kind: kind.as_str(),
        name,
        version,
    }
}

pub(super) async fn select_resource(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
    kind: Kind,
    name: &str,
) -> Result<Option<ResourceRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM resources WHERE namespace = ? AND kind = ? AND name = ?")
        .bind(namespace.as_str())
        .bind(kind.as_str())
        .bind(name)
        .fetch_optional(connection)
        .await
        .doing("read the resource")?;
    row.as_ref().map(resource_row).transpose()
}

pub(super) async fn select_version(
    inner: &Inner,
    connection: &mut SqliteConnection,
    namespace: &Namespace,
    kind: Kind,
    name: &str,
    version: Revision,
) -> Result<Option<VersionBody>, StoreError> {
    let sql =
        format!("{VERSION_COLUMNS} WHERE namespace = ? AND kind = ? AND name = ? AND version = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(namespace.as_str())
        .bind(kind.as_str())
        .bind(name)
        .bind(signed(version.get()))
        .fetch_optional(connection)
        .await
        .doing("read a version")?;
    row.map(|row| inner.version_body(namespace, &row))
        .transpose()
}

pub(super) async fn select_users(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
    kind: Kind,
    name: &str,
) -> Result<Vec<String>, StoreError> {
    sqlx::query_scalar(
        "SELECT app FROM resource_refs WHERE namespace = ? AND kind = ? AND name = ? ORDER BY app",
    )
    .bind(namespace.as_str())
    .bind(kind.as_str())
    .bind(name)
    .fetch_all(connection)
    .await
    .doing("find the users of a resource")
}

pub(in crate::store) fn resource_row(row: &SqliteRow) -> Result<ResourceRow, StoreError> {
    Ok(ResourceRow {
        namespace: parsed(row, "namespace")?,
        kind: parsed(row, "kind")?,
        name: text(row, "name")?.to_owned(),
        version: revision(row, "version")?,
        digest: parsed(row, "digest")?,
        size: number(row, "size")?,
        create_time: parsed(row, "create_time")?,
        update_time: parsed(row, "update_time")?,
        labels: json(row, "labels")?,
        system: flag(row, "system")?,
        subtype: text(row, "subtype")?.to_owned(),
        selector: text(row, "selector")?.to_owned(),
    })
}

pub(in crate::store) fn version_row(row: &SqliteRow) -> Result<VersionRow, StoreError> {
    Ok(VersionRow {
        kind: parsed(row, "kind")?,
        name: text(row, "name")?.to_owned(),
        version: revision(row, "version")?,
        digest: parsed(row, "digest")?,
        size: number(row, "size")?,
    })
}
