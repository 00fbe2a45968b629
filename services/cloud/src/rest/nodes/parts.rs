//! What hangs below a node: its applications, functions, history, mode, properties, events.

use std::collections::BTreeMap;

use axum::extract::{Path, RawQuery};
use axum::response::Response;
use baetyl_model::Kind;
use baetyl_model::resource::Application;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{WORD, find};
use crate::rest::body::Input;
use crate::rest::error::{ApiError, Code, Mistake};
use crate::rest::etag::{Conditions, tagged};
use crate::rest::list::{ListOptions, ListView, last_value};
use crate::rest::shared::{AppItem, load};
use crate::rest::{Ctx, reply, success};
use crate::store::{ChangeRow, DesiredProperty, NodeRow, Subject, Verb};

/// How much history is shown when no page size is given, and at most.
const HISTORY: u32 = 100;

/// The applications a node shall run, with their bodies.
async fn applications(ctx: &Ctx, node: &NodeRow) -> Result<Vec<Application>, ApiError> {
    let snapshot = ctx.rest.store.snapshot(ctx.namespace()).await?;
    let mut apps = Vec::new();
    for row in snapshot.apps.iter().filter(|app| app.selects(node)) {
        if let Some(row) = ctx
            .rest
            .store
            .resource(ctx.namespace(), Kind::Application, &row.name)
            .await?
        {
            apps.extend(load::<Application>(ctx, &row).await?);
        }
    }
    Ok(apps)
}

pub(in crate::rest) async fn apps(
    ctx: Ctx,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let node = find(&ctx, &name).await?;
    let items = applications(&ctx, &node)
        .await?
        .into_iter()
        .map(AppItem::from)
        .collect();
    Ok(reply(&ListView::plain(items)))
}

/// Names of functions, "application/function".
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::rest) struct FunctionNames {
    functions: Vec<String>,
}

pub(in crate::rest) async fn functions(
    ctx: Ctx,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let node = find(&ctx, &name).await?;
    let mut functions = Vec::new();
    for app in applications(&ctx, &node)
        .await?
        .iter()
        .filter(|app| app.kind() == "function")
    {
        let of_services = app.services.iter().flat_map(|service| &service.functions);
        functions.extend(of_services.map(|function| format!("{}/{}", app.name, function.name)));
    }
    Ok(reply(&FunctionNames { functions }))
}

/// One change that touched what a node runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct DeployView {
    revision: String,
    time: String,
    actor: String,
    request_id: String,
    /// create, update, delete
    verb: String,
    /// node, application
    kind: String,
    name: String,
    /// Version the change made; none for a deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

impl From<ChangeRow> for DeployView {
    fn from(row: ChangeRow) -> Self {
        let revision = row.revision.to_string();
        Self {
            version: (row.change.verb != Verb::Delete).then(|| revision.clone()),
            revision,
            time: row.time.to_string(),
            actor: row.actor,
            request_id: row.request_id,
            verb: row.change.verb.to_string(),
            kind: row.change.subject.to_string(),
            name: row.change.name,
            digest: row.change.new.map(|digest| digest.to_string()),
        }
    }
}

/// The changes of the node itself and of the applications it runs now, newest first.
pub(in crate::rest) async fn deploys(
    ctx: Ctx,
    Path(name): Path<String>,
    options: ListOptions,
) -> Result<Response, ApiError> {
    let node = find(&ctx, &name).await?;
    let (store, namespace) = (&ctx.rest.store, ctx.namespace());
    let mut changes = store
        .changes_of(namespace, Subject::Node, node.name.as_str(), HISTORY)
        .await?;
    // A node that was created again under this name has a history of its own.
    changes.retain(|row| row.change.uid.as_ref() == Some(&node.uid));
    let snapshot = store.snapshot(namespace).await?;
    for app in snapshot.apps.iter().filter(|app| app.selects(&node)) {
        changes.extend(
            store
                .changes_of(namespace, Subject::Application, &app.name, HISTORY)
                .await?,
        );
    }
    changes.sort_by_key(|row| std::cmp::Reverse((row.revision, row.seq)));
    changes.truncate(HISTORY as usize);
    let page = options.page(changes);
    let items: Vec<DeployView> = page.items.iter().cloned().map(DeployView::from).collect();
    Ok(reply(&page.with_items(items)))
}

/// Whether the cloud tells a node what to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::rest) struct ModeInput {
    /// "cloud" or "local"
    mode: String,
}

pub(in crate::rest) async fn set_mode(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
    input: Input<ModeInput>,
) -> Result<Response, ApiError> {
    let given = input.accept(|input| {
        let wrong = !matches!(input.mode.as_str(), "cloud" | "local");
        wrong
            .then(|| {
                Mistake::new(
                    "mode",
                    format!("\"{}\" is not one of cloud, local", input.mode),
                )
            })
            .into_iter()
            .collect()
    })?;
    let mut tx = ctx.begin().await?;
    let Some(mut row) = tx.node(&name).await? else {
        return Err(ApiError::not_found(WORD, &name));
    };
    conditions.check_write(WORD, &name, Some(row.version))?;
    if row.spec.sync_mode != given.mode {
        row.spec.sync_mode = given.mode;
        tx.put_node(&mut row, Verb::Update).await?;
    }
    ctx.commit(tx).await?;
    Ok(success())
}

