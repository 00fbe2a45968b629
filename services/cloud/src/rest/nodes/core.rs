//! Baetyl v2's settings of a node's core, as far as they have a meaning here: kept and shown. The version is what the
//! node reports; its programs are updated on the machine, not from here.

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
    /// Of the node's programs; a node that reported none yet would get this release.
    version: String,
    #[serde(flatten)]
    settings: CoreSettings,
}

/// Versions a node's core can have.
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

async fn version(ctx: &Ctx, row: &NodeRow) -> Result<String, ApiError> {
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

pub(in crate::rest) async fn set_configs(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
    input: Input<CoreConfigs>,
) -> Result<Response, ApiError> {
    let given = input.accept(|configs| check(&configs.settings))?;
    let row = find(&ctx, &name).await?;
    let version = version(&ctx, &row).await?;
    if !given.version.is_empty() && given.version != version {
        return Err(ApiError::not_found(
            "module",
            &format!("[baetyl {}]", given.version),
        ));
    }
    let mut tx = ctx.begin().await?;
    let Some(mut row) = tx.node(&name).await? else {
        return Err(ApiError::not_found(WORD, &name));
    };
    conditions.check_write(WORD, &name, Some(row.version))?;
    if row.spec.core != given.settings {
        row.spec.core = given.settings;
        tx.put_node(&mut row, Verb::Update).await?;
    }
    ctx.commit(tx).await?;
    let configs = CoreConfigs {
        version,
        settings: row.spec.core,
    };
    Ok(tagged(reply(&configs), row.version))
}

pub(in crate::rest) async fn versions(
    ctx: Ctx,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let row = find(&ctx, &name).await?;
    let versions = vec![version(&ctx, &row).await?];
    Ok(reply(&CoreVersions { versions }))
}
