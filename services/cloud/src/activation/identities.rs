//! Which key each node holds, and how often each install token was used.

use baetyl_model::{Namespace, NodeUid};
use jiff::Timestamp;
use sqlx::{Row as _, SqliteConnection};

use crate::install::InstallClaims;
use crate::pki::{IssuedCertificate, NodeIdentity, PeerIdentity};
use crate::store::row::{number, parsed, signed};
use crate::store::{Doing as _, Store, StoreError};

/// The key bound to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdentityRow {
    /// How often an install token bound a key.
    pub(crate) enrolments: u64,
    /// sha256 of the public key.
    pub(crate) public_key: [u8; 32],
    /// The key before a renewal, until the new one is used.
    pub(crate) previous_key: Option<[u8; 32]>,
    /// End of the certificate issued last.
    pub(crate) not_after: Timestamp,
}

impl IdentityRow {
    /// True for the key of the node, also for the one before while a renewal is not finished.
    pub(crate) fn accepts(&self, public_key: &[u8; 32]) -> bool {
        self.public_key == *public_key || self.previous_key.as_ref() == Some(public_key)
    }
}

/// How often install tokens bound a key to this node.
pub(crate) async fn enrolments(store: &Store, node: &NodeIdentity) -> Result<u64, StoreError> {
    let mut connection = store.reader().acquire().await.doing("read the identity")?;
    Ok(load(&mut connection, &node.namespace, &node.uid)
        .await?
        .map_or(0, |row| row.enrolments))
}

/// The key bound to a node.
pub(crate) async fn load(
    connection: &mut SqliteConnection,
    namespace: &Namespace,
    uid: &NodeUid,
) -> Result<Option<IdentityRow>, StoreError> {
    let row = sqlx::query(
        "SELECT enrolments, public_key, previous_key, not_after FROM node_identities WHERE namespace = ? AND uid = ?",
    )
    .bind(namespace.as_str())
    .bind(uid.as_str())
    .fetch_optional(connection)
    .await
    .doing("read the identity")?;
    let key = |bytes: &[u8]| {
        <[u8; 32]>::try_from(bytes).map_err(|_| StoreError::Row {
            what: "public key",
            reason: "it has not 32 bytes".to_owned(),
        })
    };
    row.map(|row| {
        let previous: Option<&[u8]> = row.try_get("previous_key").doing("read the identity")?;
        Ok(IdentityRow {
            enrolments: number(&row, "enrolments")?,
            public_key: key(row.try_get("public_key").doing("read the identity")?)?,
            previous_key: previous.map(key).transpose()?,
            not_after: parsed(&row, "not_after")?,
        })
    })
    .transpose()
}

/// Binds a key to a node: by an install token (`enrolments` rises) or by a renewal (`previous` stays good for a while).
pub(crate) async fn bind(
    connection: &mut SqliteConnection,
    node: &NodeIdentity,
    row: &IdentityRow,
    certificate: &IssuedCertificate,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO node_identities (namespace, uid, enrolments, public_key, previous_key, fingerprint, not_after, \
         activate_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, uid) DO UPDATE SET \
         enrolments = excluded.enrolments, public_key = excluded.public_key, previous_key = excluded.previous_key, \
         fingerprint = excluded.fingerprint, not_after = excluded.not_after",
    )
    .bind(node.namespace.as_str())
    .bind(node.uid.as_str())
    .bind(signed(row.enrolments))
    .bind(row.public_key.as_slice())
    .bind(row.previous_key.as_ref().map(<[u8; 32]>::as_slice))
    .bind(&certificate.fingerprint)
    .bind(certificate.not_after.to_string())
    .bind(now.to_string())
    .execute(connection)
    .await
    .doing("write the identity")?;
    Ok(())
}

/// Forgets the key before: the node uses its new one. Nothing when the new key is another one by now.
pub(crate) async fn drop_previous(store: &Store, used: &PeerIdentity) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE node_identities SET previous_key = NULL WHERE namespace = ? AND uid = ? AND public_key = ?",
    )
    .bind(used.namespace.as_str())
    .bind(used.uid.as_str())
    .bind(used.public_key.as_slice())
    .execute(store.writer())
    .await
    .doing("write the identity")?;
    Ok(())
}

/// How often a token was used.
pub(crate) async fn token_uses(
    connection: &mut SqliteConnection,
    claims: &InstallClaims,
) -> Result<u64, StoreError> {
    let uses: Option<i64> = sqlx::query_scalar(
        "SELECT uses FROM install_token_uses WHERE namespace = ? AND token_id = ?",
    )
    .bind(claims.namespace.as_str())
    .bind(&claims.id)
    .fetch_optional(connection)
    .await
    .doing("read the uses of a token")?;
    Ok(uses.and_then(|uses| u64::try_from(uses).ok()).unwrap_or(0))
}

/// Counts one use, and forgets tokens that are too old to be used again.
pub(crate) async fn count_use(
    connection: &mut SqliteConnection,
    claims: &InstallClaims,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM install_token_uses WHERE expires < ?")
        .bind(now.as_second())
        .execute(&mut *connection)
        .await
        .doing("forget old tokens")?;
    sqlx::query(
        "INSERT INTO install_token_uses (namespace, token_id, uses, expires) VALUES (?, ?, 1, ?) \
         ON CONFLICT (namespace, token_id) DO UPDATE SET uses = uses + 1",
    )
    .bind(claims.namespace.as_str())
    .bind(&claims.id)
    .bind(claims.expires)
    .execute(connection)
    .await
    .doing("count the use of a token")?;
    Ok(())
}
