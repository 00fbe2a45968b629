//! API tokens: only their hash is kept.

use std::fmt;
use std::str::FromStr;

use baetyl_model::Namespace;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;

use super::error::Doing as _;
use super::row::{parsed, stamp, text};
use super::{By, Store, StoreError};

/// What a caller may do in its namespace. Each role includes the ones below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything but the content of secrets.
    Viewer,
    /// Writes nodes, applications, configurations, secrets, objects; gets install commands.
    Operator,
    /// Also namespaces.
    Admin,
}

impl Role {
    /// The word on the command line and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| format!("\"{word}\" is no role; use admin, operator or viewer"))
    }
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// The tenant its holder acts in.
    pub namespace: Namespace,
    /// Name, for lists and for the audit log.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// When it was made.
    pub create_time: Timestamp,
}

impl Store {
    /// Keeps a token by its hash (hex of sha256). False when the name is taken.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_token(
        &self,
        namespace: &Namespace,
        name: &str,
        role: Role,
        hash: &str,
        by: &By,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO api_tokens (namespace, name, hash, role, create_time) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (namespace, name) DO NOTHING",
        )
        .bind(namespace.as_str())
        .bind(name)
        .bind(hash)
        .bind(role.as_str())
        .bind(stamp(by.time))
        .execute(self.writer())
        .await
        .doing("keep the token")?;
        Ok(done.rows_affected() > 0)
    }

    /// The token with this hash.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token_by_hash(&self, hash: &str) -> Result<Option<TokenRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM api_tokens WHERE hash = ?")
            .bind(hash)
            .fetch_optional(self.reader())
            .await
            .doing("look a token up")?;
        row.as_ref().map(token_row).transpose()
    }

    /// All tokens, by namespace and name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM api_tokens ORDER BY namespace, name")
            .fetch_all(self.reader())
            .await
            .doing("list the tokens")?;
        rows.iter().map(token_row).collect()
    }

    /// Forgets a token. False when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_token(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM api_tokens WHERE namespace = ? AND name = ?")
            .bind(namespace.as_str())
            .bind(name)
            .execute(self.writer())
            .await
            .doing("revoke the token")?;
        Ok(done.rows_affected() > 0)
    }
}

fn token_row(row: &SqliteRow) -> Result<TokenRow, StoreError> {
    Ok(TokenRow {
        namespace: parsed(row, "namespace")?,
        name: text(row, "name")?.to_owned(),
        role: parsed(row, "role")?,
        create_time: parsed(row, "create_time")?,
    })
}
