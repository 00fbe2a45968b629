//! `/v1/configs`

use axum::extract::Path;
use axum::response::Response;
use baetyl_model::Kind;
use baetyl_model::resource::{Configuration, ConfigurationView, Rules, validate_configuration};

use super::body::{Input, mistakes};
use super::error::{ApiError, Mistake};
use super::etag::{Conditions, tagged};
use super::list::ListOptions;
use super::shared::{
    find, find_row, load_page, refuse_duplicate, refuse_system, refuse_system_name, show, users,
};
use super::{Ctx, reply, success};
use crate::catalog::{self, configurations};

const WORD: &str = "config";

pub(super) async fn create(
    ctx: Ctx,
    input: Input<ConfigurationView>,
) -> Result<Response, ApiError> {
    let view = input.accept(check)?;
    let mut tx = ctx.begin().await?;
    refuse_duplicate(
        WORD,
        &view.name,
        tx.resource(Kind::Configuration, &view.name)
            .await?
            .is_some(),
    )?;
    let written = configurations::put_configuration(&mut tx, view).await?;
    ctx.commit(tx).await?;
    Ok(tagged(
        reply(&written.body.into_view()),
        written.row.version,
    ))
}

fn check(view: &ConfigurationView) -> Vec<Mistake> {
    let mut findings = validate_configuration(view, &Rules::default());
    findings.extend(configurations::validate_objects(view));
    mistakes(findings)
}

pub(super) async fn list(ctx: Ctx, options: ListOptions) -> Result<Response, ApiError> {
    let options = options.without_system();
    let mut rows = ctx
        .rest
        .store
        .resources(ctx.namespace(), Kind::Configuration)
        .await?;
    rows.retain(|row| options.matches(&row.name, &row.labels));
    let mut page = load_page::<Configuration>(&ctx, options.page(rows)).await?;
    for config in &mut page.items {
        config.data = configurations::shown_in_list(config);
    }
    Ok(reply(&page))
}

pub(super) async fn get(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let (row, config): (_, Configuration) =
        find(&ctx, Kind::Configuration, None, WORD, &name).await?;
    Ok(show(&conditions, &row, &config.into_view()))
}

pub(super) async fn replace(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
    mut input: Input<ConfigurationView>,
) -> Result<Response, ApiError> {
    let before = find_row(&ctx, Kind::Configuration, None, WORD, &name).await?;
    refuse_system(WORD, &before)?;
    input.value.name.clone_from(&name);
    let view = input.accept(check)?;
    let mut tx = ctx.begin().await?;
    let Some(old) = catalog::current::<Configuration>(&mut tx, &name).await? else {
        return Err(ApiError::not_found(WORD, &name));
    };
    conditions.check_write(WORD, &name, Some(old.row.version))?;
    let written = configurations::put_configuration(&mut tx, view).await?;
    ctx.commit(tx).await?;
    release(&ctx, &old.body).await;
    Ok(tagged(
        reply(&written.body.into_view()),
        written.row.version,
    ))
}

pub(super) async fn delete(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    refuse_system_name(&name)?;
    let mut tx = ctx.begin().await?;
    let old = catalog::current::<Configuration>(&mut tx, &name).await?;
    conditions.check_write(WORD, &name, old.as_ref().map(|old| old.row.version))?;
    catalog::delete(&mut tx, Kind::Configuration, WORD, &name).await?;
    ctx.commit(tx).await?;
    if let Some(old) = old {
        release(&ctx, &old.body).await;
    }
    Ok(success())
}

/// Files the configuration was pinned to may have lost their last user. What fails here is swept at the next start.
async fn release(ctx: &Ctx, before: &Configuration) {
    let digests = configurations::pinned_digests(before);
    if let Err(error) = ctx.rest.objects.release(&ctx.rest.store, &digests).await {
        tracing::warn!(error = %baetyl_kit::error::chain(&error), "cannot remove the file of an object");
    }
}

pub(super) async fn apps(ctx: Ctx, Path(name): Path<String>) -> Result<Response, ApiError> {
    let row = find_row(&ctx, Kind::Configuration, None, WORD, &name).await?;
    users(&ctx, &row).await
}
