//! `/v1/registries`: address and credentials of an image registry. The password is never shown.

use std::collections::BTreeMap;

use axum::extract::Path;
use axum::response::Response;
use baetyl_model::Kind;
use baetyl_model::resource::{
    Registry, Rules, Secret, SecretBytes, SecretKind, label, validate_registry,
};
use serde::{Deserialize, Serialize};

use super::body::{Input, mistakes};
use super::error::{ApiError, Mistake};
use super::etag::{Conditions, tagged};
use super::list::ListOptions;
use super::secrets::{delete_kind, of_kind};
use super::shared::{find, find_row, load_page, refuse_duplicate, show, users};
use super::{Ctx, reply};
use crate::catalog::secrets::{current_secret, put_secret};

const WORD: &str = "registry";
const KIND: SecretKind = SecretKind::Registry;

fn stored(registry: Registry) -> Secret {
    let data = [
        ("address", registry.address),
        ("username", registry.username),
        ("password", registry.password),
    ];
    Secret {
        name: registry.name,
        labels: registry.labels,
        description: registry.description,
        data: data
            .map(|(key, value)| (key.to_owned(), SecretBytes(value.into_bytes())))
            .into(),
        ..Secret::default()
    }
}

pub(super) fn view(secret: Secret) -> Registry {
    let labels: BTreeMap<_, _> = secret
        .labels
        .iter()
        .filter(|(key, _)| *key != label::SECRET_TYPE)
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    Registry {
        address: secret.text("address").to_owned(),
        username: secret.text("username").to_owned(),
        password: String::new(),
        name: secret.name,
        namespace: secret.namespace,
        labels,
        create_time: secret.create_time,
        update_time: secret.update_time,
        description: secret.description,
        version: secret.version,
    }
}

pub(super) async fn create(ctx: Ctx, input: Input<Registry>) -> Result<Response, ApiError> {
    let given =
        input.accept(|registry| mistakes(validate_registry(registry, &Rules::default())))?;
    let mut tx = ctx.begin().await?;
    refuse_duplicate(
        WORD,
        &given.name,
        tx.resource(Kind::Secret, &given.name).await?.is_some(),
    )?;
    let written = put_secret(&mut tx, KIND, stored(given)).await?;
    ctx.commit(tx).await?;
    Ok(tagged(reply(&view(written.body)), written.row.version))
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
    let items = page.items.iter().cloned().map(view).collect();
    Ok(reply(&page.with_items(items)))
}

pub(super) async fn get(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let (row, secret) = find(&ctx, Kind::Secret, Some(KIND.as_str()), WORD, &name).await?;
    Ok(show(&conditions, &row, &view(secret)))
}

/// Description and labels are replaced; address, username and password too where they are given: what is shown has no
/// password, and writing it back must not lose the one that is stored.
pub(super) async fn replace(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
    mut input: Input<Registry>,
) -> Result<Response, ApiError> {
    input.value.name.clone_from(&name);
    let mut tx = ctx.begin().await?;
    let Some(old) = current_secret(&mut tx, KIND, &name).await? else {
        return Err(ApiError::not_found(WORD, &name));
    };
    conditions.check_write(WORD, &name, Some(old.row.version))?;
    let Registry {
        address,
        username,
        password,
        ..
    } = &mut input.value;
    for (key, value) in [
        ("address", address),
        ("username", username),
        ("password", password),
    ] {
        if value.is_empty() {
            old.body.text(key).clone_into(value);
        }
    }
    let given =
        input.accept(|registry| mistakes(validate_registry(registry, &Rules::default())))?;
    let written = put_secret(&mut tx, KIND, stored(given)).await?;
    ctx.commit(tx).await?;
    Ok(tagged(reply(&view(written.body)), written.row.version))
}

/// The body of a refresh.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Refresh {
    password: String,
}

pub(super) async fn refresh(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
    input: Input<Refresh>,
) -> Result<Response, ApiError> {
    let given = input.accept(|refresh| {
        let missing = refresh.password.is_empty();
        missing
            .then(|| Mistake::new("password", "is needed"))
            .into_iter()
            .collect()
    })?;
    let mut tx = ctx.begin().await?;
    let Some(old) = current_secret(&mut tx, KIND, &name).await? else {
        return Err(ApiError::not_found(WORD, &name));
    };
    conditions.check_write(WORD, &name, Some(old.row.version))?;
    let mut secret = old.body;
    secret.data.insert(
        "password".to_owned(),
        SecretBytes(given.password.into_bytes()),
    );
    let written = put_secret(&mut tx, KIND, secret).await?;
    ctx.commit(tx).await?;
    Ok(tagged(reply(&view(written.body)), written.row.version))
}

pub(super) async fn delete(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    delete_kind(&ctx, KIND, WORD, &name, &conditions).await
}

pub(super) async fn apps(ctx: Ctx, Path(name): Path<String>) -> Result<Response, ApiError> {
    let row = find_row(&ctx, Kind::Secret, Some(KIND.as_str()), WORD, &name).await?;
    users(&ctx, &row).await
}
