//! What the handlers of all kinds of resources share.

use axum::response::Response;
use baetyl_model::Kind;
use baetyl_model::resource::{Application, AutoScale, JobConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::error::{ApiError, Mistake};
use super::etag::{Conditions, not_modified, tagged};
use super::list::ListView;
use super::{Ctx, reply};
use crate::catalog;
use crate::store::ResourceRow;

/// An application in a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AppItem {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mode: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    selector: String,
    node_selector: String,
    version: String,
    namespace: String,
    create_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    system: bool,
    #[serde(skip_serializing_if = "is_zero")]
    cron_status: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cron_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<i32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    workload: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    host_network: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_config: Option<JobConfig>,
    #[serde(rename = "autoScaleCfg", skip_serializing_if = "Option::is_none")]
    auto_scale: Option<AutoScale>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    preserve_updates: bool,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl From<Application> for AppItem {
    fn from(app: Application) -> Self {
        let app = app.into_view(|_| None);
        Self {
            name: app.name,
            mode: app.mode,
            kind: app.kind,
            labels: app.labels,
            selector: app.selector,
            node_selector: app.node_selector,
            version: app.version,
            namespace: app.namespace,
            create_time: app
                .create_time
                .map(|time| time.to_string())
                .unwrap_or_default(),
            description: app.description,
            system: app.system,
            cron_status: app.cron_status,
            cron_time: app.cron_time.map(|time| time.to_string()),
            replica: app.replica,
            workload: app.workload,
            host_network: app.host_network,
            job_config: app.job_config,
            auto_scale: app.auto_scale,
            preserve_updates: app.preserve_updates,
        }
    }
}

/// The body of a current version. None when it was deleted since the row was read.
pub(super) async fn load<T: DeserializeOwned>(
    ctx: &Ctx,
    row: &ResourceRow,
) -> Result<Option<T>, ApiError> {
    let version = ctx
        .rest
        .store
        .version(ctx.namespace(), row.kind, &row.name, row.version)
        .await?;
    Ok(version
        .map(|version| catalog::parse(&version.body))
        .transpose()?)
}

/// The current version of a resource; `subtype` is that of secrets. 404 with Baetyl v2's word for the kind.
pub(super) async fn find<T: DeserializeOwned>(
    ctx: &Ctx,
    kind: Kind,
    subtype: Option<&str>,
    word: &str,
    name: &str,
) -> Result<(ResourceRow, T), ApiError> {
    let row = find_row(ctx, kind, subtype, word, name).await?;
    let body = load(ctx, &row)
        .await?
        .ok_or_else(|| ApiError::not_found(word, name))?;
    Ok((row, body))
}

/// As [`find`], without the body.
pub(super) async fn find_row(
    ctx: &Ctx,
    kind: Kind,
    subtype: Option<&str>,
    word: &str,
    name: &str,
) -> Result<ResourceRow, ApiError> {
    let row = ctx.rest.store.resource(ctx.namespace(), kind, name).await?;
    row.filter(|row| subtype.is_none_or(|subtype| row.subtype == subtype))
        .ok_or_else(|| ApiError::not_found(word, name))
}

/// The bodies of a page of rows.
pub(super) async fn load_page<T: DeserializeOwned>(
    ctx: &Ctx,
    page: ListView<ResourceRow>,
) -> Result<ListView<T>, ApiError> {
    let mut items = Vec::with_capacity(page.items.len());
    for row in &page.items {
        items.extend(load(ctx, row).await?);
    }
    Ok(page.with_items(items))
}

/// The applications that reference a resource.
pub(super) async fn users(ctx: &Ctx, row: &ResourceRow) -> Result<Response, ApiError> {
    let names = ctx
        .rest
        .store
        .users(ctx.namespace(), row.kind, &row.name)
        .await?;
    let mut items = Vec::with_capacity(names.len());
    for name in names {
        if let Some(row) = ctx
            .rest
            .store
            .resource(ctx.namespace(), Kind::Application, &name)
            .await?
        {
            items.extend(load::<Application>(ctx, &row).await?.map(AppItem::from));
        }
    }
    Ok(reply(&ListView::plain(items)))
}

/// A single resource with its entity tag, or 304.
pub(super) fn show<T: Serialize>(conditions: &Conditions, row: &ResourceRow, view: &T) -> Response {
    if conditions.has(row.version) {
        return not_modified(row.version);
    }
    tagged(reply(view), row.version)
}

/// Refuses a second resource of one name.
pub(super) fn refuse_duplicate(word: &str, name: &str, there: bool) -> Result<(), ApiError> {
    if there {
        Err(ApiError::duplicate(word, name))
    } else {
        Ok(())
    }
}

/// Resources of the system are not changed by hand.
pub(super) fn refuse_system(word: &str, row: &ResourceRow) -> Result<(), ApiError> {
    if row.system {
        return Err(ApiError::mistakes(vec![
            Mistake::new(
                "name",
                format!(
                    "{word} \"{}\" belongs to the system and cannot be changed",
                    row.name
                ),
            )
            .with_code(super::error::Code::ErrResourceInvisible),
        ]));
    }
    Ok(())
}

/// Names of the system cannot be created or deleted by hand.
pub(super) fn refuse_system_name(name: &str) -> Result<(), ApiError> {
    if baetyl_model::name::is_system_name(name) {
        Err(ApiError::reserved("name", name))
    } else {
        Ok(())
    }
}
