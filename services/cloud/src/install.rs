//! Install tokens and the command that an operator runs on a new machine.
//!
//! A token is authenticated with a key of this cloud, names one node by uid, lives for an hour and may be used a few
//! times (for retries with the same key). It carries the number of enrolments the node had when it was made: as soon as
//! a key was bound to the node, every token made before is good for that key only. So a token that leaks after an
//! installation gives nothing, and re-installing a machine takes a new command.
//!
//! The command hands the token over in the environment (`BAETYL_INIT__TOKEN`): arguments of a process can be read by
//! every user of a machine, its environment only by its own user. [`kube`] has the command for clusters.

use std::path::Path;

use baetyl_kit::clock::Clock;
use baetyl_kit::crypto;
use baetyl_model::{Namespace, NodeName, NodeUid};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::activation::identities;
use crate::config::checked::within;
use crate::pki::{NodeIdentity, Pki};
use crate::store::{NodeRow, Store, StoreError};

pub mod kube;

#[cfg(test)]
mod tests;

/// First part of every token: what it is, and its format.
const PREFIX: &str = "bi1";

/// Longest life of a token, in seconds: 30 days.
const MAX_LIFE: u32 = 2_592_000;

/// Longest text that is looked at; a token has about 300 characters.
const MAX_LEN: usize = 2048;

/// Settings of install tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InstallConfig {
    /// Life of a token in seconds.
    #[serde(deserialize_with = "within::<_, 1, MAX_LIFE>")]
    pub token_seconds: u32,
    /// How often a token may be used, always with the same key: once, and again when an answer was lost.
    #[serde(deserialize_with = "within::<_, 1, 1_000>")]
    pub token_uses: u32,
}

impl Default for InstallConfig {
    fn default() -> Self {
        Self {
            token_seconds: 3600,
            token_uses: 10,
        }
    }
}

/// What a token says, after its authenticity was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallClaims {
    /// Tenant.
    #[serde(rename = "ns")]
    pub namespace: Namespace,
    /// Name of the node when the token was made; for messages.
    pub node: NodeName,
    /// The node.
    pub uid: NodeUid,
    /// Of this token.
    pub id: String,
    /// End of its life, seconds since 1970.
    #[serde(rename = "exp")]
    pub expires: i64,
    /// How often the node had been given a key by an install token when this one was made.
    #[serde(rename = "enr")]
    pub enrolments: u64,
    /// How often it may be used.
    #[serde(rename = "max")]
    pub max_uses: u32,
}

/// A token that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token, or not one of this cloud.
    #[error("the install token is not one of this cloud; copy the whole install command again")]
    Invalid,
    /// Too old.
    #[error("the install token of node {node} expired at {at}; get a new install command")]
    Expired {
        /// Whose it was.
        node: String,
        /// When.
        at: Timestamp,
    },
}

/// Why no install command can be given.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The data directory cannot be written into a command.
    #[error("the data directory {0:?} is not an absolute path of printable characters")]
    DataDir(String),
    /// A token that would live for too long.
    #[error("a token lives for 1 to {MAX_LIFE} seconds")]
    Life,
    /// No randomness.
    #[error("cannot make an install token")]
    Randomness(#[source] crypto::CryptoError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A token that was made.
#[derive(Clone, PartialEq, Eq)]
pub struct InstallToken {
    /// The token: secret until it expires.
    pub token: String,
    /// End of its life.
    pub expires: Timestamp,
}

impl std::fmt::Debug for InstallToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstallToken")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Makes and checks install tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct InstallTokens {
    pki: Pki,
    store: Store,
    config: InstallConfig,
}

impl InstallTokens {
    /// With the token key of this cloud.
    pub const fn new(pki: Pki, store: Store, config: InstallConfig) -> Self {
        Self { pki, store, config }
    }

    fn clock(&self) -> &Clock {
        self.pki.clock()
    }

