//! Secrets, and the registries and certificates that are secrets too: salted, propagated to applications.

use baetyl_kit::crypto;
use baetyl_model::Kind;
use baetyl_model::resource::{Secret, SecretBytes, SecretKind, label, validate};

use super::{CatalogError, Written, applications, current, put};
use crate::store::{NewResource, StoreError, Tx};

/// Bytes of salt: enough that a digest of a guessable content tells nothing.
const SALT_LEN: usize = 16;

/// Creates or replaces a secret of this kind, given with a name and valid.
///
/// # Errors
/// When its data is too large or no randomness can be had.
pub async fn put_secret(
    tx: &mut Tx,
    kind: SecretKind,
    mut secret: Secret,
) -> Result<Written<Secret>, CatalogError> {
    let size = serde_json::to_vec(&secret.data).map_or(usize::MAX, |data| data.len());
    if size > validate::MAX_SECRET_BYTES {
        return Err(CatalogError::TooLarge {
            size,
            max: validate::MAX_SECRET_BYTES,
        });
    }
    let old: Option<Written<Secret>> = current(tx, &secret.name).await?;
    let before = old.as_ref().map(|old| old.row.version);
    secret.system = false;
    secret
        .labels
        .insert(label::SECRET_TYPE.to_owned(), kind.as_str().to_owned());
    // Every version has its own salt: equal content in two versions is not seen either.
    secret.salt = SecretBytes(
        crypto::random_bytes::<SALT_LEN>()
            .map_err(CatalogError::Salt)?
            .to_vec(),
    );
    // A new description is a new version, but none that anybody runs with.
    let is_news = old
        .as_ref()
        .is_none_or(|old| !has_content(&old.body, &secret));
    let about = NewResource {
        kind: Kind::Secret,
        name: secret.name.clone(),
        labels: secret.labels.clone(),
        system: false,
        subtype: kind.as_str().to_owned(),
        selector: String::new(),
        body: Vec::new(),
        references: Vec::new(),
        objects: Vec::new(),
    };
    let written = put(tx, secret, old, says_the_same, about).await?;
    if is_news && before.is_some_and(|before| before != written.row.version) {
        applications::propagate(tx, Kind::Secret, &written.row.name, written.row.version).await?;
    }
    Ok(written)
}

/// True when two versions differ in words for people at most.
pub(super) fn has_content(a: &Secret, b: &Secret) -> bool {
    a.data == b.data && a.labels == b.labels
}

fn says_the_same(a: &Secret, b: &Secret) -> bool {
    let unsalted = |secret: &Secret| Secret {
        salt: SecretBytes::default(),
        ..secret.clone()
    };
    unsalted(a) == unsalted(b)
}

/// The current version of a secret of this kind; a secret of another kind is not there.
///
/// # Errors
/// When the database fails.
pub async fn current_secret(
    tx: &mut Tx,
    kind: SecretKind,
    name: &str,
) -> Result<Option<Written<Secret>>, StoreError> {
    let found: Option<Written<Secret>> = current(tx, name).await?;
    Ok(found.filter(|found| found.row.subtype == kind.as_str()))
}
