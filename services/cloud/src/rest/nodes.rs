//! `/v1/nodes`

use std::collections::BTreeMap;

use axum::extract::{Path, RawQuery};
use axum::response::Response;
use baetyl_model::resource::{NodeInput, label, validate_node};
use baetyl_model::{NodeName, NodeUid, Revision};
use serde::{Deserialize, Serialize};

use super::body::{Input, mistakes};
use super::error::{ApiError, Mistake};
use super::etag::{Conditions, tagged};
use super::list::{ListOptions, ListView, last_value};
use super::shared::refuse_duplicate;
use super::{Ctx, reply, success};
use crate::report::{NodeReport, Ready};
use crate::store::{NodeRow, NodeSpec, Verb};

pub(super) mod core;
pub(super) mod install;
pub(super) mod parts;
pub(super) mod view;

use view::{NodeView, Show};

pub(super) const WORD: &str = "node";

/// Most names in one batch.
const MAX_BATCH: usize = 20;

/// Labels every node has besides its author's.
const HIDDEN_LABELS: [&str; 3] = [label::ACCELERATOR, label::CLUSTER, label::NODE_MODE];

fn check(node: &NodeInput) -> Vec<Mistake> {
    mistakes(validate_node(node))
}

/// What an operator gives, as it is stored; identity, mode and desired properties are the caller's business.
fn apply(input: NodeInput, row: &mut NodeRow) {
    row.labels = input.labels;
    for (key, value) in [
        (label::NODE_NAME, row.name.to_string()),
        (label::ACCELERATOR, input.accelerator.clone()),
        (label::CLUSTER, row.spec.cluster.to_string()),
        (label::NODE_MODE, row.spec.node_mode.clone()),
    ] {
        row.labels.insert(key.to_owned(), value);
    }
    row.spec = NodeSpec {
        description: input.description,
        annotations: input.annotations,
        accelerator: input.accelerator,
        sys_apps: input.sys_apps,
        link: input.link,
        core_id: input.core_id,
        ..std::mem::take(&mut row.spec)
    };
}

pub(super) async fn create(ctx: Ctx, input: Input<NodeInput>) -> Result<Response, ApiError> {
    let given = input.accept(check)?;
    let name = NodeName::new(given.name.as_str())
        .map_err(|error| ApiError::invalid("name", error.to_string()))?;
    let mut tx = ctx.begin().await?;
    refuse_duplicate(WORD, &given.name, tx.node(&given.name).await?.is_some())?;
    let uid = NodeUid::new(uuid::Uuid::now_v7().to_string())
        .map_err(|error| ApiError::internal(&error))?;
    let mut row = NodeRow {
        namespace: ctx.namespace().clone(),
        name,
        uid,
        version: Revision(0),
        create_time: ctx.now(),
        update_time: ctx.now(),
        labels: BTreeMap::new(),
        properties: BTreeMap::new(),
        spec: NodeSpec {
            cluster: given.cluster,
            node_mode: given.mode().to_owned(),
            sync_mode: "cloud".to_owned(),
            attributes: given.attr.clone(),
            ..NodeSpec::default()
        },
    };
    apply(given, &mut row);
    tx.put_node(&mut row, Verb::Create).await?;
    ctx.commit(tx).await?;
    Ok(tagged(
        reply(&NodeView::new(&row, Ready::Uninstalled)),
        row.version,
    ))
}

pub(super) async fn list(ctx: Ctx, options: ListOptions) -> Result<Response, ApiError> {
    let summaries = ctx.rest.reports.summaries(ctx.namespace()).await?;
    let ready = |row: &NodeRow| {
        summaries
            .get(&row.uid)
            .map_or(Ready::Uninstalled, |summary| summary.ready)
    };
    let mut rows = ctx.rest.store.nodes(ctx.namespace()).await?;
    rows.retain(|row| {
        options.matches(row.name.as_str(), &row.labels)
            && match options.cluster.as_str() {
                "cluster" => row.spec.cluster,
                "single" => !row.spec.cluster,
                _ => true,
            }
            && match options.ready.as_str() {
                "online" => ready(row) == Ready::Online,
                "offline" => ready(row) == Ready::Offline,
                "uninstall" => ready(row) == Ready::Uninstalled,
                _ => true,
            }
    });
    match options.create_sort.as_str() {
        "asc" => rows.reverse(),
        "desc" => {}
        // Those that are online first; the sort is stable.
        _ => rows.sort_by_key(|row| ready(row) != Ready::Online),
    }
    show_page(&ctx, options.page(rows)).await
}

