//! `/v1/functions`: what functions can be written in.

use std::collections::BTreeMap;

use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::{Ctx, reply};

/// Baetyl v2's answer: clouds to import from (none), and runtimes with their images.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct FunctionsView {
    sources: Vec<Source>,
    runtimes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Source {
    name: String,
}

pub(super) async fn list(ctx: Ctx) -> Result<Response, ApiError> {
    Ok(reply(&FunctionsView {
        sources: Vec::new(),
        runtimes: ctx.rest.runtimes.images().clone(),
    }))
}