    /// A new token for a node that had this many enrolments, good for `life` seconds.
    ///
    /// # Errors
    /// Without randomness.
    fn issue(
        &self,
        node: &NodeIdentity,
        enrolments: u64,
        life: u32,
    ) -> Result<InstallToken, crypto::CryptoError> {
        let expires = self.clock().now() + SignedDuration::from_secs(life.into());
        let claims = InstallClaims {
            namespace: node.namespace.clone(),
            node: node.name.clone(),
            uid: node.uid.clone(),
            id: crypto::random_hex::<16>()?,
            expires: expires.as_second(),
            enrolments,
            max_uses: self.config.token_uses,
        };
        let token = encode(self.pki.install_key(), &claims);
        Ok(InstallToken { token, expires })
    }

    /// Checks that a token was made here and is not too old. How often it was used is checked when it is used.
    ///
    /// # Errors
    /// When it was not or is.
    pub fn verify(&self, token: &str) -> Result<InstallClaims, TokenError> {
        let claims = decode(self.pki.install_key(), token).ok_or(TokenError::Invalid)?;
        let at = Timestamp::from_second(claims.expires).map_err(|_| TokenError::Invalid)?;
        if self.clock().now() >= at {
            return Err(TokenError::Expired {
                node: claims.node.to_string(),
                at,
            });
        }
        Ok(claims)
    }

    /// A new token for a node. `life`: in seconds, none for that of the configuration.
    ///
    /// # Errors
    /// For a life that is too long, or when the database fails.
    pub async fn token(
        &self,
        node: &NodeRow,
        life: Option<u32>,
    ) -> Result<InstallToken, InstallError> {
        let life = life.unwrap_or(self.config.token_seconds);
        if !(1..=MAX_LIFE).contains(&life) {
            return Err(InstallError::Life);
        }
        let identity = NodeIdentity {
            namespace: node.namespace.clone(),
            name: node.name.clone(),
            uid: node.uid.clone(),
        };
        let enrolments = identities::enrolments(&self.store, &identity).await?;
        let made = self.issue(&identity, enrolments, life);
        made.map_err(InstallError::Randomness)
    }

    /// The command that makes a machine without Kubernetes the node of a token. `activate_url`: where activation listens,
    /// as nodes reach it; `data_dir`: where the edge keeps its files, none for its default.
    ///
    /// # Errors
    /// For a path that is none.
    pub fn native_command(
        &self,
        token: &str,
        activate_url: &str,
        data_dir: Option<&str>,
    ) -> Result<String, InstallError> {
        let pin = self.pki.server_authority_pin();
        let mut command = format!(
            "BAETYL_INIT__TOKEN={token} baetyl-init run --activate-url {activate_url} --activate-ca-pin {pin}"
        );
        if let Some(data_dir) = data_dir {
            command.push_str(" --data-dir ");
            command.push_str(&quoted(checked_path(data_dir)?));
        }
        Ok(command)
    }
}

fn checked_path(path: &str) -> Result<&str, InstallError> {
    if Path::new(path).is_absolute() && !path.chars().any(char::is_control) {
        Ok(path)
    } else {
        Err(InstallError::DataDir(path.to_owned()))
    }
}

/// For a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn signature(key: &[u8; 32], body: &str) -> [u8; 32] {
    crypto::hmac_sha256(key, format!("baetyl.install-token.v1\n{body}").as_bytes())
}

fn encode(key: &[u8; 32], claims: &InstallClaims) -> String {
    // A struct of texts and numbers always serialises.
    let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).unwrap_or_default());
    let signature = URL_SAFE_NO_PAD.encode(signature(key, &body));
    format!("{PREFIX}.{body}.{signature}")
}

fn decode(key: &[u8; 32], token: &str) -> Option<InstallClaims> {
    if token.len() > MAX_LEN {
        return None;
    }
    let (body, given) = token
        .trim()
        .strip_prefix(PREFIX)?
        .strip_prefix('.')?
        .split_once('.')?;
    let given = URL_SAFE_NO_PAD.decode(given).ok()?;
    if !crypto::constant_time_eq(&signature(key, body), &given) {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()
}