/// Properties of a node on both sides, as Baetyl v2 shows them. An empty side is left out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::rest) struct PropertiesView {
    state: Sides<Value>,
    /// When each was set.
    metadata: Sides<String>,
}

/// Reported and desired.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
struct Sides<T> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    report: BTreeMap<String, T>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    desire: BTreeMap<String, T>,
}

impl<T> Default for Sides<T> {
    fn default() -> Self {
        Self {
            report: BTreeMap::new(),
            desire: BTreeMap::new(),
        }
    }
}

async fn properties_view(ctx: &Ctx, row: &NodeRow) -> Result<PropertiesView, ApiError> {
    let report = ctx.rest.reports.report(ctx.namespace(), &row.uid).await?;
    let mut view = PropertiesView::default();
    if let Some(status) = report.status {
        view.state.report = status
            .properties
            .into_iter()
            .map(|(key, value)| (key, Value::String(value)))
            .collect();
    }
    for (key, wish) in &row.properties {
        view.state
            .desire
            .insert(key.clone(), Value::String(wish.value.clone()));
        view.metadata
            .desire
            .insert(key.clone(), wish.time.to_string());
    }
    Ok(view)
}

pub(in crate::rest) async fn properties(
    ctx: Ctx,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let row = find(&ctx, &name).await?;
    Ok(tagged(
        reply(&properties_view(&ctx, &row).await?),
        row.version,
    ))
}

/// Longest key of a property, as on the node.
const MAX_KEY: usize = 253;

/// Most bytes of all desired properties of a node: they are part of its desire, which goes down whole.
const MAX_PROPERTIES: usize = 64 * 1024;

fn check_properties(desire: &BTreeMap<String, Value>) -> Vec<Mistake> {
    let mut found = Vec::new();
    let mut size = 0;
    for (key, value) in desire {
        let field = format!("state.desire.{key}");
        let is_odd = |c: char| c.is_control() || c.is_whitespace();
        if key.is_empty() || key.len() > MAX_KEY || key.contains(is_odd) {
            let message = format!("a key has 1 to {MAX_KEY} bytes and no white space");
            found.push(Mistake::new(field.clone(), message));
        }
        match value.as_str() {
            Some(value) => size += key.len() + value.len(),
            None => found.push(Mistake::new(field, "a property is a text")),
        }
    }
    if size > MAX_PROPERTIES {
        let message = format!("has {size} bytes, {MAX_PROPERTIES} are the most");
        found.push(Mistake::new("state.desire", message).with_code(Code::ErrDataTooLarge));
    }
    found
}

/// Replaces the desired properties; what is reported is the node's.
pub(in crate::rest) async fn set_properties(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
    input: Input<PropertiesView>,
) -> Result<Response, ApiError> {
    let given = input.accept(|view| check_properties(&view.state.desire))?;
    let mut tx = ctx.begin().await?;
    let Some(mut row) = tx.node(&name).await? else {
        return Err(ApiError::not_found(WORD, &name));
    };
    conditions.check_write(WORD, &name, Some(row.version))?;
    let now = ctx.now();
    let wishes = given.state.desire.into_iter().filter_map(|(key, value)| {
        let value = value.as_str()?.to_owned();
        let time = row
            .properties
            .get(&key)
            .filter(|old| old.value == value)
            .map_or(now, |old| old.time);
        Some((key, DesiredProperty { value, time }))
    });
    let wishes: BTreeMap<_, _> = wishes.collect();
    if wishes != row.properties {
        row.properties = wishes;
        tx.put_node(&mut row, Verb::Update).await?;
    }
    ctx.commit(tx).await?;
    Ok(tagged(
        reply(&properties_view(&ctx, &row).await?),
        row.version,
    ))
}

/// What happened on and to a node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::rest) struct EventsView {
    /// How many are kept, whatever the page.
    total: u64,
    items: Vec<Value>,
}

/// Newest first; `before` (an event's id) and `limit` page through them.
pub(in crate::rest) async fn events(
    ctx: Ctx,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = query.unwrap_or_default();
    let number = |key: &str| -> Result<Option<u64>, ApiError> {
        let value = last_value(&query, key).filter(|value| !value.is_empty());
        let parsed = value.map(|value| {
            value
                .parse()
                .map_err(|_| ApiError::invalid(key, format!("\"{value}\" is not a number")))
        });
        parsed.transpose()
    };
    let (before, limit) = (number("before")?, number("limit")?);
    let limit = limit
        .and_then(|limit| u32::try_from(limit).ok())
        .unwrap_or(HISTORY)
        .min(HISTORY);
    let row = find(&ctx, &name).await?;
    let events = ctx
        .rest
        .reports
        .events(ctx.namespace(), &row.uid, before, limit)
        .await?;
    let total = ctx
        .rest
        .reports
        .count_events(ctx.namespace(), &row.uid)
        .await?;
    let items: Result<Vec<_>, _> = events.iter().map(serde_json::to_value).collect();
    let items = items.map_err(|error| ApiError::internal(&error))?;
    Ok(reply(&EventsView { total, items }))
}
