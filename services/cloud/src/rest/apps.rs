//! `/v1/apps`

use std::collections::HashMap;

use axum::extract::{Path, RawQuery};
use axum::response::Response;
use baetyl_model::Kind;
use baetyl_model::resource::view::KnownSecret;
use baetyl_model::resource::{
    Application, Configuration, Rules, Secret, SecretKind, label, validate_application,
};

use super::body::{Input, mistakes};
use super::error::{ApiError, Code, Mistake};
use super::etag::{Conditions, tagged};
use super::list::{ListOptions, ListView, last_value};
use super::shared::{
    AppItem, find, load, load_page, refuse_duplicate, refuse_system, refuse_system_name, show,
};
use super::{Ctx, reply, success};
use crate::catalog::{self, applications, configurations};
use crate::store::ResourceRow;

const WORD: &str = "app";

/// The form that is shown: certificates and registries as such.
async fn view(ctx: &Ctx, app: Application) -> Result<Application, ApiError> {
    let mut known = HashMap::new();
    for name in app.secret_names() {
        let Some(row) = ctx
            .rest
            .store
            .resource(ctx.namespace(), Kind::Secret, name)
            .await?
        else {
            continue;
        };
        // Only a registry shows something of its body.
        let secret = if row.subtype == SecretKind::Registry.as_str() {
            load::<Secret>(ctx, &row)
                .await?
                .map(|secret| KnownSecret::from(&secret))
        } else {
            let labels = row.labels.clone();
            Some(KnownSecret::from(&Secret {
                labels,
                ..Secret::default()
            }))
        };
        known.extend(secret.map(|secret| (name.to_owned(), secret)));
    }
    Ok(app.into_view(|name| known.get(name).cloned()))
}

fn check(ctx: &Ctx, app: &Application) -> Vec<Mistake> {
    let rules = Rules {
        system: false,
        now: Some(ctx.now()),
    };
    let mut found = mistakes(validate_application(app, &rules));
    if app.cron_status == 1 {
        let message =
            "deferred deployment is not part of this release; set the selector when it is time";
        found.push(Mistake::new("cronStatus", message));
    }
    found
}

pub(super) async fn create(
    ctx: Ctx,
    RawQuery(query): RawQuery,
    mut input: Input<Application>,
) -> Result<Response, ApiError> {
    let base = last_value(&query.unwrap_or_default(), "base").filter(|base| !base.is_empty());
    if let Some(base) = base {
        prepend(&ctx, &base, &mut input).await?;
    }
    let app = input.accept(|app| check(&ctx, app))?;
    let mut tx = ctx.begin().await?;
    refuse_duplicate(
        WORD,
        &app.name,
        tx.resource(Kind::Application, &app.name).await?.is_some(),
    )?;
    let written = applications::put_application(&mut tx, app, &ctx.rest.runtimes).await?;
    ctx.commit(tx).await?;
    Ok(tagged(
        reply(&view(&ctx, written.body).await?),
        written.row.version,
    ))
}

/// Puts services and volumes of another application before those that are given.
async fn prepend(ctx: &Ctx, base: &str, input: &mut Input<Application>) -> Result<(), ApiError> {
    let (_, base) = find::<Application>(ctx, Kind::Application, None, WORD, base).await?;
    let base = view(ctx, base).await?;
    let app = &mut input.value;
    if base.kind() != app.kind() {
        let message = format!(
            "the type of the base is {}, that of the application is {}",
            base.kind(),
            app.kind()
        );
        return Err(ApiError::invalid("base", message));
    }
    app.init_services.splice(0..0, base.init_services);
    app.services.splice(0..0, base.services);
    app.volumes.splice(0..0, base.volumes);
    app.registries.splice(0..0, base.registries);
    Ok(())
}

pub(super) async fn list(ctx: Ctx, options: ListOptions) -> Result<Response, ApiError> {
    let options = options.without_system();
    let mut rows = ctx
        .rest
        .store
        .resources(ctx.namespace(), Kind::Application)
        .await?;
    rows.retain(|row| options.matches(&row.name, &row.labels));
    let page = load_page::<Application>(&ctx, options.page(rows)).await?;
    let items: Vec<AppItem> = page.items.iter().cloned().map(AppItem::from).collect();
    Ok(reply(&page.with_items(items)))
}

