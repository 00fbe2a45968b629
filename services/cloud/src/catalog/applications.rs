//! Applications: references resolved and pinned, generated configurations, propagation.

use baetyl_model::resource::{Application, Reference as NamedVersion, SecretKind, Volume};
use baetyl_model::{Kind, Revision};

use super::{CatalogError, Written, current, functions, parse, put};
use crate::store::{NewResource, Reference, ResourceRow, StoreError, Tx};

pub use super::functions::Runtimes;

/// Creates or replaces an application, given in the form of the REST interface with a name and valid.
///
/// # Errors
/// When something it references is not there.
pub async fn put_application(
    tx: &mut Tx,
    mut app: Application,
    runtimes: &Runtimes,
) -> Result<Written<Application>, CatalogError> {
    app.system = false;
    app.fill_defaults();
    functions::strip_generated(&mut app);
    check_references(tx, &app, runtimes).await?;
    let old = current::<Application>(tx, &app.name).await?;
    let obsolete = old
        .as_ref()
        .map(|old| functions::generated(&old.body))
        .unwrap_or_default();

    let mut app = app.into_stored();
    functions::generate(tx, &mut app, runtimes).await?;
    pin(tx, &mut app, old.as_ref().map(|old| &old.body)).await?;
    let kept = functions::generated(&app);
    let written = write(tx, app, old).await?;
    for name in obsolete.iter().filter(|name| !kept.contains(name)) {
        tx.delete_resource(Kind::Configuration, name).await?;
    }
    Ok(written)
}

/// Deletes an application with what was generated for it. False when it was not there.
///
/// # Errors
/// When the database fails.
pub async fn delete_application(tx: &mut Tx, name: &str) -> Result<bool, StoreError> {
    let Some(old) = current::<Application>(tx, name).await? else {
        return Ok(false);
    };
    tx.delete_resource(Kind::Application, name).await?;
    for name in functions::generated(&old.body) {
        tx.delete_resource(Kind::Configuration, &name).await?;
    }
    Ok(true)
}

/// Gives every application that references `name` a new version with this write's version of it.
pub(super) async fn propagate(
    tx: &mut Tx,
    kind: Kind,
    name: &str,
    version: Revision,
) -> Result<(), StoreError> {
    for user in tx.users(kind, name).await? {
        let Some(old) = current::<Application>(tx, &user).await? else {
            continue;
        };
        let mut app = old.body.clone();
        for volume in &mut app.volumes {
            if let Some((of, reference)) = reference(volume)
                && of == kind
                && reference.name == name
            {
                reference.version = version.to_string();
            }
        }
        write(tx, app, Some(old)).await?;
    }
    Ok(())
}

/// The versioned thing a stored volume names.
fn reference(volume: &mut Volume) -> Option<(Kind, &mut NamedVersion)> {
    let config = volume
        .config
        .as_mut()
        .map(|reference| (Kind::Configuration, reference));
    config.or_else(|| {
        volume
            .secret
            .as_mut()
            .map(|reference| (Kind::Secret, reference))
    })
}

async fn write(
    tx: &mut Tx,
    mut app: Application,
    old: Option<Written<Application>>,
) -> Result<Written<Application>, StoreError> {
    let mut references: Vec<Reference> = Vec::new();
    for volume in &mut app.volumes {
        if let Some((kind, reference)) = reference(volume) {
            let version = Revision(reference.version.parse().unwrap_or(0));
            references.push(Reference {
                kind,
                name: reference.name.clone(),
                version,
            });
        }
    }
    references.sort();
    references.dedup();
    let about = NewResource {
        kind: Kind::Application,
        name: app.name.clone(),
        labels: app.labels.clone(),
        system: app.system,
        subtype: app.kind().to_owned(),
        selector: app.selector.clone(),
        body: Vec::new(),
        references,
        objects: Vec::new(),
    };
    put(tx, app, old, PartialEq::eq, about).await
}

