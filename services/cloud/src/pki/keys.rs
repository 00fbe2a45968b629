//! Where the cloud's own keys are kept: sealed, in the database.

use baetyl_kit::crypto;
use baetyl_model::Namespace;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use sqlx::SqliteConnection;

use super::PkiError;
use super::issue::KeyedCertificate;
use crate::seal::{Seal, SealContext};
use crate::store::Doing as _;

/// Signs the certificates of nodes.
pub(super) const NODE_AUTHORITY: &str = "node-authority";
/// Signs the certificate this cloud shows.
pub(super) const SERVER_AUTHORITY: &str = "server-authority";
/// The certificate this cloud shows.
pub(super) const SERVER: &str = "server";
/// Authenticates install tokens.
pub(super) const INSTALL_TOKEN: &str = "install-token";

const fn installation_context(name: &str) -> SealContext<'_> {
    SealContext {
        namespace: "",
        kind: "cloud key",
        name,
        version: "",
    }
}

/// A key of the installation, if it was made.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    seal: &Seal,
    name: &str,
) -> Result<Option<KeyedCertificate>, PkiError> {
    let row: Option<(Vec<u8>, Vec<u8>)> =
        sqlx::query_as("SELECT certificate, sealed_key FROM cloud_keys WHERE name = ?")
            .bind(name)
            .fetch_optional(connection)
            .await
            .doing("read a key of the cloud")?;
    let Some((certificate, sealed)) = row else {
        return Ok(None);
    };
    let key = seal
        .open(installation_context(name), &sealed)
        .map_err(PkiError::Seal)?;
    Ok(Some(KeyedCertificate {
        certificate: CertificateDer::from(certificate),
        key,
    }))
}

/// Writes a key of the installation, over the one of that name.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    seal: &Seal,
    name: &str,
    value: &KeyedCertificate,
    now: Timestamp,
) -> Result<(), PkiError> {
    let sealed = seal
        .seal(installation_context(name), &value.key)
        .map_err(PkiError::Seal)?;
    sqlx::query(
        "INSERT INTO cloud_keys (name, certificate, sealed_key, create_time) VALUES (?, ?, ?, ?) \
         ON CONFLICT (name) DO UPDATE SET certificate = excluded.certificate, sealed_key = excluded.sealed_key, \
         create_time = excluded.create_time",
    )
    .bind(name)
    .bind(value.certificate.as_ref())
    .bind(sealed)
    .bind(now.to_string())
    .execute(connection)
    .await
    .doing("write a key of the cloud")?;
    Ok(())
}

/// The PKCS#8 DER of the key that signs this tenant's desires; made when there is none.
pub(super) async fn desire_key(
    connection: &mut SqliteConnection,
    seal: &Seal,
    namespace: &Namespace,
    now: Timestamp,
) -> Result<Vec<u8>, PkiError> {
    let row: Option<(String, Vec<u8>)> = sqlx::query_as(
        "SELECT key_id, sealed_key FROM desire_keys WHERE namespace = ? ORDER BY create_time DESC, key_id LIMIT 1",
    )
    .bind(namespace.as_str())
    .fetch_optional(&mut *connection)
    .await
    .doing("read the desire key")?;
    if let Some((key_id, sealed)) = row {
        return seal
            .open(desire_context(namespace, &key_id), &sealed)
            .map_err(PkiError::Seal);
    }
    let key = crypto::SigningKey::generate().map_err(PkiError::Randomness)?;
    let key_id = crypto::key_id(&key.public_key());
    let sealed = seal
        .seal(desire_context(namespace, &key_id), key.pkcs8())
        .map_err(PkiError::Seal)?;
    sqlx::query(
        "INSERT INTO desire_keys (namespace, key_id, public_key, sealed_key, create_time) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(namespace.as_str())
    .bind(&key_id)
    .bind(key.public_key().as_slice())
    .bind(sealed)
    .bind(now.to_string())
    .execute(connection)
    .await
    .doing("write the desire key")?;
    Ok(key.pkcs8().to_vec())
}

fn desire_context<'a>(namespace: &'a Namespace, key_id: &'a str) -> SealContext<'a> {
    SealContext {
        namespace: namespace.as_str(),
        kind: "desire key",
        name: key_id,
        version: "",
    }
}
