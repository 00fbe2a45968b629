//! A node as Baetyl v2 shows it.

use std::collections::BTreeMap;

use baetyl_model::NodeStatus;
use baetyl_model::report::RunMode;
use baetyl_model::report::v2::{ViewFacts, render_v2_report};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::HIDDEN_LABELS;
use crate::report::{NodeReport, Ready};
use crate::rest::Ctx;
use crate::rest::error::ApiError;
use crate::store::NodeRow;

/// How much of a node is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rest) enum Show {
    /// What it reports.
    Report,
    /// Also what it shall run.
    ReportAndDesire,
}

/// A node as it is shown.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::rest) struct NodeView {
    namespace: String,
    name: String,
    /// Immutable; another one when a node is created again under the same name.
    uid: String,
    version: String,
    create_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    accelerator: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    app_mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    desire: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sys_apps: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    cluster: bool,
    /// 0 never seen, 1 online, 2 offline.
    ready: u8,
    mode: String,
    node_mode: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    core_id: String,
}

impl NodeView {
    /// Without report and desire.
    pub(in crate::rest) fn new(row: &NodeRow, ready: Ready) -> Self {
        let labels = row
            .labels
            .iter()
            .filter(|(key, _)| !HIDDEN_LABELS.contains(&key.as_str()));
        Self {
            namespace: row.namespace.to_string(),
            name: row.name.to_string(),
            uid: row.uid.to_string(),
            version: row.version.to_string(),
            create_time: row.create_time.to_string(),
            accelerator: row.spec.accelerator.clone(),
            labels: labels
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            annotations: row.spec.annotations.clone(),
            report: None,
            app_mode: String::new(),
            desire: None,
            sys_apps: row.spec.sys_apps.clone(),
            description: row.spec.description.clone(),
            cluster: row.spec.cluster,
            ready: ready.code(),
            mode: row.spec.sync_mode.clone(),
            node_mode: row.spec.node_mode.clone(),
            link: row.spec.link.clone(),
            core_id: row.spec.core_id.clone(),
        }
    }
}

/// With its report and, if asked for, its desire.
pub(in crate::rest) async fn of(
    ctx: &Ctx,
    row: &NodeRow,
    show: Show,
) -> Result<NodeView, ApiError> {
    let report = ctx.rest.reports.report(ctx.namespace(), &row.uid).await?;
    let mut view = with_report(row, &report);
    if show == Show::ReportAndDesire {
        view.desire = Some(desire(ctx, row).await?);
    }
    Ok(view)
}

/// With its report.
pub(in crate::rest) fn with_report(row: &NodeRow, report: &NodeReport) -> NodeView {
    let facts = ViewFacts {
        time: report.summary.last_seen,
        online: report.summary.ready == Ready::Online,
        client_ip: report.address.map(|ip| ip.to_string()).unwrap_or_default(),
    };
    let mut view = NodeView::new(row, report.summary.ready);
    view.app_mode = app_mode(report.status.as_ref(), &row.spec.node_mode).to_owned();
    view.report = Some(render_v2_report(
        report.status.as_ref(),
        report.stats.as_ref(),
        &facts,
    ));
    view
}

/// What the node says it is; a node that said nothing is what it was described as.
fn app_mode<'a>(status: Option<&NodeStatus>, described: &'a str) -> &'a str {
    match status.map(|status| status.run_mode) {
        Some(RunMode::Native) => "native",
        Some(RunMode::Kube) => "kube",
        None => described,
    }
}

/// `{apps, sysapps, nodeprops}` at the newest revision. A node in mode local is shown what it would get.
async fn desire(ctx: &Ctx, row: &NodeRow) -> Result<Value, ApiError> {
    let snapshot = ctx.rest.store.snapshot(ctx.namespace()).await?;
    let selected = snapshot.apps.iter().filter(|app| app.selects(row));
    let (system, user): (Vec<_>, Vec<_>) = selected.partition(|app| app.system);
    let versions = |apps: Vec<_>| -> Vec<Value> {
        let shown = |app: &std::sync::Arc<crate::store::AppRow>| json!({"name": app.name, "version": app.version.to_string()});
        apps.into_iter().map(shown).collect()
    };
    let mut desire = json!({"apps": versions(user), "sysapps": versions(system)});
    if !row.properties.is_empty() {
        let properties: Map<String, Value> = row
            .properties
            .iter()
            .map(|(key, wish)| (key.clone(), json!(wish.value)))
            .collect();
        desire["nodeprops"] = Value::Object(properties);
    }
    if let Some(core) = crate::desire::desired_core(row) {
        desire["core"] = json!(core);
    }
    Ok(desire)
}
