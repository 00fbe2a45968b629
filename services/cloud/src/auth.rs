//! Who calls, in which namespace, and what they may do.
//!
//! A caller's namespace and role come from what it proves, never from a path or a body. [`Authenticator`] is the place
//! where other proofs (OIDC) are added; [`Tokens`] is the one that is built: bearer tokens of 32 random bytes, of which
//! the database keeps the sha256.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use baetyl_kit::{crypto, fsio};
use baetyl_model::Namespace;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::store::{By, Role, Store, StoreError};

#[cfg(test)]
mod tests;

/// File with the first admin token, in the data directory, mode 0600.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

/// Name of the token the first start makes.
const FIRST_TOKEN: &str = "admin";

/// Begins every token, so that one that was pasted somewhere can be recognised.
const PREFIX: &str = "bct_";

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant the caller acts in.
    pub namespace: Namespace,
    /// For the audit log, e.g. "token:ci".
    pub actor: String,
    /// What it may do there.
    pub role: Role,
}

/// Why a caller is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No proof was given.
    #[error("no credentials were given; send \"Authorization: Bearer <token>\"")]
    Missing,
    /// The proof is not valid.
    #[error("the token is not valid; it may have been revoked")]
    Invalid,
    /// It could not be checked.
    #[error("the credentials could not be checked")]
    Unavailable(#[source] StoreError),
}

/// A future of [`Authenticator::authenticate`].
pub type Authentication<'a> = Pin<Box<dyn Future<Output = Result<Caller, AuthError>> + Send + 'a>>;

/// Finds out who calls from the headers of a request.
pub trait Authenticator: Send + Sync + 'static {
    /// Who calls, or why nobody is let in.
    fn authenticate<'a>(&'a self, headers: &'a HeaderMap) -> Authentication<'a>;
}

/// Bearer tokens kept in the database.
#[derive(Debug, Clone)]
pub struct Tokens(Store);

impl Tokens {
    /// Looks tokens up in this database.
    pub const fn new(store: Store) -> Self {
        Self(store)
    }
}

impl Authenticator for Tokens {
    fn authenticate<'a>(&'a self, headers: &'a HeaderMap) -> Authentication<'a> {
        Box::pin(async move {
            let token = bearer(headers)?;
            // Looking up by hash tells nothing about the token by the time it takes.
            let row = self
                .0
                .token_by_hash(&hash(token))
                .await
                .map_err(AuthError::Unavailable)?;
            let row = row.ok_or(AuthError::Invalid)?;
            Ok(Caller {
                namespace: row.namespace,
                actor: format!("token:{}", row.name),
                role: row.role,
            })
        })
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let value = headers.get(AUTHORIZATION).ok_or(AuthError::Missing)?;
    let text = value.to_str().map_err(|_| AuthError::Invalid)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthError::Invalid)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
        return Err(AuthError::Invalid);
    }
    Ok(token.trim())
}

fn hash(token: &str) -> String {
    crypto::sha256_hex(token.as_bytes())
}

/// A token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No randomness.
    #[error("cannot make a token")]
    Random(#[source] crypto::CryptoError),
    /// The name is in use.
    #[error(
        "namespace \"{namespace}\" has a token \"{name}\" already; revoke it first or choose another name"
    )]
    Taken {
        /// The tenant.
        namespace: Namespace,
        /// The name.
        name: String,
    },
    /// Not letters, digits, '-', '_' and '.'.
    #[error(
        "\"{0}\" is not a token name: 1 to 63 characters of a-z, A-Z, 0-9, '-', '_' and '.' are wanted"
    )]
    Name(String),
    /// The database failed.
    #[error("cannot keep the token")]
    Store(#[source] StoreError),
    /// The token file could not be written.
    #[error("cannot write the token to {path}", path = .path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn random_token() -> Result<String, TokenError> {
    crypto::random_hex::<32>()
        .map(|random| format!("{PREFIX}{random}"))
        .map_err(TokenError::Random)
}

/// Makes a token, and the namespace when it is not there. The text is shown once and cannot be had again.
///
/// # Errors
/// When the name is taken or no name, or the database fails.
pub async fn create_token(
    store: &Store,
    namespace: &Namespace,
    name: &str,
    role: Role,
    by: &By,
) -> Result<String, TokenError> {
    let token = random_token()?;
    keep(store, namespace, name, role, &token, by).await?;
    Ok(token)
}

async fn keep(
    store: &Store,
    namespace: &Namespace,
    name: &str,
    role: Role,
    token: &str,
    by: &By,
) -> Result<(), TokenError> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !(1..=63).contains(&name.len()) || !name.bytes().all(is_legal) {
        return Err(TokenError::Name(name.to_owned()));
    }
    store
        .create_namespace(namespace, by)
        .await
        .map_err(TokenError::Store)?;
    let kept = store
        .add_token(namespace, name, role, &hash(token), by)
        .await
        .map_err(TokenError::Store)?;
    if !kept {
        return Err(TokenError::Taken {
            namespace: namespace.clone(),
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// Makes the first admin token when the database has no token at all, and writes it to [`ADMIN_TOKEN_FILE`]. True when
/// it made one.
///
/// # Errors
/// When the file cannot be written or the database fails.
pub async fn ensure_admin_token(
    store: &Store,
    data_dir: &Path,
    namespace: &Namespace,
    by: &By,
) -> Result<bool, TokenError> {
    if !store.tokens().await.map_err(TokenError::Store)?.is_empty() {
        return Ok(false);
    }
    let token = random_token()?;
    // The file first: a crash in between leaves a useless file that the next start replaces, not an unknown token.
    let path = data_dir.join(ADMIN_TOKEN_FILE);
    fsio::atomic_write(&path, format!("{token}\n").as_bytes(), 0o600)
        .map_err(|source| TokenError::File { path, source })?;
    keep(store, namespace, FIRST_TOKEN, Role::Admin, &token, by).await?;
    Ok(true)
}