/// Applications that are kept from users, as Baetyl v2 keeps them.
fn refuse_invisible(row: &ResourceRow) -> Result<(), ApiError> {
    if row
        .labels
        .get(label::INVISIBLE)
        .is_some_and(|value| value == "true")
    {
        let message = format!("The ({WORD}) resource ({}) is not visible.", row.name);
        return Err(ApiError::new(Code::ErrResourceInvisible, message));
    }
    Ok(())
}

pub(super) async fn get(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let (row, app) = find(&ctx, Kind::Application, None, WORD, &name).await?;
    refuse_invisible(&row)?;
    Ok(show(&conditions, &row, &view(&ctx, app).await?))
}

pub(super) async fn replace(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
    mut input: Input<Application>,
) -> Result<Response, ApiError> {
    input.value.name.clone_from(&name);
    let app = input.accept(|app| check(&ctx, app))?;
    let mut tx = ctx.begin().await?;
    let Some(old) = catalog::current::<Application>(&mut tx, &name).await? else {
        return Err(ApiError::not_found(WORD, &name));
    };
    refuse_invisible(&old.row)?;
    refuse_system(WORD, &old.row)?;
    conditions.check_write(WORD, &name, Some(old.row.version))?;
    let written = applications::put_application(&mut tx, app, &ctx.rest.runtimes).await?;
    ctx.commit(tx).await?;
    Ok(tagged(
        reply(&view(&ctx, written.body).await?),
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
    let version = tx
        .resource(Kind::Application, &name)
        .await?
        .map(|row| row.version);
    conditions.check_write(WORD, &name, version)?;
    applications::delete_application(&mut tx, &name).await?;
    ctx.commit(tx).await?;
    Ok(success())
}

/// The configurations an application references.
pub(super) async fn configs(ctx: Ctx, Path(name): Path<String>) -> Result<Response, ApiError> {
    let (_, app): (_, Application) = find(&ctx, Kind::Application, None, WORD, &name).await?;
    let mut items = Vec::new();
    for name in app.config_names() {
        if let Some(row) = ctx
            .rest
            .store
            .resource(ctx.namespace(), Kind::Configuration, name)
            .await?
            && let Some(mut config) = load::<Configuration>(&ctx, &row).await?
        {
            config.data = configurations::shown_in_list(&config);
            items.push(config);
        }
    }
    Ok(reply(&ListView::plain(items)))
}

/// The secrets of one kind an application references.
async fn secrets_of_kind(ctx: &Ctx, name: &str, kind: SecretKind) -> Result<Vec<Secret>, ApiError> {
    let (_, app): (_, Application) = find(ctx, Kind::Application, None, WORD, name).await?;
    let mut items = Vec::new();
    for name in app.secret_names() {
        let row = ctx
            .rest
            .store
            .resource(ctx.namespace(), Kind::Secret, name)
            .await?;
        if let Some(row) = row.filter(|row| row.subtype == kind.as_str()) {
            items.extend(load::<Secret>(ctx, &row).await?);
        }
    }
    Ok(items)
}

pub(super) async fn secrets(ctx: Ctx, Path(name): Path<String>) -> Result<Response, ApiError> {
    let items = secrets_of_kind(&ctx, &name, SecretKind::Config).await?;
    let items = items
        .into_iter()
        .map(super::secrets::without_data)
        .collect();
    Ok(reply(&ListView::plain(items)))
}

pub(super) async fn registries(ctx: Ctx, Path(name): Path<String>) -> Result<Response, ApiError> {
    let items = secrets_of_kind(&ctx, &name, SecretKind::Registry).await?;
    Ok(reply(&ListView::plain(
        items.into_iter().map(super::registries::view).collect(),
    )))
}

pub(super) async fn certificates(ctx: Ctx, Path(name): Path<String>) -> Result<Response, ApiError> {
    let items = secrets_of_kind(&ctx, &name, SecretKind::Certificate).await?;
    Ok(reply(&ListView::plain(
        items.into_iter().map(super::certificates::view).collect(),
    )))
}
