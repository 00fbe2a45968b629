//! `/v1/secrets`: plain secrets. Registries and certificates are secrets too, but not shown here.

use axum::extract::Path;
use axum::response::Response;
use baetyl_model::Kind;
use baetyl_model::resource::{Rules, Secret, SecretKind, SecretView, label, validate_secret};

use super::body::{Input, mistakes};
use super::error::ApiError;
use super::etag::{Conditions, tagged};
use super::list::ListOptions;
use super::shared::{find, find_row, load_page, refuse_duplicate, refuse_system_name, show, users};
use super::{Ctx, reply, success};
use crate::catalog;
use crate::catalog::secrets::{current_secret, put_secret};
use crate::store::Role;

const WORD: &str = "secret";
const KIND: SecretKind = SecretKind::Config;

/// The form that is shown; those who may not see content get none.
fn view(ctx: &Ctx, secret: Secret) -> SecretView {
    let mut view = secret.into_view();
    view.labels.remove(label::SECRET_TYPE);
    if ctx.caller.role < Role::Operator {
        view.data.clear();
    }
    view
}

/// The form in lists.
pub(super) fn without_data(secret: Secret) -> SecretView {
    let mut view = secret.into_view();
    view.labels.remove(label::SECRET_TYPE);
    view.data.clear();
    view
}

pub(super) async fn create(ctx: Ctx, input: Input<SecretView>) -> Result<Response, ApiError> {
    let given = input.accept(|view| mistakes(validate_secret(view, &Rules::default())))?;
    let mut tx = ctx.begin().await?;
    refuse_duplicate(
        WORD,
        &given.name,
        tx.resource(Kind::Secret, &given.name).await?.is_some(),
    )?;
    let written = put_secret(&mut tx, KIND, given.into_stored()).await?;
    ctx.commit(tx).await?;
    Ok(tagged(
        reply(&view(&ctx, written.body)),
        written.row.version,
    ))
}

pub(super) async fn list(ctx: Ctx, options: ListOptions) -> Result<Response, ApiError> {
    let options = options.without_system().and(&of_kind(KIND));
    let mut rows = ctx
        .rest
        .store
        .resources(ctx.namespace(), Kind::Secret)
        .await?;
    rows.retain(|row| options.matches(&row.name, &row.labels));
    let page = load_page::<Secret>(&ctx, options.page(rows)).await?;
    let items = page.items.iter().cloned().map(without_data).collect();
    Ok(reply(&page.with_items(items)))
}

/// The requirement that tells the kinds of secrets apart.
pub(super) fn of_kind(kind: SecretKind) -> String {
    format!("{}={}", label::SECRET_TYPE, kind.as_str())
}

pub(super) async fn get(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let (row, secret) = find(&ctx, Kind::Secret, Some(KIND.as_str()), WORD, &name).await?;
    Ok(show(&conditions, &row, &view(&ctx, secret)))
}

pub(super) async fn replace(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
    mut input: Input<SecretView>,
) -> Result<Response, ApiError> {
    input.value.name.clone_from(&name);
    let given = input.accept(|view| mistakes(validate_secret(view, &Rules::default())))?;
    let mut tx = ctx.begin().await?;
    let Some(old) = current_secret(&mut tx, KIND, &name).await? else {
        return Err(ApiError::not_found(WORD, &name));
    };
    conditions.check_write(WORD, &name, Some(old.row.version))?;
    let written = put_secret(&mut tx, KIND, given.into_stored()).await?;
    ctx.commit(tx).await?;
    Ok(tagged(
        reply(&view(&ctx, written.body)),
        written.row.version,
    ))
}

pub(super) async fn delete(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    delete_kind(&ctx, KIND, WORD, &name, &conditions).await
}

/// Deletes a secret of this kind; one of another kind is not there.
pub(super) async fn delete_kind(
    ctx: &Ctx,
    kind: SecretKind,
    word: &'static str,
    name: &str,
    conditions: &Conditions,
) -> Result<Response, ApiError> {
    refuse_system_name(name)?;
    let mut tx = ctx.begin().await?;
    let old = current_secret(&mut tx, kind, name).await?;
    conditions.check_write(word, name, old.as_ref().map(|old| old.row.version))?;
    if old.is_some() {
        catalog::delete(&mut tx, Kind::Secret, word, name).await?;
    }
    ctx.commit(tx).await?;
    Ok(success())
}

pub(super) async fn apps(ctx: Ctx, Path(name): Path<String>) -> Result<Response, ApiError> {
    let row = find_row(&ctx, Kind::Secret, Some(KIND.as_str()), WORD, &name).await?;
    users(&ctx, &row).await
}