/// Sets every reference to the newest version of what it names, or leaves it where it was when that has other words and
/// the same content. All of them exist.
async fn pin(
    tx: &mut Tx,
    app: &mut Application,
    old: Option<&Application>,
) -> Result<(), StoreError> {
    for volume in &mut app.volumes {
        if let Some((kind, reference)) = reference(volume)
            && let Some(row) = tx.resource(kind, &reference.name).await?
        {
            let newest = row.version;
            let before = old.and_then(|old| pinned(old, kind, &reference.name));
            let kept = match before {
                Some(before) if has_content_of(tx, &row, before).await? => before,
                _ => newest,
            };
            reference.version = kept.to_string();
        }
    }
    Ok(())
}

/// The version an application runs with.
fn pinned(app: &Application, kind: Kind, name: &str) -> Option<Revision> {
    let mut volumes = app.volumes.iter().cloned();
    volumes.find_map(|mut volume| {
        let (of, reference) = reference(&mut volume)?;
        let is_it = of == kind && reference.name == name;
        is_it
            .then(|| reference.version.parse().ok().map(Revision))
            .flatten()
    })
}

/// True when the current version says what an earlier one says.
async fn has_content_of(
    tx: &mut Tx,
    current: &ResourceRow,
    before: Revision,
) -> Result<bool, StoreError> {
    if before == current.version {
        return Ok(true);
    }
    let (kind, name) = (current.kind, &current.name);
    let versions = (
        tx.version(kind, name, before).await?,
        tx.version(kind, name, current.version).await?,
    );
    let (Some(before), Some(current)) = versions else {
        return Ok(false);
    };
    Ok(match kind {
        Kind::Configuration => {
            super::configurations::has_content(&parse(&before.body)?, &parse(&current.body)?)
        }
        Kind::Secret => super::secrets::has_content(&parse(&before.body)?, &parse(&current.body)?),
        Kind::Application => false,
    })
}

/// Everything an application names must be there, and be what it is named as.
async fn check_references(
    tx: &mut Tx,
    app: &Application,
    runtimes: &Runtimes,
) -> Result<(), CatalogError> {
    let mut missing = Vec::new();
    for volume in &app.volumes {
        if let Some(config) = &volume.config {
            check_config(tx, &config.name, &mut missing).await?;
        }
        if let Some(secret) = &volume.secret {
            check_secret(tx, None, &secret.name, &mut missing).await?;
        }
        if let Some(certificate) = &volume.certificate {
            check_secret(
                tx,
                Some(SecretKind::Certificate),
                &certificate.name,
                &mut missing,
            )
            .await?;
        }
    }
    for registry in &app.registries {
        check_secret(tx, Some(SecretKind::Registry), &registry.name, &mut missing).await?;
    }
    for service in app.all_services() {
        if !service.program_config.is_empty() {
            check_config(tx, &service.program_config, &mut missing).await?;
        }
        if let Some(function) = service
            .function_config
            .as_ref()
            .filter(|_| app.kind() == "function")
        {
            check_config(tx, &function.name, &mut missing).await?;
            if !runtimes.knows(&function.runtime) {
                missing.push(("runtime", function.runtime.clone()));
            }
        }
    }
    missing.dedup();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(CatalogError::Missing(missing))
    }
}

/// What was generated for another application is nobody else's: it goes with that application.
async fn check_config(
    tx: &mut Tx,
    name: &str,
    missing: &mut Vec<(&'static str, String)>,
) -> Result<(), StoreError> {
    let row = tx.resource(Kind::Configuration, name).await?;
    if row.is_none_or(|row| row.system) {
        missing.push(("config", name.to_owned()));
    }
    Ok(())
}

async fn check_secret(
    tx: &mut Tx,
    wanted: Option<SecretKind>,
    name: &str,
    missing: &mut Vec<(&'static str, String)>,
) -> Result<(), StoreError> {
    let row = tx.resource(Kind::Secret, name).await?;
    let fits = row.is_some_and(|row| wanted.is_none_or(|wanted| row.subtype == wanted.as_str()));
    if !fits {
        let word = match wanted {
            Some(SecretKind::Certificate) => "certificate",
            Some(SecretKind::Registry) => "registry",
            Some(SecretKind::Config) | None => "secret",
        };
        missing.push((word, name.to_owned()));
    }
    Ok(())
}
