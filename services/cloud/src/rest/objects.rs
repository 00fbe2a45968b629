//! `/v1/objects`: files that configurations name (program packages, code, models).

use axum::body::Body;
use axum::extract::{Path, Request};
use axum::response::Response;
use baetyl_model::{Digest, ResourceName};
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::error::{ApiError, Code};
use super::list::{ListOptions, ListView};
use super::{Ctx, reply, success};
use crate::objects::ObjectError;
use crate::store::ObjectRow;

const WORD: &str = "object";
/// What the sender of a file says its digest is; optional.
const DIGEST_HEADER: &str = "x-content-sha256";

/// A file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ObjectView {
    name: String,
    /// "sha256:…"
    digest: String,
    /// Hex.
    sha256: String,
    /// Hex.
    md5: String,
    size: u64,
    create_time: String,
    update_time: String,
}

impl From<ObjectRow> for ObjectView {
    fn from(row: ObjectRow) -> Self {
        Self {
            name: row.name,
            digest: row.digest.to_string(),
            sha256: row.digest.hex(),
            md5: row.md5,
            size: row.size,
            create_time: row.create_time.to_string(),
            update_time: row.update_time.to_string(),
        }
    }
}

impl From<ObjectError> for ApiError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::BrokenOff => Self::invalid("", error.to_string()),
            ObjectError::TooLarge(_) => Self::new(Code::ErrDataTooLarge, error.to_string()),
            ObjectError::Digest { .. } => Self::invalid(DIGEST_HEADER, error.to_string()),
            ObjectError::File { ref source, .. }
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                Self {
                    status: http::StatusCode::INSUFFICIENT_STORAGE,
                    ..Self::new(
                        Code::UnknownError,
                        "The disk of the cloud is full; nothing was kept.",
                    )
                }
            }
            ObjectError::File { .. } => Self::internal(&error),
            ObjectError::Store(error) => error.into(),
        }
    }
}

pub(super) async fn put(
    ctx: Ctx,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    ResourceName::new(name.as_str())
        .map_err(|error| ApiError::invalid("name", error.to_string()))?;
    let announced = announced(request.headers())?;
    let upload = ctx
        .rest
        .objects
        .receive(Body::into_data_stream(request.into_body()))
        .await?;
    if let Some(digest) = announced {
        upload.expect(digest)?;
    }
    let (store, namespace) = (&ctx.rest.store, ctx.namespace());
    let row = ctx
        .rest
        .objects
        .keep(upload, store, namespace, ctx.by(), &name)
        .await?;
    Ok(reply(&ObjectView::from(row)))
}

fn announced(headers: &HeaderMap) -> Result<Option<Digest>, ApiError> {
    let Some(value) = headers.get(DIGEST_HEADER) else {
        return Ok(None);
    };
    let hex = value
        .to_str()
        .unwrap_or_default()
        .trim_start_matches("sha256:")
        .to_ascii_lowercase();
    let digest = format!("sha256:{hex}").parse();
    digest
        .map(Some)
        .map_err(|_| ApiError::invalid(DIGEST_HEADER, "64 hex digits are wanted"))
}

pub(super) async fn list(ctx: Ctx, options: ListOptions) -> Result<Response, ApiError> {
    let mut rows = ctx.rest.store.objects(ctx.namespace()).await?;
    rows.retain(|row| options.matches(&row.name, &Default::default()));
    let page: ListView<ObjectRow> = options.page(rows);
    let items: Vec<ObjectView> = page.items.iter().cloned().map(ObjectView::from).collect();
    Ok(reply(&page.with_items(items)))
}

pub(super) async fn get(ctx: Ctx, Path(name): Path<String>) -> Result<Response, ApiError> {
    let row = ctx.rest.store.object(ctx.namespace(), &name).await?;
    let row = row.ok_or_else(|| ApiError::not_found(WORD, &name))?;
    Ok(reply(&ObjectView::from(row)))
}

pub(super) async fn delete(ctx: Ctx, Path(name): Path<String>) -> Result<Response, ApiError> {
    let mut tx = ctx.begin().await?;
    let users = tx.object_users(&name).await?;
    if !users.is_empty() {
        return Err(ApiError::in_use(WORD, &name, &users));
    }
    let row = tx.delete_object(&name).await?;
    ctx.commit(tx).await?;
    if let Some(row) = row {
        ctx.rest
            .objects
            .release(&ctx.rest.store, &[row.digest])
            .await?;
    }
    Ok(success())
}
