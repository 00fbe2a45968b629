//! `/v1/certificates`: key pairs for applications. The key is never shown.

use std::collections::BTreeMap;

use axum::extract::Path;
use axum::response::Response;
use baetyl_model::Kind;
use baetyl_model::resource::{
    Certificate, Rules, Secret, SecretBytes, SecretKind, label, validate_certificate,
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

mod pair;

const WORD: &str = "certificate";
const KIND: SecretKind = SecretKind::Certificate;

/// As Baetyl v2 reads and shows it: the PEM texts lie in `data`, what was read from them beside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CertificateView {
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    signature_algorithm: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    effective_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    expired_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    serial_number: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    issuer: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    finger_print: String,
    data: CertificateData,
    #[serde(skip_serializing_if = "String::is_empty")]
    create_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    update_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
}

/// The PEM texts. `Debug` shows no key.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct CertificateData {
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    certificate: String,
}

impl std::fmt::Debug for CertificateData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateData")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// All mistakes, those of the key pair too.
fn check(view: &CertificateView) -> Vec<Mistake> {
    let given = Certificate {
        name: view.name.clone(),
        labels: view.labels.clone(),
        key: view.data.key.clone(),
        certificate: view.data.certificate.clone(),
        ..Certificate::default()
    };
    let mut found = validate_certificate(&given, &Rules::default());
    for finding in &mut found {
        if matches!(finding.field.as_str(), "key" | "certificate") {
            finding.field.insert_str(0, "data.");
        }
    }
    let mut found = mistakes(found);
    if !view.data.key.is_empty()
        && !view.data.certificate.is_empty()
        && let Err(mistake) = pair::read(&view.data.certificate, &view.data.key)
    {
        found.push(mistake);
    }
    found
}

fn stored(view: CertificateView) -> Result<Secret, ApiError> {
    let pair = pair::read(&view.data.certificate, &view.data.key)
        .map_err(|mistake| ApiError::mistakes(vec![mistake]))?;
    let data = [
        ("key", view.data.key),
        ("certificate", view.data.certificate),
        ("signatureAlgorithm", pair.signature_algorithm),
        ("effectiveTime", pair.effective_time),
        ("expiredTime", pair.expired_time),
        ("serialNumber", pair.serial_number),
        ("issuer", pair.issuer),
        ("fingerPrint", pair.finger_print),
    ];
    Ok(Secret {
        name: view.name,
        labels: view.labels,
        description: view.description,
        data: data
            .map(|(key, value)| (key.to_owned(), SecretBytes(value.into_bytes())))
            .into(),
        ..Secret::default()
    })
}

pub(super) fn view(mut secret: Secret) -> CertificateView {
    secret.labels.remove(label::SECRET_TYPE);
    let text = |key: &str| secret.text(key).to_owned();
    CertificateView {
        signature_algorithm: text("signatureAlgorithm"),
        effective_time: text("effectiveTime"),
        expired_time: text("expiredTime"),
        serial_number: text("serialNumber"),
        issuer: text("issuer"),
        finger_print: text("fingerPrint"),
        data: CertificateData {
            key: String::new(),
            certificate: text("certificate"),
        },
        create_time: secret
            .create_time
            .map(|time| time.to_string())
            .unwrap_or_default(),
        update_time: secret
            .update_time
            .map(|time| time.to_string())
            .unwrap_or_default(),
        name: secret.name,
        namespace: secret.namespace,
        labels: secret.labels,
        description: secret.description,
        version: secret.version,
    }
}

pub(super) async fn create(ctx: Ctx, input: Input<CertificateView>) -> Result<Response, ApiError> {
    let secret = stored(input.accept(check)?)?;
    let mut tx = ctx.begin().await?;
    refuse_duplicate(
        WORD,
        &secret.name,
        tx.resource(Kind::Secret, &secret.name).await?.is_some(),
    )?;
    let written = put_secret(&mut tx, KIND, secret).await?;
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

/// Description and labels are replaced; the pair too when both halves are given. A certificate without its key is what a
/// view shows: it is taken when it is the stored one and refused otherwise.
pub(super) async fn replace(
    ctx: Ctx,
    Path(name): Path<String>,
    conditions: Conditions,
    mut input: Input<CertificateView>,
) -> Result<Response, ApiError> {
    input.value.name.clone_from(&name);
    let mut tx = ctx.begin().await?;
    let Some(old) = current_secret(&mut tx, KIND, &name).await? else {
        return Err(ApiError::not_found(WORD, &name));
    };
    conditions.check_write(WORD, &name, Some(old.row.version))?;
    let data = &mut input.value.data;
    let is_shown_one =
        data.certificate.is_empty() || data.certificate == old.body.text("certificate");
    if data.key.is_empty() && is_shown_one {
        old.body.text("key").clone_into(&mut data.key);
        old.body
            .text("certificate")
            .clone_into(&mut data.certificate);
    }
    let secret = stored(input.accept(check)?)?;
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