async fn show_page(ctx: &Ctx, page: ListView<NodeRow>) -> Result<Response, ApiError> {
    let uids: Vec<_> = page.items.iter().map(|row| &row.uid).collect();
    let mut reports = ctx.rest.reports.reports(ctx.namespace(), &uids).await?;
    for report in &mut reports {
        select_hosts(report, &page.options);
    }
    let nodes = page.items.iter().zip(&reports);
    let items = nodes
        .map(|(row, report)| view::with_report(row, report))
        .collect();
    Ok(reply(&page.with_items(items)))
}

/// Leaves out the machines of a cluster that `nodeSelector` does not mean, as Baetyl v2 does.
fn select_hosts(report: &mut NodeReport, options: &ListOptions) {
    if options.node_selector.is_empty() {
        return;
    }
    let Some(status) = &mut report.status else {
        return;
    };
    status
        .nodes
        .retain(|_, machine| options.means_host(&machine.labels));
    if let Some(stats) = &mut report.stats {
        stats
            .nodes
            .retain(|machine| status.nodes.contains_key(&machine.hostname));
    }
}

/// The body of a batch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Names {
    names: Vec<String>,
}

/// Reads several nodes by name. A PUT, because Baetyl v2 has it so.
pub(super) async fn batch(
    ctx: Ctx,
    RawQuery(query): RawQuery,
    input: Input<Names>,
) -> Result<Response, ApiError> {
    if last_value(&query.unwrap_or_default(), "batch").is_none() {
        return Err(ApiError::invalid(
            "batch",
            "PUT /v1/nodes reads several nodes and needs ?batch",
        ));
    }
    let given = input.accept(|names| {
        let many = names.names.len() > MAX_BATCH;
        many.then(|| Mistake::new("names", format!("at most {MAX_BATCH} names")))
            .into_iter()
            .collect()
    })?;
    let mut rows = Vec::new();
    for name in &given.names {
        rows.extend(ctx.rest.store.node(ctx.namespace(), name).await?);
    }
    show_page(&ctx, ListView::plain(rows)).await
}

/// A node, or 404.
pub(super) async fn find(ctx: &Ctx, name: &str) -> Result<NodeRow, ApiError> {
    let row = ctx.rest.store.node(ctx.namespace(), name).await?;
    row.ok_or_else(|| ApiError::not_found(WORD, name))
}

/// The tag is the node's version; the report in the view changes without it, therefore never a 304.
pub(super) async fn get(ctx: Ctx, Path(name): Path<String>) -> Result<Response, ApiError> {
    let row = find(&ctx, &name).await?;
    Ok(tagged(
        reply(&view::of(&ctx, &row, Show::ReportAndDesire).await?),
        row.version,
    ))
}

pub(super) async fn stats(ctx: Ctx, Path(name): Path<String>) -> Result<Response, ApiError> {
    let row = find(&ctx, &name).await?;
    Ok(reply(&view::of(&ctx, &row, Show::Report).await?))
}

pub(super) async fn replace(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
    mut input: Input<NodeInput>,
) -> Result<Response, ApiError> {
    input.value.name.clone_from(&name);
    let given = input.accept(check)?;
    let mut tx = ctx.begin().await?;
    let Some(mut row) = tx.node(&name).await? else {
        return Err(ApiError::not_found(WORD, &name));
    };
    conditions.check_write(WORD, &name, Some(row.version))?;
    let before = row.clone();
    apply(given, &mut row);
    if row != before {
        tx.put_node(&mut row, Verb::Update).await?;
    }
    ctx.commit(tx).await?;
    let summary = ctx
        .rest
        .reports
        .report(ctx.namespace(), &row.uid)
        .await?
        .summary;
    Ok(tagged(
        reply(&NodeView::new(&row, summary.ready)),
        row.version,
    ))
}

pub(super) async fn delete(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let mut tx = ctx.begin().await?;
    let version = tx.node(&name).await?.map(|row| row.version);
    conditions.check_write(WORD, &name, version)?;
    let deleted = tx.delete_node(&name).await?;
    ctx.commit(tx).await?;
    if let Some(row) = deleted {
        // A node with an open stream is forgotten when that ends, too.
        ctx.rest.reports.forget(&row.namespace, &row.uid);
    }
    Ok(success())
}
