//! The core of a node: Baetyl v2's settings, as far as they have a meaning here, kept and shown; for a node in mode kube the
//! version its services shall have, its class and its registry, which go down with its desire.
//!
//! The programs of a native node are updated on the machine, not from here: their version is what the node reports.

use axum::extract::Path;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::{WORD, find};
use crate::rest::body::Input;
use crate::rest::error::{ApiError, Mistake};
use crate::rest::etag::{Conditions, tagged};
use crate::rest::{Ctx, reply};
use crate::store::{CoreSettings, NodeRow, Verb};

const LOG_LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];

/// Settings of the core, in Baetyl v2's words.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::rest) struct CoreConfigs {
    /// That it shall have; of a node nobody set: that it reports; of one that reported none yet: that it would get.
    version: String,
    #[serde(flatten)]
    settings: CoreSettings,
}

/// Versions a node's core can have: the one before, its own, those of the cloud.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::rest) struct CoreVersions {
    versions: Vec<String>,
}

fn check(settings: &CoreSettings) -> Vec<Mistake> {
    let mut found = Vec::new();
    if !(1..=300).contains(&settings.frequency) {
        found.push(Mistake::new("frequency", "freq must be between 1 - 300"));
    }
    for (field, port) in [
        ("apiport", settings.api_port),
        ("agentport", settings.agent_port),
    ] {
        if port < 1024 {
            let message = format!("{port} is not a port between 1024 - 65535");
            found.push(Mistake::new(field, message));
        }
    }
    if !LOG_LEVELS.contains(&settings.log_level.as_str()) {
        let (level, levels) = (&settings.log_level, LOG_LEVELS.join(", "));
        let message = format!("\"{level}\" is not one of {levels}");
        found.push(Mistake::new("logLevel", message));
    }
    found
}

/// What a node shows as its version.
async fn version(ctx: &Ctx, row: &NodeRow) -> Result<String, ApiError> {
    if !row.spec.core_version.is_empty() {
        return Ok(row.spec.core_version.clone());
    }
    let report = ctx.rest.reports.report(ctx.namespace(), &row.uid).await?;
    let reported = report.status.map(|status| status.core.version);
    Ok(reported
        .filter(|version| !version.is_empty())
        .unwrap_or_else(|| baetyl_kit::VERSION.to_owned()))
}

pub(in crate::rest) async fn configs(
    ctx: Ctx,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let row = find(&ctx, &name).await?;
    let configs = CoreConfigs {
        version: version(&ctx, &row).await?,
        settings: row.spec.core,
    };
    Ok(tagged(reply(&configs), row.version))
}

/// Takes a version an operator wishes into the node. `shown` is what the node showed until now.
fn set_version(ctx: &Ctx, row: &mut NodeRow, wished: &str, shown: String) -> Result<(), ApiError> {
    if wished.is_empty() || wished == shown {
        return Ok(());
    }
    if row.spec.node_mode == "native" {
        let message = format!(
            "the programs of a native node are updated on the machine; {} has {shown}",
            row.name
        );
        return Err(ApiError::invalid("version", message));
    }
    let is_known = wished == row.spec.previous_core_version
        || ctx.rest.kube.versions().any(|version| version == wished);
    if !is_known {
        let module = format!("[baetyl {wished}]");
        return Err(ApiError::not_found("module", &module));
    }
    row.spec.previous_core_version = shown;
    wished.clone_into(&mut row.spec.core_version);
    Ok(())
}

pub(in crate::rest) async fn set_configs(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
    input: Input<CoreConfigs>,
) -> Result<Response, ApiError> {
    let given = input.accept(|configs| check(&configs.settings))?;
    let shown = version(&ctx, &find(&ctx, &name).await?).await?;
    let mut tx = ctx.begin().await?;
    let Some(mut row) = tx.node(&name).await? else {
        return Err(ApiError::not_found(WORD, &name));
    };
    conditions.check_write(WORD, &name, Some(row.version))?;
    let before = row.spec.clone();
    set_version(&ctx, &mut row, &given.version, shown)?;
    row.spec.core = given.settings;
    let core = &row.spec.core;
    if row.spec.node_mode != "native" {
        ctx.rest.kube.check(&row)?;
    } else if !core.class.is_empty() || !core.registry.is_empty() {
        let message = "class and registry are those of nodes in mode kube";
        return Err(ApiError::invalid("class", message));
    }
    if row.spec != before {
        tx.put_node(&mut row, Verb::Update).await?;
    }
    ctx.commit(tx).await?;
    let configs = CoreConfigs {
        version: version(&ctx, &row).await?,
        settings: row.spec.core.clone(),
    };
    Ok(tagged(reply(&configs), row.version))
}

pub(in crate::rest) async fn versions(
    ctx: Ctx,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let row = find(&ctx, &name).await?;
    let mut versions = vec![
        row.spec.previous_core_version.clone(),
        version(&ctx, &row).await?,
    ];
    if row.spec.node_mode != "native" {
        versions.extend(ctx.rest.kube.versions().map(ToOwned::to_owned));
    }
    versions.retain(|version| !version.is_empty());
    let mut seen = std::collections::BTreeSet::new();
    versions.retain(|version| seen.insert(version.clone()));
    Ok(reply(&CoreVersions { versions }))
}
