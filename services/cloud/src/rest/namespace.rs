//! `/v1/namespace`: the tenant of the caller.

use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::{Ctx, reply};

const WORD: &str = "namespace";

/// A tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct NamespaceView {
    name: String,
}

pub(super) async fn get(ctx: Ctx) -> Result<Response, ApiError> {
    ctx.rest.store.revision(ctx.namespace()).await?;
    Ok(reply(&NamespaceView {
        name: ctx.namespace().to_string(),
    }))
}

/// A token's namespace exists as long as the token: this is for clients of Baetyl v2 that create it first.
pub(super) async fn create(ctx: Ctx) -> Result<Response, ApiError> {
    if !ctx
        .rest
        .store
        .create_namespace(ctx.namespace(), &ctx.by())
        .await?
    {
        return Err(ApiError::duplicate(WORD, ctx.namespace().as_str()));
    }
    Ok(reply(&NamespaceView {
        name: ctx.namespace().to_string(),
    }))
}
